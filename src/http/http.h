/* HTTP/1.1 POSTs to institutions, over kept connections, driven by sd-event.
 *
 * Main thread only; nothing here blocks. The callback of a request runs from the event loop, never from
 * within http_post() or http_cancel(). SIGPIPE must be ignored by the process.
 *
 * A request is sent again only while no connection has taken a byte of it. Redirects are not followed; no
 * answer is ever unpacked. An answer counts only for the request that it follows. */
#pragma once

#include <systemd/sd-event.h>

#include "base/strbuf.h"

struct http;

/* Why a transfer ended as it did. With HTTP_ANSWERED `status` decides; the others have no usable status line.
 */
enum http_cause {
    HTTP_ANSWERED,        /* a final status line arrived, whatever happened to the body afterwards */
    HTTP_DNS,             /* the name was not resolved */
    HTTP_CONNECT,         /* no connection: refused, unreachable, connect timeout */
    HTTP_TLS,             /* handshake or certificate */
    HTTP_CLIENT_REFUSED,  /* handshake: for the client's certificate, or the lack of one; nothing was taken */
    HTTP_TIMEOUT,         /* no final status line in time */
    HTTP_CONNECTION_LOST, /* reset, closed or garbage before a final status line */
    HTTP_URL_INVALID, /* not an http(s) URL, http without allow_http, userinfo, longer than 8000 bytes, spaces
                       * or control characters; control characters in a header */
    HTTP_ADDRESS_REFUSED, /* the address connected to is loopback, private, link-local … and not allowed */
    HTTP_UNAUTHENTICATED, /* nothing was sent for want of credentials; the requester's, never from here */
    HTTP_CANCELLED,       /* http_cancel() */
    HTTP_INTERNAL, /* this machine's shortage: descriptors, ports, memory, a route, a name server, the proxy,
                    * certificates */
};
/* What may be wrong with a server's TLS. */
enum http_tls_fault {
    HTTP_TLS_EXPIRED,
    HTTP_TLS_NOT_YET_VALID,
    HTTP_TLS_SELF_SIGNED,
    HTTP_TLS_ROOT,
    HTTP_TLS_ISSUER,
    HTTP_TLS_NAME,
    HTTP_TLS_ADDRESS,
    HTTP_TLS_REVOKED,
    HTTP_TLS_NONE,
    HTTP_TLS_CUT,
    HTTP_TLS_CLIENT_CERTIFICATE,
    HTTP_TLS_CLIENT_REFUSED,
};
const char *http_tls_fault_words(enum http_tls_fault fault); /* a constant; NULL behind the last one */
const char *http_cause_word(enum http_cause cause); /* "timeout", "name not resolved" … : safe for any log */

struct http_params {
    uint64_t connect_timeout_usec;
    size_t response_limit; /* bytes of a body kept; 64 KiB more are read, then the transfer is ended */
    int max_connections;   /* idle ones kept: about max_in_flight */
    bool allow_http;
    bool allow_private_networks;
    const char *ca_file; /* "" = the system's */
    const char *proxy;   /* "" = none; the environment's are never used */
    const char *user_agent;
};

/* Another way to a server than the configuration's: who uses another one finds none of its connections and
 * TLS sessions. */
struct http_way;
struct http_way_params {
    const char *certificate, *key; /* of the client: PEM, an unencrypted key; NULL = none */
    const char *min_tls;           /* "1.0", "1.1", "1.2", "1.3"; NULL = 1.2 */
    bool legacy_renegotiation;     /* servers without RFC 5746 */
    const char *proxy;             /* NULL = the configuration's; its address is checked like a server's */
};
/* Copies what it needs. 0, or -EINVAL with *err, which continues a sentence that begins with the
 * integration's settings and holds nothing of a secret. */
int http_way_new(struct http_way **ret, const struct http_way_params *params, struct error *err);
/* Transfers under way go on with it; its idle connections are closed. NULL is legal. Any time, also after
 * http_free(). */
void http_way_unref(struct http_way *way);

struct http_request {
    const char *url;
    const char *const *headers; /* "Name: value", NULL-terminated; copied. Host, Content-Length and Expect are
                                 * set here, Content-Type is the caller's */
    const char *body;           /* must stay valid until the callback; NULL = a GET */
    size_t body_len;
    uint64_t timeout_usec; /* whole transfer */
    bool connects_only;    /* sends nothing: a connection is made, or found, and kept for the next request.
                            * HTTP_ANSWERED, without a status: there is one */
    struct http_way *way;  /* NULL = the configuration's; held as long as needed */
};

struct http_result {
    enum http_cause cause;
    int status;            /* 0 unless HTTP_ANSWERED */
    bool body_handed_over; /* request and body were given to a connection: without an answer, ambiguous */
    const char *body;      /* valid during the callback only; never NULL */
    size_t body_len;
    const char
        *content_type; /* the same; "text/html": in lower case, without parameters; "" or NULL = none */
    bool truncated;    /* the body broke off or passed response_limit */
    bool has_retry_after;
    int64_t retry_after_sec; /* >= 0, from now: Retry-After in either form (RFC 9110 10.2.3) */
    uint64_t duration_usec;
    const char *detail; /* more words, no URL, secret or part of the answer; for operators; never NULL */
};

typedef void (*http_callback)(const struct http_result *result, void *userdata);

/* Does the file hold certificates? False with `why`, which continues a sentence that begins with the key. */
bool http_check_ca_file(const char *path, struct strbuf *why);

/* 0 or negative errno. `params` strings are copied. */
int http_new(struct http **ret, sd_event *event, const struct http_params *params, struct error *err);
/* Transfers still running are dropped without a callback. Not from within a callback. */
void http_free(struct http *h);
/* For a reload: applies to transfers started from now on. They find no connection, TLS session or address
 * that was kept before: certificates and names are read anew. */
void http_set_params(struct http *h, const struct http_params *params);

struct http_transfer;
/* Starts a POST or a GET. Invalid URLs and the like arrive through the callback, so there is one path. */
struct http_transfer *http_post(struct http *h, const struct http_request *request, http_callback callback,
                                void *userdata);
/* Ends the transfer; its callback comes from the event loop with HTTP_CANCELLED, or with the answer if its
 * status is known already. Not for a transfer whose callback was called. */
void http_cancel(struct http *h, struct http_transfer *t);
int http_running(const struct http *h); /* transfers whose callback has not been called yet */
/* So many TLS handshakes wait for this process that another one would only wait with them. */
bool http_is_congested(const struct http *h);
/* A request to an URL that was used before needs no handshake now. `way` as in a request. */
bool http_is_ready_for(const struct http *h, const struct http_way *way, const char *url);
