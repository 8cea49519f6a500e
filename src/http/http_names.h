/* The addresses of names: getaddrinfo(3) in threads of its own, each answer remembered for a minute.
 *
 * One thread for each name that is being looked up, however many ask for it, and THREADS_MAX at most: a name
 * whose servers are silent delays nobody else. While a lookup lasts one more asks whether there is a name
 * server at all. A thread cannot be called back from the resolver; one that nobody waits for ends by itself,
 * also after http_names_free(). All else is the main thread's. */
#pragma once

#include "http/http.h"
#include "http/http_addresses.h"
#include "http/http_sockets.h"
#include "http/http_wheel.h"

struct http_names;
struct http_lookup; /* the wait for a name */

/* The addresses, with a user more, that of the callee; or NULL with a cause (HTTP_DNS, or HTTP_INTERNAL when
 * it is this machine that cannot ask) and constant words. */
typedef void http_resolved(void *userdata, struct http_addresses *addresses, enum http_cause cause,
                           const char *detail);

/* 0 or negative errno. */
int http_names_new(struct http_names **ret, struct http_sockets *sockets, struct http_wheel *wheel);
void http_names_free(struct http_names *names); /* all lookups were cancelled; waits for no thread */
/* What is known of `host` (a name, or a numeric address; IPv6 in brackets), with a user more in *ret and
 * nothing returned; or a lookup, whose callback comes from http_sockets_dispatch(). */
struct http_lookup *http_names_ask(struct http_names *names, const char *host, http_resolved *callback,
                                   void *userdata, struct http_addresses **ret);
/* See http_addresses_avoid(). Nothing where `host` is not known, as that of a server behind a proxy. */
void http_names_avoid(struct http_names *names, const char *host, const struct http_address *peer);
/* No callback follows. */
void http_lookup_cancel(struct http_lookup *lookup);
/* What is to be said of a lookup that took too long. */
enum http_cause http_names_overdue(const struct http_names *names, const char **ret_detail);
/* Names are looked up anew from now on. */
void http_names_forget(struct http_names *names);
