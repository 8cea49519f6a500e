/* The integrations a process has claimed for: settings taken over, places where claims go on, busy ones. */

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/timeutil.h"
#include "config/config.h"
#include "delivery/integration.h"
#include "unit.h"

static struct store_claimed row(int64_t integration_id, int64_t id, int64_t due)
{
    return (struct store_claimed){.id = id,
                                  .integration_id = integration_id,
                                  .due = due,
                                  .endpoint_url = "https://example.com/a",
                                  .name = "",
                                  .auth_token = "",
                                  .settings = "",
                                  .timeout_usec = 1000};
}

static struct store_claimed first_row(int64_t integration_id, int64_t id, int64_t due, enum store_used used)
{
    struct store_claimed r = row(integration_id, id, due);
    r.has_integration = true;
    r.used = used;
    return r;
}

TEST(test_settings_follow_each_claim)
{
    struct integrations *all = integrations_new();
    struct store_claimed r = first_row(7, 1, 0, STORE_USED_NONE);
    struct integration *i = integrations_note(all, &r);
    bool lacks_credential;
    assert_string_equal(i->endpoint_url, "https://example.com/a");
    assert_null(i->token.line);

    r.endpoint_url = "https://example.com/b";
    r.auth_token = "s3cret";
    assert_ptr_equal(integrations_note(all, &r), i);
    assert_string_equal(i->endpoint_url, "https://example.com/b");
    assert_string_equal(i->token.line, "Authorization: Bearer s3cret");

    r.auth_token = "evil\r\nX-Admin: 1";
    integrations_note(all, &r);
    assert_string_equal(i->token.problem, "its auth_token cannot be used: it holds control characters");
    assert_null(i->token.line);

    r.auth_token = "";
    r.settings = "{\"campus\": 1}";
    integrations_note(all, &r);
    assert_string_equal(integration_problem(i, &lacks_credential),
                        "its delivery_settings cannot be used: campus is not known to this version");
    r.settings = "{\"tls\": {}}";
    integrations_note(all, &r);
    assert_null(integration_problem(i, &lacks_credential));

    /* What has been seen of the institution stays, whatever a claim brings. */
    i->outage.attempts = 3;
    integrations_note(all, &r);
    assert_int_equal(i->outage.attempts, 3);

    /* A row that does not carry the settings changes none. */
    r = row(7, 2, 0);
    r.endpoint_url = "";
    integrations_note(all, &r);
    assert_string_equal(i->endpoint_url, "https://example.com/b");
    integrations_free(all);
}

/* Nothing that is not the token as it was given ever goes out. */
TEST(test_tokens)
{
    static const struct {
        const char *token, *authorization, *problem;
    } cases[] = {
        {"", NULL, NULL},
        {"t", "Bearer t", NULL},
        {"  a b ", "Bearer a b", NULL},
        {"!~:/+=|\"", "Bearer !~:/+=|\"", NULL},
        {"   ", NULL, "it is blank"},
        {"a\tb", NULL, "it holds control characters"},
        {"a\x7f", NULL, "it holds control characters"},
        {"ação", NULL, "it holds characters that are not ASCII"},
        {"credential:", NULL, "a credential's name is a file name"},
        {"credential:a\nb", NULL, "a credential's name is a file name"},
        {"credential:usp", NULL, "give the unit LoadCredential=usp:/path"},
    };
    struct integrations *all = integrations_new();
    struct store_claimed r = first_row(7, 1, 0, STORE_USED_NONE);

    unsetenv("CREDENTIALS_DIRECTORY");
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        r.auth_token = cases[i].token;
        const struct integration *is = integrations_note(all, &r);
        assert_int_equal(is->token.line != NULL, cases[i].authorization != NULL);
        assert_int_equal(is->token.problem != NULL, cases[i].problem != NULL);
        if (is->token.line)
            assert_string_equal(is->token.line + strlen("Authorization: "), cases[i].authorization);
        if (is->token.problem)
            assert_non_null(strstr(is->token.problem, cases[i].problem));
    }
    integrations_free(all);
}

TEST(test_the_longest_token)
{
    CLEANUP(freep) char *token = xcalloc(1, CONFIG_SECRET_MAX + 2);
    struct integrations *all = integrations_new();
    struct store_claimed r = first_row(7, 1, 0, STORE_USED_NONE);

    memset(token, 'x', CONFIG_SECRET_MAX);
    r.auth_token = token;
    const struct integration *i = integrations_note(all, &r);
    assert_int_equal(strlen(i->token.line), strlen("Authorization: Bearer ") + CONFIG_SECRET_MAX);
    token[CONFIG_SECRET_MAX] = 'x';
    integrations_note(all, &r);
    assert_null(i->token.line);
    assert_string_equal(i->token.problem, "its auth_token cannot be used: the value is longer than 64 KiB");
    integrations_free(all);
}

TEST(test_place_is_the_last_row_in_index_order)
{
    struct integrations *all = integrations_new();
    const struct store_place *places;
    struct store_claimed rows[] = {first_row(1, 50, INT64_MIN, STORE_USED_ALL), row(1, 60, 800),
                                   row(1, 20, 900), first_row(2, 5, 0, STORE_USED_NONE),
                                   first_row(3, 9, INT64_MIN, STORE_USED_ALL)};
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        integrations_note(all, &rows[i]);
    /* Integration 2 did not use all its slots: nothing more waits there. */
    assert_int_equal(integrations_take_places(all, 1, &places), 2);
    assert_int_equal(places[0].integration_id, 1);
    assert_int_equal(places[0].fresh_id, 50);
    assert_int_equal(places[0].due, 900);
    assert_int_equal(places[0].id, 20);
    assert_int_equal(places[1].integration_id, 3);
    assert_int_equal(places[1].fresh_id, 9);
    assert_int_equal(places[1].due, INT64_MIN);
    assert_int_equal(places[1].id, INT64_MAX);
    /* Taken once, it counts as exhausted until a claim says otherwise. */
    assert_int_equal(integrations_take_places(all, 1, &places), 0);
    struct integration *first = integrations_note(all, &rows[0]);
    /* While all its slots are taken a claim would find nothing there, and tell nothing. */
    first->in_flight = 3;
    assert_int_equal(integrations_take_places(all, 1, &places), 0);
    first->in_flight = 2;
    first->places.slot_freed = true;
    assert_int_equal(integrations_take_places(all, 1, &places), 1);
    assert_int_equal(places[0].fresh_id, 50);
    /* A rate_limit alone frees no slot of retries. */
    rows[0].used = STORE_USED_RETRIES;
    rows[0].interval_nsec = 1;
    integrations_note(all, &rows[0]);
    assert_int_equal(integrations_take_places(all, 1, &places), 0);
    first->places.slot_freed = true;
    assert_int_equal(integrations_take_places(all, 1, &places), 1);
    /* It may leave time for more, once. When that is in vain, the next slot that is freed counts. */
    rows[0].used = STORE_USED_ALL;
    integrations_note(all, &rows[0]);
    rate_claimed(&first->rate, 1, 1, 1);
    assert_int_equal(integrations_take_places(all, 1, &places), 1);
    assert_int_equal(integrations_take_places(all, 1, &places), 0);
    assert_int_equal(first->used, STORE_USED_ALL);
    first->places.slot_freed = true;
    assert_int_equal(integrations_take_places(all, 1, &places), 1);
    assert_int_equal(integrations_take_places(all, 1, &places), 0);
    integrations_free(all);
}

TEST(test_a_near_place_is_a_little_before_the_furthest_claim)
{
    struct integrations *all = integrations_new();
    const struct store_place *places;

    for (int64_t id = 1; id <= 5000; id++) {
        struct store_claimed fresh = first_row(1, id, INT64_MIN, STORE_USED_ALL),
                             timed = first_row(2, id, 5000000 + id, STORE_USED_ALL);
        integrations_note(all, &fresh);
        integrations_note(all, &timed);
    }
    struct store_claimed few = first_row(3, 9000, INT64_MIN, STORE_USED_ALL),
                         back = first_row(1, 7, INT64_MIN, STORE_USED_ALL);
    integrations_note(all, &few);
    integrations_note(all, &back);
    assert_int_equal(integrations_near_places(all, &places), 2);
    assert_int_equal(places[0].integration_id, 1);
    assert_int_equal(places[0].fresh_id, 4700);
    assert_int_equal(places[0].due, INT64_MIN);
    assert_int_equal(places[0].id, INT64_MAX);
    assert_int_equal(places[1].integration_id, 2);
    assert_int_equal(places[1].fresh_id, 0);
    assert_int_equal(places[1].due, 4005000);
    assert_int_equal(places[1].id, 0);
    /* A claim goes on with the rows that were put back. */
    assert_int_equal(integrations_take_places(all, 1, &places), 3);
    assert_int_equal(places[0].fresh_id, 7);
    integrations_forget_places(all);
    assert_int_equal(integrations_near_places(all, &places), 0);
    integrations_free(all);
}

TEST(test_busy_and_limited_ones_are_told)
{
    struct integrations *all = integrations_new();
    const struct store_load *loads;
    uint64_t now = now_monotonic_usec();
    for (int64_t id = 1; id <= 200; id++) {
        struct store_claimed r = first_row(id, id, 0, STORE_USED_NONE);
        struct integration *i = integrations_note(all, &r);
        i->in_flight = id % 2 ? (int) id : 0;
        if (id == 100)
            pace_back_off(&i->pace, now - 1, now + USEC_PER_SEC, now);
        for (int n = 0; id == 101 && n < 3; n++)
            pace_unanswered(&i->pace, now);
    }
    assert_int_equal(integrations_loads(all, now, false, &loads), 101);
    for (size_t i = 0; i < 50; i++) {
        assert_int_equal(loads[i].integration_id, 2 * i + 1);
        assert_int_equal(loads[i].in_flight, 2 * i + 1);
        assert_int_equal(loads[i].slots, INT_MAX);
    }
    assert_int_equal(loads[50].integration_id, 100);
    assert_int_equal(loads[50].slots, 0);
    assert_int_equal(loads[51].integration_id, 101);
    assert_int_equal(loads[51].slots, 2);
    /* What is kept for others is not for a silent one. */
    assert_int_equal(integrations_loads(all, now, true, &loads), 101);
    assert_int_equal(loads[51].slots, 0);
    assert_int_equal(loads[52].slots, INT_MAX);
    integrations_free(all);
}

TEST(test_another_endpoint_or_token_begins_anew)
{
    struct integrations *all = integrations_new();
    uint64_t now = now_monotonic_usec();
    struct store_claimed r = first_row(7, 1, 0, STORE_USED_NONE);
    struct integration *i = integrations_note(all, &r);
    pace_back_off(&i->pace, now - 1, now + USEC_PER_SEC, now);
    integrations_note(all, &r);
    assert_int_equal(pace_slots(&i->pace, now), 0);
    r.fingerprint = 1;
    integrations_note(all, &r);
    assert_int_equal(pace_slots(&i->pace, now), INT_MAX);
    /* Unless another daemon has seen it back off. */
    r.fingerprint = 2;
    r.recovers = true;
    integrations_note(all, &r);
    assert_int_equal(pace_slots(&i->pace, now), 1);
    integrations_free(all);
}

TEST(test_probes_of_several_circuits_are_due_at_their_times)
{
    struct integrations *all = integrations_new();
    struct store_claimed rows[] = {first_row(1, 50, INT64_MIN, STORE_USED_ALL),
                                   first_row(2, 5, 0, STORE_USED_NONE)};

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        integrations_note(all, &rows[i]);
    assert_true(integrations_next_probe(all, 100) == USEC_INFINITY);
    integrations_circuit_stored(all, 1, 500);
    integrations_circuit_stored(all, 2, 800);
    assert_int_equal(integrations_next_probe(all, 100), 500);
    assert_int_equal(integrations_next_probe(all, 500), 800);
    assert_true(integration_is_held(integrations_find(all, 1), 100));
    integrations_circuit_stored(all, 1, 0);
    assert_int_equal(integrations_next_probe(all, 100), 800);
    assert_false(integration_is_held(integrations_find(all, 1), 100));
    integrations_free(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_probes_of_several_circuits_are_due_at_their_times),
        cmocka_unit_test(test_settings_follow_each_claim),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_the_longest_token),
        cmocka_unit_test(test_place_is_the_last_row_in_index_order),
        cmocka_unit_test(test_a_near_place_is_a_little_before_the_furthest_claim),
        cmocka_unit_test(test_busy_and_limited_ones_are_told),
        cmocka_unit_test(test_another_endpoint_or_token_begins_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
