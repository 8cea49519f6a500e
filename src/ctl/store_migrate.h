/* The statements of "anubisctl migrate": one transaction, from store_migrate_begin() to its commit.
 *
 * Outcomes and errors are pg_query()'s where nothing else is said. `schema` is the bare name. */
#pragma once

#include "pg/pg.h"
#include "pg/sql_files.h"

/* utc: times without zone of adopted tables are UTC, whatever they look like. */
int store_migrate_begin(struct pg *pg, bool utc, struct error *err);

/* *ret: it is our turn, until the end of the transaction; else another migration of this schema runs. */
int store_migrate_try_turn(struct pg *pg, const char *schema, bool *ret, struct error *err);

struct store_place {
    const char *quoted, *database; /* the schema's name as SQL wants it; the database's as it is */
    bool exists;                   /* the schema */
    bool beside;       /* it does not, but "public" has tables of an application that look like ours */
    const char *lacks; /* a line for each permission that our role lacks, with the command that gives it */
    struct pg_result *result;
};
int store_migrate_place(struct pg *pg, const char *schema, struct store_place *place, struct error *err);

/* The steps that anubis_migrations has, by version; *ret stays NULL when there is no such table. */
int store_migrate_read(struct pg *pg, const char *schema, struct pg_result **ret, struct error *err);
struct store_applied {
    int version;
    const char *name, *checksum, *applied_by;
};
struct store_applied store_applied_row(const struct pg_result *result, int row);

/* The checksum of a text, as anubis_migrations holds it; the caller frees. */
int store_migrate_checksum(struct pg *pg, const char *text, char **ret, struct error *err);

/* Locks those of `tables` (separated by spaces) that exist, in this order or `reversed`, against everybody.
 * *ret_busy: others hold them; nothing is locked then, and the transaction goes on. */
int store_migrate_lock(struct pg *pg, const char *schema, const char *tables, bool reversed, bool *ret_busy,
                       struct error *err);

/* Names the sessions that hold `tables` (as for store_migrate_lock()), or the turn when that is NULL, in
 * words ("session 4711 (role …, …)"); nothing when there are none any more. */
int store_migrate_blockers(struct pg *pg, const char *schema, const char *tables, struct strbuf *out,
                           struct error *err);

/* *ret: the repeatable file was applied last with the text that it has. */
int store_migrate_is_applied(struct pg *pg, const struct sql_file *repeatable, bool *ret, struct error *err);

/* Brings back the rows of a database that was made from a schema dump; *ret: it had none. */
int store_migrate_mend(struct pg *pg, const char *by, bool *ret, struct error *err);

/* Notes that a step or a repeatable file was applied, `by` which program. */
int store_migrate_record(struct pg *pg, const struct sql_file *file, const char *by, struct error *err);
