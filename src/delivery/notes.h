/* What deliveries tell the database of integrations: that one is to wait, that one is paused, and what came
 * of requests, for its circuit.
 *
 * One statement at a time, on the settler's session. What could not be written stays until it can be.
 *
 * Main thread only. */
#pragma once

#include "delivery/store_delivery.h"
#include "delivery/verdicts.h"
#include "pg/pg_async.h"

struct notes;

struct notes_callbacks {
    void (*added)(void *userdata);                         /* there is something to be sent */
    void (*waits)(int64_t integration_id, void *userdata); /* the database knows that it waits */
    /* The database knows what came of its requests: `probe_usec` from now the next probe may be taken;
     * USEC_INFINITY = its circuit is closed. */
    void (*circuit)(int64_t integration_id, uint64_t probe_usec, void *userdata);
    struct verdicts_callbacks verdicts; /* without `added` and `done`, which are these */
    void (*done)(void *userdata);       /* a statement has ended: the session is idle */
};

struct notes *notes_new(const struct notes_callbacks *callbacks, void *userdata);
void notes_free(struct notes *n);
/* Lets an integration wait. Copies the reason. */
void notes_wait(struct notes *n, const struct store_wait *wait);
void notes_circuit(struct notes *n, const struct store_circuit_rules *rules,
                   const struct store_circuit *note);
/* What waits for a verdict; sent like the notes. */
struct verdicts *notes_verdicts(struct notes *n);
/* The journal's line for one that is paused until somebody resumes it. */
void notes_say_paused(int64_t integration_id, const char *name, const char *reason);
/* When there is something to be sent, monotonic; USEC_INFINITY = there is nothing. */
uint64_t notes_due(const struct notes *n);
/* Sends what is due first, on a session that is idle. */
void notes_send(struct notes *n, struct pg_async *pg, struct pg_args *args);
