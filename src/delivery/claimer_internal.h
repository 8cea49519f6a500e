/* The claimer's own. See claimer.h.
 *
 * claimer.c decides when the next claim is, and takes the answers; claimer_ask.c, what it asks for. */
#pragma once

#include "base/backoff.h"
#include "delivery/claimer.h"
#include "delivery/deaf.h"
#include "delivery/look.h"
#include "delivery/probes.h"

/* While handshakes take all of this process's time: between claims for those that need none. */
#define READY_PAUSE_USEC (10 * USEC_PER_MSEC)

/* The claim under way. */
struct claim {
    int64_t token;
    int64_t first_integration; /* where it began */
    int64_t *last_integration; /* of its kind */
    int limit;
    struct look *look; /* NULL = it goes on where the last claims ended */
    bool is_probe;     /* of open circuits */
    bool is_mass;      /* of an integration that is looked at by itself, from its start */
    struct store_place mass;
    bool was_rung;    /* a ring led to it */
    bool was_cut;     /* it left rows for their bytes */
    bool ready_only;  /* of integrations that need no handshake */
    bool reserve;     /* it may take slots that are kept for integrations with none */
    bool last_slots;  /* of those, the ones that are not for silent institutions either */
    uint64_t sent_at; /* boot time */
};

struct claimer {
    struct claimer_parts parts;
    struct config *config;
    struct claimer_callbacks callbacks;
    void *userdata;
    int64_t process; /* of chance: whose the times of a rate_limit are */
    sd_event_source *timer;
    struct claim now;
    struct {
        int64_t any, probe, ready, mass;
    } last_integration; /* the last one that gave a row, to each kind of claim */
    struct refusals refusals;
    bool rung;              /* since the claim under way was sent */
    bool missed;            /* a turn was due while a statement was under way */
    bool cut;               /* the last claim took all it could: more may wait */
    uint64_t starved_since; /* monotonic; no room for a worthwhile claim since; 0 = there was */
    struct looks looks;
    struct probes probes;
    uint64_t found_at; /* monotonic: the last find; 0 = never */
    int singles;       /* finds of one row, one after the other */
    struct deaf deaf;
    struct backoff locked_out;
};

/* The answer to a claim. */
void claimer_on_claimed(struct pg_answer *answer, void *userdata);
