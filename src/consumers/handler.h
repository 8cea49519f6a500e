/* What a consumer group does with its events: one handler for each effect on the database.
 *
 * A handler is a pure function from a batch of events to SQL parameters, and the execution of that SQL inside
 * the transaction in which the batch is marked as handled. It must not begin or end transactions, and must
 * take row locks in the order of ids (other threads and daemons do the same work). */
#pragma once

#include "consumers/message.h"
#include "pg/pg.h"

struct handler {
    unsigned types; /* bit 1 << enum event_type for each type it wants; the others are not shown to it */
    bool hashes;    /* it wants message_event.value_hash */
    /* Fresh events only, in the order of each partition. An event that cannot be handled gets its reason (a
     * constant) in faults[i]; the transaction is then rolled back and done again without it. 0 or
     * pg_query()'s outcomes and errors. */
    int (*apply)(struct pg *pg, const struct message_event *const *events, size_t count, const char **faults,
                 struct error *err);
    /* Optional, outside of a batch's transaction, for effects that add up: stops the group (a row of
     * consumer_stops with the command that mends it) where they hold more than its marks tell. *ret_known:
     * that could be told. 0 or pg_query()'s outcomes and errors. */
    int (*compare)(struct pg *pg, const char *model, bool *ret_known, struct error *err);
};

/* A topic that others write to, beside those of the events. Its messages have no sequence by which one that
 * comes again is known: what is done with a message must come to the same when it is done twice. */
struct inbox {
    const char *topic; /* its name behind kafka.topic_prefix */
    /* What a message says, which the consumer frees; or NULL, and why it cannot be handled (a constant).
     * Pure. Whoever may write to the topic wrote it. */
    void *(*read)(const struct kafka_message *message, const char **ret_fault);
    /* As a handler's: in the order of each partition. news: of each, whether it said what nobody had said. */
    int (*apply)(struct pg *pg, void *const *entries, size_t count, const char **faults, bool *news,
                 struct error *err);
    /* The fault of messages that a replay would take for others, as a dead letter no longer tells when it was
     * written: they can only be discarded. NULL = there are none. */
    const char *lasting_fault;
};

#define GROUP_HANDLERS_MAX 4

/* A consumer group: which handlers see its events. */
struct consumer_group {
    const char *model; /* what it keeps up to date; its id is consumers.group_prefix, "-", this, "-group" */
    size_t enabled;    /* offset of its switch in struct config */
    const struct handler *handlers[GROUP_HANDLERS_MAX + 1];
    const struct inbox *inbox; /* NULL = it has none */
};
