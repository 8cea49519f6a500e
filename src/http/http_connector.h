/* Connections: to the addresses of a name, several of them at a time when they are slow, or through a proxy.
 *
 * Directly: the addresses of http_names.h, by turns as RFC 8305 says: the next one when the last has not
 * answered for a moment, or has refused; whichever connects first is taken, the others are closed.
 *
 * Main thread only; nothing blocks. */
#pragma once

#include "http/http.h"
#include "http/http_addresses.h"
#include "http/http_sockets.h"
#include "http/http_wheel.h"

struct http_connector;
struct http_attempt;

struct http_connect {
    const char *host; /* a name or a numeric address, IPv6 in brackets */
    uint16_t port;
    uint64_t timeout_usec; /* name, address and proxy together; who asks measures it */
    const char *proxy;     /* "" = none; tunnelled (CONNECT, SOCKS) */
    bool own_proxy;     /* the proxy is an institution's, not this installation's: its fault, and checked */
    bool check_address; /* refuse what http_address_is_public() refuses; not behind a proxy */
};

/* `fd` is connected, non-blocking and the callee's; or -1, with the cause and words that are constant or live
 * as long as the call. Never called from within http_connector_start(). */
typedef void http_connected(void *userdata, int fd, enum http_cause cause, const char *detail);

/* 0 or negative errno. */
int http_connector_new(struct http_connector **ret, struct http_sockets *sockets, struct http_wheel *wheel);
void http_connector_free(struct http_connector *c); /* attempts under way end without a word */
struct http_attempt *http_connector_start(struct http_connector *c, const struct http_connect *wanted,
                                          http_connected *callback, void *userdata);
void http_attempt_cancel(struct http_attempt *a); /* no callback follows */
/* What is to be said of an attempt that took too long. */
enum http_cause http_attempt_overdue(const struct http_attempt *a, const char **ret_detail);
/* Names are looked up anew from now on. */
/* A connection to `host` brought nothing, not even the end of its handshake: another address goes first next
 * time. */
void http_connector_avoid(struct http_connector *c, const char *host, const struct http_address *peer);
void http_connector_forget_names(struct http_connector *c);
/* Does what is due. To be called when the sockets were dispatched and when http_connector_next_usec() has
 * come. */
void http_connector_run(struct http_connector *c);
uint64_t http_connector_next_usec(const struct http_connector *c); /* USEC_INFINITY = nothing is under way */
