/* The words for how a transfer ended. Apart from http.c, so that who only reads them does without libcurl. */
#include "http/http.h"

static const char *const cause_words[] = {
    [HTTP_ANSWERED] = "answered",
    [HTTP_DNS] = "name not resolved",
    [HTTP_CONNECT] = "could not connect",
    [HTTP_TLS] = "TLS handshake or certificate",
    [HTTP_CLIENT_REFUSED] = "TLS handshake or certificate",
    [HTTP_TIMEOUT] = "timeout",
    [HTTP_CONNECTION_LOST] = "connection lost",
    [HTTP_URL_INVALID] = "invalid URL or header",
    [HTTP_ADDRESS_REFUSED] = "address not allowed",
    [HTTP_UNAUTHENTICATED] = "no credentials",
    [HTTP_CANCELLED] = "cut off when the daemon stopped",
    [HTTP_INTERNAL] = "shortage on this machine",
};

static const char *const tls_fault_words[] = {
    [HTTP_TLS_EXPIRED] = "the certificate has expired",
    [HTTP_TLS_NOT_YET_VALID] = "the certificate is not valid yet",
    [HTTP_TLS_SELF_SIGNED] = "the certificate is self-signed",
    [HTTP_TLS_ROOT] = "the certificate's root is not trusted",
    [HTTP_TLS_ISSUER] = "the certificate's issuer is not known",
    [HTTP_TLS_NAME] = "the certificate is for another name",
    [HTTP_TLS_ADDRESS] = "the certificate is for another address",
    [HTTP_TLS_REVOKED] = "the certificate was revoked",
    [HTTP_TLS_NONE] = "the server does not speak TLS on this port",
    [HTTP_TLS_CUT] = "the server ended the connection during the handshake",
    [HTTP_TLS_CLIENT_CERTIFICATE] = "the server wants a client certificate",
    [HTTP_TLS_CLIENT_REFUSED] = "the server refuses the client certificate",
};

const char *http_tls_fault_words(enum http_tls_fault fault)
{
    return fault < ARRAY_SIZE(tls_fault_words) ? tls_fault_words[fault] : NULL;
}

const char *http_cause_word(enum http_cause cause)
{
    return cause_words[cause];
}
