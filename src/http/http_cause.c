/* The words for how a transfer ended. Apart from http.c, so that who only reads them does without libcurl. */
#include "http/http.h"

static const char *const cause_words[] = {
    [HTTP_ANSWERED] = "answered",
    [HTTP_DNS] = "name not resolved",
    [HTTP_CONNECT] = "could not connect",
    [HTTP_TLS] = "TLS handshake or certificate",
    [HTTP_TIMEOUT] = "timeout",
    [HTTP_CONNECTION_LOST] = "connection lost",
    [HTTP_URL_INVALID] = "invalid URL or header",
    [HTTP_ADDRESS_REFUSED] = "address not allowed",
    [HTTP_CANCELLED] = "cut off when the daemon stopped",
    [HTTP_INTERNAL] = "shortage on this machine",
};

const char *http_cause_word(enum http_cause cause)
{
    return cause_words[cause];
}
