/* Results that wait for a verdict. A row that its institution refuses for its data fails for good, unless the
 * refusals in a row of all daemons together are an outage: they are counted in the database, which pauses the
 * integration then (refusals_judged() in sql/repeatable/10_bursts.sql).
 *
 * One statement at a time, on the settler's session. What could not be asked stays until it can be.
 *
 * Main thread only. */
#pragma once

#include "delivery/store_delivery.h"
#include "pg/pg_async.h"

struct verdicts;

struct verdicts_callbacks {
    void (*added)(void *userdata); /* there is something to be asked */
    /* What the database says of an integration's refusals, and why it is paused where it is; before what is
     * decided. */
    void (*told)(const struct store_verdict *verdict, const char *reason, void *userdata);
    /* What was held is to be used, and does fail; or it is tried again. */
    void (*decided)(void *held, bool fails, void *userdata);
    void (*done)(void *userdata); /* a statement has ended: the session is idle */
};

struct verdicts *verdicts_new(const struct verdicts_callbacks *callbacks, void *userdata);
void verdicts_free(struct verdicts *v);
/* An institution refused a row, which is `held` until that is decided; with NULL it took one, after
 * refusals. */
void verdicts_ask(struct verdicts *v, const struct store_refusal *refusal, void *held);
/* What is held is tried again: nobody waits for the database any more. */
void verdicts_release(struct verdicts *v);
/* When there is something to be asked, monotonic; USEC_INFINITY = there is nothing. */
uint64_t verdicts_due(const struct verdicts *v);
/* Asks it, on a session that is idle. */
void verdicts_send(struct verdicts *v, struct pg_async *pg, struct pg_args *args);
