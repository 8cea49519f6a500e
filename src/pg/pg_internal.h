/* What pg.c and pg_async.c share: the parts of a session that do not depend on who waits. */
#pragma once

#include <libpq-fe.h>

#include "base/strbuf.h"
#include "pg/pg.h"

/* The statements that a session has prepared. */
struct pg_prepared {
    const struct pg_statement **items;
    size_t count;
};
void pg_prepared_add(struct pg_prepared *p, const struct pg_statement *statement);
/* Sends the statement, or (*ret_preparing) first its PREPARE: when that has succeeded, add it and send again.
 * False when the connection is lost. */
bool pg_send(PGconn *conn, const struct pg_prepared *prepared, const struct pg_statement *statement,
             const struct pg_args *args, bool *ret_preparing);

/* One line of words for what the server or libpq said; `result` may be NULL. The server's DETAIL stays out:
 * it may quote a row. */
void pg_words(struct error *err, PGconn *conn, const PGresult *result);
/* Is it for a session that cannot write? Then another session may (a freeze that ended, another host). */
bool pg_result_is_read_only(const PGresult *result);
/* Does the server not know what this session has prepared, or knows it from another one? A pooler has begun
 * to mix sessions: opened anew, it is refused. */
bool pg_result_is_foreign(const PGresult *result);
const char *pg_sqlstate(const PGresult *result); /* "" when there is none */
bool pg_result_is_good(const PGresult *result);

/* What the role, the database or the server sets for its sessions is meant for others: all that would
 * change what our statements do and cost, or have them write temporary files, is set anew. In a stricter
 * isolation than "read committed" a statement that waited for a lock would look at what was there before.
 * `schema` is quoted. */
void pg_settings_write(struct strbuf *sql, const struct pg_params *params, const char *schema, int version);

/* Takes the connection out of an open struct pg and frees the rest: how pg_async gets a session that a thread
 * opened. */
PGconn *pg_release(struct pg *pg, int64_t *ret_server);

/* After a switch-over the former primary may still answer. The sessions of a process work together (one
 * claims what another settles), so all follow the newest one that writes. True: a session with `server` has
 * to, and *err says so. On any thread. */
bool pg_is_elsewhere(int64_t server, struct error *err);
/* A session that writes is about to work on the server that was started then (microseconds since 1970); 0 =
 * it does not write. False, with *err: all have just left that server, as where an address leads to two. */
bool pg_come_to_server(int64_t server, struct error *err);
