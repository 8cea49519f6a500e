/* Where a URL leads: the origin (scheme, host and port), whose connections it shares with other URLs, and the
 * first lines of its requests. Kept, so that a request costs a look-up.
 *
 * Main thread only. */
#pragma once

#include <sys/queue.h>

#include "base/strbuf.h"
#include "base/timeutil.h"
#include "http/http.h"
#include "http/http_tls.h"

#define HTTP_IDLE_MAX_USEC (118 * USEC_PER_SEC) /* no connection is kept idle for longer */
/* Less is no server's time for idle connections, as long as nothing else is known. */
#define HTTP_IDLE_FREE_USEC (500 * USEC_PER_MSEC)

struct http_connection;
TAILQ_HEAD(http_connection_list, http_connection);

struct http_origin {
    LIST_ENTRY(http_origin) link;
    bool tls;
    char *host; /* as in a URL: IPv6 in brackets, perhaps with the root's dot */
    char *peer; /* as in a certificate: without them */
    uint16_t port;
    int users;                        /* routes and connections */
    bool forgotten;                   /* no new route leads here */
    struct http_connection_list idle; /* the latest first */
    struct http_tls_session session;
    struct http_connection *witness; /* see http_pool.h; NULL = there is none */
    uint64_t kept_usec;              /* how long its server keeps an idle connection, by its word */
    uint64_t proven_usec; /* a connection that was idle for so long is safe to use, as others have shown */
};

LIST_HEAD(http_origin_list, http_origin);

struct http_route {
    struct http_route *next;
    char *url;
    struct http_origin *origin;
    struct strbuf head; /* request line of a POST and Host, with their line ends */
    char *user_agent;   /* and the same of other headers, unless a request has them itself */
    int users;          /* requests, and the table */
};

struct http_routes;

struct http_routes *http_routes_new(void);
void http_routes_free(struct http_routes *all); /* no request is under way any more */
/* The route of a URL with one user more; NULL with *ret_problem, a constant without a word of the URL. */
struct http_route *http_routes_use(struct http_routes *all, const struct http_params *params, const char *url,
                                   const char **ret_problem);
struct http_route *http_routes_find(const struct http_routes *all, const char *url); /* NULL = none yet */
void http_route_done(struct http_route *route);
/* Writes the whole head of a request; its headers come in the place of those of the same name here. NULL, or
 * a constant that says what is wrong with them. */
const char *http_route_write_head(const struct http_route *route, const struct http_request *request,
                                  struct strbuf *out);
/* Routes and origins were made for other parameters. What is in use stays for its users. */
void http_routes_forget(struct http_routes *all);

void http_origin_done(struct http_origin *origin);
