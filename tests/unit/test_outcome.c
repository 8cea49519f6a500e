/* The outcome table, row by row. */

#include <string.h>

#include "base/timeutil.h"
#include "delivery/outcome.h"
#include "unit.h"

static const struct outcome_rules rules = {
    .max_attempts = 10,
    .max_age_usec = 3 * 86400 * USEC_PER_SEC,
    .base_delay_usec = 30 * USEC_PER_SEC,
    .max_delay_usec = 3600 * USEC_PER_SEC,
};

static struct outcome decide(const struct http_result *result, int attempts, uint64_t age_usec)
{
    const struct outcome_attempt attempt = {
        .result = result, .attempts = attempts, .backoffs = 1, .age_usec = age_usec, .unit = 0.5};
    return outcome_decide(&rules, &attempt);
}

TEST(test_every_status_has_its_outcome)
{
    static const struct {
        int status;
        enum outcome_state expected;
        bool ambiguous, costs, pauses;
    } rows[] = {
        {200, OUTCOME_SENT, false, true, false},   {201, OUTCOME_SENT, false, true, false},
        {204, OUTCOME_SENT, false, true, false},   {299, OUTCOME_SENT, false, true, false},
        {301, OUTCOME_RETRY, false, true, false},  {302, OUTCOME_RETRY, false, true, false},
        {308, OUTCOME_RETRY, false, true, false},  {400, OUTCOME_FAILED, false, true, false},
        {401, OUTCOME_RETRY, false, false, false}, {403, OUTCOME_RETRY, false, true, false},
        {404, OUTCOME_RETRY, false, true, false},  {405, OUTCOME_RETRY, false, true, false},
        {409, OUTCOME_RETRY, true, true, false},   {410, OUTCOME_RETRY, false, false, true},
        {413, OUTCOME_FAILED, false, true, false}, {415, OUTCOME_FAILED, false, true, false},
        {422, OUTCOME_FAILED, false, true, false}, {429, OUTCOME_RETRY, false, false, false},
        {500, OUTCOME_RETRY, false, true, false},  {502, OUTCOME_RETRY, false, true, false},
        {503, OUTCOME_RETRY, false, true, false},  {504, OUTCOME_RETRY, false, true, false},
        {599, OUTCOME_RETRY, false, true, false},  {999, OUTCOME_RETRY, false, true, false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const struct http_result result = {.cause = HTTP_ANSWERED,
                                           .status = rows[i].status,
                                           .body_handed_over = true,
                                           .body = "",
                                           .detail = ""};
        struct outcome o = decide(&result, 1, 0);
        assert_int_equal(o.state, rows[i].expected);
        assert_int_equal(o.ambiguous, rows[i].ambiguous);
        assert_int_equal(o.costs_attempt, rows[i].costs);
        assert_int_equal(o.pause_reason != NULL, rows[i].pauses);
        assert_int_equal(o.turned_away, rows[i].expected == OUTCOME_RETRY && !rows[i].pauses);
    }
}

TEST(test_what_says_something_about_the_institution_counts_for_its_circuit)
{
    static const struct {
        enum http_cause cause;
        int status;
        bool asks;
        enum circuit_event expected;
    } rows[] = {
        {HTTP_ANSWERED, 200, false, CIRCUIT_ALIVE},
        {HTTP_ANSWERED, 302, false, CIRCUIT_FAILED},
        {HTTP_ANSWERED, 400, false, CIRCUIT_ALIVE},
        {HTTP_ANSWERED, 401, false, CIRCUIT_REFUSED},
        {HTTP_ANSWERED, 401, true, CIRCUIT_REFUSED},
        {HTTP_ANSWERED, 403, false, CIRCUIT_FORBIDDEN},
        {HTTP_ANSWERED, 404, false, CIRCUIT_ALIVE},
        {HTTP_ANSWERED, 408, false, CIRCUIT_ALIVE},
        {HTTP_ANSWERED, 409, false, CIRCUIT_NEUTRAL},
        {HTTP_ANSWERED, 410, false, CIRCUIT_NEUTRAL},
        {HTTP_ANSWERED, 422, false, CIRCUIT_ALIVE},
        {HTTP_ANSWERED, 429, false, CIRCUIT_NEUTRAL},
        {HTTP_ANSWERED, 500, false, CIRCUIT_FAILED},
        {HTTP_ANSWERED, 503, false, CIRCUIT_FAILED},
        {HTTP_ANSWERED, 503, true, CIRCUIT_NEUTRAL},
        {HTTP_ANSWERED, 999, false, CIRCUIT_FAILED},
        {HTTP_DNS, 0, false, CIRCUIT_FAILED},
        {HTTP_CONNECT, 0, false, CIRCUIT_FAILED},
        {HTTP_TLS, 0, false, CIRCUIT_FAILED},
        {HTTP_TIMEOUT, 0, false, CIRCUIT_FAILED},
        {HTTP_CONNECTION_LOST, 0, false, CIRCUIT_FAILED},
        {HTTP_URL_INVALID, 0, false, CIRCUIT_NEUTRAL},
        {HTTP_ADDRESS_REFUSED, 0, false, CIRCUIT_NEUTRAL},
        {HTTP_UNAUTHENTICATED, 0, false, CIRCUIT_REFUSED},
        {HTTP_CLIENT_REFUSED, 0, false, CIRCUIT_REFUSED},
        {HTTP_CANCELLED, 0, false, CIRCUIT_NEUTRAL},
        {HTTP_INTERNAL, 0, false, CIRCUIT_NEUTRAL},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const struct http_result result = {.cause = rows[i].cause,
                                           .status = rows[i].status,
                                           .has_retry_after = rows[i].asks,
                                           .body_handed_over = true,
                                           .body = "",
                                           .detail = ""};
        assert_int_equal(decide(&result, 1, 0).circuit, rows[i].expected);
        assert_int_equal(decide(&result, 10, 0).circuit, rows[i].expected); /* the last attempt, too */
    }
}

TEST(test_without_an_answer_the_body_decides_on_ambiguity)
{
    static const struct {
        enum http_cause cause;
        enum outcome_state unsent, handed_over;
        bool costs, pauses;
    } rows[] = {
        {HTTP_DNS, OUTCOME_RETRY, OUTCOME_RETRY, true, false},
        {HTTP_CONNECT, OUTCOME_RETRY, OUTCOME_RETRY, true, false},
        {HTTP_TLS, OUTCOME_RETRY, OUTCOME_RETRY, true, false},
        {HTTP_TIMEOUT, OUTCOME_RETRY, OUTCOME_RETRY, true, false},
        {HTTP_CONNECTION_LOST, OUTCOME_RETRY, OUTCOME_RETRY, true, false},
        {HTTP_URL_INVALID, OUTCOME_RETRY, OUTCOME_RETRY, false, true},
        {HTTP_ADDRESS_REFUSED, OUTCOME_RETRY, OUTCOME_RETRY, false, true},
        {HTTP_UNAUTHENTICATED, OUTCOME_RETRY, OUTCOME_RETRY, false, false},
        {HTTP_CLIENT_REFUSED, OUTCOME_RETRY, OUTCOME_RETRY, false, false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct http_result result = {.cause = rows[i].cause, .body = "", .detail = ""};
        struct outcome o = decide(&result, 1, 0);
        assert_int_equal(o.state, rows[i].unsent);
        assert_false(o.ambiguous);
        assert_int_equal(o.turned_away, !rows[i].pauses);
        assert_int_equal(o.costs_attempt, rows[i].costs);
        assert_int_equal(o.pause_reason != NULL, rows[i].pauses);
        result.body_handed_over = true;
        o = decide(&result, 1, 0);
        assert_int_equal(o.state, rows[i].handed_over);
        assert_int_equal(o.ambiguous, rows[i].costs); /* where a request can have been made at all */
    }
}

TEST(test_a_cut_request_goes_back_unless_it_was_handed_over)
{
    struct http_result result = {.cause = HTTP_CANCELLED, .body = "", .detail = ""};
    struct outcome o = decide(&result, 10, 0);
    assert_int_equal(o.state, OUTCOME_RELEASE);
    assert_false(o.costs_attempt);
    result.body_handed_over = true;
    o = decide(&result, 3, 0);
    assert_int_equal(o.state, OUTCOME_RETRY);
    assert_true(o.ambiguous);
    assert_true(o.costs_attempt);
    /* A stop says nothing about the institution, not even with the last attempt. */
    assert_false(o.turned_away);
    o = decide(&result, 10, 0);
    assert_int_equal(o.state, OUTCOME_FAILED);
    assert_false(o.turned_away);
}

TEST(test_the_last_attempt_fails)
{
    const struct http_result busy = {.cause = HTTP_ANSWERED, .status = 500, .body = "", .detail = ""};
    const struct http_result unauthorized = {.cause = HTTP_ANSWERED, .status = 401, .body = "", .detail = ""};
    assert_int_equal(decide(&busy, 9, 0).state, OUTCOME_RETRY);
    assert_int_equal(decide(&busy, 10, 0).state, OUTCOME_FAILED);
    assert_true(decide(&busy, 10, 0).turned_away);
    assert_int_equal(decide(&busy, 1, rules.max_age_usec - 1).state, OUTCOME_RETRY);
    assert_int_equal(decide(&busy, 1, rules.max_age_usec).state, OUTCOME_FAILED);
    /* What costs no attempt ends by age alone. */
    assert_int_equal(decide(&unauthorized, 10, 0).state, OUTCOME_RETRY);
    assert_int_equal(decide(&unauthorized, 10, rules.max_age_usec).state, OUTCOME_FAILED);
}

TEST(test_delays_double_up_to_the_maximum)
{
    const struct http_result busy = {.cause = HTTP_ANSWERED, .status = 500, .body = "", .detail = ""};
    assert_int_equal(decide(&busy, 1, 0).delay_usec, 30 * USEC_PER_SEC);
    assert_int_equal(decide(&busy, 2, 0).delay_usec, 60 * USEC_PER_SEC);
    assert_int_equal(decide(&busy, 3, 0).delay_usec, 120 * USEC_PER_SEC);
    assert_int_equal(decide(&busy, 9, 0).delay_usec, 3600 * USEC_PER_SEC);
}

/* With the configuration's defaults an outage from Friday evening to Monday morning fails no subscription,
 * however its jitter falls; usually it is the age that ends it. */
TEST(test_a_weekend_is_survived)
{
    const struct http_result away = {.cause = HTTP_CONNECT, .body = "", .detail = ""};
    struct outcome_rules defaults = rules;
    const uint64_t hour = 3600 * USEC_PER_SEC;

    defaults.max_attempts = 100;
    for (int i = 0; i < 2; i++) {
        struct outcome o = {.state = OUTCOME_RETRY};
        uint64_t age = 0;

        for (int attempts = 1; o.state == OUTCOME_RETRY; attempts++, age += o.delay_usec)
            o = outcome_decide(
                &defaults,
                &(struct outcome_attempt){
                    .result = &away, .attempts = attempts, .backoffs = 1, .age_usec = age, .unit = i * 0.5});
        assert_int_equal(o.state, OUTCOME_FAILED);
        assert_true(age >= (i ? 72 : 63) * hour);
    }
}

TEST(test_retry_after_is_heeded_up_to_the_maximum)
{
    static const struct {
        int status;
        int64_t asked;
        uint64_t expected_sec;
    } rows[] = {
        {429, 0, 30},      {429, 7, 30},           {503, 100, 105}, {429, 3600, 3600},
        {429, 3601, 3600}, {503, INT64_MAX, 3600}, {500, 7, 30},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const struct http_result result = {.cause = HTTP_ANSWERED,
                                           .status = rows[i].status,
                                           .has_retry_after = true,
                                           .retry_after_sec = rows[i].asked,
                                           .body = "",
                                           .detail = ""};
        struct outcome o = decide(&result, 1, 0);
        assert_int_equal(o.delay_usec, rows[i].expected_sec * USEC_PER_SEC);
        /* The integration waits, and for so long no attempt is counted. */
        bool waits = rows[i].status != 500;
        assert_int_equal(o.backoff_usec > 0, waits);
        assert_int_equal(o.costs_attempt, !waits);
        assert_true(o.backoff_usec <= o.delay_usec);
    }
}

TEST(test_whoever_asks_for_time_again_and_again_gets_more)
{
    static const struct {
        int status;
        bool asks;
        bool waits;
    } rows[] = {
        {429, false, true}, {429, true, true}, {401, false, false}, {503, true, true}, {503, false, false}};
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const struct http_result result = {.cause = HTTP_ANSWERED,
                                           .status = rows[i].status,
                                           .has_retry_after = rows[i].asks,
                                           .body = "",
                                           .detail = ""};
        struct outcome_attempt attempt = {.result = &result, .attempts = 1, .backoffs = 4, .unit = 0.5};
        struct outcome o = outcome_decide(&rules, &attempt);
        assert_int_equal(o.backoff_usec, rows[i].waits ? 240 * USEC_PER_SEC : 0);
        assert_int_equal(o.delay_usec, (rows[i].waits ? 240 : 30) * USEC_PER_SEC);
        attempt.backoffs = 1000;
        assert_int_equal(outcome_decide(&rules, &attempt).backoff_usec,
                         rows[i].waits ? rules.max_delay_usec : 0);
    }
}

TEST(test_our_own_shortage_costs_nobody)
{
    struct http_result result = {.cause = HTTP_INTERNAL, .body = "", .detail = "no descriptors"};
    struct outcome o = decide(&result, 1000, 2 * rules.max_age_usec);
    assert_int_equal(o.state, OUTCOME_RELEASE);
    assert_false(o.costs_attempt);
    assert_false(o.turned_away);
    assert_true(o.our_fault);
    assert_int_equal(o.backoff_usec, USEC_PER_SEC);
    result.body_handed_over = true;
    o = decide(&result, 1, 0);
    assert_int_equal(o.state, OUTCOME_RETRY);
    assert_true(o.ambiguous);
    assert_false(o.turned_away);
}

TEST(test_what_may_have_been_received_before_fails_ambiguously)
{
    static const int final[] = {400, 413, 415, 422, 500};
    for (size_t i = 0; i < ARRAY_SIZE(final); i++) {
        const struct http_result result = {
            .cause = HTTP_ANSWERED, .status = final[i], .body = "", .detail = ""};
        struct outcome_attempt attempt = {
            .result = &result, .attempts = rules.max_attempts, .unit = 0.5, .ambiguous_before = true};
        assert_int_equal(outcome_decide(&rules, &attempt).state, OUTCOME_FAILED);
        assert_true(outcome_decide(&rules, &attempt).ambiguous);
        attempt.ambiguous_before = false;
        assert_false(outcome_decide(&rules, &attempt).ambiguous);
    }
    const struct http_result taken = {.cause = HTTP_ANSWERED, .status = 200, .body = "", .detail = ""};
    const struct outcome_attempt attempt = {.result = &taken, .attempts = 2, .ambiguous_before = true};
    assert_false(outcome_decide(&rules, &attempt).ambiguous);
}

TEST(test_error_messages_are_bounded_and_valid)
{
    static char body[5000];
    struct strbuf text = STRBUF_INIT(8192);
    struct http_result result = {
        .cause = HTTP_ANSWERED, .status = 422, .body = "cpf: inv\xe1lido", .body_len = 13, .detail = ""};
    outcome_error_message(&result, &text);
    assert_string_equal(text.data, "HTTP 422: cpf: inv\xef\xbf\xbdlido");

    strbuf_clear(&text);
    for (size_t i = 0; i + 1 < sizeof(body); i += 2)
        memcpy(body + i, "\xc3\xa9", 2);
    result.body = body;
    result.body_len = sizeof(body) - 1;
    outcome_error_message(&result, &text);
    assert_in_range(text.len, 900, 1100);
    assert_null(strstr(text.data, "\xef\xbf\xbd"));

    strbuf_clear(&text);
    result = (struct http_result){.cause = HTTP_TIMEOUT, .body = "", .detail = ""};
    outcome_error_message(&result, &text);
    assert_string_equal(text.data, http_cause_word(HTTP_TIMEOUT));
    strbuf_free(&text);
}

TEST(test_the_class_holds_nothing_of_the_answer)
{
    char class[64];
    const struct http_result result = {
        .cause = HTTP_ANSWERED, .status = 422, .body = "cpf 12345678909", .body_len = 15, .detail = ""};
    outcome_error_class(&result, class, sizeof(class));
    assert_string_equal(class, "HTTP 422");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_status_has_its_outcome),
        cmocka_unit_test(test_what_says_something_about_the_institution_counts_for_its_circuit),
        cmocka_unit_test(test_without_an_answer_the_body_decides_on_ambiguity),
        cmocka_unit_test(test_a_cut_request_goes_back_unless_it_was_handed_over),
        cmocka_unit_test(test_the_last_attempt_fails),
        cmocka_unit_test(test_delays_double_up_to_the_maximum),
        cmocka_unit_test(test_a_weekend_is_survived),
        cmocka_unit_test(test_retry_after_is_heeded_up_to_the_maximum),
        cmocka_unit_test(test_whoever_asks_for_time_again_and_again_gets_more),
        cmocka_unit_test(test_our_own_shortage_costs_nobody),
        cmocka_unit_test(test_what_may_have_been_received_before_fails_ambiguously),
        cmocka_unit_test(test_error_messages_are_bounded_and_valid),
        cmocka_unit_test(test_the_class_holds_nothing_of_the_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
