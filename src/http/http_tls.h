/* TLS on the connections that http_connector made. OpenSSL's part in this room; nobody else includes it here.
 *
 * One context for all connections of one configuration: the trusted certificates are read once, and sessions
 * are resumed. Main thread only; nothing blocks; SIGPIPE must be ignored. */
#pragma once

#include <openssl/ssl.h>

#include "base/util.h"

struct http_tls; /* a context */

/* `ca_file` "" = the system's certificates; else it is the only trust. SSL_CERT_FILE and SSL_CERT_DIR have no
 * say. 0, or -EINVAL with *err when there is no certificate. */
int http_tls_new(struct http_tls **ret, const char *ca_file, struct error *err);
void http_tls_free(struct http_tls *tls);

/* What one client has of its own. */
struct http_tls_own {
    X509 *certificate;
    STACK_OF(X509) * chain; /* above it */
    EVP_PKEY *key;
    int min_version; /* TLS1_VERSION …; 0 = 1.2 */
    bool legacy_renegotiation;
};
/* From PEM texts. 0, or -EINVAL with *err: words without anything of the texts. */
int http_tls_own_read(struct http_tls_own *own, const char *certificate, const char *key, struct error *err);
void http_tls_own_free(struct http_tls_own *own); /* what it holds */
/* A context that trusts whom `base` trusts; NULL = libssl refuses the certificate or its key, for *err. */
struct http_tls *http_tls_derive(const struct http_tls *base, const struct http_tls_own *own,
                                 struct error *err);

/* The last session with a server, to be resumed; zeroed = none. */
struct http_tls_session {
    SSL_SESSION *session;
    uint64_t verified_usec; /* when the certificate was last looked at: a resumed session has none */
};
void http_tls_session_free(struct http_tls_session *s);

/* What a connection's server has said in the way of TLS. */
struct http_tls_peer {
    struct http_tls_session *session;
    bool asks_for_certificate; /* of the client's */
    bool has_certificate;      /* the client, to show */
    int alert;                 /* that ended it (RFC 8446, 6.2); 0 = none */
    bool was_refused;          /* it asked for a new handshake amid the connection: many end it then */
};
/* A client on a connected socket that trusts `host` (a name or a numeric address), keeps the session in
 * *peer->session and notes the rest in *peer; both must live as long. NULL = out of memory. */
SSL *http_tls_open(struct http_tls *tls, int fd, const char *host, struct http_tls_peer *peer);
/* Why the server refused this client, also after the handshake, where TLS 1.3 has that; NULL = it did not. */
const char *http_tls_refusal(const struct http_tls_peer *peer);
/* Says goodbye as far as that goes without waiting, and frees; the socket stays the caller's. */
void http_tls_close(SSL *ssl);

/* What moving bytes came to, over TLS or in clear text. */
enum {
    HTTP_MOVED = 0,
    HTTP_WAIT = 1, /* until the socket is ready again */
    HTTP_ENDED,    /* by the peer, in order: over TLS with close_notify */
    HTTP_LOST,     /* by a reset; over TLS also by a bare end, or by what is not TLS */
    HTTP_QUIET,    /* a look finds nothing */
};
int http_tls_handshake(SSL *ssl);
/* Why a handshake ended or was lost: a constant, or libssl's words in *err; they hold nothing of the peer's
 * but the kind of alert. */
const char *http_tls_fault(const SSL *ssl, struct error *err);
/* *ret: bytes moved, > 0 with HTTP_MOVED. */
int http_tls_send(SSL *ssl, const char *bytes, size_t len, size_t *ret);
int http_tls_receive(SSL *ssl, char *bytes, size_t size, size_t *ret);
/* What lies on a connection that was asked nothing. HTTP_QUIET: nothing but session tickets. HTTP_MOVED:
 * bytes for us. HTTP_WAIT: the beginning of a record, whose kind the rest will show. Else it has ended. */
int http_tls_look(SSL *ssl);
/* Nothing that was read from the socket is left, not even a part of a record. */
bool http_tls_is_between_records(const SSL *ssl);
