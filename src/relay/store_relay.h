/* The relay's statements, as typed calls on its own session. 0, or an error of pg_query(), where nothing else
 * is said. */
#pragma once

#include "kafka/kafka_producer.h"
#include "pg/pg.h"
#include "relay/event.h"
#include "relay/gaps.h"

/* The session's name; behind it, in brackets, stands the leader's trouble. */
#define STORE_RELAY_SESSION "anubisd relay"

/* The leader's trouble, "" = no trouble, goes into the session's name: there everybody may read it, and it
 * ends with the session. */
int store_relay_show_trouble(struct pg *pg, const char *trouble, struct error *err);
/* Has another daemon a relay that could lead? */
int store_relay_others(struct pg *pg, bool *ret, struct error *err);

/* Identifies the database: a dump restored elsewhere, and a promoted standby, are others. */
struct store_relay_identity {
    bool known; /* false: the role may not ask */
    int64_t system;
    int32_t timeline;
};
int store_relay_identify(struct pg *pg, struct store_relay_identity *ret, struct error *err);

/* The first id that will be given out from now on. */
int store_relay_next_id(struct pg *pg, int64_t *ret, struct error *err);

/* An event that Kafka has. */
struct store_relay_known {
    int64_t id;
    int64_t created_at; /* microseconds since 1970 */
};
/* Writes up to which offset the relay has published into each partition of a topic. *ret_lost: how many of
 * them had ended before that, so that what consumers have not read is looked for. */
int store_relay_reached(struct pg *pg, int64_t epoch, const char *topic, const struct kafka_reached *reached,
                        int partitions, int64_t *ret_lost, struct error *err);
/* Up to which offset the relay has published into each partition of a topic, or our consumers have read it;
 * -1 = not known. */
int store_relay_known_until(struct pg *pg, const char *topic, int64_t *ret, int partitions,
                            struct error *err);
/* Raises *newest to the newest id and time of those events that the ledger, above `published`, has not as
 * they are. */
int store_relay_lost(struct pg *pg, int64_t published, const struct store_relay_known *known, size_t count,
                     struct store_relay_known *newest, struct error *err);
struct store_relay_leap {
    int64_t drawn;                /* the last id that was given out before */
    int64_t next;                 /* the first one after those that are left out */
    int64_t moved;                /* events of since then that have other ids now */
    int64_t old_first, new_first; /* of those; 0 = there were none */
};
/* Leaves ids out up to the newest event that is lost, and more. */
int store_relay_leap(struct pg *pg, int64_t published, const struct store_relay_known *newest,
                     struct store_relay_leap *ret, struct error *err);

/* Whose the row of relay_state is. The epoch fences off the former leader. A restore of the tables under a
 * running daemon may bring back the row as it was, to the last value; but another transaction wrote it. */
struct store_relay_lead {
    int64_t epoch;
    int64_t written_by; /* the transaction in which we wrote the row last (xmin, 32 bits) */
};

struct store_relay_start {
    struct store_relay_lead lead; /* ours from now on */
    struct store_relay_identity saved;
    unsigned char name_space[16];
    bool was_ahead; /* of what was saved: somebody had changed it, up to this id; nothing is left out */
    int64_t found_at;
    /* The newest event up to the saved position that was written after it, and the position is before it;
     * 0 = none. */
    int64_t missed;
    int64_t compared_at; /* until then Kafka had nothing of ours that the database did not know; real time */
};
/* Takes the saved position over, and loads *gaps. -EBADMSG also when the position makes no sense. */
int store_relay_begin(struct pg *pg, const char *leader, struct gaps *gaps, struct store_relay_start *ret,
                      struct error *err);

/* One statement, one snapshot: the head first, then rows within the gaps, then rows above high; ids ascend.
 * At most `limit` rows, and of rows with long texts as many as begin within `byte_budget`. */
int store_relay_read(struct pg *pg, const struct gaps *gaps, int limit, int64_t byte_budget,
                     struct pg_result **ret, struct error *err);
/* Ids above `from` (not below high) that may overtake the rows up to there, ascending; the caller frees. Of
 * `limit` that it looks at. */
int store_relay_overtake(struct pg *pg, const struct gaps *gaps, int64_t from, int limit, int64_t **ret,
                         size_t *ret_count, struct error *err);
/* As store_relay_read(), but for these ids alone. */
int store_relay_read_ids(struct pg *pg, const int64_t *ids, size_t count, int64_t byte_budget,
                         struct pg_result **ret, struct error *err);
struct store_relay_head {
    int64_t xmin;         /* of the snapshot */
    int64_t wal_position; /* behind the commit of each row, 0 = not known */
    bool cut;             /* rows were left out for their size */
};
void store_relay_head(const struct pg_result *result, struct store_relay_head *ret);
/* Of rows from 1 on. */
int64_t store_relay_row_id(const struct pg_result *result, int row);
struct event_number store_relay_row_integration(const struct pg_result *result, int row);
/* Name and type of the integration stay absent. Texts point into the result; those of the application's own
 * are cut as the view subscription_event_feed cuts them, so that no event is too large for Kafka. */
void store_relay_row(const struct pg_result *result, int row, struct event *ret);

/* Ids of events that are to be published again, ascending. */
int store_relay_unread(struct pg *pg, int limit, struct pg_result **ret, struct error *err);
/* The last holes (ids that the relay has passed without an event) below an id. Columns: first and last id, is
 * an event there? Descending. */
int store_relay_holes(struct pg *pg, int64_t below, int limit, struct pg_result **ret, struct error *err);

/* Names and types of integrations, as events show them. Columns: id, name, type; ids ascend, and those that
 * do not exist are left out. */
int store_relay_names(struct pg *pg, const int64_t *ids, size_t count, struct pg_result **ret,
                      struct error *err);

/* Is the WAL on disk up to this position, and do we lead? Of 0, which is not known: false. */
int store_relay_is_flushed(struct pg *pg, const struct store_relay_lead *lead, int64_t wal_position,
                           bool *ret, struct error *err);

/* An outcome of the calls with a lead, which they keep current. */
enum {
    STORE_RELAY_FENCED = 1, /* another daemon's relay leads, or the row of relay_state is no longer what we
                               wrote: events were erased, tables restored; nothing was written */
};
/* Without work a relay writes nothing, and would not notice that its row was replaced. */
int store_relay_leads(struct pg *pg, const struct store_relay_lead *lead, struct error *err);
/* Writes that Kafka has nothing of ours that the database does not know, and the prefix of the topics.
 * Columns from the second on: the prefix that was there before, and was it another one? */
int store_relay_compared(struct pg *pg, struct store_relay_lead *lead, const char *topic_prefix,
                         struct pg_result **ret, struct error *err);
/* Commits a small change with a transaction id of its own; this flushes all earlier commits too. */
int store_relay_mark(struct pg *pg, struct store_relay_lead *lead, int64_t *ret_xid, struct error *err);
/* Saves the position: all of the ledger up to gaps->high is published but for the gaps, and no event stops
 * the relay. With it go the ranges that were passed or reopened; gaps_were_saved() is the caller's. */
int store_relay_save(struct pg *pg, struct store_relay_lead *lead, const struct gaps *gaps,
                     const struct store_relay_identity *identity, struct error *err);
/* Writes that the relay is stopped on this event. */
int store_relay_stop(struct pg *pg, struct store_relay_lead *lead, int64_t id, const char *reason,
                     struct error *err);

/* A topic's partitions from which ledger id on. Columns: from_sequence, partitions; ascending. */
int store_relay_partitions(struct pg *pg, const char *topic, struct pg_result **ret, struct error *err);
int store_relay_add_partitions(struct pg *pg, const char *topic, int64_t from_sequence, int partitions,
                               struct error *err);
