/* When the failures of an institution are an alert. Pure.
 *
 * A raw share says little: two of three may be chance. So the rule asks what is proven. It fires when the
 * share is above `failure_rate` with a confidence of 99 % (Wilson's lower bound, one-sided), and resolves
 * when it is below with the same confidence. Between both nothing changes, so a share that goes up and down
 * around the threshold fires once. */
#pragma once

#include "base/util.h"

struct alert_rule {
    double failure_rate, resolve_rate;
    int min_samples; /* fewer outcomes prove nothing */
    int64_t for_usec;
};

/* The newest outcomes stand one by one; of the window only the counts are known. */
#define ALERT_RECENT_MAX 20
struct alert_evidence {
    int64_t total, failed; /* within the window */
    int recent_count;
    bool recent_failed[ALERT_RECENT_MAX]; /* newest first, also those from before the window */
};

struct alert_state {
    bool firing;
    int64_t above_since; /* when the share was found above first, 0 = it is not */
};

enum alert_change {
    ALERT_STAYS = 0,
    ALERT_FIRES,
    ALERT_RESOLVES,
};

/* Wilson's bounds of a share of `failed` in `total` > 0, for a quantile z of the normal distribution. */
double alert_lower_bound(int64_t failed, int64_t total, double z);
double alert_upper_bound(int64_t failed, int64_t total, double z);

/* Looks at the evidence there is at `now` (microseconds, any clock), and takes the state on. *ret_share is
 * the share of failures that decided; untouched when there is no outcome. */
enum alert_change alert_rule_look(const struct alert_rule *rule, const struct alert_evidence *e, int64_t now,
                                  struct alert_state *state, double *ret_share);
