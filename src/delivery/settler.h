/* Writes outcomes back, in batches, and forgets none.
 *
 * A result stays here until the database has said that it stands or that the claim is no longer ours. When
 * the database is away it waits; when the database refuses a batch for a reason in its data, or because
 * somebody has locked a row, the batch is split.
 *
 * Main thread only; one session of its own. */
#pragma once

#include <systemd/sd-event.h>

#include "delivery/notes.h"
#include "delivery/standstill.h"
#include "delivery/store_delivery.h"

struct settler;

struct settler_callbacks {
    void (*settled)(size_t count, void *userdata); /* that many have left: room for new claims */
    /* The session has been away for a while: why. Again and again until it returns true. */
    bool (*cut_off)(const struct error *why, void *userdata);
    void (*up)(bool was_cut_off, void *userdata); /* the session is up; was it cut off, by the last answer? */
    /* Of an integration one more result, or one less, is refused by itself and keeps its slot. */
    void (*held)(int64_t integration_id, int by, void *userdata);
};

/* `notes` are sent after the results, on the same session. */
struct settler_params {
    struct pg_params session;
    int batch_size;
    uint64_t lease_usec; /* of claims */
    struct notes *notes;
    struct standstill *standstill;
};
int settler_new(struct settler **ret, sd_event *event, const struct settler_params *params,
                const struct settler_callbacks *callbacks, void *userdata);
void settler_free(struct settler *s);
void settler_reopen(struct settler *s);
/* Takes the settlement and its strings over. */
void settler_add(struct settler *s, struct store_settlement *item);
/* There are notes to be sent. */
void settler_has_notes(struct settler *s);
bool settler_up(const struct settler *s);
/* The session that claims came up just now: this one tries, too. */
void settler_others_up(struct settler *s);
/* Results not yet known to stand. */
size_t settler_pending(const struct settler *s);
/* Nothing more will come: do not wait for a batch to fill. */
void settler_hurry(struct settler *s);
/* Nothing else is under way just now: settle what there is. */
void settler_flush(struct settler *s);
/* Distinct claim tokens of the results waiting are reported by `note`. */
void settler_tokens(const struct settler *s, void (*note)(int64_t token, void *userdata), void *userdata);
