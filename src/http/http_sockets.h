/* The sockets of the HTTP client, in an epoll set of their own whose descriptor the event loop watches.
 *
 * Why not one event source a socket: sd-event dispatches a single source for each of its epoll_wait() calls,
 * so many ready sockets would cost that call each.
 *
 * Main thread only; nothing here blocks. */
#pragma once

#include <sys/epoll.h>

#include "base/util.h"

struct http_sockets;

typedef void http_socket_handler(void *owner, int fd, uint32_t events);

int http_sockets_new(struct http_sockets **ret); /* 0 or negative errno */
void http_sockets_free(struct http_sockets *s);  /* closes none of the sockets */
/* Readable when http_sockets_dispatch() has something to do; not the caller's to close. */
int http_sockets_fd(const struct http_sockets *s);

/* Watches a socket, or changes what it is watched for. 0 or negative errno. */
int http_sockets_watch(struct http_sockets *s, int fd, uint32_t events, http_socket_handler *handler,
                       void *owner);
/* Before the socket is closed or given away; legal on one that is not watched. */
void http_sockets_forget(struct http_sockets *s, int fd);
/* Makes the descriptor readable once, for work that waits for the loop's next turn. Why not a deferred event
 * source: sd-event keeps its place at the head of the queue when it is enabled again, so one that is always
 * needed again starves all other sources. */
void http_sockets_wake(struct http_sockets *s);
/* Never waits. Calls the handlers of ready sockets; a handler may watch and forget sockets, also ready ones.
 * False when there was none. */
bool http_sockets_dispatch(struct http_sockets *s);
