/* The sockets of the HTTP transfers, in an epoll set of their own whose descriptor the event loop watches.
 *
 * Why not one event source a socket: sd-event dispatches a single source for each of its epoll_wait() calls,
 * so many ready sockets would cost that call each. And a kept-alive connection is given up and taken again at
 * every request: here its registration stays in the kernel meanwhile, which saves two system calls a request.
 *
 * Main thread only; nothing here blocks. */
#pragma once

#include <sys/epoll.h>

#include "base/util.h"

struct http_sockets;

int http_sockets_new(struct http_sockets **ret); /* 0 or negative errno */
void http_sockets_free(struct http_sockets *s);  /* closes none of the sockets */
int http_sockets_fd(const struct http_sockets
                        *s); /* readable when http_sockets_wait() has something; not the caller's to close */

/* A socket whose end http_sockets_closed() will tell was just made. */
void http_sockets_opened(struct http_sockets *s, int fd);
/* It is about to be closed. */
void http_sockets_closed(struct http_sockets *s, int fd);
/* `events`: EPOLLIN, EPOLLOUT; 0 = none. With `soon` the registration may stay a while, because the same
 * socket is likely to be watched again; only with a socket that was told of as opened. 0 or negative errno.
 */
int http_sockets_watch(struct http_sockets *s, int fd, uint32_t events, bool soon);
/* Makes the descriptor readable once, for work that waits for the loop's next turn. Why not a deferred event
 * source: sd-event keeps its place at the head of the queue when it is enabled again, so one that is always
 * needed again starves all other sources. */
void http_sockets_wake(struct http_sockets *s);
/* Never waits. The number of ready sockets that are watched, at most `max`; data.fd says which. */
int http_sockets_wait(struct http_sockets *s, struct epoll_event *ret_events, int max);
