/* Addresses of a name, in the order in which they are tried. Owns their list, which its users count. */
#pragma once

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

/* Never empty. Families alternate, as far as there are two (RFC 8305, 4). */
struct http_addresses {
    int users;
    size_t count;
    size_t best; /* is tried first: the one that was connected to last, or the next one */
    struct http_address {
        sa_family_t family;
        union {
            struct sockaddr any;
            struct sockaddr_in in; /* the port is 0 */
            struct sockaddr_in6 in6;
        };
    } list[];
};
void http_addresses_done(struct http_addresses *addresses);
/* The resolver's order (RFC 6724) within each family; the families by turns. NULL = nothing of use. */
struct http_addresses *http_addresses_of(const struct addrinfo *found);
/* NULL = it is no numeric address (IPv6 in brackets). */
struct http_addresses *http_addresses_numeric(const char *host);
/* That one took a connection, and brought nothing: it is not the first one next time. */
void http_addresses_avoid(struct http_addresses *addresses, const struct http_address *peer);
