/* Addresses of a name. See http_addresses.h. */
#include "http/http_addresses.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"

void http_addresses_done(struct http_addresses *addresses)
{
    if (addresses && --addresses->users == 0)
        free(addresses);
}

static struct http_addresses *addresses_new(size_t count)
{
    struct http_addresses *a = xcalloc(1, sizeof(*a) + count * sizeof(a->list[0]));

    a->users = 1;
    return a;
}

static void add_address(struct http_addresses *a, const struct addrinfo *info)
{
    struct http_address *address = &a->list[a->count];

    if (info->ai_family == AF_INET && info->ai_addrlen == sizeof(address->in))
        memcpy(&address->in, info->ai_addr, sizeof(address->in));
    else if (info->ai_family == AF_INET6 && info->ai_addrlen == sizeof(address->in6))
        memcpy(&address->in6, info->ai_addr, sizeof(address->in6));
    else
        return;
    address->family = (sa_family_t) info->ai_family;
    a->count++;
}

/* The next of the family after `info`, or the next of any other family. */
static const struct addrinfo *next_of(const struct addrinfo *info, int family, bool same)
{
    while (info && (info->ai_family == family) != same)
        info = info->ai_next;
    return info;
}

struct http_addresses *http_addresses_of(const struct addrinfo *found)
{
    size_t count = 0;

    for (const struct addrinfo *i = found; i; i = i->ai_next)
        count++;
    struct http_addresses *a = addresses_new(count);
    int family = found ? found->ai_family : AF_UNSPEC;
    const struct addrinfo *next[] = {found, next_of(found, family, false)};
    for (size_t turn = 0; next[0] || next[1]; turn++) {
        const struct addrinfo **from = &next[turn % 2];
        if (!*from)
            continue;
        add_address(a, *from);
        *from = next_of((*from)->ai_next, family, turn % 2 == 0);
    }
    if (a->count > 0)
        return a;
    free(a);
    return NULL;
}

struct http_addresses *http_addresses_numeric(const char *host)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    char inner[INET6_ADDRSTRLEN] = "";
    size_t len = strlen(host);

    if (host[0] == '[' && len - 2 < sizeof(inner))
        memcpy(inner, host + 1, len - 2);
    bool is6 = inner[0] && inet_pton(AF_INET6, inner, &in6.sin6_addr) == 1;
    if (!is6 && inet_pton(AF_INET, host, &in.sin_addr) != 1)
        return NULL;
    struct http_addresses *a = addresses_new(1);
    a->count = 1;
    a->list[0].family = is6 ? AF_INET6 : AF_INET;
    if (is6)
        a->list[0].in6 = in6;
    else
        a->list[0].in = in;
    return a;
}

static bool is_same(const struct http_address *a, const struct http_address *b)
{
    if (a->any.sa_family != b->any.sa_family)
        return false;
    return a->any.sa_family == AF_INET
               ? a->in.sin_addr.s_addr == b->in.sin_addr.s_addr
               : memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, sizeof(a->in6.sin6_addr)) == 0;
}

void http_addresses_avoid(struct http_addresses *a, const struct http_address *peer)
{
    if (is_same(&a->list[a->best], peer))
        a->best = (a->best + 1) % a->count;
}
