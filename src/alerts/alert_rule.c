/* The rule of the failure rate. See alert_rule.h.
 *
 * Repeated looks eat confidence: tests/unit/test_alert_rule.c simulates days of traffic and counts false
 * alarms. Whoever changes a figure here changes what the manual promises. */
#include "alerts/alert_rule.h"

#include <math.h>

#define Z 2.326 /* 99 %, one-sided */
/* A second look at the newest outcomes alone sees in seconds that a busy institution is half dead. It looks
 * so often, and at so few, that it asks for what chance brings twice in ten thousand: 18 of 20 against one
 * half. Exactly: far from one half Wilson's bound is too bold for so few. */
#define CHANCE_FAST 2.1e-4
/* Below a threshold of one half the bound is too bold for few, too, and what is usual is nearer to it:
 * chance must not bring it more than four times in a thousand. Of many the bound is exact enough. */
#define CHANCE_LOW 4e-3
#define LOW 0.5
#define FEW 1000
/* Where an hour brings a handful, a window of minutes would never hold enough. */
#define LAST_MIN 10

double alert_lower_bound(int64_t failed, int64_t total, double z)
{
    double n = (double) total, p = (double) failed / n;

    return (p + z * z / (2 * n) - z * sqrt((p * (1 - p) + z * z / (4 * n)) / n)) / (1 + z * z / n);
}

double alert_upper_bound(int64_t failed, int64_t total, double z)
{
    return 1 - alert_lower_bound(total - failed, total, z);
}

static int64_t count_failed(const struct alert_evidence *e, int count)
{
    int64_t failed = 0;

    for (int i = 0; i < count; i++)
        failed += e->recent_failed[i];
    return failed;
}

/* Ten outcomes that agree prove a share near one half; nearer to none or to all it takes all that there
 * are. */
static int last_outcomes(const struct alert_rule *rule)
{
    bool suffice = rule->min_samples <= LAST_MIN &&
                   alert_lower_bound(LAST_MIN, LAST_MIN, Z) > rule->failure_rate &&
                   alert_upper_bound(0, LAST_MIN, Z) < rule->failure_rate;

    return suffice ? LAST_MIN : ALERT_RECENT_MAX;
}

/* The window, or the last outcomes: whichever holds more. */
static void choose(const struct alert_rule *rule, const struct alert_evidence *e, int64_t *ret_total,
                   int64_t *ret_failed)
{
    int last = MIN(e->recent_count, last_outcomes(rule));

    *ret_total = e->total >= last ? e->total : last;
    *ret_failed = e->total >= last ? e->failed : count_failed(e, last);
}

/* No bound of so few reaches a threshold near none or all, whatever they say: there it is enough that all of
 * them say the same, for a while, or an institution with little traffic would never be seen. */
#define AGREEING_USEC (60 * INT64_C(1000000))
static bool all_agree(int64_t agreeing, int64_t total)
{
    return total >= ALERT_RECENT_MAX && agreeing == total;
}

/* How likely that many failures are, or more, where a share of p fails. */
static double chance_of(int failed, int total, double p)
{
    double chance = 0, ways = 1;

    for (int k = 0; k <= total; k++) {
        if (k >= failed)
            chance += ways * pow(p, k) * pow(1 - p, total - k);
        ways = ways * (total - k) / (k + 1);
    }
    return chance;
}

static bool is_proven(int64_t failed, int64_t total, double rate)
{
    if (alert_lower_bound(failed, total, Z) <= rate)
        return all_agree(failed, total);
    return rate >= LOW || total > FEW || chance_of((int) failed, (int) total, rate) <= CHANCE_LOW;
}

static double share_of(int64_t failed, int64_t total)
{
    return (double) failed / (double) total;
}

/* The newest outcomes must agree: what the institution did minutes ago is no alert now. */
static bool is_above(const struct alert_rule *rule, const struct alert_evidence *e, int64_t total,
                     int64_t failed, double *ret_share)
{
    int64_t recent = count_failed(e, e->recent_count);

    if (e->recent_count == 0 || share_of(recent, e->recent_count) <= rule->failure_rate)
        return false;
    if (total >= rule->min_samples && is_proven(failed, total, rule->failure_rate))
        return true;
    if (e->recent_count < MAX(ALERT_RECENT_MAX, rule->min_samples) ||
        chance_of((int) recent, e->recent_count, rule->failure_rate) > CHANCE_FAST)
        return false;
    *ret_share = share_of(recent, e->recent_count);
    return true;
}

/* Here, too: a window of thousands hides for long that the last twenty have failed. */
static bool is_below(const struct alert_rule *rule, const struct alert_evidence *e, int64_t total,
                     int64_t failed)
{
    return total >= rule->min_samples && share_of(failed, total) < rule->resolve_rate &&
           share_of(count_failed(e, e->recent_count), MAX(e->recent_count, 1)) < rule->resolve_rate &&
           (alert_upper_bound(failed, total, Z) < rule->failure_rate || all_agree(total - failed, total));
}

enum alert_change alert_rule_look(const struct alert_rule *rule, const struct alert_evidence *e, int64_t now,
                                  struct alert_state *state, double *ret_share)
{
    int64_t total, failed;

    choose(rule, e, &total, &failed);
    if (total == 0)
        return ALERT_STAYS;
    *ret_share = share_of(failed, total);
    if (state->firing) {
        if (!is_below(rule, e, total, failed))
            return ALERT_STAYS;
        *state = (struct alert_state){0};
        return ALERT_RESOLVES;
    }
    if (!is_above(rule, e, total, failed, ret_share)) {
        state->above_since = 0;
        return ALERT_STAYS;
    }
    if (state->above_since == 0)
        state->above_since = now;
    bool provable = alert_lower_bound(total, total, Z) > rule->failure_rate;
    if (now - state->above_since < MAX(rule->for_usec, provable ? 0 : AGREEING_USEC))
        return ALERT_STAYS;
    state->firing = true;
    return ALERT_FIRES;
}
