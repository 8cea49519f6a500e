/* Tokens of OAuth 2: what is asked, what is taken of an answer, and how long it is good. */
#include <stdio.h>
#include <string.h>

#include "base/timeutil.h"
#include "delivery/oauth.h"
#include "unit.h"

#define T0 (1000 * USEC_PER_SEC)

static struct oauth_client *client(void)
{
    struct oauth_client *c = oauth_client_new();

    c->token_url = xstrdup("https://login.example/token");
    c->id = xstrdup("me:1");
    c->secret = xstrdup("a+b ç");
    return c;
}

static int take(struct oauth_client *c, const char *answer)
{
    struct error why;

    return oauth_take_token(c, (struct bytes){answer, strlen(answer)}, T0, &why);
}

TEST(test_what_is_asked)
{
    struct oauth_client *c = client();
    char *line = oauth_authorization(c), *body = oauth_body(c);

    /* "me%3A1:a%2Bb%20%C3%A7" */
    assert_string_equal(line, "Authorization: Basic bWUlM0ExOmElMkJiJTIwJUMzJUE3");
    assert_string_equal(body, "grant_type=client_credentials");
    free_secret(line);
    free_secret(body);
    c->in_body = true;
    c->scope = xstrdup("read write~&");
    assert_null(oauth_authorization(c));
    body = oauth_body(c);
    assert_string_equal(body, "grant_type=client_credentials&scope=read%20write~%26&client_id=me%3A1&"
                              "client_secret=a%2Bb%20%C3%A7");
    free_secret(body);
    oauth_client_free(c);
}

TEST(test_answers_without_a_token)
{
    static const char *const answers[] = {
        "",
        "null",
        "[]",
        "{}",
        "{",
        "{\"access_token\": 5}",
        "{\"access_token\": \"\"}",
        "{\"access_token\": null}",
        "{\"access_token\": \"a b\"}",
        "{\"access_token\": \"a\\nb\"}",
        "{\"access_token\": \"a\\u0000b\"}",
        "{\"access_token\": \"\\u00e7\"}",
        "{\"access_token\": \"a\", \"token_type\": \"mac\"}",
        "{\"access_token\": \"a\", \"token_type\": \"bearer\"} x",
    };
    struct oauth_client *c = client();

    assert_int_equal(take(c, "{\"access_token\": \"kept\", \"expires_in\": 10}"), 0);
    for (size_t i = 0; i < ARRAY_SIZE(answers); i++)
        if (take(c, answers[i]) == 0)
            fail_msg("taken: %s", answers[i]);
    assert_string_equal(oauth_line(c, T0), "Authorization: Bearer kept");
    oauth_client_free(c);
}

/* Of lives as servers say them: how long the token is used, and when another one is asked for. */
TEST(test_lives)
{
    static const struct {
        const char *life;
        uint64_t refresh_sec, end_sec;
    } cases[] = {
        {"3600", 2880, 3590},
        {"3600.5", 2880, 3590},
        {"200", 140, 190},
        {"300", 240, 290},
        {"60", 30, 54},
        {"20", 10, 18},
        {"31536000", 25228800, 31535990}, /* a year */
        {"0", 240, 290},
        {"-1", 240, 290},
        {"0.999", 240, 290},
        {"1e300", 240, 290},
        {"null", 240, 290},
        {"\"3600\"", 240, 290},
        {"true", 240, 290},
        {"[3600]", 240, 290},
        {"31622401", 240, 290},
    };
    struct oauth_client *c = client();
    char answer[128];

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        snprintf(answer, sizeof(answer),
                 "{\"token_type\": \"BEARER\", \"expires_in\": %s, \"access_token\": \"x%zu\"}",
                 cases[i].life, i);
        assert_int_equal(take(c, answer), 0);
        uint64_t refresh = T0 + cases[i].refresh_sec * USEC_PER_SEC,
                 end = T0 + cases[i].end_sec * USEC_PER_SEC;
        assert_false(oauth_wants_token(c, refresh - 1));
        assert_true(oauth_wants_token(c, refresh + USEC_PER_SEC));
        assert_non_null(oauth_line(c, end - 1));
        assert_null(oauth_line(c, end + USEC_PER_SEC));
    }
    assert_int_equal(c->token.serial, ARRAY_SIZE(cases));
    oauth_drop_token(c);
    assert_null(oauth_line(c, T0));
    assert_true(oauth_wants_token(c, T0));
    oauth_client_free(c);
}

TEST(test_a_server_that_fails_is_not_asked_at_once)
{
    struct oauth_client *c = client();
    uint64_t before = 0;

    for (int i = 0; i < 10; i++) {
        oauth_failed(c, T0, 0.5);
        assert_true(c->failures.ask_at >= before && c->failures.ask_at > T0);
        assert_true(c->failures.ask_at <= T0 + 60 * USEC_PER_SEC);
        before = c->failures.ask_at;
    }
    assert_int_equal(take(c, "{\"access_token\": \"x\"}"), 0);
    assert_int_equal(c->failures.ask_at, 0);
    oauth_client_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_asked),
        cmocka_unit_test(test_answers_without_a_token),
        cmocka_unit_test(test_lives),
        cmocka_unit_test(test_a_server_that_fails_is_not_asked_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
