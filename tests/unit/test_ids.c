/* Derived ids: known answers, and the shape of a traceparent. */

#include <string.h>

#include "crypto/idempotency_key.h"
#include "crypto/traceparent.h"
#include "unit.h"

/* RFC 9562, appendix B.2: the DNS name space and "www.example.com". */
static const unsigned char dns[16] = {0x6b, 0xa7, 0xb8, 0x10, 0x9d, 0xad, 0x11, 0xd1,
                                      0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8};

#define TEXT(literal) ((struct bytes){literal, sizeof(literal) - 1})

static struct ids *ids;

static int setup(void **state)
{
    (void) state;
    ids = ids_new();
    return 0;
}

static int teardown(void **state)
{
    (void) state;
    ids_free(ids);
    return 0;
}

/* However often the context was used before, and wherever the name is cut. */
TEST(test_uuid)
{
    char text[IDS_UUID_TEXT];

    for (int i = 0; i < 3; i++) {
        ids_uuid(ids, dns, TEXT("www.example.com"), (struct bytes){0}, text);
        assert_string_equal(text, "5c146b14-3c52-8afd-938a-375d0df1fbf6");
        ids_uuid(ids, dns, TEXT("www."), TEXT("example.com"), text);
        assert_string_equal(text, "5c146b14-3c52-8afd-938a-375d0df1fbf6");
    }
}

TEST(test_uuid_is_read)
{
    static const char text[] = "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
                      upper[] = "6BA7B810-9DAD-11D1-80B4-00C04FD430C8";
    unsigned char bytes[16] = {0};

    assert_true(ids_read_uuid(text, strlen(text), bytes));
    assert_memory_equal(bytes, dns, sizeof(dns));
    assert_true(ids_read_uuid(upper, strlen(upper), bytes));
    assert_memory_equal(bytes, dns, sizeof(dns));
    for (size_t i = 0; i < strlen(text); i++) {
        char wrong[sizeof(text)];
        assert_false(ids_read_uuid(text, i, bytes));
        for (const char *c = "g- "; *c; c++) {
            memcpy(wrong, text, sizeof(text));
            wrong[i] = *c;
            assert_true(ids_read_uuid(wrong, strlen(wrong), bytes) == (wrong[i] == text[i]));
        }
    }
}

static void key(int64_t id, const char *seed, const char *payload, char ret[IDS_UUID_TEXT])
{
    idempotency_key_derive(
        ids,
        &(struct idempotency_message){
            .name_space = dns, .subscription_id = id, .seed = seed, .payload = {payload, strlen(payload)}},
        ret);
}

/* Each part counts, and none can pass for a part of its neighbour. */
TEST(test_idempotency_key)
{
    static const struct {
        int64_t id;
        const char *seed, *payload;
    } messages[] = {
        {42, "7", "{}"},   {42, "8", "{}"}, {42, "", "{}"},   {42, "-7", "{}"},
        {4, "27", "{}"},   {427, "", "{}"}, {42, "7", "{ }"}, {42, "7", ""},
        {42, "", "7:{}"},  {43, "7", "{}"}, {42, "", ""},     {INT64_MAX, "-9223372036854775808", "{}"},
        {42, "", ":7:{}"},
    };
    char keys[ARRAY_SIZE(messages)][IDS_UUID_TEXT], again[IDS_UUID_TEXT];

    for (size_t i = 0; i < ARRAY_SIZE(messages); i++) {
        key(messages[i].id, messages[i].seed, messages[i].payload, keys[i]);
        assert_int_equal(strlen(keys[i]), IDS_UUID_TEXT - 1);
        assert_int_equal(keys[i][14], '8');
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(keys[i], keys[j]);
    }
    for (size_t i = 0; i < ARRAY_SIZE(messages); i++) {
        key(messages[i].id, messages[i].seed, messages[i].payload, again);
        assert_string_equal(again, keys[i]);
    }
}

TEST(test_traceparent)
{
    char a[TRACEPARENT_TEXT], b[TRACEPARENT_TEXT];

    traceparent_derive(ids, dns, 42, 0x1234, a);
    assert_true(traceparent_is_valid(a, strlen(a)));
    assert_string_equal(a + 35, "-0000000000001234-01");
    traceparent_derive(ids, dns, 42, 0, b);
    assert_true(traceparent_is_valid(b, strlen(b)));
    assert_memory_equal(a, b, 35);
    traceparent_derive(ids, dns, 43, 0x1234, b);
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

    assert_true(traceparent_is_valid(good, strlen(good)));
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
        assert_false(traceparent_is_valid(wrong[i], strlen(wrong[i])));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uuid),
        cmocka_unit_test(test_uuid_is_read),
        cmocka_unit_test(test_idempotency_key),
        cmocka_unit_test(test_traceparent),
        cmocka_unit_test(test_is_traceparent),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
