/* TLS on connected sockets. See http_tls.h. */
#include "http/http_tls.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "base/timeutil.h"
#include "http/http.h"

#define VERIFIED_MAX_USEC (3600 * USEC_PER_SEC)

struct http_tls {
    SSL_CTX *context;
};

/* Read without a byte for the application among it: handshake, session tickets, alerts. libssl would go on
 * within one call for as long as they come. */
#define SILENT_MAX ((uint64_t) 256 * 1024)

static const unsigned char alpn[] = "\x08http/1.1";

/* Called with each session that can be resumed: with TLS 1.3 once for every ticket, after the handshake. */
static int on_session(SSL *ssl, SSL_SESSION *session)
{
    struct http_tls_session *kept = ((struct http_tls_peer *) SSL_get_app_data(ssl))->session;

    http_tls_session_free(kept);
    kept->session = session;
    if (!SSL_session_reused(ssl))
        kept->verified_usec = now_monotonic_usec();
    return 1; /* the reference is ours now */
}

/* Called when the server asks for the client's certificate, whether there is one or not. */
static int on_certificate_request(SSL *ssl, void *userdata)
{
    struct http_tls_peer *peer = SSL_get_app_data(ssl);

    (void) userdata;
    peer->asks_for_certificate = true;
    return 1;
}

/* Called at each step of a handshake, and with each alert: a warning and its kind in two bytes. */
static void on_step(const SSL *ssl, int where, int value)
{
    struct http_tls_peer *peer = SSL_get_app_data(ssl);

    if (where == SSL_CB_WRITE_ALERT && (value & UINT8_MAX) == SSL_AD_NO_RENEGOTIATION)
        peer->was_refused = true;
}

static void words(struct error *err, const char *what)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;

    error_set(err, "%s: %s", what, reason ? reason : "unknown reason");
    ERR_clear_error();
}

static bool trust_file(SSL_CTX *context, const char *path, struct error *err)
{
    if (SSL_CTX_load_verify_locations(context, path, NULL) == 1)
        return true;
    words(err, "libssl cannot read ca_file");
    return false;
}

static bool has_entries(const char *directory)
{
    DIR *d = opendir(directory);
    const struct dirent *entry;
    bool any = false;

    while (d && !any && (entry = readdir(d)))
        any = entry->d_name[0] != '.';
    if (d)
        closedir(d);
    return any;
}

/* Where the distribution keeps them. Not by SSL_CTX_set_default_verify_paths(): that lets SSL_CERT_FILE and
 * SSL_CERT_DIR of the environment decide, and calls an empty store good. */
static bool trust_system(SSL_CTX *context, struct error *err)
{
    const char *file = X509_get_default_cert_file(), *directory = X509_get_default_cert_dir();
    bool any = SSL_CTX_load_verify_locations(context, file, NULL) == 1;

    any |= has_entries(directory) && SSL_CTX_load_verify_locations(context, NULL, directory) == 1;
    ERR_clear_error();
    if (!any)
        error_set(err,
                  "this machine has no certificates to trust in %s: install ca-certificates, or set "
                  "delivery.ca_file",
                  directory);
    return any;
}

static struct http_tls *context_new(void)
{
    struct http_tls *tls = xcalloc(1, sizeof(*tls));

    ERR_clear_error();
    tls->context = SSL_CTX_new(TLS_client_method());
    if (!tls->context)
        abort(); /* out of memory */
    SSL_CTX_set_min_proto_version(tls->context, TLS1_2_VERSION);
    SSL_CTX_set_verify(tls->context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(tls->context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                       SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(tls->context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(tls->context, on_session);
    SSL_CTX_set_cert_cb(tls->context, on_certificate_request, NULL);
    SSL_CTX_set_options(tls->context, SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_info_callback(tls->context, on_step);
    /* A certificate in ca_file is trusted, root or not. */
    X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(tls->context), X509_V_FLAG_PARTIAL_CHAIN);
    SSL_CTX_set_read_ahead(tls->context, 1);
    SSL_CTX_set_alpn_protos(tls->context, alpn, sizeof(alpn) - 1);
    return tls;
}

int http_tls_new(struct http_tls **ret, const char *ca_file, struct error *err)
{
    struct http_tls *tls = context_new();

    if (!(ca_file[0] ? trust_file(tls->context, ca_file, err) : trust_system(tls->context, err))) {
        http_tls_free(tls);
        return -EINVAL;
    }
    *ret = tls;
    return 0;
}

/* --- one client's own ------------------------------------------------------------------------- */

/* An encrypted key has nobody who could be asked. */
static int no_passphrase(char *bytes, int size, int writing, void *userdata)
{
    (void) bytes, (void) size, (void) writing, (void) userdata;
    return 0;
}

static int own_fault(struct http_tls_own *own, const char *what, struct error *err)
{
    http_tls_own_free(own);
    ERR_clear_error(); /* its words might hold a piece of the text */
    error_set(err, "%s", what);
    return -EINVAL;
}

int http_tls_own_read(struct http_tls_own *own, const char *certificate, const char *key, struct error *err)
{
    BIO *text = BIO_new_mem_buf(certificate, -1), *secret = BIO_new_mem_buf(key, -1);
    X509 *above;

    if (!text || !secret)
        abort(); /* out of memory */
    own->certificate = PEM_read_bio_X509(text, NULL, no_passphrase, NULL);
    own->chain = sk_X509_new_null();
    while (own->certificate && (above = PEM_read_bio_X509(text, NULL, no_passphrase, NULL)))
        sk_X509_push(own->chain, above);
    own->key = PEM_read_bio_PrivateKey(secret, NULL, no_passphrase, NULL);
    BIO_free(text);
    BIO_free(secret);
    if (!own->certificate)
        return own_fault(own, "has no certificate in PEM", err);
    if (!own->key)
        return own_fault(own, "has no private key in PEM, or an encrypted one", err);
    if (X509_check_private_key(own->certificate, own->key) != 1)
        return own_fault(own, "has a key that is not that of the certificate", err);
    ERR_clear_error();
    return 0;
}

void http_tls_own_free(struct http_tls_own *own)
{
    X509_free(own->certificate);
    sk_X509_pop_free(own->chain, X509_free);
    EVP_PKEY_free(own->key); /* wipes it */
    *own = (struct http_tls_own){0};
}

/* Below 1.2 the handshake is signed with SHA-1, which libssl takes at its level 0 alone. */
static void set_versions(SSL_CTX *context, const struct http_tls_own *own)
{
    if (own->min_version)
        SSL_CTX_set_min_proto_version(context, own->min_version);
    if (own->min_version && own->min_version < TLS1_2_VERSION)
        SSL_CTX_set_security_level(context, 0);
    if (own->legacy_renegotiation)
        SSL_CTX_set_options(context, SSL_OP_LEGACY_SERVER_CONNECT);
}

struct http_tls *http_tls_derive(const struct http_tls *base, const struct http_tls_own *own,
                                 struct error *err)
{
    struct http_tls *tls = context_new();

    SSL_CTX_set1_cert_store(tls->context, SSL_CTX_get_cert_store(base->context));
    set_versions(tls->context, own);
    if (own->certificate &&
        SSL_CTX_use_cert_and_key(tls->context, own->certificate, own->key, own->chain, 1) != 1) {
        words(err, "libssl cannot use the client certificate");
        http_tls_free(tls);
        return NULL;
    }
    return tls;
}

void http_tls_free(struct http_tls *tls)
{
    if (!tls)
        return;
    SSL_CTX_free(tls->context);
    free(tls);
}

void http_tls_session_free(struct http_tls_session *s)
{
    SSL_SESSION_free(s->session);
    s->session = NULL;
}

/* A numeric address has no name to be sent, and is compared as an address. */
static bool set_peer(SSL *ssl, const char *name)
{
    unsigned char address[16];

    if (inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1;
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(ssl, name) == 1 && SSL_set_tlsext_host_name(ssl, name) == 1;
}

/* The argument is how much had been read when the application last got something. */
static long limit_silence(BIO *bio, int operation, const char *bytes, size_t len, int i, long l, int r,
                          size_t *processed)
{
    (void) bytes, (void) len, (void) i, (void) l, (void) processed;
    if (operation != BIO_CB_READ ||
        BIO_number_read(bio) - (uintptr_t) BIO_get_callback_arg(bio) <= SILENT_MAX)
        return r;
    BIO_clear_retry_flags(bio);
    return 0;
}

/* Each resumption brings new tickets: without an end the certificate would be looked at once only. */
static bool may_resume(const struct http_tls_session *s)
{
    X509 *certificate = s->session ? SSL_SESSION_get0_peer(s->session) : NULL;

    return certificate && now_monotonic_usec() - s->verified_usec < VERIFIED_MAX_USEC &&
           X509_cmp_current_time(X509_get0_notAfter(certificate)) > 0;
}

SSL *http_tls_open(struct http_tls *tls, int fd, const char *host, struct http_tls_peer *peer)
{
    SSL *ssl = SSL_new(tls->context);

    if (!ssl || SSL_set_fd(ssl, fd) != 1 || !set_peer(ssl, host)) {
        SSL_free(ssl);
        ERR_clear_error();
        return NULL;
    }
    BIO_set_callback_ex(SSL_get_rbio(ssl), limit_silence);
    SSL_set_app_data(ssl, peer);
    peer->has_certificate = SSL_get_certificate(ssl) != NULL;
    if (may_resume(peer->session))
        SSL_set_session(ssl, peer->session->session);
    SSL_set_connect_state(ssl);
    return ssl;
}

void http_tls_close(SSL *ssl)
{
    if (!ssl)
        return;
    if (SSL_is_init_finished(ssl))
        (void) SSL_shutdown(ssl);
    SSL_free(ssl);
    ERR_clear_error();
}

/* libssl takes an old error for its own. Clearing costs more than looking whether there is one. */
static void forget_errors(void)
{
    if (ERR_peek_error())
        ERR_clear_error();
}

/* libssl counts the alerts that it received from 1000 on. */
static void note_alert(SSL *ssl)
{
    struct http_tls_peer *peer = SSL_get_app_data(ssl);
    int reason = ERR_GET_REASON(ERR_peek_error());

    if (reason > SSL_AD_REASON_OFFSET && reason <= SSL_AD_REASON_OFFSET + UINT8_MAX)
        peer->alert = reason - SSL_AD_REASON_OFFSET;
}

static int step(SSL *ssl, int r)
{
    if (r > 0)
        return HTTP_MOVED;
    switch (SSL_get_error(ssl, r)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return HTTP_WAIT;
    case SSL_ERROR_ZERO_RETURN:
        return HTTP_ENDED;
    default:
        note_alert(ssl);
        return HTTP_LOST;
    }
}

int http_tls_handshake(SSL *ssl)
{
    forget_errors();
    return step(ssl, SSL_do_handshake(ssl));
}

static const struct {
    long code;
    enum http_tls_fault fault;
} certificate_faults[] = {
    {X509_V_ERR_CERT_HAS_EXPIRED, HTTP_TLS_EXPIRED},
    {X509_V_ERR_CERT_NOT_YET_VALID, HTTP_TLS_NOT_YET_VALID},
    {X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, HTTP_TLS_SELF_SIGNED},
    {X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN, HTTP_TLS_ROOT},
    {X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, HTTP_TLS_ISSUER},
    {X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, HTTP_TLS_ISSUER},
    {X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE, HTTP_TLS_ISSUER},
    {X509_V_ERR_HOSTNAME_MISMATCH, HTTP_TLS_NAME},
    {X509_V_ERR_IP_ADDRESS_MISMATCH, HTTP_TLS_ADDRESS},
    {X509_V_ERR_CERT_REVOKED, HTTP_TLS_REVOKED},
};

/* TLS 1.2 has no alert of its own for a certificate that is missing. */
const char *http_tls_refusal(const struct http_tls_peer *peer)
{
    bool wanted = peer->alert == SSL_AD_CERTIFICATE_REQUIRED ||
                  (peer->asks_for_certificate &&
                   (peer->alert == SSL_AD_HANDSHAKE_FAILURE || peer->alert == SSL_AD_BAD_CERTIFICATE));
    bool refused =
        peer->has_certificate && peer->asks_for_certificate &&
        (wanted ||
         (peer->alert >= SSL_AD_UNSUPPORTED_CERTIFICATE && peer->alert <= SSL_AD_CERTIFICATE_UNKNOWN) ||
         peer->alert == SSL_AD_UNKNOWN_CA || peer->alert == SSL_AD_ACCESS_DENIED);

    if (refused)
        return http_tls_fault_words(HTTP_TLS_CLIENT_REFUSED);
    return wanted ? http_tls_fault_words(HTTP_TLS_CLIENT_CERTIFICATE) : NULL;
}

const char *http_tls_fault(const SSL *ssl, struct error *err)
{
    const char *refusal = http_tls_refusal(SSL_get_app_data(ssl));
    long verdict = SSL_get_verify_result(ssl);
    unsigned long code = ERR_peek_error();
    int reason = ERR_GET_REASON(code);

    for (size_t i = 0; i < ARRAY_SIZE(certificate_faults); i++)
        if (certificate_faults[i].code == verdict)
            return http_tls_fault_words(certificate_faults[i].fault);
    if (verdict != X509_V_OK) {
        error_set(err, "the certificate was refused: %s", X509_verify_cert_error_string(verdict));
        return err->text;
    }
    if (refusal)
        return refusal;
    if (reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_HTTP_REQUEST ||
        reason == SSL_R_UNKNOWN_PROTOCOL)
        return http_tls_fault_words(HTTP_TLS_NONE);
    if (code == 0 || reason == SSL_R_UNEXPECTED_EOF_WHILE_READING)
        return http_tls_fault_words(HTTP_TLS_CUT);
    words(err, "the handshake failed");
    return err->text;
}

int http_tls_send(SSL *ssl, const char *bytes, size_t len, size_t *ret)
{
    *ret = 0;
    forget_errors();
    return step(ssl, SSL_write_ex(ssl, bytes, len, ret));
}

int http_tls_receive(SSL *ssl, char *bytes, size_t size, size_t *ret)
{
    *ret = 0;
    forget_errors();
    int r = step(ssl, SSL_read_ex(ssl, bytes, size, ret));
    if (r == HTTP_MOVED)
        BIO_set_callback_arg(SSL_get_rbio(ssl), (char *) (uintptr_t) BIO_number_read(SSL_get_rbio(ssl)));
    return r;
}

bool http_tls_is_between_records(const SSL *ssl)
{
    return !SSL_has_pending(ssl) && strcmp(SSL_rstate_string(ssl), "RH") == 0 && !SSL_in_init(ssl);
}

int http_tls_look(SSL *ssl)
{
    char byte;
    size_t len = 0;

    forget_errors();
    int r = step(ssl, SSL_peek_ex(ssl, &byte, 1, &len));
    return r == HTTP_WAIT && http_tls_is_between_records(ssl) ? HTTP_QUIET : r;
}
