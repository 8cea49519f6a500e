/* The relay's statements, as typed calls on its own session. Results of pg_query() and its errors. */
#pragma once

#include "pg/pg.h"
#include "relay/event.h"
#include "relay/gaps.h"

/* The session's name; after it, in brackets, what keeps the leader from publishing. */
#define STORE_RELAY_SESSION "anubisd relay"

/* Asks for the leader's lock, which the session then holds until it ends. */
int store_relay_try_lead(struct pg *pg, bool *ret_leader, struct error *err);

/* What keeps the leader from publishing, "" = nothing: it stands in the session's name, where all may read it
 * and where it ends with the session. */
int store_relay_show_trouble(struct pg *pg, const char *trouble, struct error *err);

/* Which database this is: a dump restored elsewhere, and a promoted standby, are others. */
struct store_relay_identity {
    bool known; /* false: the role may not ask */
    int64_t system;
    int32_t timeline;
};
int store_relay_identify(struct pg *pg, struct store_relay_identity *ret, struct error *err);

struct store_relay_start {
    int64_t epoch; /* ours from now on; whoever led before is fenced off */
    struct store_relay_identity saved;
    unsigned char name_space[16];
    bool stopped; /* on an event that Kafka refused */
};
/* Takes the state over. *gaps is loaded; -EBADMSG also when it makes no sense. */
int store_relay_begin(struct pg *pg, const char *leader, struct gaps *gaps, struct store_relay_start *ret,
                      struct error *err);

/* Makes sure that no id up to `high` is given out again, a step at a time. *ret_done: there is nothing left
 * to do. */
int store_relay_advance_sequence(struct pg *pg, int64_t high, bool *ret_done, struct error *err);

/* One statement, one snapshot: the head first, then rows within the gaps, then rows above high; ids ascend.
 * Of each kind at most `limit` rows, and as many as begin within `byte_budget`. */
int store_relay_read(struct pg *pg, const struct gaps *gaps, int limit, int64_t byte_budget,
                     struct pg_result **ret, struct error *err);
struct store_relay_head {
    int64_t xmin;
    int64_t wal_position; /* not before the commit of any row shown */
};
void store_relay_head(const struct pg_result *result, struct store_relay_head *ret);
enum store_relay_kind { STORE_RELAY_HEAD, STORE_RELAY_FOUND, STORE_RELAY_ABOVE };
/* Rows from 1 on. `total` is the sum of bytes of its kind so far. */
enum store_relay_kind store_relay_row_kind(const struct pg_result *result, int row, int64_t *ret_id,
                                           int64_t *ret_total);
/* Texts point into the result. */
void store_relay_row(const struct pg_result *result, int row, struct event *ret);

/* Whether the WAL is on disk up to there. */
int store_relay_is_flushed(struct pg *pg, int64_t wal_position, bool *ret, struct error *err);
/* Commits something small with a transaction id of its own, and with it everything before. *ret_fenced:
 * somebody else leads. */
int store_relay_mark(struct pg *pg, int64_t epoch, int64_t *ret_xid, bool *ret_fenced, struct error *err);

/* What is published now. Ends being stopped. */
int store_relay_save(struct pg *pg, int64_t epoch, const struct gaps *gaps,
                     const struct store_relay_identity *identity, bool *ret_fenced, struct error *err);
int store_relay_stop(struct pg *pg, int64_t epoch, int64_t id, const char *reason, bool *ret_fenced,
                     struct error *err);

/* How many partitions a topic had from a ledger id on. Columns: from_sequence, partitions; ascending. */
int store_relay_partitions(struct pg *pg, const char *topic, struct pg_result **ret, struct error *err);
/* No id from there on has been given out. */
int store_relay_next_id(struct pg *pg, int64_t *ret, struct error *err);
int store_relay_add_partitions(struct pg *pg, const char *topic, int64_t from_sequence, int partitions,
                               struct error *err);
