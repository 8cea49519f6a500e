/* Refusals in a row by an institution that took a subscription a short time ago: the fault is hardly in the
 * data of all of them, and what is refused for its data fails for good. Those of all daemons are counted in
 * the database (refusals_judged() in sql/repeatable/10_bursts.sql); here is when it is to be asked.
 *
 * Pure: no clock; one thread at a time. Times are monotonic, in microseconds. A zeroed one has seen
 * nothing. */
#pragma once

#include "base/util.h"

struct burst {
    uint64_t taken_at;   /* the last time that it took a subscription; 0 = never, as far as is known */
    uint64_t told_at;    /* the last such time that the database knows of; 0 = of none, as far as is known */
    bool is_counted;     /* refusals stand in the database, or are on the way there */
    bool is_vain;        /* counting is: it refused enough, and by the database took none for long */
    int64_t turn;        /* of the last claim: each pause for refusals begins one */
    int64_t paused_turn; /* the last one that began, as far as is known */
    uint64_t paused_at;
};

/* It took one. True: the database is to be told, which counts refusals, and knows what it took some time
 * after. */
bool burst_taken(struct burst *b, uint64_t now);
/* By the database it took one `usec` ago, from whichever daemon. */
void burst_took(struct burst *b, uint64_t usec, uint64_t now);
/* It refused one for its data. True: the database is to be asked whether the row fails. It is not where all
 * are refused and none was taken for long. */
bool burst_refused(struct burst *b, uint64_t now);
/* What the database says of the last ones: whether counting more of them is in vain. */
void burst_counted(struct burst *b, bool is_vain);
/* The database has paused it, and begun this turn. */
void burst_paused(struct burst *b, int64_t turn, uint64_t now);
/* A row was claimed in this turn; `is_counted`: refusals stand in the database. */
void burst_claimed(struct burst *b, int64_t turn, bool is_counted);
/* It has another endpoint, or other credentials or settings: what it refused before says nothing. That it
 * took some a short time ago counts all the more. */
void burst_begin_anew(struct burst *b);
/* What was claimed before the pause, and is still to be sent, is not. */
bool burst_holds(const struct burst *b, uint64_t now);
