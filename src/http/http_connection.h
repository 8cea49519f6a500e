/* A connection to an origin, in clear text or over TLS: moving bytes without waiting.
 *
 * Main thread only. Owns the descriptor and the TLS state, and counts as a user of its origin. */
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include "http/http_addresses.h"
#include "http/http_route.h"

struct http_pool;
struct http_transfer;

struct http_connection {
    TAILQ_ENTRY(http_connection) in_origin, in_all; /* while it is idle */
    struct http_origin *origin;
    struct http_transfer *transfer; /* NULL = idle */
    struct http_pool *pool;         /* it returns to */
    int fd;
    struct http_address address; /* of the server, or its proxy */
    SSL *ssl;                    /* NULL = clear text */
    struct http_tls_peer peer;
    bool secured; /* the handshake is done, or there is none */
    bool idle;
    bool answered;                       /* a status line came over it */
    bool readable;                       /* the socket has said so, and has not been read empty since */
    bool hung_up;                        /* the peer has ended its side: what it sent is still to be read */
    unsigned generation;                 /* of the parameters it was made under */
    uint64_t made_usec, idle_since_usec; /* 0 = it never was */
    uint64_t idle_usec;                  /* for how long, before this transfer */
    uint64_t watched_since_usec;         /* as a witness */
};

/* Takes `fd` over. NULL = the TLS state could not be made. */
struct http_connection *http_connection_new(struct http_origin *origin, struct http_tls *tls, int fd);
void http_connection_free(struct http_connection *c); /* closes it */

/* The outcomes are http_tls.h's.
 *
 * HTTP_MOVED: secured. HTTP_WAIT. Else HTTP_LOST with *ret_fault, valid until `err` goes. */
int http_connection_secure(struct http_connection *c, const char **ret_fault, struct error *err);
/* Sends the beginning of the parts; *ret > 0 with HTTP_MOVED. With HTTP_WAIT the same parts are to be offered
 * again, and *ret_begun says whether some of them may be on their way already. `scratch` (of `scratch_size`
 * bytes) is for joining parts in one TLS record. */
int http_connection_send(struct http_connection *c, struct iovec parts[2], char *scratch, size_t scratch_size,
                         size_t *ret, bool *ret_begun);
/* *ret > 0 with HTTP_MOVED. */
int http_connection_receive(struct http_connection *c, char *bytes, size_t size, size_t *ret);
/* Why the server refused this client, a constant; NULL = it did not, or there is no connection. By TLS 1.3
 * that comes behind our end of the handshake, when a request may be on its way that is never read (RFC 8446,
 * 4.4.2.4). On a connection that has served it is no more than the end. */
const char *http_connection_refusal(const struct http_connection *c);
/* What lies on it while no request is under way: with HTTP_QUIET one may go out. See http_tls_look(). */
int http_connection_look(struct http_connection *c);
