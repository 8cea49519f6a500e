/* A way to servers: what makes a connection another one than the next to the same server. TLS settings and
 * the client's certificate, the proxy, and with them origins, their idle connections and their TLS sessions,
 * which so are never shared between two ways.
 *
 * For http.c and http_transfer.c; http.h has its making. Main thread only. */
#pragma once

#include <sys/queue.h>

#include "http/http.h"
#include "http/http_route.h"

struct http_pool;

struct http_way {
    LIST_ENTRY(http_way) link; /* in the list of ways in use */
    int users;
    struct http_pool *pool; /* that its idle connections are in; NULL = it has not been used */
    struct http_routes *routes;
    struct http_tls *tls; /* NULL: it cannot be made, for tls_error */
    struct error tls_error;
    unsigned generation;     /* of the parameters that it was prepared for */
    struct http_tls_own own; /* all zero = as all others */
    char *proxy;             /* NULL = the configuration's */
};
LIST_HEAD(http_way_list, http_way);

/* Makes it ready for requests under these parameters; `trust` is the configuration's TLS, NULL for `why`. */
void http_way_prepare(struct http_way *way, unsigned generation, const struct http_tls *trust,
                      const struct error *why);
/* The HTTP client goes, perhaps before the way does. */
void http_way_leave(struct http_way *way);
