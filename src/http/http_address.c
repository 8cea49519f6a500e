/* The address check against requests that reach into the operator's own networks: loopback, private,
 * link-local, cloud metadata … Owns nothing, runs on any thread, never logs and never resolves names. */
#include "http/http_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

struct network4 {
    uint8_t address[4];
    int prefix;
};

/* Kept in the order of addresses. */
static const struct network4 special4[] = {
    {{0, 0, 0, 0}, 8},        /* this host, unspecified: RFC 1122 */
    {{10, 0, 0, 0}, 8},       /* private: RFC 1918 */
    {{100, 64, 0, 0}, 10},    /* shared by carrier-grade NAT: RFC 6598 */
    {{127, 0, 0, 0}, 8},      /* loopback: RFC 1122 */
    {{168, 63, 129, 16}, 32}, /* Azure's metadata, inside every virtual network of theirs */
    {{169, 254, 0, 0}, 16},   /* link-local, cloud metadata: RFC 3927 */
    {{172, 16, 0, 0}, 12},    /* private: RFC 1918 */
    {{192, 0, 0, 0}, 24},     /* IETF protocol assignments, Oracle's metadata: RFC 6890 */
    {{192, 0, 2, 0}, 24},     /* documentation: RFC 5737 */
    {{192, 88, 99, 0}, 24},   /* 6to4 relays, deprecated: RFC 7526 */
    {{192, 168, 0, 0}, 16},   /* private: RFC 1918 */
    {{198, 18, 0, 0}, 15},    /* benchmarks: RFC 2544 */
    {{198, 51, 100, 0}, 24},  /* documentation: RFC 5737 */
    {{203, 0, 113, 0}, 24},   /* documentation: RFC 5737 */
    {{224, 0, 0, 0}, 4},      /* multicast: RFC 5771 */
    {{240, 0, 0, 0}, 4},      /* reserved, broadcast: RFC 1112, RFC 8190 */
};

enum verdict { REFUSED, PUBLIC, EMBEDDED };

struct network6 {
    uint8_t address[16];
    int prefix;
    enum verdict verdict;
    int offset; /* EMBEDDED: where the IPv4 address starts */
};

/* The first that matches decides; what none matches (loopback, unspecified, unique local, link-local,
 * multicast, NAT64 of local use, discard …) is refused. */
static const struct network6 rules6[] = {
    {{[10] = 0xff, [11] = 0xff}, 96, EMBEDDED, 12}, /* ::ffff:0:0/96, IPv4-mapped: RFC 4291 */
    {{0x00, 0x64, 0xff, 0x9b}, 96, EMBEDDED, 12},   /* 64:ff9b::/96, NAT64: RFC 6052 */
    {{0x20, 0x02}, 16, EMBEDDED, 2},                /* 2002::/16, 6to4: RFC 3056 */
    {{0x20, 0x01}, 23, REFUSED, 0},                 /* IETF protocols, Teredo, benchmarks: RFC 2928 */
    {{0x20, 0x01, 0x0d, 0xb8}, 32, REFUSED, 0},     /* documentation: RFC 3849 */
    {{0x3f, 0xff}, 20, REFUSED, 0},                 /* documentation: RFC 9637 */
    {{0x20}, 3, PUBLIC, 0},                         /* global unicast: RFC 4291 */
};

static bool in_network(const uint8_t *address, const uint8_t *network, int prefix)
{
    int bytes = prefix / 8, bits = prefix % 8;

    if (memcmp(address, network, (size_t) bytes) != 0)
        return false;
    return bits == 0 || (address[bytes] ^ network[bytes]) >> (8 - bits) == 0;
}

static bool public4(const uint8_t address[static 4])
{
    for (size_t i = 0; i < ARRAY_SIZE(special4); i++)
        if (in_network(address, special4[i].address, special4[i].prefix))
            return false;
    return true;
}

static bool public6(const uint8_t address[static 16])
{
    for (size_t i = 0; i < ARRAY_SIZE(rules6); i++) {
        const struct network6 *rule = &rules6[i];

        if (!in_network(address, rule->address, rule->prefix))
            continue;
        return rule->verdict == EMBEDDED ? public4(address + rule->offset) : rule->verdict == PUBLIC;
    }
    return false;
}

bool http_address_is_public(const struct sockaddr *address, size_t len)
{
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    uint8_t bytes[4];

    if (len < offsetof(struct sockaddr, sa_data))
        return false;
    if (address->sa_family == AF_INET && len >= sizeof(in)) {
        memcpy(&in, address, sizeof(in));
        memcpy(bytes, &in.sin_addr, sizeof(bytes));
        return public4(bytes);
    }
    if (address->sa_family == AF_INET6 && len >= sizeof(in6)) {
        memcpy(&in6, address, sizeof(in6));
        return public6(in6.sin6_addr.s6_addr);
    }
    return false;
}
