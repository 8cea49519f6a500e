/* Connections through a proxy, by libcurl: CONNECT and SOCKS, the proxy's name and addresses. What goes over
 * a connection is not libcurl's (CURLOPT_CONNECT_ONLY): its descriptor is handed out and libcurl forgets it.
 *
 * Main thread only; nothing blocks: names are looked up in threads of libcurl's. This is the only file of the
 * room that drives libcurl. */
#pragma once

#include "http/http_connector.h"

struct http_tunnels;
struct http_tunnel;

int http_tunnels_new(struct http_tunnels **ret, struct http_sockets *sockets); /* 0 or negative errno */
void http_tunnels_free(struct http_tunnels *all); /* tunnels under way were cancelled */
/* As http_connector_start(); the callback comes from http_tunnels_run() alone. */
struct http_tunnel *http_tunnel_start(struct http_tunnels *all, const struct http_connect *wanted,
                                      http_connected *callback, void *userdata);
/* The host of a proxy's URL, IPv6 in brackets; NULL = there is none. The callee's to free. */
char *http_tunnel_proxy_host(const char *proxy);
/* What is to be said of a proxy that was not reached in time. */
enum http_cause http_tunnel_lost(const struct http_connect *wanted, const char **ret_detail);
void http_tunnel_cancel(struct http_tunnel *t);
enum http_cause http_tunnel_overdue(const struct http_tunnel *t, const char **ret_detail);
void http_tunnels_run(struct http_tunnels *all);
uint64_t http_tunnels_next_usec(const struct http_tunnels *all);
