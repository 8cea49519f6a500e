/* The session with which due rows are claimed and lost claims are ended: one statement at a time, for the
 * claimer and for leases.
 *
 * Main thread only. It says in the journal when the database is away, when the schema does not fit, and when
 * another session's lock keeps it waiting. */
#pragma once

#include "config/config.h"
#include "delivery/standstill.h"
#include "pg/pg_async.h"

struct queue_session;

struct queue_session_callbacks {
    void (*up)(bool again, void *userdata); /* `again`: it was up before */
    bool (*others_up)(void *userdata);      /* the other sessions with which rows are delivered are up, too */
};

int queue_session_new(struct queue_session **ret, sd_event *event, const struct config *config,
                      struct standstill *standstill, const struct queue_session_callbacks *callbacks,
                      void *userdata);
void queue_session_free(struct queue_session *q);
void queue_session_reopen(struct queue_session *q);
/* Another session came up: says that the database is back, if it was said to be away and all are up now. True
 * when it was said, so that this is the word about the end, now or later. */
bool queue_session_note_back(struct queue_session *q);
/* Nothing is said from now on: the daemon stops. */
void queue_session_silence(struct queue_session *q);

bool queue_session_up(const struct queue_session *q);
const struct error *queue_session_error(const struct queue_session *q); /* why it is not up */
bool queue_session_idle(const struct queue_session *q);                 /* up, and no statement is running */
/* The statement that is running, and since when (monotonic); NULL = none. */
const char *queue_session_busy_with(const struct queue_session *q, uint64_t *ret_since);
/* The arguments of the next statement; they stay until they are filled anew. */
struct pg_args *queue_session_args(struct queue_session *q);
/* 0 or -ENOTCONN, as pg_async_query(). */
int queue_session_ask(struct queue_session *q, const struct pg_statement *statement,
                      pg_async_callback callback, void *userdata);
/* To be called with each answer: true when the statement was given up for a lock of another session. */
bool queue_session_gave_up_for_lock(struct queue_session *q, const struct pg_answer *answer);
/* The statement was refused, for no row's fault and for no lock. `what` could not be done. */
void queue_session_refused(struct queue_session *q, enum standstill_work work, const char *what,
                           const struct pg_answer *answer);
/* The statement was carried out. */
void queue_session_done(struct queue_session *q, enum standstill_work work);
