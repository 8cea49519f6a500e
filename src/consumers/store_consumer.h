/* The consumers' statements. Outcomes and errors are pg_query()'s. See sql/002_tables.sql for the tables.
 *
 * All but the first four belong to the transaction of a batch. */
#pragma once

#include "consumers/bitmap.h"
#include "consumers/message.h"
#include "pg/pg.h"

/* Limits how long this session may hold its locks without a word from us: a process that was stopped or cut
 * off in the middle of a transaction must not stand in the way of who takes its partitions over. In the
 * middle of a COPY no limit holds: sessions that stand there, and keep us from writing, are ended. */
int store_limit_session(struct pg *pg, struct error *err);

/* The installation's UUID. */
int store_installation(struct pg *pg, char ret[INSTALLATION_TEXT], struct error *err);

/* Who of several processes with the same instance name may be the static member of that name: true = we, as
 * long as this session lives. */
int store_take_member(struct pg *pg, const char *group, const char *member, bool *ret, struct error *err);

/* The end of the log is to be asked for, after what is published by now was noted. */
#define UNREAD_ASKED INT64_MAX

/* One partition's position in consumer_offsets. */
struct store_offset {
    const char *topic;
    int32_t partition;
    int64_t expected;     /* what next_offset must be for store_advance(); 0 <= */
    int64_t next;         /* next_offset; store_read_offsets(): -1 = no row */
    int64_t unread_until; /* see consumer_offsets, or UNREAD_ASKED; -1 = none; store_place_offset(): stays */
    int64_t foreign;      /* to add to foreign_messages */
    int64_t unknown;      /* to add to unknown_events */
};

/* Sets items[].next and items[].unread_until. */
int store_read_offsets(struct pg *pg, const char *group, struct store_offset *items, size_t count,
                       struct error *err);
/* Makes the row, or moves it on from `expected`; does nothing when somebody else has made or moved it. */
int store_place_offset(struct pg *pg, const char *group, const char *model, const struct store_offset *item,
                       struct error *err);

/* Moves each row from `expected` to `next`. *ret_fenced: one of them was elsewhere, so somebody else owns the
 * partition (or an operator moved it), or the group is stopped; the transaction must be rolled back. */
int store_advance(struct pg *pg, const char *group, const char *model, const struct store_offset *items,
                  size_t count, bool alone, bool *ret_fenced, struct error *err);
/* Waits until no other transaction that has advanced, or has this, sets marks of the read model; `alone`
 * above does so, too. */
int store_lock_marks(struct pg *pg, const char *model, struct error *err);

/* Why a group has stopped. */
struct store_stop {
    char *reason;      /* NULL = it has not */
    char *command;     /* of anubisctl, which mends it; NULL = "resume" */
    int64_t passes_ms; /* for how long it goes on all the same and puts messages aside, 0 = not */
};
void store_stop_done(struct store_stop *stop);
/* Another group that handles the read model now; *ret is the caller's to free, NULL = there is none. */
int store_find_rival(struct pg *pg, const char *group, const char *model, char **ret, struct error *err);
/* One of these members of the group that no daemon of this database is; *ret as above. */
int store_find_elsewhere(struct pg *pg, const char *group, const struct kafka_strangers *found, char **ret,
                         struct error *err);
int store_read_stop(struct pg *pg, const char *model, struct store_stop *ret, struct error *err);
/* How many partitions a topic has had, from which ledger id on. */
struct homes {
    struct home_count {
        int64_t from_sequence;
        int32_t count;
    } * counts;
    size_t len;
    int64_t topics; /* rows of relay_topics when they were read, as store_find_unknown() tells */
    bool moved;     /* events came by the topic of another prefix, which had another number of partitions */
    bool asked;     /* in this transaction */
};

/* The partition in which the relay publishes the event; -1 = no relay has led yet. See homes.c. */
int32_t homes_find(const struct homes *h, const struct message_event *e);
void homes_free(struct homes *h);

/* Which of the ids are marked in another partition: sets their places in `ret`. */
int store_find_marked(struct pg *pg, const char *model, const char *type, int32_t partition,
                      const int64_t *ids, size_t count, bool *ret, struct error *err);
/* ret->counts is the caller's to free. */
int store_read_homes(struct pg *pg, const char *topic, struct homes *ret, struct error *err);
/* For a handler's compare(): the statement, and the options of the "replay" that mends it. */
int store_stop_unmarked(struct pg *pg, const struct pg_statement *statement, const char *model,
                        const char *options, bool *ret_known, struct error *err);
/* *ret: it was not stopped before. */
int store_stop_group(struct pg *pg, const char *model, const char *reason, bool *ret, struct error *err);

/* A chunk of a read model's marks, and the partition that its events come by. */
struct store_chunk {
    const char *type; /* event_type_word() */
    int32_t partition;
    struct bitmap_chunk *chunk;
};

/* Fills number's version and bits for those that have a row. */
int store_read_chunks(struct pg *pg, const char *model, const struct store_chunk *items, size_t count,
                      struct error *err);
/* Writes them and counts their versions up. *ret_fenced as above: a row has another version than it was read
 * with. */
int store_write_chunks(struct pg *pg, const char *model, const struct store_chunk *items, size_t count,
                       bool *ret_fenced, struct error *err);

/* Which of the events (at least one) the ledger does not have as they are: sets their places in ret_unknown,
 * which is zeroed. *ret_topics: how many rows relay_topics has, -1 = not looked at. */
int store_find_unknown(struct pg *pg, const struct message_event *const *events, size_t count,
                       bool *ret_unknown, int64_t *ret_topics, struct error *err);
/* Adds items[].unknown to unknown_events. */
int store_count_unknown(struct pg *pg, const char *group, const struct store_offset *items, size_t count,
                        struct error *err);

struct store_dead_letter {
    const char *topic;
    int32_t partition;
    int64_t offset, written_ms; /* its time in Kafka, since 1970 */
    struct bytes key, value;
    struct bytes headers; /* a JSON object */
    const char *error;
    int32_t discard_only; /* 1 = no replay can come right */
};

/* Which of the messages were put aside before, by their places and times: sets those in ret_known, which is
 * zeroed. */
int store_letters_known(struct pg *pg, const char *model, const struct store_dead_letter *items, size_t count,
                        bool *ret_known, struct error *err);
/* What is there already stays. */
int store_dead_letters(struct pg *pg, const char *group, const char *model,
                       const struct store_dead_letter *items, size_t count, struct error *err);
