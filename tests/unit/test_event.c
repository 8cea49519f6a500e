/* From ledger rows to messages: each type, fields that may be NULL, and answers of every shape. */

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "relay/event.h"
#include "unit.h"

static const unsigned char name_space[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

/* 5c0133af-00af-4397-b55f-b12372ea1805 */
static const unsigned char event_id[16] = {0x5c, 0x01, 0x33, 0xaf, 0x00, 0xaf, 0x43, 0x97,
                                           0xb5, 0x5f, 0xb1, 0x23, 0x72, 0xea, 0x18, 0x05};

#define TEXT(literal) ((struct bytes){literal, sizeof(literal) - 1})
#define NUMBER(n) ((struct event_number){true, n})

/* 2026-11-24T10:59:39.123456Z */
#define TIME INT64_C(1795517979123456)

static struct event example(const char *type)
{
    return (struct event){
        .id = 9007199254740993,
        .event_id = event_id,
        .event_type = {type, strlen(type)},
        .created_at = TIME,
        .subscription = {.id = NUMBER(42),
                         .order_id = NUMBER(1001),
                         .origin = TEXT("web"),
                         .cpf = TEXT("12345678909"),
                         .status = TEXT("sent"),
                         .sent_at = NUMBER(TIME),
                         .created_at = TIME - 1000000,
                         .updated_at = TIME},
        .integration = {.id = NUMBER(7), .name = TEXT("Universidade \"Norte\""), .type = TEXT("api")},
        .attempt = {.number = NUMBER(3),
                    .response = TEXT("{\"id\": 9007199254740993}"),
                    .error_message = TEXT("HTTP 500: oops"),
                    .ambiguous = NUMBER(1),
                    .next_attempt_at = NUMBER(TIME + 30000000)},
    };
}

static struct event_builder builder(void)
{
    struct event_builder b;

    event_builder_init(&b, name_space, 1000000);
    return b;
}

static void assert_text(struct bytes text, const char *wanted)
{
    assert_int_equal(text.len, strlen(wanted));
    assert_memory_equal(text.p, wanted, text.len);
}

static const struct kafka_header *header(const struct event_message *m, const char *name)
{
    for (size_t i = 0; i < m->header_count; i++)
        if (strcmp(m->headers[i].name, name) == 0)
            return &m->headers[i];
    return NULL;
}

static void assert_header(const struct event_message *m, const char *name, const char *wanted)
{
    assert_non_null(header(m, name));
    assert_text(header(m, name)->value, wanted);
}

#define SUBSCRIPTION                                                                                                                       \
    ",\"subscription\":{\"id\":42,\"integration_id\":7,\"order_id\":1001,\"origin\":\"web\",\"cpf\":\"12345678909\",\"status\":\"sent\","  \
    "\"sent_at\":\"2026-11-24T10:59:39.123456Z\",\"scheduled_to\":null,\"created_at\":\"2026-11-24T10:59:38.123456Z\","                    \
    "\"updated_at\":\"2026-11-24T10:59:39.123456Z\"},\"integration\":{\"id\":7,\"name\":\"Universidade \\\"Norte\\\"\",\"type\":\"api\"}," \
    "\"timestamp\":\"2026-11-24T10:59:39.123456Z\",\"version\":\"1.0\",\"attempt\":3"

TEST(test_values)
{
    static const struct {
        const char *type;
        enum event_type topic;
        const char *rest;
    } cases[] = {
        {"created", EVENT_CREATED, "}"},
        {"updated", EVENT_UPDATED, "}"},
        {"sent", EVENT_SENT, ",\"response_data\":{\"id\": 9007199254740993}}"},
        {"failed", EVENT_FAILED, ",\"error_message\":\"HTTP 500: oops\",\"ambiguous\":true}"},
        {"retried", EVENT_RETRIED,
         ",\"error_message\":\"HTTP 500: oops\",\"ambiguous\":true,\"next_attempt_at\":\"2026-11-24T11:00:09.123456Z\"}"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct event_builder b = builder();
        struct event e = example(cases[i].type);
        struct event_message m;
        char wanted[1024];
        assert_true(event_build(&b, &e, &m));
        assert_int_equal(m.type, cases[i].topic);
        snprintf(wanted, sizeof(wanted), "{\"event_type\":\"%s\"" SUBSCRIPTION "%s", cases[i].type,
                 cases[i].rest);
        assert_text(m.value, wanted);
        assert_text(m.key, "42");
        event_builder_free(&b);
    }
}

TEST(test_headers)
{
    struct event_builder b = builder();
    struct event e = example("sent");
    struct event_message m;

    assert_true(event_build(&b, &e, &m));
    assert_int_equal(m.header_count, EVENT_HEADERS_MAX);
    assert_header(&m, "event_id", "5c0133af-00af-4397-b55f-b12372ea1805");
    assert_header(&m, "timestamp", "2026-11-24T10:59:39.123456Z");
    assert_header(&m, "service", "anubis");
    assert_header(&m, "version", "1.0");
    assert_header(&m, "event_type", "sent");
    assert_header(&m, "integration_id", "7");
    assert_header(&m, "origin", "web");
    assert_header(&m, "sequence", "9007199254740993");
    assert_header(&m, "installation", b.installation);
    assert_int_equal(strlen(b.installation), 36);
    assert_header(&m, "attempt", "3");
    assert_header(&m, "content_type", "application/json");
    assert_int_equal(header(&m, "traceparent")->value.len, 55);

    e.integration.id.set = e.attempt.number.set = false;
    e.subscription.origin = (struct bytes){0};
    e.traceparent = TEXT("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    assert_true(event_build(&b, &e, &m));
    assert_int_equal(m.header_count, EVENT_HEADERS_MAX - 3);
    assert_null(header(&m, "integration_id"));
    assert_null(header(&m, "origin"));
    assert_null(header(&m, "attempt"));
    assert_header(&m, "traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    e.traceparent = TEXT("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0\n");
    assert_true(event_build(&b, &e, &m));
    assert_int_equal(header(&m, "traceparent")->value.p[54], '1');
    event_builder_free(&b);
}

TEST(test_nulls)
{
    struct event_builder b = builder();
    struct event e = {.id = 1, .event_type = TEXT("failed"), .subscription.id = NUMBER(1)};
    struct event_message m;

    assert_true(event_build(&b, &e, &m));
    assert_text(
        m.value,
        "{\"event_type\":\"failed\",\"subscription\":{\"id\":1,\"integration_id\":null,\"order_id\":null,\"origin\":null,"
        "\"cpf\":null,\"status\":\"\",\"sent_at\":null,\"scheduled_to\":null,\"created_at\":\"1970-01-01T00:00:00.000000Z\","
        "\"updated_at\":\"1970-01-01T00:00:00.000000Z\"},\"integration\":null,\"timestamp\":\"1970-01-01T00:00:00.000000Z\","
        "\"version\":\"1.0\",\"attempt\":0,\"error_message\":\"\"}");
    event_builder_free(&b);
}

TEST(test_no_events)
{
    static const char *const types[] = {"", "note", "sen", "sent ", "subscriptions.sent"};
    struct event_builder b = builder();
    struct event_message m;

    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        struct event e = example(types[i]);
        assert_false(event_build(&b, &e, &m));
    }
    struct event e = example("sent");
    e.event_type.p = NULL;
    assert_false(event_build(&b, &e, &m));
    e = example("sent");
    e.subscription.id.set = false;
    assert_false(event_build(&b, &e, &m));
    event_builder_free(&b);
}

TEST(test_topics_and_partitions)
{
    static const char *const topics[EVENT_TYPES] = {"a.subscriptions.created", "a.subscriptions.updated",
                                                    "a.subscriptions.sent", "a.subscriptions.failed",
                                                    "a.subscriptions.retried"};

    for (enum event_type type = 0; type < EVENT_TYPES; type++) {
        CLEANUP(freep) char *topic = event_type_topic(type, "a.");
        assert_string_equal(topic, topics[type]);
        assert_int_equal(event_type_partitions(type), type == EVENT_RETRIED ? 2 : 3);
    }
}

static const char *response_of(struct event_builder *b, const char *response, size_t len, bool truncated)
{
    struct event e = example("sent");
    struct event_message m;

    e.attempt.response = (struct bytes){response, len};
    e.attempt.response_truncated = truncated;
    assert_true(event_build(b, &e, &m));
    assert_true(json_is_valid(m.value.p, m.value.len, JSON_MAX_DEPTH));
    const char *at = strstr(m.value.p, ",\"response_data\":");
    assert_non_null(at);
    return at + strlen(",\"response_data\":");
}

TEST(test_responses)
{
    static const struct {
        const char *response, *value;
        bool truncated;
    } cases[] = {
        {"1e400", "1e400}", false},
        {"12345678901234567890.0000000001", "12345678901234567890.0000000001}", false},
        {" [1]\n", " [1]\n}", false},
        {"null", "null}", false},
        {"\"\\u0000\"", "\"\\u0000\"}", false},
        {"", "\"\"}", false},
        {"OK", "\"OK\"}", false},
        {"[01]", "\"[01]\"}", false},
        {"{\"a\":1", "\"{\\\"a\\\":1\"}", false},
        {"{\"a\":1}", "\"{\\\"a\\\":1}\"}", true},
        {"12", "\"12\"}", true},
        {"\"\\ud800\"", "\"\\\"\\\\ud800\\\"\"}", false},
    };
    struct event_builder b = builder();

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        assert_string_equal(response_of(&b, cases[i].response, strlen(cases[i].response), cases[i].truncated),
                            cases[i].value);
    assert_string_equal(response_of(&b, NULL, 0, false), "null}");
    event_builder_free(&b);
}

/* Kafka accepts the message, whatever the answer is. */
TEST(test_large_responses)
{
    static char text[200000];
    struct event_builder b;

    event_builder_init(&b, name_space, 100000);
    memset(text, 'x', sizeof(text));
    assert_int_equal(strlen(response_of(&b, text, 50000, false)), 50003);
    response_of(&b, text, sizeof(text), false);
    assert_in_range(b.value.len, 99990, 100000);

    memset(text, 1, sizeof(text));
    response_of(&b, text, sizeof(text), true);
    assert_in_range(b.value.len, 90000, 100000);

    for (size_t i = 0; i + 3 < sizeof(text); i += 4)
        memcpy(text + i, "\xF0\x9F\x98\x80", 4);
    for (size_t cut = 0; cut < 8; cut++) {
        b.value_max = 100000 + cut;
        response_of(&b, text, sizeof(text), false);
        assert_in_range(b.value.len, 99990, b.value_max);
        assert_null(strstr(b.value.data, "\xEF\xBF\xBD"));
    }

    /* Valid JSON that does not fit becomes a string: half of it would not be JSON. */
    memset(text, '1', sizeof(text));
    assert_int_equal(response_of(&b, text, sizeof(text), false)[0], '"');
    event_builder_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_nulls),
        cmocka_unit_test(test_no_events),
        cmocka_unit_test(test_topics_and_partitions),
        cmocka_unit_test(test_responses),
        cmocka_unit_test(test_large_responses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
