/* A dead letter that is tried again: one message through a group's handlers, outside of the group's threads.
 *
 * The marks are those of the threads, so that a message is handled once, whoever does it. A thread that has
 * read the same marks finds them changed, and starts over.
 *
 * One thread, with a session of its own; a transaction is under way. */
#pragma once

#include "consumers/handler.h"

enum letter_end {
    LETTER_HANDLED = 1,
    LETTER_BEFORE, /* its event was handled before: nothing is to be done */
    LETTER_FAILED, /* *ret_fault says why; the transaction must be rolled back */
    LETTER_MOVED,  /* others have changed the marks meanwhile: roll back, and try again */
};

/* `message` came by this topic of ours; `installation` is ours. *ret_fault lives as long as `err`. An outcome
 * from above, or an error of pg_query(). */
int letter_handle(struct pg *pg, const struct consumer_group *group, const char *installation,
                  const struct kafka_message *message, const char **ret_fault, struct error *err);
