/* delivery_settings.outcomes: every kind of rule against every kind of answer, and what is no rule. */
#include <string.h>

#include "base/timeutil.h"
#include "delivery/outcome.h"
#include "unit.h"

/* NULL, or what is wrong with the text. */
static const char *read_rules(const char *text, struct answer_rules *ret)
{
    static struct error why;
    struct json_value value;

    assert_true(json_read(text, strlen(text), &value));
    return answer_rules_read(&value, ret, &why) < 0 ? why.text : NULL;
}

static struct http_result answer(int status, const char *type, const char *body)
{
    return (struct http_result){.cause = HTTP_ANSWERED,
                                .status = status,
                                .content_type = type,
                                .body = body,
                                .body_len = strlen(body),
                                .detail = ""};
}

TEST(test_every_kind_of_rule)
{
    static const struct {
        const char *rule; /* but for "then" */
        int status;
        const char *type, *body;
        bool matches;
    } cases[] = {
        {"\"status\": 400", 400, NULL, "", true},
        {"\"status\": 400", 401, NULL, "", false},
        {"\"status\": \"4xx\"", 400, NULL, "", true},
        {"\"status\": \"4xx\"", 499, NULL, "", true},
        {"\"status\": \"4xx\"", 399, NULL, "", false},
        {"\"status\": \"4xx\"", 500, NULL, "", false},
        {"\"status\": [409, 422, \"5xx\"]", 409, NULL, "", true},
        {"\"status\": [409, 422, \"5xx\"]", 410, NULL, "", false},
        {"\"status\": [409, 422, \"5xx\"]", 422, NULL, "", true},
        {"\"status\": [409, 422, \"5xx\"]", 599, NULL, "", true},
        {"\"contains\": \"E025\"", 200, NULL, "error E025: known", true},
        {"\"contains\": \"E025\"", 200, NULL, "E025", true},
        {"\"contains\": \"E025\"", 200, NULL, "e025", false},
        {"\"contains\": \"E025\"", 200, NULL, "E02", false},
        {"\"contains\": \"E025\"", 204, NULL, "", false},
        {"\"contains\": \"inscri\\u00e7\\u00e3o\"", 200, NULL, "{\"m\": \"inscri\xC3\xA7\xC3\xA3o\"}", true},
        {"\"contains\": \"inscri\\u00e7\\u00e3o\"", 200, NULL, "inscri\xE7\xE3o", false}, /* latin 1 */
        {"\"status\": 400, \"contains\": \"LOCK\"", 400, NULL, "a LOCK", true},
        {"\"status\": 400, \"contains\": \"LOCK\"", 500, NULL, "a LOCK", false},
        {"\"content_type\": \"text/html\"", 200, "text/html", "", true},
        {"\"content_type\": \"text/html\"", 200, "text/plain", "", false},
        {"\"content_type\": \"text/html\"", 200, "", "", false},
        {"\"content_type\": \"text/html\"", 200, NULL, "", false},
        {"\"field\": \"/statusCode\", \"is\": \"0\"", 200, NULL, "{\"statusCode\": 0}", true},
        {"\"field\": \"/statusCode\", \"is\": \"0\"", 200, NULL, "{\"statusCode\": \"0\"}", true},
        {"\"field\": \"/statusCode\", \"is\": 0", 200, NULL, "{\"statusCode\": \"0\"}", true},
        {"\"field\": \"/statusCode\", \"is\": \"0\"", 200, NULL, "{\"statusCode\": 1}", false},
        {"\"field\": \"/statusCode\", \"is\": \"0\"", 200, NULL, "{\"statusCode\": 0.0}", false},
        {"\"field\": \"/statusCode\", \"not\": \"0\"", 200, NULL, "{\"statusCode\": 17}", true},
        {"\"field\": \"/statusCode\", \"not\": \"0\"", 200, NULL, "{\"statusCode\": 0}", false},
        {"\"field\": \"/statusCode\", \"not\": \"0\"", 200, NULL, "{\"statusCode\": null}", true},
        /* Absent: neither. So are all fields of what is no JSON, or not all of it. */
        {"\"field\": \"/statusCode\", \"not\": \"0\"", 200, NULL, "{\"status\": 0}", false},
        {"\"field\": \"/statusCode\", \"is\": \"0\"", 200, NULL, "{\"status\": 0}", false},
        {"\"field\": \"/statusCode\", \"not\": \"0\"", 200, NULL, "{\"statusCode\": 17", false},
        {"\"field\": \"/statusCode\", \"not\": \"0\"", 200, NULL, "<html>", false},
        {"\"field\": \"/statusCode\", \"not\": \"0\"", 200, NULL, "", false},
        {"\"field\": \"/statusCode\", \"not\": \"0\"", 200, NULL, "{\"statusCode\": \"\xE7\"}", false},
        {"\"field\": \"/a/0/b~1c\", \"is\": true", 200, NULL, "{\"a\": [{\"b/c\": true}]}", true},
        {"\"field\": \"/a/1/b~1c\", \"is\": true", 200, NULL, "{\"a\": [{\"b/c\": true}]}", false},
        {"\"field\": \"/ok\", \"is\": false", 200, NULL, "{\"ok\": false}", true},
        {"\"field\": \"/error\", \"not\": null", 200, NULL, "{\"error\": \"E1\"}", true},
        {"\"field\": \"/error\", \"not\": null", 200, NULL, "{\"error\": null}", false},
        {"\"field\": \"/error\", \"not\": null", 200, NULL, "{\"error\": {\"code\": 1}}", true},
        {"\"field\": \"/error\", \"not\": \"{}\"", 200, NULL, "{\"error\": {}}", true},
        {"\"field\": \"/error\", \"is\": \"[]\"", 200, NULL, "{\"error\": []}", false},
        {"\"field\": \"/ok\", \"is\": 1", 200, NULL, "\xEF\xBB\xBF{\"ok\": 1}", true},
        {"\"field\": \"/ok\", \"is\": 1", 200, NULL, " \xEF\xBB\xBF{\"ok\": 1}", false},
        {"\"field\": \"/ok\", \"not\": 1", 200, NULL, "\xEF\xBB\xBF", false},
        {"\"field\": \"\", \"is\": \"ERRO\"", 200, NULL, "\"ERRO\"", true},
        {"\"field\": \"/n\", \"is\": 12345678901234567890.10", 200, NULL, "{\"n\": 12345678901234567890.10}",
         true},
        {"\"field\": \"/n\", \"is\": 12345678901234567890.10", 200, NULL, "{\"n\": 12345678901234567890.11}",
         false},
        {"\"field\": \"/m\", \"is\": \"a\\nb\"", 200, NULL, "{\"m\": \"a\\u000Ab\"}", true},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(freep) char *text = xasprintf("[{%s, \"then\": \"failed\"}]", cases[i].rule);
        struct answer_rules rules = {0};
        enum answer_means means = 0;
        const struct http_result result = answer(cases[i].status, cases[i].type, cases[i].body);
        const char *why = read_rules(text, &rules);
        int number = why ? -1 : answer_rules_decide(&rules, &result, &means);
        if (number != (cases[i].matches ? 1 : 0) || (number == 1 && means != ANSWER_FAILED))
            fail_msg("%s, %d %s: %d %s", text, cases[i].status, cases[i].body, number, why ? why : "");
        answer_rules_free(&rules);
    }
}

TEST(test_the_first_that_matches_decides)
{
    static const char text[] = "[{\"status\": \"2xx\", \"contains\": \"wait\", \"then\": \"retry\"},"
                               " {\"status\": 200, \"contains\": \"no\", \"then\": \"failed\"},"
                               " {\"status\": [200, 409], \"then\": \"sent\"},"
                               " {\"contains\": \"no\", \"then\": \"hold\"}]";
    static const struct {
        int status;
        const char *body;
        int number;
        enum answer_means means;
    } cases[] = {
        {200, "wait, no", 1, ANSWER_RETRY}, {200, "no", 2, ANSWER_FAILED},    {200, "", 3, ANSWER_SENT},
        {409, "no", 3, ANSWER_SENT},        {500, "no wait", 4, ANSWER_HELD}, {500, "wait", 0, 0},
    };
    struct answer_rules rules = {0};

    assert_null(read_rules(text, &rules));
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        enum answer_means means = 0;
        struct http_result result = answer(cases[i].status, NULL, cases[i].body);
        assert_int_equal(answer_rules_decide(&rules, &result, &means), cases[i].number);
        assert_int_equal(means, cases[i].means);
        /* What is no answer is the table's. */
        result.cause = HTTP_TIMEOUT;
        assert_int_equal(answer_rules_decide(&rules, &result, &means), 0);
    }
    answer_rules_free(&rules);
}

TEST(test_what_is_no_rule)
{
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"{}", "is a list of rules"},
        {"[1]", "rule 1: a rule is an object"},
        {"[{\"status\": 200, \"then\": \"sent\"}, {\"status\": 200}]", "rule 2: then is missing"},
        {"[{\"then\": \"sent\"}]", "it would match every answer"},
        {"[{\"status\": 200, \"than\": \"sent\"}]", "a rule has status, contains"},
        {"[{\"status\": 200, \"then\": \"pending\"}]", "then is \"sent\", \"failed\""},
        {"[{\"status\": 99, \"then\": \"sent\"}]", "status is a number"},
        {"[{\"status\": 1000, \"then\": \"sent\"}]", "status is a number"},
        {"[{\"status\": 700, \"then\": \"sent\"}]", "status is a number from 200 to 599"},
        {"[{\"status\": [200, 102], \"then\": \"sent\"}]", "status is a number from 200 to 599"},
        {"[{\"status\": \"1xx\", \"then\": \"sent\"}]", "a class from \"2xx\" to \"5xx\""},
        {"[{\"status\": 200.5, \"then\": \"sent\"}]", "status is a number"},
        {"[{\"status\": \"200\", \"then\": \"sent\"}]", "status is a number"},
        {"[{\"status\": \"4XX\", \"then\": \"sent\"}]", "status is a number"},
        {"[{\"status\": \"0xx\", \"then\": \"sent\"}]", "status is a number"},
        {"[{\"status\": [], \"then\": \"sent\"}]", "status is a number"},
        {"[{\"status\": [200, null], \"then\": \"sent\"}]", "status is a number"},
        {"[{\"status\": [[200]], \"then\": \"sent\"}]", "status is a number"},
        {"[{\"contains\": \"\", \"then\": \"sent\"}]", "contains is a text"},
        {"[{\"contains\": 7, \"then\": \"sent\"}]", "contains is a text"},
        {"[{\"content_type\": \"text/html; charset=x\", \"then\": \"sent\"}]",
         "content_type is a media type"},
        {"[{\"content_type\": \"Text/HTML\", \"then\": \"sent\"}]", "content_type is a media type"},
        {"[{\"field\": \"a\", \"is\": 1, \"then\": \"sent\"}]", "field is a JSON pointer"},
        {"[{\"field\": \"/~2\", \"is\": 1, \"then\": \"sent\"}]", "field is a JSON pointer"},
        {"[{\"field\": 1, \"is\": 1, \"then\": \"sent\"}]", "field is a JSON pointer"},
        {"[{\"field\": \"/a\", \"then\": \"sent\"}]", "field goes with is or not"},
        {"[{\"is\": \"a\", \"then\": \"sent\"}]", "field goes with is or not"},
        {"[{\"field\": \"/a\", \"is\": 1, \"not\": 2, \"then\": \"sent\"}]", "\"is\" or \"not\", one"},
        {"[{\"field\": \"/a\", \"is\": [1], \"then\": \"sent\"}]", "\"is\" and \"not\" take a text"},
        {"[{\"field\": \"/a\", \"not\": {}, \"then\": \"sent\"}]", "\"is\" and \"not\" take a text"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct answer_rules rules = {0};
        const char *why = read_rules(cases[i].text, &rules);
        if (!why || !strstr(why, cases[i].why))
            fail_msg("%s: %s", cases[i].text, why ? why : "read");
        answer_rules_free(&rules);
    }
}

TEST(test_limits)
{
    CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(1 << 20);
    struct answer_rules rules = {0};

    for (int i = 0; i < ANSWER_RULES_MAX; i++)
        strbuf_addf(&text, "%s{\"status\": %d, \"then\": \"sent\"}", i ? "," : "[", 200 + i);
    strbuf_adds(&text, "]");
    assert_null(read_rules(text.data, &rules));
    answer_rules_free(&rules);
    text.len--;
    strbuf_adds(&text, ",{\"status\": 1, \"then\": \"sent\"}]");
    assert_string_equal(read_rules(text.data, &rules), "has more than 100 rules");
    answer_rules_free(&rules);

    strbuf_clear(&text);
    for (int i = 0; i <= ANSWER_STATUSES_MAX; i++)
        strbuf_addf(&text, "%s%d", i ? "," : "[{\"then\": \"sent\", \"status\": [", 200 + i);
    strbuf_adds(&text, "]}]");
    assert_non_null(strstr(read_rules(text.data, &rules), "at most 50"));
    answer_rules_free(&rules);
}

/* A megabyte that is nested as deeply as is read, and one that is deeper. */
TEST(test_huge_answers)
{
    struct answer_rules rules = {0};

    assert_null(read_rules("[{\"field\": \"/z\", \"not\": \"0\", \"then\": \"failed\"}]", &rules));
    for (int depth = JSON_MAX_DEPTH - 1; depth <= JSON_MAX_DEPTH; depth++) {
        CLEANUP(strbuf_free) struct strbuf body = STRBUF_INIT(2 << 20);
        enum answer_means means = 0;
        strbuf_adds(&body, "{\"a\": ");
        for (int i = 0; i < depth; i++)
            strbuf_adds(&body, "[");
        for (int i = 0; i < 1 << 19; i++)
            strbuf_adds(&body, i ? ",1" : "1");
        for (int i = 0; i < depth; i++)
            strbuf_adds(&body, "]");
        strbuf_adds(&body, ", \"z\": 1}");
        struct http_result result = answer(200, NULL, body.data);
        assert_int_equal(answer_rules_decide(&rules, &result, &means), depth < JSON_MAX_DEPTH);
    }
    answer_rules_free(&rules);
}

/* What a rule says, with all that follows from it. */
TEST(test_a_rule_comes_before_the_table)
{
    static const struct {
        const char *then;
        int status;
        bool asks;
        int attempts;
        enum outcome_state state;
        bool costs, ambiguous;
        enum circuit_event circuit;
        bool waits; /* the whole integration */
        const char *decided_by;
    } cases[] = {
        {"sent", 409, false, 1, OUTCOME_SENT, true, false, CIRCUIT_ALIVE, false, "rule 1"},
        {"sent", 500, false, 1, OUTCOME_SENT, true, false, CIRCUIT_ALIVE, false, "rule 1"},
        {"failed", 200, false, 1, OUTCOME_FAILED, true, false, CIRCUIT_ALIVE, false, "rule 1"},
        {"failed", 404, false, 1, OUTCOME_FAILED, true, false, CIRCUIT_ALIVE, false, "rule 1"},
        {"failed", 500, false, 1, OUTCOME_FAILED, true, false, CIRCUIT_FAILED, false, "rule 1"},
        {"retry", 400, false, 1, OUTCOME_RETRY, true, false, CIRCUIT_ALIVE, false, "rule 1"},
        {"retry", 401, false, 1, OUTCOME_RETRY, true, false, CIRCUIT_ALIVE, false, "rule 1"},
        {"retry", 410, false, 1, OUTCOME_RETRY, true, false, CIRCUIT_ALIVE, false, "rule 1"},
        {"retry", 200, false, 1, OUTCOME_RETRY, true, false, CIRCUIT_FAILED, false, "rule 1"},
        {"retry", 302, false, 1, OUTCOME_RETRY, true, false, CIRCUIT_FAILED, false, "rule 1"},
        {"retry", 400, false, 5, OUTCOME_FAILED, true, false, CIRCUIT_ALIVE, false, ""},
        {"retry", 429, false, 1, OUTCOME_RETRY, true, false, CIRCUIT_NEUTRAL, true, "rule 1"},
        {"retry", 503, true, 1, OUTCOME_RETRY, true, false, CIRCUIT_NEUTRAL, true, "rule 1"},
        {"retry", 503, false, 1, OUTCOME_RETRY, true, false, CIRCUIT_FAILED, false, "rule 1"},
        {"hold", 200, false, 1, OUTCOME_HOLD, true, true, CIRCUIT_NEUTRAL, false, "rule 1"},
        {"hold", 500, false, 5, OUTCOME_HOLD, true, true, CIRCUIT_NEUTRAL, false, "rule 1"},
    };
    const struct outcome_rules table = {.max_attempts = 5,
                                        .max_age_usec = 86400 * USEC_PER_SEC,
                                        .base_delay_usec = USEC_PER_SEC,
                                        .max_delay_usec = 60 * USEC_PER_SEC};
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(freep)
        char *text = xasprintf("[{\"status\": [\"2xx\", \"3xx\", \"4xx\", \"5xx\"], \"then\": \"%s\"}]",
                               cases[i].then);
        struct answer_rules rules = {0};
        struct http_result result = answer(cases[i].status, NULL, "");
        result.has_retry_after = cases[i].asks;
        assert_null(read_rules(text, &rules));
        const struct outcome_attempt attempt = {.result = &result,
                                                .answer_rules = &rules,
                                                .attempts = cases[i].attempts,
                                                .backoffs = 1,
                                                .unit = 0.5};
        struct outcome o = outcome_decide(&table, &attempt);
        if (o.state != cases[i].state || o.costs_attempt != cases[i].costs ||
            o.ambiguous != cases[i].ambiguous || o.circuit != cases[i].circuit ||
            (o.backoff_usec > 0) != cases[i].waits || o.pause_reason ||
            strcmp(o.decided_by, cases[i].decided_by) != 0)
            fail_msg("%s on %d: %s, %s", cases[i].then, cases[i].status, outcome_word(o.state), o.decided_by);
        assert_int_equal(o.refused, strcmp(cases[i].then, "failed") == 0);
        answer_rules_free(&rules);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind_of_rule), cmocka_unit_test(test_the_first_that_matches_decides),
        cmocka_unit_test(test_what_is_no_rule),    cmocka_unit_test(test_limits),
        cmocka_unit_test(test_huge_answers),       cmocka_unit_test(test_a_rule_comes_before_the_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
