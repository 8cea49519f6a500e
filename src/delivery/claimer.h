/* The claimer: when to claim, how much, and for which integrations.
 *
 * When: at once after a ring or a full batch; when slots of an integration that has more get free; with
 * short pauses while rows come one soon after the other; else by the doorbell, with a timed poll as the net
 * below it.
 *
 * Main thread only. What it claims it hands to the deliveries at once. */
#pragma once

#include "config/config.h"
#include "delivery/delivery.h"
#include "delivery/doorbell.h"
#include "delivery/masses.h"
#include "delivery/queue_session.h"
#include "delivery/sight.h"

struct claimer;

struct claimer_callbacks {
    /* It is time for a statement, and the session is idle: the callee decides for which one, and calls
     * claimer_claim() or not. */
    void (*turn)(void *userdata);
    /* An answer has come, with so many rows. */
    void (*claimed)(int rows, void *userdata);
    /* The answer to the claim with this token got lost, or came too late to be used. */
    void (*lost)(int64_t token, void *userdata);
    /* False: no claim's answer is to be used any more. */
    bool (*may_send)(void *userdata);
    /* Results that wait for the database. */
    size_t (*unsettled)(void *userdata);
};

struct claimer_parts {
    struct queue_session *session;
    struct deliveries *deliveries;
    struct doorbell *doorbell;
    struct masses *masses;
    struct sight *sight;
};

/* 0 or negative errno. */
int claimer_new(struct claimer **ret, sd_event *event, struct config *config,
                const struct claimer_parts *parts, const struct claimer_callbacks *callbacks, void *userdata);
void claimer_free(struct claimer *c);
void claimer_reload(struct claimer *c, struct config *config);
/* Plans a turn: the earlier of this and what is planned already. */
void claimer_soon(struct claimer *c, uint64_t delay_usec);
/* From then on a circuit may be probed. */
void claimer_probe_soon(struct claimer *c, uint64_t delay_usec);
/* The doorbell has rung. */
void claimer_rung(struct claimer *c);
/* Slots have got free; `integration_has_more`: of one where rows may wait for them. */
void claimer_slots_freed(struct claimer *c, bool integration_has_more);
/* Sends a claim, unless it is better to wait for more slots. */
void claimer_claim(struct claimer *c);
/* It is known which integrations make looks slow: there is no pause for these any more. */
void claimer_weighed(struct claimer *c);
/* Once a second: says what keeps claims from looking. */
void claimer_check(struct claimer *c);
