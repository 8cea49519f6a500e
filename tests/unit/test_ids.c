/* Derived ids: known answers, and the shape of a traceparent. */

#include <string.h>

#include "crypto/ids.h"
#include "unit.h"

/* RFC 9562, appendix A.4: the DNS name space and "www.example.com". */
static const unsigned char dns[16] = {0x6b, 0xa7, 0xb8, 0x10, 0x9d, 0xad, 0x11, 0xd1,
                                      0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8};

TEST(test_uuid_v5)
{
    unsigned char uuid[16];
    char text[IDS_UUID_TEXT];

    ids_uuid_v5(dns, "www.example.com", 15, uuid);
    ids_uuid_text(uuid, text);
    assert_string_equal(text, "2ed6657d-e927-568b-95e1-2665a8aea6a2");
}

TEST(test_idempotency_key)
{
    char a[IDS_UUID_TEXT], b[IDS_UUID_TEXT];

    ids_idempotency_key(dns, 42, 0, a);
    ids_idempotency_key(dns, 42, 0, b);
    assert_string_equal(a, b);
    assert_int_equal(a[14], '5');
    ids_idempotency_key(dns, 42, 1, b);
    assert_string_not_equal(a, b);
    ids_idempotency_key(dns, INT64_MAX, INT32_MAX, b);
    assert_int_equal(strlen(b), 36);
}

TEST(test_traceparent)
{
    char a[IDS_TRACEPARENT_TEXT], b[IDS_TRACEPARENT_TEXT];

    ids_traceparent(dns, 42, 0x1234, a);
    assert_true(ids_is_traceparent(a, strlen(a)));
    assert_string_equal(a + 35, "-0000000000001234-01");
    ids_traceparent(dns, 42, 0, b);
    assert_true(ids_is_traceparent(b, strlen(b)));
    assert_memory_equal(a, b, 35);
    ids_traceparent(dns, 43, 0x1234, b);
    assert_memory_not_equal(a, b, 35);
}

TEST(test_is_traceparent)
{
    static const char good[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    static const char *const wrong[] = {
        "",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-011",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
    };

    assert_true(ids_is_traceparent(good, strlen(good)));
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
        assert_false(ids_is_traceparent(wrong[i], strlen(wrong[i])));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uuid_v5),
        cmocka_unit_test(test_idempotency_key),
        cmocka_unit_test(test_traceparent),
        cmocka_unit_test(test_is_traceparent),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
