/* Kept connections: found again by their origin, given up when they are old, when their server is known to
 * give them up soon, and the oldest first when there are too many.
 *
 * Main thread only. A connection that has anything unread on it, or has ended, is never handed out. */
#pragma once

#include "http/http_connection.h"
#include "http/http_sockets.h"
#include "http/http_wheel.h"

struct http_pool {
    struct http_connection_list idle; /* the one idle for longest first */
    int count, max;
    struct http_sockets *sockets;
    struct http_wheel *wheel;
    struct http_timer timer;
};

void http_pool_init(struct http_pool *p, struct http_sockets *sockets, struct http_wheel *wheel);
/* A quiet connection to the origin, made under these parameters; NULL = there is none. */
struct http_connection *http_pool_take(struct http_pool *p, struct http_origin *origin, unsigned generation);
void http_pool_put(struct http_pool *p, struct http_connection *c);
/* Closes a connection, idle or not. */
void http_pool_drop(struct http_pool *p, struct http_connection *c);
/* The socket of an idle connection has something to say: usually that the server has ended it. */
void http_pool_look(struct http_pool *p, struct http_connection *c);
void http_pool_drop_all(struct http_pool *p);
