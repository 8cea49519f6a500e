/* What a message of the topic "confirmations" may say. */
#include "handlers/confirmation.h"
#include "unit.h"

#define BAD_ID "\"subscription_id\" is no id of a subscription"
#define BAD_TIME "\"confirmed_at\" is no time such as 2026-11-27T09:30:00-03:00"
#define HARMFUL "\"external_id\" has a control character, or one that turns the direction of a text"
#define BAD_EXTERNAL_ID "\"external_id\" is no text of 1 to 255 bytes"
#define MIDNIGHT INT64_C(1795651200000000) /* 2026-11-26T00:00:00Z */

static struct confirmation *read_text(const char *key, const char *value, size_t len, const char **ret_fault)
{
    CLEANUP(freep) char *k = copy_of(key ? key : "", key ? strlen(key) : 0), *v = copy_of(value, len);

    return confirmation_read((struct bytes){key ? k : NULL, key ? strlen(key) : 0}, (struct bytes){v, len},
                             ret_fault);
}

TEST(test_what_is_taken)
{
    static const struct {
        const char *value;
        bool rejected;
        const char *external_id; /* NULL = none */
        int64_t at;              /* 0 = none */
    } cases[] = {
        {"{\"subscription_id\":7,\"status\":\"confirmed\"}", false, NULL, 0},
        {" {\"status\" : \"rejected\", \"subscription_id\" : 7}\n", true, NULL, 0},
        {"{\"subscription_id\":7,\"status\":\"confirmed\",\"external_id\":null,\"confirmed_at\":null}", false,
         NULL, 0},
        {"{\"subscription_id\":7,\"status\":\"confirmed\",\"external_id\":\"E-1\\u00e7\\\"\",\"confirmed_at\":"
         "\"2026-11-26T00:00:00Z\"}",
         false, "E-1\xc3\xa7\"", MIDNIGHT},
        {"{\"subscription_id\":7,\"stat\\u0075s\":\"confi\\u0072med\",\"confirmed_at\":\"2026-11-25T21:00:00.0000005-03:00\"}",
         false, NULL, MIDNIGHT},
        {"{\"later\":{\"status\":\"x\",\"subscription_id\":8},\"subscription_id\":7,\"status\":\"confirmed\",\"later\":[]}",
         false, NULL, 0},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *fault = NULL;
        CLEANUP(freep)
        struct confirmation *c = read_text("7", cases[i].value, strlen(cases[i].value), &fault);
        assert_null(fault);
        assert_non_null(c);
        assert_int_equal(c->subscription_id, 7);
        assert_int_equal(c->rejected, cases[i].rejected);
        assert_int_equal(c->has_time, cases[i].at != 0);
        if (c->has_time)
            assert_int_equal(c->confirmed_at, cases[i].at);
        assert_int_equal(c->external_id.p != NULL, cases[i].external_id != NULL);
        if (cases[i].external_id) {
            assert_int_equal(c->external_id.len, strlen(cases[i].external_id));
            assert_memory_equal(c->external_id.p, cases[i].external_id, c->external_id.len);
        }
    }
}

#define SAYS(rest) "{\"subscription_id\":7,\"status\":\"confirmed\"," rest "}"

TEST(test_what_is_refused)
{
    static const struct {
        const char *key, *value, *fault;
    } cases[] = {
        {"7", "", "the value is empty"},
        {"7", "{", "the value is not JSON"},
        {"7", "\xff", "the value is not JSON"},
        {"7", "[]", "the value is no JSON object"},
        {"7", "\"confirmed\"", "the value is no JSON object"},
        {"7", "{}", "\"subscription_id\" is missing"},
        {"7", "{\"subscription_id\":7}", "\"status\" is missing"},
        {"7", "{\"status\":\"confirmed\"}", "\"subscription_id\" is missing"},
        {"7", "{\"subscription_id\":\"7\",\"status\":\"confirmed\"}", BAD_ID},
        {"7", "{\"subscription_id\":7.0,\"status\":\"confirmed\"}", BAD_ID},
        {"7", "{\"subscription_id\":-7,\"status\":\"confirmed\"}", BAD_ID},
        {"0", "{\"subscription_id\":0,\"status\":\"confirmed\"}", BAD_ID},
        {"7", "{\"subscription_id\":7e0,\"status\":\"confirmed\"}", BAD_ID},
        {"7", "{\"subscription_id\":9223372036854775808,\"status\":\"confirmed\"}", BAD_ID},
        {"7", "{\"subscription_id\":99999999999999999999,\"status\":\"confirmed\"}", BAD_ID},
        {"7", "{\"subscription_id\":7,\"status\":\"Confirmed\"}",
         "\"status\" is neither \"confirmed\" nor \"rejected\""},
        {"7", "{\"subscription_id\":7,\"status\":true}",
         "\"status\" is neither \"confirmed\" nor \"rejected\""},
        {"7", "{\"subscription_id\":7,\"status\":\"confirmed\",\"status\":\"rejected\"}",
         "\"status\" stands there twice"},
        {"7", "{\"subscription_id\":7,\"status\":\"confirmed\",\"subscription_id\":8}",
         "\"subscription_id\" stands there twice"},
        {"7", SAYS("\"external_id\":\"\""), BAD_EXTERNAL_ID},
        {"7", SAYS("\"external_id\":5"), BAD_EXTERNAL_ID},
        {"7", SAYS("\"external_id\":\"a\\u0000b\""), HARMFUL},
        {"7", SAYS("\"external_id\":\"a\\nb\""), HARMFUL},
        {"7", SAYS("\"external_id\":\"a\\u009b31mb\""), HARMFUL},
        {"7", SAYS("\"external_id\":\"a\xc2\x80\""), HARMFUL},
        {"7", SAYS("\"external_id\":\"a\\u202e1744-E\""), HARMFUL},
        {"7", SAYS("\"external_id\":\"a\xe2\x81\xa6\""), HARMFUL},
        {"7", SAYS("\"external_id\":\"a\\u2028b\""), HARMFUL},
        {"7", SAYS("\"external_id\":\"\\u061c\""), HARMFUL},
        {"7", SAYS("\"confirmed_at\":1795651200"), BAD_TIME},
        {"7", SAYS("\"confirmed_at\":\"\""), BAD_TIME},
        {"7", SAYS("\"confirmed_at\":\"yesterday\""), BAD_TIME},
        {"7", SAYS("\"confirmed_at\":\"2026-11-26T00:00:00\""), BAD_TIME},
        {"8", "{\"subscription_id\":7,\"status\":\"confirmed\"}", "the key is not the subscription's id"},
        {"07", "{\"subscription_id\":7,\"status\":\"confirmed\"}", "the key is not the subscription's id"},
        {"", "{\"subscription_id\":7,\"status\":\"confirmed\"}", "the key is not the subscription's id"},
        {NULL, "{\"subscription_id\":7,\"status\":\"confirmed\"}", "the key is not the subscription's id"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *fault = NULL;
        assert_null(read_text(cases[i].key, cases[i].value, strlen(cases[i].value), &fault));
        assert_string_equal(fault, cases[i].fault);
    }
}

/* A value of so many bytes, and an external id of so many. */
static const char *fault_of(size_t len, size_t id_len)
{
    CLEANUP(strbuf_free) struct strbuf sb = STRBUF_INIT(1 << 20);
    const char *fault = NULL;

    strbuf_adds(&sb, "{\"subscription_id\":7,\"status\":\"confirmed\",\"external_id\":\"");
    for (size_t i = 0; i < id_len; i++)
        strbuf_adds(&sb, "\\u0041");
    strbuf_adds(&sb, "\"}");
    while (sb.len < len)
        strbuf_addc(&sb, ' ');
    free(read_text("7", sb.data, sb.len, &fault));
    return fault;
}

TEST(test_how_long_it_may_be)
{
    assert_null(fault_of(CONFIRMATION_MAX, EXTERNAL_ID_MAX));
    assert_string_equal(fault_of(CONFIRMATION_MAX + 1, 1), "the value is longer than 65536 bytes");
    assert_string_equal(fault_of(0, EXTERNAL_ID_MAX + 1), BAD_EXTERNAL_ID);
    assert_string_equal(fault_of(0, 9000), BAD_EXTERNAL_ID);
}

/* Whatever bytes come: a verdict, and no read beyond them. */
TEST(test_changed_and_cut_ones)
{
    static const char good[] =
        SAYS("\"external_id\":\"E-1\\u00e7\",\"confirmed_at\":\"2026-11-26T00:00:00.5+03:00\"");
    uint32_t random = 1;

    for (size_t len = 0; len < sizeof(good); len++) {
        for (int times = 0; times < 200; times++) {
            CLEANUP(freep) char *bytes = copy_of(good, len);
            const char *fault = NULL;
            for (int n = 0; n < times % 3 && len > 0; n++) {
                random = random * 1664525U + 1013904223U;
                bytes[random % len] = (char) (random >> 24);
            }
            CLEANUP(freep) struct confirmation *c = read_text("7", bytes, len, &fault);
            assert_int_equal(c == NULL, fault != NULL);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_taken),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_how_long_it_may_be),
        cmocka_unit_test(test_changed_and_cut_ones),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
