/* Connections by libcurl: names, addresses and their order, the address check, proxies. What goes over a
 * connection is not libcurl's (CURLOPT_CONNECT_ONLY): its descriptor is handed out and libcurl forgets it.
 *
 * Main thread only; nothing blocks: names are looked up in threads of libcurl's. This is the only file of the
 * room that drives libcurl. */
#pragma once

#include "http/http.h"
#include "http/http_sockets.h"

struct http_connector;
struct http_attempt;

struct http_connect {
    const char *host; /* a name or a numeric address, IPv6 in brackets */
    uint16_t port;
    uint64_t timeout_usec; /* name, address and proxy together */
    const char *proxy;     /* "" = none; tunnelled (CONNECT, SOCKS) */
    bool check_address;    /* refuse what http_address_is_public() refuses; not with a proxy */
};

/* `fd` is connected, non-blocking and the callee's; or -1, with the cause and words that are constant or live
 * as long as the call. Called from http_connector_run() alone. */
typedef void http_connected(void *userdata, int fd, enum http_cause cause, const char *detail);

int http_connector_new(struct http_connector **ret, struct http_sockets *sockets); /* 0 or negative errno */
void http_connector_free(struct http_connector *c); /* attempts under way end without a word */
struct http_attempt *http_connector_start(struct http_connector *c, const struct http_connect *wanted,
                                          http_connected *callback, void *userdata);
/* No callback follows. HTTP_DNS when the attempt has not got beyond the name yet, else HTTP_CONNECT. */
enum http_cause http_attempt_cancel(struct http_attempt *a);
/* Does what is due and reports the attempts that have ended. To be called when the sockets were dispatched
 * and when http_connector_next_usec() has come. */
void http_connector_run(struct http_connector *c);
uint64_t http_connector_next_usec(const struct http_connector *c); /* USEC_INFINITY = nothing is under way */
