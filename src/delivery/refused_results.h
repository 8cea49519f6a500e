/* Results that the database refuses one by one, for a constraint or a trigger of the application's: they
 * wait, and are tried again until it takes them. Each keeps its slot of the integration meanwhile, so that
 * one whose results are all refused leaves the daemon's slots to others. Its lease is renewed, and the
 * session's name tells of it.
 *
 * Main thread only. */
#pragma once

#include "base/trouble.h"
#include "delivery/settlements.h"
#include "delivery/standstill.h"
#include "delivery/store_delivery.h"
#include "pg/pg_async.h"

struct refused_results {
    struct standstill *standstill;
    void (*held)(int64_t integration_id, int by, void *userdata); /* slots: 1 or -1 */
    void *userdata;
    uint64_t lease_usec; /* of claims */
    size_t count;
    int lost;            /* sessions, one after the other, since results were stored */
    struct trouble many; /* more than are named */
    uint64_t renew_at;   /* monotonic */
    uint64_t show_at;    /* monotonic; not sooner */
    bool is_unshown;     /* the session's name tells of others */
};

/* It was refused by itself, with these words. */
void refused_results_note(struct refused_results *r, struct store_settlement *item, const char *sqlstate,
                          const struct error *err);
/* The session ended under these. Sessions that end one after the other may be a row's fault, whose trigger
 * crashes the server's process or takes longer than a pooler allows: then the row is looked for by halves. */
void refused_results_lost(struct refused_results *r, const struct settlements *batch, size_t *limit,
                          const struct error *err);
/* It is settled, or nobody wants it any more; legal for one that was never refused. */
void refused_results_gone(struct refused_results *r, const struct store_settlement *item);
/* The session was opened anew. */
void refused_results_opened(struct refused_results *r);
/* Sends a statement for those in `queue`, if one is due; `done` comes when it has ended. False: none was. */
bool refused_results_turn(struct refused_results *r, const struct settlements *queue, struct pg_async *pg,
                          struct pg_args *args, pg_async_callback done, void *userdata);
