/* The failure rate of each integration, by the rule of alert_rule.h. See alerts_internal.h. */
#include <inttypes.h>
#include <math.h>

#include "alerts/alert_rule.h"
#include "alerts/alerts_internal.h"
#include "sql/statements.h"

#define MILLION 1e6
/* By so much the share of an alert that fires has changed when it is written anew. */
#define CHANGED 0.1

struct candidate {
    int64_t integration_id, now;
    struct alert_evidence evidence;
    struct alert_state state;
    int64_t told, told_threshold; /* by the alert, in millionths */
};

static void read_candidate(const struct pg_result *result, int number, struct candidate *c)
{
    struct pg_row row = {result, number, 0};
    CLEANUP(freep) int64_t *recent = NULL;

    *c = (struct candidate){.integration_id = pg_next_i64(&row)};
    c->evidence.total = pg_next_i64(&row);
    c->evidence.failed = pg_next_i64(&row);
    size_t count = pg_next_i64_array(&row, &recent);
    c->evidence.recent_count = (int) MIN(count, (size_t) ALERT_RECENT_MAX);
    for (int i = 0; i < c->evidence.recent_count; i++)
        c->evidence.recent_failed[i] = recent[i] != 0;
    c->state.above_since = pg_next_i64(&row);
    c->now = pg_next_i64(&row);
    c->state.firing = !pg_next_is_null(&row);
    c->told = pg_next_i64(&row);
    c->told_threshold = pg_next_i64(&row);
}

static int64_t threshold(const struct alerts *a)
{
    return (int64_t) (a->rules->alerts.failure_rate * MILLION + 0.5);
}

static int fire(struct alerts *a, struct candidate *c, double share, bool pauses, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(freep)
    char *words = xasprintf("%.0f %% of first attempts and final results are failures", share * 100);
    CLEANUP(freep) char *reason = NULL;

    if (pauses) {
        char *more = xasprintf("%s, and anubisd paused the integration (alerts.remediation): "
                               "\"anubisctl resume %" PRId64 "\" ends the pause",
                               words, c->integration_id);
        free(words);
        words = more;
        reason = xasprintf("alert failure_rate: %.0f %% failures (alerts.remediation)", share * 100);
    }
    pg_arg_i64(&args, c->integration_id);
    pg_arg_i64(&args, (int64_t) (share * MILLION + 0.5));
    pg_arg_i64(&args, threshold(a));
    pg_arg_text(&args, words);
    pg_arg_text(&args, reason);
    if (pauses)
        c->state.above_since = 0; /* afterwards it has to last anew */
    return pg_query(a->pg, &sql_rate_fires, &args, NULL, err);
}

static int note_above(struct alerts *a, const struct candidate *c, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64(&args, c->integration_id);
    pg_arg_i64(&args, c->state.above_since);
    return pg_query(a->pg, &sql_evidence_above, &args, NULL, err);
}

static int resolve(struct alerts *a, const struct candidate *c, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64(&args, c->integration_id);
    return pg_query(a->pg, &sql_rate_resolves, &args, NULL, err);
}

/* Of an alert that fires: somebody has resumed the integration, or remediation was set only now, and the
 * evidence since then would fire it again. */
static bool pauses_again(const struct alert_rule *rule, struct candidate *c, double *ret_share)
{
    struct alert_state anew = {.above_since = c->state.above_since};
    bool fires = alert_rule_look(rule, &c->evidence, c->now, &anew, ret_share) == ALERT_FIRES;

    c->state.above_since = anew.above_since;
    return fires;
}

static int judge(struct alerts *a, struct candidate *c, struct error *err)
{
    const struct alert_rule rule = {.failure_rate = a->rules->alerts.failure_rate,
                                    .resolve_rate = a->rules->alerts.resolve_rate,
                                    .min_samples = a->rules->alerts.min_samples,
                                    .for_usec = (int64_t) a->rules->alerts.for_usec};
    int64_t above_since = c->state.above_since;
    bool pauses = a->rules->alerts.remediation == REMEDIATION_PAUSE;
    double share = (double) c->told / MILLION;
    int r = PG_DONE;

    switch (alert_rule_look(&rule, &c->evidence, c->now, &c->state, &share)) {
    case ALERT_FIRES:
        r = fire(a, c, share, pauses, err);
        break;
    case ALERT_RESOLVES:
        r = resolve(a, c, err);
        break;
    case ALERT_STAYS:
        if (!c->state.firing)
            break;
        pauses = pauses && pauses_again(&rule, c, &share);
        if (pauses || fabs(share - (double) c->told / MILLION) >= CHANGED ||
            c->told_threshold != threshold(a))
            r = fire(a, c, share, pauses, err);
        break;
    }
    return r == PG_DONE && c->state.above_since != above_since ? note_above(a, c, err) : r;
}

int alerts_judge_rates(struct alerts *a, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    struct candidate c;

    pg_arg_i64(&args, (int64_t) (a->rules->alerts.window_usec / USEC_PER_MSEC));
    int r = pg_query(a->pg, &sql_evidence_cut, NULL, NULL, err);
    if (r == PG_DONE)
        r = pg_query(a->pg, &sql_evidence_read, &args, &result, err);
    for (int i = 0; r == PG_DONE && i < pg_rows(result); i++) {
        read_candidate(result, i, &c);
        r = judge(a, &c, err);
    }
    return r;
}
