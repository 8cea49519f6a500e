/* Which addresses are public: by the IANA special-purpose registries, and the ways around them. */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "http/http_address.h"
#include "unit.h"

static const char *const public[] = {
    /* Both sides of each refused network. */
    "1.0.0.0",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "168.63.129.17",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "191.255.255.255",
    "192.0.1.0",
    "192.0.3.0",
    "192.88.98.255",
    "192.88.100.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "198.51.99.255",
    "198.51.101.0",
    "203.0.112.255",
    "203.0.114.0",
    "223.255.255.255",
    "2000::",
    "2001:200::1",
    "2001:db7:ffff::1",
    "2001:db9::1",
    "2606:4700::1111",
    "3ffe:ffff::1",
    "3fff:1000::1",
    /* A public IPv4 address inside. */
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
};

static const char *const refused[] = {
    "0.0.0.0",
    "0.255.255.255",
    "10.0.0.0",
    "10.255.255.255",
    "100.64.0.0",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.255",
    "168.63.129.16",
    "169.254.0.0",
    "169.254.169.254",
    "169.254.255.255",
    "172.16.0.0",
    "172.31.255.255",
    "192.0.0.0",
    "192.0.0.192",
    "192.0.0.255",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.0",
    "192.168.255.255",
    "198.18.0.0",
    "198.19.255.255",
    "198.51.100.255",
    "203.0.113.7",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.0",
    "255.255.255.255",
    "::",
    "::1",
    "::2",
    "::8.8.8.8",
    "::ffff:0:8.8.8.8",
    "100::1",
    "64:ff9b:1::8.8.8.8",
    "1fff:ffff::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:2::1",
    "2001:10::1",
    "2001:1ff:ffff::1",
    "2001:db8::1",
    "3fff::1",
    "3fff:fff:ffff::1",
    "4000::1",
    "5f00::1",
    "fbff::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "febf::1",
    "fec0::1",
    "ff02::1",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    /* A refused IPv4 address inside. */
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::10.0.0.1",
    "64:ff9b::169.254.169.254",
    "2002:7f00:1::1",
    "2002:a9fe:a9fe::",
    "2002:c0a8:101::1",
};

static bool socket_address_is_public(const char *text)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(443)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(443)};
    struct sockaddr address[4]; /* room for either */

    if (inet_pton(AF_INET, text, &in.sin_addr) == 1) {
        memcpy(address, &in, sizeof(in));
        return http_address_is_public(address, sizeof(in));
    }
    assert_int_equal(inet_pton(AF_INET6, text, &in6.sin6_addr), 1);
    memcpy(address, &in6, sizeof(in6));
    return http_address_is_public(address, sizeof(in6));
}

static void check(const char *text, bool expected)
{
    if (socket_address_is_public(text) != expected)
        fail_msg("%s should be %s", text, expected ? "public" : "refused");
}

TEST(test_public)
{
    for (size_t i = 0; i < ARRAY_SIZE(public); i++)
        check(public[i], true);
}

TEST(test_refused)
{
    for (size_t i = 0; i < ARRAY_SIZE(refused); i++)
        check(refused[i], false);
}

/* Every address of 169.254.0.0/16 and its neighbours, so that a slip in the arithmetic of bits shows. */
TEST(test_whole_network)
{
    for (uint32_t host = UINT32_C(0xa9fd0000); host < UINT32_C(0xaa000000); host++) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(host)};
        struct sockaddr address;

        memcpy(&address, &in, sizeof(in));
        assert_int_equal(http_address_is_public(&address, sizeof(in)), host >> 16 != 0xa9fe);
    }
}

TEST(test_other_families_and_short_addresses)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x08080808)};
    struct sockaddr address;

    memcpy(&address, &in, sizeof(in));
    assert_true(http_address_is_public(&address, sizeof(in)));
    assert_false(http_address_is_public(&address, sizeof(in) - 1));
    assert_false(http_address_is_public(&address, 0));
    address.sa_family = AF_INET6; /* with the length of IPv4 */
    assert_false(http_address_is_public(&address, sizeof(in)));
    address.sa_family = AF_UNIX;
    assert_false(http_address_is_public(&address, sizeof(struct sockaddr)));
    address.sa_family = AF_UNSPEC;
    assert_false(http_address_is_public(&address, sizeof(struct sockaddr)));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_public),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_whole_network),
        cmocka_unit_test(test_other_families_and_short_addresses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
