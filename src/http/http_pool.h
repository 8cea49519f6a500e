/* Kept connections: found again by their origin, given up when they are old, and the oldest first when there
 * are too many.
 *
 * A server ends idle connections after a time of its own. A request that it meets then may be lost unseen
 * (RFC 9112, 9.3.1), so none goes out on a connection that was idle for longer than another one was, with
 * some time to spare, that its server had not ended. Where there is none, the connection itself becomes the
 * witness: it is watched for a second more, while the request has a new one.
 *
 * Main thread only. A connection that has anything unread on it, or has ended, is never handed out. */
#pragma once

#include "http/http_connection.h"
#include "http/http_connector.h"
#include "http/http_sockets.h"
#include "http/http_wheel.h"

struct http_pool {
    struct http_connection_list idle; /* the one idle for longest first */
    int count, max;
    struct http_sockets *sockets;
    struct http_wheel *wheel;
    struct http_connector *connector; /* learns of connections that brought nothing */
    struct http_timer timer;
    struct http_connection_list witnesses; /* the one watched for longest first; one of an origin at most */
    struct http_timer witness_timer;
};

void http_pool_init(struct http_pool *p, struct http_sockets *sockets, struct http_wheel *wheel);
/* A new one, over a connected socket that it takes over; NULL = what it needs is lacking, for *ret_detail. */
struct http_connection *http_pool_make(struct http_pool *p, struct http_origin *origin, struct http_tls *tls,
                                       int fd, http_socket_handler *handler, const char **ret_detail);
/* A quiet connection to the origin, made under these parameters; NULL = there is none. */
struct http_connection *http_pool_take(struct http_pool *p, struct http_origin *origin, unsigned generation);
/* The server has ended a connection that was idle for so long, now or before its last request. */
void http_pool_note_end(struct http_origin *origin, uint64_t idle_usec);
/* A server that takes one connection at a time is waiting for the end of this one. */
void http_pool_drop_witness(struct http_pool *p, struct http_origin *origin);
void http_pool_put(struct http_pool *p, struct http_connection *c);
/* Closes a connection, idle or not. */
void http_pool_drop(struct http_pool *p, struct http_connection *c);
/* The socket of an idle connection has something to say: usually that the server has ended it. */
void http_pool_look(struct http_pool *p, struct http_connection *c);
/* Closes some, the longest idle first, for the descriptors. */
void http_pool_spare(struct http_pool *p);
/* Closes the idle ones that no route leads to any more. */
void http_pool_drop_forgotten(struct http_pool *p);
void http_pool_drop_all(struct http_pool *p);
