/* Leases: ends claims that no daemon works on any more. A claim begins its own: claim_take.part.sql; what
 * becomes of the row when it is over: lease_over.part.sql (both in sql/statements/).
 *
 * Leases that are over become retries, marked ambiguous. Claims whose answer got lost on the way were never
 * sent: their rows go back to the queue, first thing when the database is back.
 *
 * Main thread only; shares the claimer's session. */
#pragma once

#include "config/config.h"
#include "delivery/queue_session.h"
#include "delivery/tokens.h"

struct leases;

struct leases_callbacks {
    /* The tokens of all claims that this daemon works on. */
    void (*live_tokens)(struct tokens *out, void *userdata);
    /* A statement has ended: the session is idle again. `rows`: so many were changed. */
    void (*done)(int rows, void *userdata);
};

struct leases *leases_new(struct queue_session *session, const struct leases_callbacks *callbacks,
                          void *userdata);
void leases_free(struct leases *s);
/* The answer to the claim with this token got lost. */
void leases_claim_lost(struct leases *s, int64_t token);
/* More leases may be over: there is no pause until the next look. */
bool leases_have_more(const struct leases *s);
bool leases_has_lost_claims(const struct leases *s);
/* After an outage results are settled first, ours and those of other daemons, before leases count as over. */
void leases_wait_after_outage(struct leases *s);
/* Sends a statement if one is due: true. Only when the session is idle. With `lost_claims_only` no lease is
 * looked at. */
bool leases_run(struct leases *s, const struct config *config, bool lost_claims_only);
