/* SQL of "anubisctl migrate". See store_migrate.h. */
#include "ctl/store_migrate.h"

#include <string.h>

#include "pg/schema.h"
#include "sql/statements.h"

/* What we wait for in the middle of a migration stalls the application behind us. */
#define LIMIT_LOCKS "set local lock_timeout = '5s'"

static int query_text(struct pg *pg, const struct pg_statement *statement, const char *parameter,
                      struct pg_result **ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, parameter);
    return pg_query(pg, statement, &args, ret, err);
}

int store_migrate_begin(struct pg *pg, bool utc, struct error *err)
{
    int r = pg_execute(pg,
                       "begin; set local statement_timeout = 0; set local lock_timeout = 0; "
                       "set local idle_in_transaction_session_timeout = 0; "
                       "set local client_min_messages = warning; " LIMIT_LOCKS,
                       err);
    return r == PG_DONE && utc ? pg_execute(pg, "set local anubis.times_are_utc = on", err) : r;
}

int store_migrate_try_turn(struct pg *pg, const char *schema, bool *ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, schema);
    return pg_query_bool(pg, &sql_migrate_try_turn, &args, ret, err);
}

int store_migrate_place(struct pg *pg, const char *schema, struct store_place *place, struct error *err)
{
    int r = query_text(pg, &sql_migrate_place, schema, &place->result, err);
    if (r != PG_DONE)
        return r;
    struct pg_row row = {place->result, 0, 0};
    place->quoted = pg_next_text(&row);
    place->exists = pg_next_bool(&row);
    place->lacks = pg_next_text(&row);
    place->database = pg_next_text(&row);
    place->beside = !place->exists && pg_next_bool(&row);
    return PG_DONE;
}

int store_migrate_read(struct pg *pg, const char *schema, struct pg_result **ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    bool there = false;

    pg_arg_text(&args, schema);
    int r = pg_query_bool(pg, &sql_migrate_has_table, &args, &there, err);
    return r == PG_DONE && there ? pg_query(pg, &sql_migrate_applied, NULL, ret, err) : r;
}

struct store_applied store_applied_row(const struct pg_result *result, int number)
{
    struct pg_row row = {result, number, 0};
    struct store_applied a;

    a.version = (int) pg_next_i64(&row);
    a.name = pg_next_text(&row);
    a.checksum = pg_next_text(&row);
    a.applied_by = pg_next_text(&row);
    return a;
}

int store_migrate_mend(struct pg *pg, const char *by, bool *ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, by);
    return pg_query_bool(pg, &sql_migrate_mend, &args, ret, err);
}

int store_migrate_checksum(struct pg *pg, const char *text, char **ret, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    int r = query_text(pg, &sql_migrate_checksum, text, &result, err);
    if (r == PG_DONE)
        *ret = xstrdup(pg_get_text(result, 0, 0));
    return r;
}

/* Savepoint and all, so that a lock that is not had leaves the transaction as it was. */
static int lock(struct pg *pg, const char *tables, bool *ret_busy, struct error *err)
{
    CLEANUP(freep) char *sql = xasprintf("lock table %s in access exclusive mode", tables);

    int r = pg_execute(pg, "savepoint locks", err);
    if (r == PG_DONE)
        r = pg_query(pg, &sql_migrate_limit_patience, NULL, NULL, err);
    if (r == PG_DONE)
        r = pg_execute(pg, sql, err);
    *ret_busy =
        r < 0 && (strcmp(pg_error_sqlstate(pg), "55P03") == 0 || strcmp(pg_error_sqlstate(pg), "40P01") == 0);
    if (*ret_busy)
        return pg_execute(pg, "rollback to savepoint locks", err);
    return r == PG_DONE ? pg_execute(pg, LIMIT_LOCKS, err) : r;
}

int store_migrate_lock(struct pg *pg, const char *schema, const char *tables, bool reversed, bool *ret_busy,
                       struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    *ret_busy = false;
    pg_arg_text(&args, schema);
    pg_arg_text(&args, tables);
    pg_arg_bool(&args, reversed);
    int r = pg_query(pg, &sql_migrate_find_tables, &args, &result, err);
    if (r != PG_DONE || pg_is_null(result, 0, 0))
        return r;
    return lock(pg, pg_get_text(result, 0, 0), ret_busy, err);
}

int store_migrate_is_applied(struct pg *pg, const struct sql_file *repeatable, bool *ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, repeatable->name);
    pg_arg_text(&args, repeatable->text);
    return pg_query_bool(pg, &sql_migrate_is_applied, &args, ret, err);
}

int store_migrate_record(struct pg *pg, const struct sql_file *file, const char *by, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    int version = schema_file_version(file->name);

    if (version >= 0)
        pg_arg_i32(&args, version);
    pg_arg_text(&args, file->name);
    pg_arg_text(&args, file->text);
    pg_arg_text(&args, by);
    if (version >= 0)
        pg_arg_i32(&args, schema_file_oldest_daemon(file->text));
    return pg_query(pg, version >= 0 ? &sql_migrate_record_step : &sql_migrate_record_repeatable, &args, NULL,
                    err);
}

int store_migrate_blockers(struct pg *pg, const char *schema, const char *tables, struct strbuf *out,
                           struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_text(&args, schema);
    pg_arg_text(&args, tables);
    int r = pg_query(pg, &sql_migrate_blockers, &args, &result, err);
    if (r == PG_DONE)
        strbuf_adds(out, pg_get_text(result, 0, 0));
    return r;
}
