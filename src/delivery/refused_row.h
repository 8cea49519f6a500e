/* Which row was it that a statement was refused for? The next answer says it, and the row is passed over.
 *
 * Main thread only. The search itself is refusals.h's. */
#pragma once

#include "delivery/refusals.h"
#include "pg/pg_async.h"

/* Of so many rows that are refused at a time each is named; more are the same trouble once more. */
#define REFUSED_NAMED_MAX 10

/* Why a row was refused (pg_blames_row()), in words that quote nothing of it; at most `size` bytes. */
void refused_row_words(char *ret, size_t size, const char *sqlstate, const struct error *err);
/* A trigger changes what is written, so no value of ours is to blame. */
bool refused_row_is_changed(const char *sqlstate);

/* A statement was refused with this answer, and its row is about to be looked for. */
void refused_row_note(struct refusals *r, const struct pg_answer *answer);
/* `head` is the answer with the row at the head of the queue, its id in column 0: it is passed over from now
 * on, which is said once. `what` could not be done to it ("claim"). Returns the pause before the next try:
 * not soon when there is no such row, as when a trigger refuses whole statements. */
uint64_t refused_row_pass_over(struct refusals *r, const struct pg_answer *head, const char *what);
