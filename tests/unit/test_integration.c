/* The integrations a process has claimed for: settings taken over, places where claims go on, busy ones. */

#include "delivery/integration.h"
#include "unit.h"

static struct store_claimed row(int64_t integration_id, int64_t id, int64_t due)
{
    return (struct store_claimed){.id = id,
                                  .integration_id = integration_id,
                                  .due = due,
                                  .endpoint_url = "https://example.com/a",
                                  .auth_token = "",
                                  .timeout_usec = 1000};
}

static struct store_claimed first_row(int64_t integration_id, int64_t id, int64_t due, bool quota_used)
{
    struct store_claimed r = row(integration_id, id, due);
    r.has_integration = true;
    r.quota_used = quota_used;
    return r;
}

TEST(test_settings_follow_each_claim)
{
    struct integrations *all = integrations_new();
    struct store_claimed r = first_row(7, 1, 0, false);
    struct integration *i = integrations_note(all, &r);
    assert_string_equal(i->endpoint_url, "https://example.com/a");
    assert_null(i->authorization);

    r.endpoint_url = "https://example.com/b";
    r.auth_token = "s3cret";
    assert_ptr_equal(integrations_note(all, &r), i);
    assert_string_equal(i->endpoint_url, "https://example.com/b");
    assert_string_equal(i->authorization, "Authorization: Bearer s3cret");

    r.auth_token = "evil\r\nX-Admin: 1";
    integrations_note(all, &r);
    assert_string_equal(i->problem, "its auth_token holds control characters");
    assert_null(i->authorization);

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

TEST(test_place_is_the_last_row_in_index_order)
{
    struct integrations *all = integrations_new();
    const struct store_place *places;
    struct store_claimed rows[] = {first_row(1, 50, INT64_MIN, true), row(1, 20, 900), row(1, 60, 800),
                                   first_row(2, 5, 0, false), first_row(3, 9, INT64_MIN, true)};
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        integrations_note(all, &rows[i]);
    /* Integration 2 did not use all its slots: nothing more waits there. */
    assert_int_equal(integrations_take_places(all, &places), 2);
    assert_int_equal(places[0].integration_id, 1);
    assert_int_equal(places[0].due, 900);
    assert_int_equal(places[0].id, 20);
    assert_int_equal(places[1].integration_id, 3);
    assert_int_equal(places[1].due, INT64_MIN);
    assert_int_equal(places[1].id, 9);
    /* Taken once, it counts as exhausted until a claim says otherwise. */
    assert_int_equal(integrations_take_places(all, &places), 0);
    integrations_note(all, &rows[0]);
    assert_int_equal(integrations_take_places(all, &places), 1);
    assert_int_equal(places[0].id, 50);
    integrations_free(all);
}

TEST(test_busy_ones_are_counted)
{
    struct integrations *all = integrations_new();
    const int64_t *ids;
    const int *in_flight;
    for (int64_t id = 1; id <= 200; id++) {
        struct store_claimed r = first_row(id, id, 0, false);
        integrations_note(all, &r)->in_flight = id % 2 ? (int) id : 0;
    }
    assert_int_equal(integrations_busy(all, &ids, &in_flight), 100);
    for (size_t i = 0; i < 100; i++) {
        assert_int_equal(ids[i], 2 * i + 1);
        assert_int_equal(in_flight[i], ids[i]);
    }
    integrations_free(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_settings_follow_each_claim),
        cmocka_unit_test(test_place_is_the_last_row_in_index_order),
        cmocka_unit_test(test_busy_ones_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
