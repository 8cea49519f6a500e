/* Learning of new rows at once without costing those who write them.
 *
 * NOTIFY takes a lock that all committing writers share, so the insert trigger notifies only while somebody
 * sleeps, and only for a row that a claim could take now: somebody sleeps while a daemon holds (or waits for)
 * the exclusive advisory lock "bell". One session LISTENs,
 * another one waits for the bell, because a backend that waits for a lock delivers no notifications. Those
 * who ring: subscription_inserted() in sql/repeatable/04_subscriptions.sql, doorbell_ring() beside it. With
 * several daemons only the holder of the lock "seat" asks for the bell.
 *
 * Main thread only. */
#pragma once

#include <systemd/sd-event.h>

#include "pg/pg.h"

struct doorbell;

/* They are called from the loop. */
struct doorbell_callbacks {
    void (*rung)(void *userdata); /* somebody wrote a row */
    /* Rows may have been written that rang no daemon: look once more. The bell is ours now, or a long
     * transaction keeps it, so that this comes each second. */
    void (*look)(void *userdata);
};

int doorbell_new(struct doorbell **ret, sd_event *event, const struct pg_params *params,
                 const struct doorbell_callbacks *callbacks, void *userdata);
void doorbell_free(struct doorbell *d);
void doorbell_reopen(struct doorbell *d);
/* From now on inserts shall notify. `look` follows when that is so; it may not come at all (another daemon
 * has the seat): the timed poll is the net below. Cheap to repeat. */
void doorbell_ask(struct doorbell *d);
/* Busy from now on: no notifications wanted. */
void doorbell_release(struct doorbell *d);
/* False: another daemon has the bell, or may have it, and gives it back without a word to this one. */
bool doorbell_has_seat(const struct doorbell *d);
/* Inserts notify, and this process hears it. */
bool doorbell_is_held(const struct doorbell *d);
