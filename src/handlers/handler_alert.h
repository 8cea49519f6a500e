/* The evidence of the alert "failure_rate". See handler_alert.c. */
#pragma once

#include "consumers/handler.h"

extern const struct handler handler_alert;

struct alert_outcome {
    int64_t integration_id;
    int64_t coded; /* the event's time with whether it is a failure, as alert_evidence holds it */
    /* What the database has to say before it counts; 0 = nothing. */
    int64_t first_of;      /* a subscription: is this its first attempt? */
    int64_t sequence;      /* was there an answer? */
    bool may_cost_nothing; /* first_of may come again */
};
/* Whether the event is an outcome: the first attempt of a subscription, or its final result. */
bool alert_outcome_of(const struct message_event *e, struct alert_outcome *ret);

#define ALERT_RECENT 20 /* outcomes of an integration that alert_evidence holds */

/* A row of alert_buckets. */
struct alert_bucket {
    int64_t integration_id, bucket, total, failed;
};
/* Sorts outcomes by integration, the newest first, and counts them into as many buckets at most. Of each
 * integration the newest ALERT_RECENT stay in the array. Returns how many; *ret_buckets: how many buckets. */
size_t alert_sum_up(struct alert_outcome *outcomes, size_t count, struct alert_bucket *buckets,
                    size_t *ret_buckets);
