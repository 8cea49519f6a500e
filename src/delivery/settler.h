/* Writes outcomes back, in batches, and forgets none.
 *
 * A result stays here until the database has said that it stands or that the claim is no longer ours. When
 * the database is away it waits; when the database refuses a batch for a reason in its data, or because
 * somebody has locked a row, the batch is split.
 *
 * Main thread only; one session of its own. */
#pragma once

#include <systemd/sd-event.h>

#include "delivery/store_delivery.h"

struct settler;

struct settler_callbacks {
    void (*settled)(size_t count, void *userdata);         /* that many have left: room for new claims */
    void (*waits)(int64_t integration_id, void *userdata); /* the database knows that it waits */
};

int settler_new(struct settler **ret, sd_event *event, const struct pg_params *params, int batch_size,
                const struct settler_callbacks *callbacks, void *userdata);
void settler_free(struct settler *s);
void settler_reopen(struct settler *s);
/* Takes the settlement and its strings over. */
void settler_add(struct settler *s, struct store_settlement *item);
/* After everything that is to be settled: lets an integration wait. Copies the reason. */
void settler_wait(struct settler *s, const struct store_wait *wait);
/* Results not yet known to stand. */
size_t settler_pending(const struct settler *s);
/* Nothing more will come: do not wait for a batch to fill. */
void settler_hurry(struct settler *s);
/* Nothing else is under way just now: settle what there is. */
void settler_flush(struct settler *s);
/* Distinct claim tokens of the results waiting are reported by `note`. */
void settler_tokens(const struct settler *s, void (*note)(int64_t token, void *userdata), void *userdata);
