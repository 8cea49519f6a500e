/* The rule of the failure rate: its bounds, its hysteresis, and days of traffic. */
#include <math.h>

#include "alerts/alert_rule.h"
#include "unit.h"

#define SEC INT64_C(1000000)

static const struct alert_rule usual = {.failure_rate = 0.5, .resolve_rate = 0.25, .min_samples = 5};

/* --- bounds ----------------------------------------------------------------------------------- */

TEST(test_the_bounds_are_those_of_wilson)
{
    static const struct {
        int failed, total;
        double z, lower, upper;
    } cases[] = {{6, 6, 2.326, 0.5258, 1.0000},   {5, 5, 2.326, 0.4803, 1.0000},
                 {16, 20, 2.326, 0.5408, 0.9314}, {62, 100, 2.326, 0.5037, 0.7240},
                 {0, 10, 2.326, 0.0000, 0.3511},  {18, 20, 3.29, 0.5330, 0.9861}};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_true(fabs(alert_lower_bound(cases[i].failed, cases[i].total, cases[i].z) - cases[i].lower) <
                    0.001);
        assert_true(fabs(alert_upper_bound(cases[i].failed, cases[i].total, cases[i].z) - cases[i].upper) <
                    0.001);
    }
}

/* The newest `recent_failed` outcomes have failed, those before them have not. */
static struct alert_evidence evidence(int64_t total, int64_t failed, int recent, int recent_failed)
{
    struct alert_evidence e = {.total = total, .failed = failed, .recent_count = recent};

    for (int i = 0; i < recent; i++)
        e.recent_failed[i] = i < recent_failed;
    return e;
}

static enum alert_change look(const struct alert_rule *rule, struct alert_evidence e, int64_t now,
                              struct alert_state *alert)
{
    double share = -1;
    enum alert_change change = alert_rule_look(rule, &e, now, alert, &share);

    assert_true(e.total + e.recent_count == 0 ? share < 0 : share >= 0 && share <= 1);
    return change;
}

TEST(test_what_fires_and_what_does_not)
{
    static const struct {
        int total, failed, recent, recent_failed;
        bool fires;
    } cases[] = {
        {0, 0, 0, 0, false},
        {5, 5, 5, 5, false},
        {6, 6, 6, 6, true},
        {9, 8, 9, 8, true},
        {9, 7, 9, 7, false},
        {0, 0, 6, 6, true}, /* hours ago: the last ten */
        {3, 0, 10, 9, true},
        {100, 62, 20, 12, true},
        {100, 61, 20, 12, false},
        {100, 99, 20, 10, false}, /* it has just got better */
        {3000, 18, 20, 18, true},
        {3000, 18, 20, 17, false}, /* the fast look */
        {100000, 50500, 20, 11, true},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct alert_state alert = {0};
        struct alert_evidence e =
            evidence(cases[i].total, cases[i].failed, cases[i].recent, cases[i].recent_failed);
        assert_int_equal(look(&usual, e, SEC, &alert) == ALERT_FIRES, cases[i].fires);
        assert_int_equal(alert.firing, cases[i].fires);
    }
}

/* Of three thousand within the window twenty have failed. */
TEST(test_how_many_of_the_last_twenty_fire)
{
    static const struct {
        double failure_rate;
        int failed;
    } cases[] = {{0.1, 9}, {0.2, 12}, {0.3, 15}, {0.5, 18}, {0.6, 20}};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct alert_rule rule = usual;
        struct alert_state alert = {0};
        rule.failure_rate = cases[i].failure_rate;
        rule.resolve_rate = cases[i].failure_rate / 2;
        assert_int_equal(look(&rule, evidence(3000, 20, 20, cases[i].failed - 1), SEC, &alert), ALERT_STAYS);
        assert_int_equal(look(&rule, evidence(3000, 20, 20, cases[i].failed), SEC, &alert), ALERT_FIRES);
    }
}

TEST(test_what_resolves_and_what_does_not)
{
    static const struct {
        int total, failed, recent, recent_failed;
        bool resolves;
    } cases
        [] =
            {
                {0, 0, 0, 0, false}, /* no traffic */
                {4, 0, 4, 0, false},       {6, 0, 6, 0, true},     {10, 1, 10, 1, true},
                {10, 2, 10, 2, false},     {100, 24, 20, 4, true}, {100, 25, 20, 4, false},
                {3000, 30, 20, 20, false}, /* fired by the fast look a moment ago */
            };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct alert_state alert = {.firing = true};
        struct alert_evidence e =
            evidence(cases[i].total, cases[i].failed, cases[i].recent, cases[i].recent_failed);
        assert_int_equal(look(&usual, e, SEC, &alert) == ALERT_RESOLVES, cases[i].resolves);
        assert_int_equal(alert.firing, !cases[i].resolves);
    }
}

TEST(test_fewer_than_min_samples_say_nothing)
{
    struct alert_rule rule = usual;
    struct alert_state alert = {0};

    rule.min_samples = 50;
    assert_int_equal(look(&rule, evidence(49, 49, 20, 20), SEC, &alert), ALERT_STAYS);
    assert_int_equal(look(&rule, evidence(50, 50, 20, 20), SEC, &alert), ALERT_FIRES);
    assert_int_equal(look(&rule, evidence(49, 0, 20, 0), SEC, &alert), ALERT_STAYS);
    assert_int_equal(look(&rule, evidence(50, 0, 20, 0), SEC, &alert), ALERT_RESOLVES);
}

TEST(test_for_asks_that_it_lasts)
{
    struct alert_rule rule = usual;
    struct alert_state alert = {0};

    rule.for_usec = 60 * SEC;
    assert_int_equal(look(&rule, evidence(10, 10, 10, 10), 100 * SEC, &alert), ALERT_STAYS);
    assert_int_equal(look(&rule, evidence(10, 10, 10, 10), 159 * SEC, &alert), ALERT_STAYS);
    assert_int_equal(look(&rule, evidence(10, 5, 10, 5), 159 * SEC, &alert), ALERT_STAYS);
    assert_int_equal(look(&rule, evidence(10, 10, 10, 10), 160 * SEC, &alert), ALERT_STAYS);
    assert_int_equal(look(&rule, evidence(10, 10, 10, 10), 219 * SEC, &alert), ALERT_STAYS);
    assert_int_equal(look(&rule, evidence(10, 10, 10, 10), 220 * SEC, &alert), ALERT_FIRES);
}

/* --- traffic ---------------------------------------------------------------------------------- */

/* A look each second, as the daemon does, at buckets of ten seconds within five minutes. */
#define BUCKET 10
#define BUCKETS 31
#define RECENT_MAX_AGE (24 * 3600)

struct world {
    const struct alert_rule *rule;
    uint64_t random;
    int64_t now; /* seconds */
    struct {
        int64_t at;
        int total, failed;
    } buckets[BUCKETS];
    struct alert_evidence e;
    int64_t recent_at[ALERT_RECENT_MAX];
    struct alert_state state;
};

static double draw(struct world *w)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return (double) (w->random >> 11) / (double) (UINT64_C(1) << 53);
}

static void outcome(struct world *w, bool failed)
{
    struct alert_evidence *e = &w->e;
    size_t i = (size_t) (w->now / BUCKET % BUCKETS);

    if (w->buckets[i].at != w->now / BUCKET) {
        e->total -= w->buckets[i].total;
        e->failed -= w->buckets[i].failed;
        w->buckets[i].at = w->now / BUCKET;
        w->buckets[i].total = w->buckets[i].failed = 0;
    }
    w->buckets[i].total++;
    w->buckets[i].failed += failed;
    e->total++;
    e->failed += failed;
    memmove(&e->recent_failed[1], &e->recent_failed[0], (ALERT_RECENT_MAX - 1) * sizeof(bool));
    memmove(&w->recent_at[1], &w->recent_at[0], (ALERT_RECENT_MAX - 1) * sizeof(int64_t));
    e->recent_failed[0] = failed;
    w->recent_at[0] = w->now;
    e->recent_count = MIN(e->recent_count + 1, ALERT_RECENT_MAX);
}

static void forget_old(struct world *w)
{
    size_t oldest = (size_t) ((w->now / BUCKET + 1) % BUCKETS);

    if (w->buckets[oldest].at < w->now / BUCKET) {
        w->e.total -= w->buckets[oldest].total;
        w->e.failed -= w->buckets[oldest].failed;
        w->buckets[oldest].total = w->buckets[oldest].failed = 0;
    }
    while (w->e.recent_count > 0 && w->now - w->recent_at[w->e.recent_count - 1] > RECENT_MAX_AGE)
        w->e.recent_count--;
}

/* One second: about `per_minute` / 60 outcomes, of which `rate` fail. */
static enum alert_change second(struct world *w, double per_minute, double rate)
{
    double expected = per_minute / 60, share;

    w->now++;
    forget_old(w);
    for (int i = 0; i < 20; i++)
        if (draw(w) < expected / 20)
            outcome(w, draw(w) < rate);
    return alert_rule_look(w->rule, &w->e, w->now * SEC, &w->state, &share);
}

static const double per_minute[] = {0.5, 1, 2, 4, 10, 30, 60, 200, 600};

static struct world *begin(uint64_t seed)
{
    struct world *w = xcalloc(1, sizeof(*w));

    w->rule = &usual;
    w->random = seed * UINT64_C(0x9E3779B97F4A7C15) | 1;
    w->now = 1000000;
    return w;
}

/* In so many days, of an institution of which four fifths of the threshold fail. */
static int false_alarms(const struct alert_rule *rule, double rate_per_minute, uint64_t seed, int days)
{
    struct world *w = begin(seed);
    int fired = 0, lasted = 0;

    w->rule = rule;
    for (int s = 0; s < days * 86400; s++) {
        fired += second(w, rate_per_minute, 0.8 * rule->failure_rate) == ALERT_FIRES;
        /* One that does not resolve at this rate must not hide the next. */
        lasted = w->state.firing ? lasted + 1 : 0;
        if (lasted > 3600)
            w->state = (struct alert_state){0};
    }
    free(w);
    return fired;
}

TEST(test_at_most_two_false_alarms_a_day_at_four_fifths_of_the_threshold)
{
    enum { DAYS = 6 };
    static const double thresholds[] = {0.5, 0.02, 0.1, 0.2, 0.4, 0.9};

    for (size_t t = 0; t < ARRAY_SIZE(thresholds); t++)
        for (size_t i = 0; i < ARRAY_SIZE(per_minute); i++) {
            const struct alert_rule rule = {
                .failure_rate = thresholds[t], .resolve_rate = thresholds[t] / 2, .min_samples = 5};
            int fired = false_alarms(&rule, per_minute[i], 10 * t + i + 1, DAYS);
            if (fired > 2 * DAYS)
                print_message("%.2f, %.1f a minute: %d false alarms in %d days\n", thresholds[t],
                              per_minute[i], fired, DAYS);
            assert_true(fired <= 2 * DAYS);
        }
}

/* The seconds until a dead institution fires: the median of several deaths. */
static int64_t delay(const struct alert_rule *rule, double rate_per_minute, double failing, uint64_t seed)
{
    enum { DEATHS = 15 };
    int64_t delays[DEATHS] = {0};

    for (int d = 0; d < DEATHS; d++) {
        struct world *w = begin(seed * 100 + (uint64_t) d);
        w->rule = rule;
        for (int s = 0; s < 6 * 3600; s++)
            assert_true(second(w, rate_per_minute, rule->failure_rate / 10) != ALERT_FIRES);
        int64_t died = w->now;
        while (second(w, rate_per_minute, failing) != ALERT_FIRES)
            assert_true(w->now - died < 86400);
        int at = d;
        for (; at > 0 && delays[at - 1] > w->now - died; at--)
            delays[at] = delays[at - 1];
        delays[at] = w->now - died;
        free(w);
    }
    return delays[DEATHS / 2];
}

TEST(test_no_traffic_is_too_small_or_too_large_to_be_seen)
{
    static const struct alert_rule low = {.failure_rate = 0.1, .resolve_rate = 0.05, .min_samples = 5};

    for (size_t i = 0; i < ARRAY_SIZE(per_minute); i++) {
        int64_t dead = delay(&usual, per_minute[i], 1, i + 1),
                ailing = delay(&usual, per_minute[i], 0.8, i + 50);

        /* Some 20 outcomes, or what a window needs to turn. */
        if (dead > 60 + (int64_t) (60 * 20 / per_minute[i]))
            print_message("%.1f a minute: dead after %d s\n", per_minute[i], (int) dead);
        assert_true(dead <= 60 + (int64_t) (60 * 20 / per_minute[i]));
        assert_true(ailing <= 300 + (int64_t) (60 * 40 / per_minute[i]));
        assert_true(delay(&low, per_minute[i], 0.4, i + 100) <= 300 + (int64_t) (60 * 40 / per_minute[i]));
    }
}

/* Whatever may be configured: an institution that is dead fires, and one that is well again resolves. */
TEST(test_no_threshold_is_blind_at_any_traffic)
{
    static const double thresholds[] = {0.01, 0.1, 0.2, 0.35, 0.5, 0.65, 0.7, 0.8, 0.9};

    for (size_t t = 0; t < ARRAY_SIZE(thresholds); t++)
        for (size_t i = 0; i < ARRAY_SIZE(per_minute); i++)
            for (int min_samples = 1; min_samples <= ALERT_RECENT_MAX; min_samples += 6) {
                const struct alert_rule rule = {.failure_rate = thresholds[t],
                                                .resolve_rate = thresholds[t] / 2,
                                                .min_samples = min_samples};
                struct world *w = begin(100 * t + i + 1);
                int64_t limit = 400 + (int64_t) (60 * 60 / per_minute[i]);
                w->rule = &rule;
                for (int s = 0; s < 3600; s++)
                    assert_true(second(w, per_minute[i], 0) == ALERT_STAYS);
                int64_t at = w->now;
                while (second(w, per_minute[i], 1) != ALERT_FIRES)
                    assert_true(w->now - at < limit);
                for (at = w->now; second(w, per_minute[i], 0) != ALERT_RESOLVES;)
                    assert_true(w->now - at < limit);
                free(w);
            }
}

TEST(test_a_thousand_flaps_around_the_threshold_fire_once)
{
    struct world *w = begin(7);
    int fired = 0, resolved = 0;

    for (int flap = 0; flap < 1000; flap++)
        for (int s = 0; s < 60; s++) {
            enum alert_change change = second(w, 120, flap % 2 ? 0.35 : 0.75);
            fired += change == ALERT_FIRES;
            resolved += change == ALERT_RESOLVES;
        }
    assert_int_equal(fired, 1);
    assert_int_equal(resolved, 0);
    for (int s = 0; s < 3600; s++) {
        enum alert_change change = second(w, 120, 0.02);
        fired += change == ALERT_FIRES;
        resolved += change == ALERT_RESOLVES;
    }
    assert_int_equal(fired, 1);
    assert_int_equal(resolved, 1);
    free(w);
}

TEST(test_no_traffic_resolves_nothing)
{
    struct world *w = begin(3);

    while (second(w, 10, 1) != ALERT_FIRES)
        ;
    for (int s = 0; s < 3 * 86400; s++)
        assert_int_equal(second(w, 0, 0), ALERT_STAYS);
    free(w);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_bounds_are_those_of_wilson),
        cmocka_unit_test(test_what_fires_and_what_does_not),
        cmocka_unit_test(test_how_many_of_the_last_twenty_fire),
        cmocka_unit_test(test_what_resolves_and_what_does_not),
        cmocka_unit_test(test_fewer_than_min_samples_say_nothing),
        cmocka_unit_test(test_for_asks_that_it_lasts),
        cmocka_unit_test(test_at_most_two_false_alarms_a_day_at_four_fifths_of_the_threshold),
        cmocka_unit_test(test_no_traffic_is_too_small_or_too_large_to_be_seen),
        cmocka_unit_test(test_no_threshold_is_blind_at_any_traffic),
        cmocka_unit_test(test_a_thousand_flaps_around_the_threshold_fire_once),
        cmocka_unit_test(test_no_traffic_resolves_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
