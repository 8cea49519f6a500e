/* Kafka messages: what makes an event, what is foreign, what is at fault, and any bytes at all. */
#include <string.h>

#include "base/json.h"
#include "consumers/message.h"
#include "unit.h"

#define VALUE                                                                                                \
    "{\"event_type\":\"sent\",\"subscription\":{\"id\":42,\"integration_id\":7,\"order_id\":null,"           \
    "\"origin\":\"site\",\"cpf\":\"52998224725\",\"status\":\"sent\"},\"integration\":{\"id\":7},"           \
    "\"response_data\":{\"a\":[1,2,{\"b\":\"]}\\\"\"}]},\"timestamp\":\"2026-11-24T10:59:39Z\","             \
    "\"version\":\"1.0\"}"

/* A copy of its own on the heap for each value, so that a sanitizer sees a read beyond it. */
#define OURS "11111111-2222-8333-8444-555555555555"
#define OTHERS "99999999-2222-8333-8444-555555555555"

static char *bytes(const char *text, size_t len)
{
    return len > 0 ? copy_of(text, len) : NULL;
}

static void add_header(struct kafka_message *m, const char *name, const char *value)
{
    struct kafka_header *h = &m->headers[m->header_count++];

    h->name = name;
    h->value.len = value ? strlen(value) : 0;
    h->value.p = value && *value ? bytes(value, h->value.len) : value;
}

static void set_value(struct kafka_message *m, const char *value, size_t len)
{
    m->value = (struct bytes){bytes(value, len), len};
}

static void set_key(struct kafka_message *m, const char *key)
{
    m->key = (struct bytes){bytes(key, strlen(key)), strlen(key)};
}

static void make_good(struct kafka_message *m)
{
    memset(m, 0, sizeof(*m));
    m->topic = "anubis.subscriptions.sent";
    set_key(m, "42");
    set_value(m, VALUE, sizeof(VALUE) - 1);
    add_header(m, "event_id", "0a1b2c3d-4e5f-6071-8293-A4b5C6d7E8f9");
    add_header(m, "timestamp", "2026-11-24T10:59:39.123456Z");
    add_header(m, "service", "anubis");
    add_header(m, "version", "1.0");
    add_header(m, "event_type", "sent");
    add_header(m, "integration_id", "7");
    add_header(m, "origin", "site");
    add_header(m, "sequence", "9007199254740993");
    add_header(m, "installation", OURS);
    add_header(m, "attempt", "3");
    add_header(m, "content_type", "application/json");
}

static struct kafka_header *header(struct kafka_message *m, const char *name)
{
    for (size_t i = 0; i < m->header_count; i++)
        if (strcmp(m->headers[i].name, name) == 0)
            return &m->headers[i];
    fail_msg("no header %s", name);
    return NULL;
}

/* The tests' messages are few and short-lived: their memory goes with a message's own bytes. */
static void drop(struct kafka_message *m)
{
    for (size_t i = 0; i < m->header_count; i++)
        if (m->headers[i].value.len > 0)
            free((void *) (uintptr_t) m->headers[i].value.p);
    free((void *) (uintptr_t) m->key.p);
    free((void *) (uintptr_t) m->value.p);
}

static enum message_verdict parse(struct kafka_message *m, struct message_event *e, const char **fault)
{
    *fault = NULL;
    return message_parse(m, EVENT_SENT, OURS, e, fault);
}

static void assert_faulty(struct kafka_message *m, const char *expected)
{
    struct message_event e;
    const char *fault;

    assert_int_equal(parse(m, &e, &fault), MESSAGE_FAULTY);
    assert_string_equal(fault, expected);
    drop(m);
}

TEST(test_an_event)
{
    struct kafka_message m;
    struct message_event e;
    const char *fault;

    make_good(&m);
    assert_int_equal(parse(&m, &e, &fault), MESSAGE_EVENT);
    assert_int_equal(e.type, EVENT_SENT);
    assert_true(e.sequence == INT64_C(9007199254740993));
    assert_int_equal(e.subscription_id, 42);
    assert_int_equal(e.integration_id, 7);
    assert_true(e.created_at == INT64_C(1795517979123456));
    assert_int_equal(e.attempt, 3);
    assert_false(e.apart);
    drop(&m);
}

static void remove_header(struct kafka_message *m, const char *name)
{
    struct kafka_header *h = header(m, name);

    if (h->value.len > 0)
        free((void *) (uintptr_t) h->value.p);
    *h = m->headers[--m->header_count];
}

TEST(test_headers_that_may_be_null)
{
    struct kafka_message m;
    struct message_event e;
    const char *fault;

    make_good(&m);
    remove_header(&m, "integration_id");
    remove_header(&m, "attempt");
    remove_header(&m, "origin");
    assert_int_equal(parse(&m, &e, &fault), MESSAGE_EVENT);
    assert_int_equal(e.integration_id, 0);
    drop(&m);
}

TEST(test_headers_that_must_be_there)
{
    static const char *const names[] = {"event_id", "timestamp",  "service",
                                        "version",  "event_type", "content_type"};
    struct kafka_message m;

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        CLEANUP(freep) char *expected = xasprintf("the header \"%s\" is missing", names[i]);
        make_good(&m);
        remove_header(&m, names[i]);
        assert_faulty(&m, expected);
    }
}

/* With or without a name for the journal. */
TEST(test_of_another_installation_it_is_foreign)
{
    static const struct {
        const char *installation;
        bool named;
    } cases[] = {{OTHERS, true}, {NULL, false}, {"", false}, {"x", false}, {OURS "0", false}};
    char other[INSTALLATION_TEXT];

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct kafka_message m;
        struct message_event e;
        const char *fault;
        make_good(&m);
        remove_header(&m, "installation");
        if (cases[i].installation)
            add_header(&m, "installation", cases[i].installation);
        assert_int_equal(parse(&m, &e, &fault), MESSAGE_FOREIGN);
        assert_int_equal(message_installation(&m, OURS, other), cases[i].named);
        if (cases[i].named)
            assert_string_equal(other, OTHERS);
        drop(&m);
    }
    struct kafka_message own;
    make_good(&own);
    assert_false(message_installation(&own, OURS, other));
    drop(&own);
}

TEST(test_without_sequence_it_is_foreign)
{
    struct kafka_message m;
    struct message_event e;
    const char *fault;

    make_good(&m);
    remove_header(&m, "sequence");
    assert_int_equal(parse(&m, &e, &fault), MESSAGE_FOREIGN);
    drop(&m);
    memset(&m, 0, sizeof(m));
    assert_int_equal(parse(&m, &e, &fault), MESSAGE_FOREIGN);
    /* Whatever else is wrong with it. */
    set_value(&m, "{", 1);
    add_header(&m, "Sequence", "12");
    add_header(&m, "sequences", "12");
    assert_int_equal(parse(&m, &e, &fault), MESSAGE_FOREIGN);
    drop(&m);
}

TEST(test_headers_that_are_malformed)
{
    static const struct {
        const char *name, *value;
    } cases[] = {
        {"sequence", "0"},
        {"sequence", ""},
        {"sequence", NULL},
        {"sequence", "-1"},
        {"sequence", " 12"},
        {"sequence", "12 "},
        {"sequence", "9223372036854775808"},
        {"sequence", "00000000000000000001"},
        {"sequence", "1e3"},
        {"event_id", ""},
        {"event_id", "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f"},
        {"event_id", "0a1b2c3d04e5f-6071-8293-a4b5c6d7e8f9"},
        {"event_id", "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8g9"},
        {"event_type", "failed"},
        {"event_type", "sentt"},
        {"event_type", ""},
        {"version", "2.0"},
        {"version", "1"},
        {"timestamp", ""},
        {"timestamp", "2026-11-24T10:59:39Z"},
        {"service", NULL},
        {"integration_id", "x"},
        {"integration_id", "0"},
        {"integration_id", ""},
        {"attempt", "4294967296"},
        {"attempt", "-1"},
    };
    struct kafka_message m;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(freep) char *expected = xasprintf("the header \"%s\" is malformed", cases[i].name);
        make_good(&m);
        remove_header(&m, cases[i].name);
        add_header(&m, cases[i].name, cases[i].value);
        assert_faulty(&m, expected);
    }
}

TEST(test_of_equal_headers_the_last_counts)
{
    struct kafka_message m;
    struct message_event e;
    const char *fault;

    make_good(&m);
    add_header(&m, "sequence", "5");
    assert_int_equal(parse(&m, &e, &fault), MESSAGE_EVENT);
    assert_int_equal(e.sequence, 5);
    add_header(&m, "sequence", "five");
    assert_faulty(&m, "the header \"sequence\" is malformed");
}

TEST(test_keys)
{
    static const char *const keys[] = {"", "0", "43", "42 ", "0x2a", "-42", "92233720368547758070"};
    struct kafka_message m;

    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        make_good(&m);
        free((void *) (uintptr_t) m.key.p);
        set_key(&m, keys[i]);
        assert_faulty(&m, "the key is not the subscription's id");
    }
}

TEST(test_values)
{
    static const struct {
        const char *value, *fault;
    } cases[] = {
        {"", "the value is empty"},
        {" ", "the value is not JSON"},
        {"{", "the value is not JSON"},
        {VALUE "x", "the value is not JSON"},
        {"{\"subscription\":{\"id\":42}},", "the value is not JSON"},
        {"{\"subscription\":{\"id\":\"\xff\"}}", "the value is not JSON"},
        {"null", "the value is no event of a subscription"},
        {"[]", "the value is no event of a subscription"},
        {"{}", "the value is no event of a subscription"},
        {"\"subscription\"", "the value is no event of a subscription"},
        {"{\"subscription\":null}", "the value is no event of a subscription"},
        {"{\"subscription\":{}}", "the value is no event of a subscription"},
        {"{\"subscription\":{\"id\":\"42\"}}", "the value is no event of a subscription"},
        {"{\"subscription\":{\"id\":-42}}", "the value is no event of a subscription"},
        {"{\"subscription\":{\"id\":42.0}}", "the value is no event of a subscription"},
        {"{\"id\":42,\"x\":{\"subscription\":{\"id\":42}}}", "the value is no event of a subscription"},
        {"{\"subscription\":[{\"id\":42}]}", "the value is no event of a subscription"},
        {"{\"subscription\":{\"id\":41}}", "the key is not the subscription's id"},
    };
    struct kafka_message m;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        make_good(&m);
        free((void *) (uintptr_t) m.value.p);
        set_value(&m, cases[i].value, strlen(cases[i].value));
        assert_faulty(&m, cases[i].fault);
    }
}

TEST(test_values_in_other_clothes)
{
    static const char *const values[] = {
        "{\"subscription\":{\"id\":42}}",
        " { \"x\" : [ ] , \"subscription\" : { \"id\" : 42 } } \n",
        "{\"a\":{\"b\":[{},\"}\",\"\\\\\"]},\"n\":-1.5e+3,\"t\":true,\"subscription\":{\"x\":{\"id\":1},\"id\":42}}",
        "{\"\\\"subscription\":1,\"subscription\":{\"id\" :42 ,\"id\":7}}",
        "{\"a\":\"\\\\\\\"}\",\"b\\\\\":\"\",\"subscription\":{\"c\":\"\\\\\",\"id\":42}}",
    };
    struct kafka_message m;
    struct message_event e;
    const char *fault;

    for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
        make_good(&m);
        free((void *) (uintptr_t) m.value.p);
        set_value(&m, values[i], strlen(values[i]));
        assert_int_equal(parse(&m, &e, &fault), MESSAGE_EVENT);
        drop(&m);
    }
}

/* One byte of a good message changed, or its end cut off: never a crash, never another subscription. */
TEST(test_damaged_messages)
{
    struct kafka_message m;
    struct message_event e;
    const char *fault;
    uint32_t seed = 1;

    for (int i = 0; i < 20000; i++) {
        char copy[sizeof(VALUE)] = VALUE;
        size_t len = sizeof(VALUE) - 1;
        seed = seed * 1664525 + 1013904223;
        if (seed >> 31)
            len = (seed >> 8) % len;
        else
            copy[(seed >> 8) % len] = (char) (seed >> 24);
        make_good(&m);
        free((void *) (uintptr_t) m.value.p);
        set_value(&m, copy, len);
        if (parse(&m, &e, &fault) == MESSAGE_EVENT)
            assert_int_equal(e.subscription_id, 42);
        else
            assert_non_null(fault);
        drop(&m);
    }
}

TEST(test_headers_as_json)
{
    CLEANUP(strbuf_free) struct strbuf sb = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    struct kafka_message m = {.header_count = 0};

    message_headers_json(&m, false, &sb);
    assert_string_equal(strbuf_str(&sb), "{}");
    strbuf_clear(&sb);
    add_header(&m, "a\"\x80", "x\n\xff");
    add_header(&m, "null", NULL);
    add_header(&m, "empty", "");
    m.headers[m.header_count++] = (struct kafka_header){.name = "nul", .value = {bytes("a\0b", 3), 3}};
    message_headers_json(&m, false, &sb);
    assert_string_equal(strbuf_str(&sb),
                        "{\"a\\\"\xEF\xBF\xBD\":\"x\\n\xEF\xBF\xBD\",\"null\":null,\"empty\":\"\","
                        "\"nul\":\"a\xEF\xBF\xBD"
                        "b\"}");
    assert_true(json_is_valid(sb.data, sb.len, JSON_MAX_DEPTH));
    strbuf_clear(&sb);
    add_header(&m, "\xE5\xB0\xB1", "5 \xE2\x82\xAC");
    message_headers_json(&m, true, &sb);
    assert_string_equal(strbuf_str(&sb),
                        "{\"a\\\"?\":\"x\\n?\",\"null\":null,\"empty\":\"\",\"nul\":\"a?b\",\"?\":\"5 ?\"}");
    drop(&m);
}

TEST(test_failures_that_say_nothing_about_an_institution)
{
    static const struct {
        const char *type, *message;
        bool apart, may_cost_nothing;
    } cases[] = {
        {"retried", "HTTP 429: slow down", true, false},
        {"retried", "HTTP 500: HTTP 429", false, false},
        {"retried", "lease expired: …", true, false},
        {"failed", "HTTP 422: no", false, false},
        {"failed", "status set to failed", true, false},
        {"retried", "timeout", false, false},
        {"retried", "cut off when the daemon stopped", true, false},
        {"retried", "HTTP 503: come back", false, true},
        {"retried", "HTTP 401", false, true},
        {"retried", "no credentials: HTTP 503", false, true},
        {"failed", "put back by root", true, false},
        {"failed", "operator root: they have it not", true, false},
        {"sent", "HTTP 429", false, false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct kafka_message m;
        struct message_event e;
        const char *fault;
        enum event_type type;
        CLEANUP(freep)
        char *value =
            xasprintf("{\"subscription\":{\"id\":42,\"error_message\":\"HTTP 429\"},\"error_message\":\"%s\","
                      "\"next_attempt_at\":\"2026-11-24T10:59:39.123456Z\"}",
                      cases[i].message);

        make_good(&m);
        free((void *) (uintptr_t) m.value.p);
        set_value(&m, value, strlen(value));
        remove_header(&m, "event_type");
        add_header(&m, "event_type", cases[i].type);
        assert_true(event_type_find((struct bytes){cases[i].type, strlen(cases[i].type)}, &type));
        assert_int_equal(message_parse(&m, type, OURS, &e, &fault), MESSAGE_EVENT);
        assert_int_equal(e.apart, cases[i].apart);
        assert_int_equal(e.may_cost_nothing, cases[i].may_cost_nothing);
        drop(&m);
    }
}

static struct message_event parsed_value(const char *type, const char *value)
{
    struct kafka_message m;
    struct message_event e;
    const char *fault;
    enum event_type event_type;

    make_good(&m);
    free((void *) (uintptr_t) m.value.p);
    set_value(&m, value, strlen(value));
    remove_header(&m, "event_type");
    add_header(&m, "event_type", type);
    assert_true(event_type_find((struct bytes){type, strlen(type)}, &event_type));
    assert_int_equal(message_parse(&m, event_type, OURS, &e, &fault), MESSAGE_EVENT);
    drop(&m);
    return e;
}

/* A held row is tried at no time. */
TEST(test_what_waits_for_a_person_stands_apart)
{
    assert_true(
        parsed_value("retried", "{\"subscription\":{\"id\":42},\"error_message\":\"HTTP 500\"}").apart);
    assert_true(parsed_value("retried", "{\"subscription\":{\"id\":42,\"next_attempt_at\":\"x\"},"
                                        "\"error_message\":\"timeout\"}")
                    .apart);
    assert_false(
        parsed_value("failed", "{\"subscription\":{\"id\":42},\"error_message\":\"HTTP 500\"}").apart);
}

TEST(test_sent_without_an_answer)
{
    static const struct {
        const char *type, *end;
        bool unanswered;
    } cases[] = {{"sent", "\"response_data\":null}", true},
                 {"sent", "\"response_data\":\"\"}", false},
                 {"sent", "\"response_data\":{\"response_data\":null}}", false},
                 {"failed", "\"response_data\":null}", false}};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(freep) char *value = xasprintf("{\"subscription\":{\"id\":42},%s", cases[i].end);
        assert_int_equal(parsed_value(cases[i].type, value).unanswered, cases[i].unanswered);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_event),
        cmocka_unit_test(test_failures_that_say_nothing_about_an_institution),
        cmocka_unit_test(test_what_waits_for_a_person_stands_apart),
        cmocka_unit_test(test_sent_without_an_answer),
        cmocka_unit_test(test_headers_that_may_be_null),
        cmocka_unit_test(test_headers_that_must_be_there),
        cmocka_unit_test(test_of_another_installation_it_is_foreign),
        cmocka_unit_test(test_without_sequence_it_is_foreign),
        cmocka_unit_test(test_headers_that_are_malformed),
        cmocka_unit_test(test_of_equal_headers_the_last_counts),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_values_in_other_clothes),
        cmocka_unit_test(test_damaged_messages),
        cmocka_unit_test(test_headers_as_json),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
