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
