/* What becomes of what an institution may have received: settings, URLs, and every case of the outcome. */
#include <string.h>

#include "base/timeutil.h"
#include "delivery/outcome.h"
#include "unit.h"

#define HOUR (3600 * USEC_PER_SEC)

TEST(test_who_leaves_it_to_a_person)
{
    static const struct {
        struct ambiguity a;
        uint64_t age_usec;
        const char *why;
    } cases[] = {
        {{0}, 0, NULL},
        {{0}, 24 * HOUR - 1, NULL},
        {{0}, 24 * HOUR, "idempotency.window"},
        {{.window_usec = HOUR}, HOUR - 1, NULL},
        {{.window_usec = HOUR}, HOUR, "idempotency.window"},
        {{.window_usec = 48 * HOUR}, 24 * HOUR, NULL},
        {{.knows_no_keys = true}, 0, "idempotency.window = none"},
        {{.holds = true}, 0, "on_ambiguous"},
        {{.holds = true, .knows_no_keys = true}, 48 * HOUR, "on_ambiguous"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *why = ambiguity_holds(&cases[i].a, cases[i].age_usec);
        assert_int_equal(why != NULL, cases[i].why != NULL);
        if (why)
            assert_string_equal(why, cases[i].why);
    }
}

TEST(test_urls_of_lookups)
{
    static const struct {
        const char *url, *order_id, *expected; /* NULL = it cannot be asked */
    } cases[] = {
        {"https://x/o/{order_id}", "77", "https://x/o/77"},
        {"https://x/o/{order_id}", "", NULL},
        {"https://x/{id}/{id}?k={idempotency_key}", "", "https://x/5/5?k=KEY"},
        {"https://x/{order_id}{id}", "-1", "https://x/-15"},
        {NULL, "77", NULL},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(strbuf_free) struct strbuf url = STRBUF_INIT(100);
        CLEANUP(freep) char *text = xstrdup(cases[i].url);
        const struct ambiguity a = {.lookup_url = text};
        const struct ambiguity_row row = {cases[i].order_id, 5, "KEY"};
        assert_int_equal(ambiguity_add_url(&a, &row, &url), cases[i].expected != NULL);
        assert_int_equal(ambiguity_can_ask(&a, cases[i].order_id), cases[i].expected != NULL);
        assert_string_equal(strbuf_str(&url), cases[i].expected ? cases[i].expected : "");
    }
}

TEST(test_answers_to_lookups)
{
    static const struct {
        enum http_cause cause;
        int status;
        enum lookup_answer expected;
    } cases[] = {
        {HTTP_ANSWERED, 200, LOOKUP_FOUND},     {HTTP_ANSWERED, 204, LOOKUP_FOUND},
        {HTTP_ANSWERED, 404, LOOKUP_ABSENT},    {HTTP_ANSWERED, 301, LOOKUP_UNDECIDED},
        {HTTP_ANSWERED, 400, LOOKUP_UNDECIDED}, {HTTP_ANSWERED, 401, LOOKUP_UNDECIDED},
        {HTTP_ANSWERED, 410, LOOKUP_UNDECIDED}, {HTTP_ANSWERED, 503, LOOKUP_UNDECIDED},
        {HTTP_TIMEOUT, 0, LOOKUP_UNDECIDED},    {HTTP_URL_INVALID, 0, LOOKUP_UNDECIDED},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        assert_int_equal(ambiguity_looked_up(&(struct http_result){
                             .cause = cases[i].cause, .status = cases[i].status, .body = "", .detail = ""}),
                         cases[i].expected);
}

static const struct outcome_rules rules = {
    .max_attempts = 5,
    .max_age_usec = 72 * HOUR,
    .base_delay_usec = USEC_PER_SEC,
    .max_delay_usec = 60 * USEC_PER_SEC,
};

/* One that costs no attempt, opens no pause, and is never final but by age, whatever the answer was. */
TEST(test_a_lookup_that_tells_nothing)
{
    static const struct {
        enum http_cause cause;
        int status;
        enum outcome_state state;
        enum circuit_event circuit;
    } cases[] = {
        {HTTP_ANSWERED, 301, OUTCOME_RETRY, CIRCUIT_FAILED},
        {HTTP_ANSWERED, 400, OUTCOME_RETRY, CIRCUIT_ALIVE},
        {HTTP_ANSWERED, 401, OUTCOME_RETRY, CIRCUIT_REFUSED},
        {HTTP_ANSWERED, 409, OUTCOME_RETRY, CIRCUIT_NEUTRAL},
        {HTTP_ANSWERED, 410, OUTCOME_RETRY, CIRCUIT_NEUTRAL},
        {HTTP_ANSWERED, 429, OUTCOME_RETRY, CIRCUIT_NEUTRAL},
        {HTTP_ANSWERED, 500, OUTCOME_RETRY, CIRCUIT_FAILED},
        {HTTP_TIMEOUT, 0, OUTCOME_RETRY, CIRCUIT_FAILED},
        {HTTP_URL_INVALID, 0, OUTCOME_RETRY, CIRCUIT_NEUTRAL},
        {HTTP_CANCELLED, 0, OUTCOME_RELEASE, CIRCUIT_NEUTRAL},
        {HTTP_INTERNAL, 0, OUTCOME_RELEASE, CIRCUIT_NEUTRAL},
    };
    const struct ambiguity holds = {.holds = true};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct http_result result = {.cause = cases[i].cause,
                                           .status = cases[i].status,
                                           .body_handed_over = true,
                                           .body = "",
                                           .detail = ""};
        struct outcome_attempt attempt = {.result = &result,
                                          .ambiguity = &holds,
                                          .attempts = 9,
                                          .backoffs = 1,
                                          .ambiguous_before = true,
                                          .can_ask = true,
                                          .is_lookup = true,
                                          .unit = 0.5};
        struct outcome o = outcome_decide(&rules, &attempt);
        if (o.state != cases[i].state || o.costs_attempt || o.pause_reason || o.ambiguous ||
            o.circuit != cases[i].circuit)
            fail_msg("%d %d: %s", cases[i].cause, cases[i].status, outcome_word(o.state));
        attempt.age_usec = rules.max_age_usec;
        o = outcome_decide(&rules, &attempt);
        assert_int_equal(o.state, cases[i].state == OUTCOME_RELEASE ? OUTCOME_RELEASE : OUTCOME_HOLD);
    }
}

/* One attempt after another, with each setting. */
TEST(test_what_follows_an_ambiguous_attempt)
{
    static const struct ambiguity plain = {0}, holds = {.holds = true}, no_keys = {.knows_no_keys = true};
    enum { OLD = 1, LAST = 2, ASKS = 4 };
    static const struct {
        const struct ambiguity *settings;
        int status; /* 0 = no answer */
        bool before;
        int how;
        enum outcome_state state;
        bool ambiguous;
        const char *decided_by;
    } cases[] = {
        {&plain, 0, false, 0, OUTCOME_RETRY, true, ""},
        {&plain, 409, false, 0, OUTCOME_RETRY, true, ""},
        {&plain, 422, true, 0, OUTCOME_FAILED, true, ""},
        {&plain, 0, false, LAST, OUTCOME_FAILED, true, ""},
        {&plain, 0, false, ASKS, OUTCOME_RETRY, true, ""},
        {&plain, 422, true, ASKS, OUTCOME_RETRY, false, "lookup"},
        {&plain, 0, true, ASKS | LAST, OUTCOME_RETRY, false, "lookup"},
        {&plain, 0, true, ASKS | LAST | OLD, OUTCOME_FAILED, true, ""},
        {&holds, 0, false, 0, OUTCOME_HOLD, true, "on_ambiguous"},
        {&holds, 409, false, 0, OUTCOME_HOLD, true, "on_ambiguous"},
        {&holds, 0, false, LAST, OUTCOME_HOLD, true, "on_ambiguous"},
        {&holds, 422, true, 0, OUTCOME_HOLD, true, "on_ambiguous"},
        {&holds, 422, false, 0, OUTCOME_FAILED, false, ""},
        {&holds, 500, false, 0, OUTCOME_RETRY, false, ""},
        {&holds, 500, false, LAST, OUTCOME_FAILED, false, ""},
        {&holds, 500, true, LAST, OUTCOME_HOLD, true, "on_ambiguous"},
        {&holds, 200, true, 0, OUTCOME_SENT, false, ""},
        {&holds, 0, false, ASKS, OUTCOME_RETRY, true, ""},
        {&holds, 0, false, ASKS | OLD, OUTCOME_HOLD, true, "on_ambiguous"},
        {&no_keys, 0, false, 0, OUTCOME_HOLD, true, "idempotency.window = none"},
        {&no_keys, 422, true, 0, OUTCOME_HOLD, true, "idempotency.window = none"},
        {&no_keys, 500, false, 0, OUTCOME_RETRY, false, ""},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct http_result result = {.cause = cases[i].status ? HTTP_ANSWERED : HTTP_TIMEOUT,
                                           .status = cases[i].status,
                                           .body_handed_over = true,
                                           .body = "",
                                           .detail = ""};
        const struct outcome_attempt attempt = {.result = &result,
                                                .ambiguity = cases[i].settings,
                                                .attempts = cases[i].how & LAST ? 5 : 2,
                                                .backoffs = 1,
                                                .age_usec = cases[i].how & OLD ? rules.max_age_usec : HOUR,
                                                .ambiguous_before = cases[i].before,
                                                .ambiguous_usec = HOUR,
                                                .can_ask = cases[i].how & ASKS,
                                                .unit = 0.5};
        struct outcome o = outcome_decide(&rules, &attempt);
        if (o.state != cases[i].state || o.ambiguous != cases[i].ambiguous ||
            strcmp(o.decided_by, cases[i].decided_by) != 0)
            fail_msg("%zu: %s %d %s", i, outcome_word(o.state), o.ambiguous, o.decided_by);
        if (o.state == OUTCOME_RETRY)
            assert_true(o.delay_usec >= USEC_PER_SEC);
    }
}

TEST(test_which_answers_are_stored_errors)
{
    static const struct {
        int status;
        bool asks, new_key;
    } cases[] = {{200, false, false}, {301, false, true}, {400, false, false}, {401, false, false},
                 {403, false, true},  {404, false, true}, {409, false, false}, {429, false, false},
                 {500, false, true},  {503, false, true}, {503, true, false},  {0, false, false}};
    const struct ambiguity changes = {.new_key = true}, same = {0};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct http_result result = {.cause = cases[i].status ? HTTP_ANSWERED : HTTP_CONNECTION_LOST,
                                           .status = cases[i].status,
                                           .has_retry_after = cases[i].asks,
                                           .body_handed_over = true,
                                           .body = "",
                                           .detail = ""};
        struct outcome_attempt attempt = {
            .result = &result, .ambiguity = &changes, .attempts = 1, .backoffs = 1, .unit = 0.5};
        assert_int_equal(outcome_decide(&rules, &attempt).new_key, cases[i].new_key);
        attempt.ambiguity = &same;
        assert_false(outcome_decide(&rules, &attempt).new_key);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_leaves_it_to_a_person),
        cmocka_unit_test(test_urls_of_lookups),
        cmocka_unit_test(test_answers_to_lookups),
        cmocka_unit_test(test_a_lookup_that_tells_nothing),
        cmocka_unit_test(test_what_follows_an_ambiguous_attempt),
        cmocka_unit_test(test_which_answers_are_stored_errors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
