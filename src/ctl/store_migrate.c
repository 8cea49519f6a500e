/* SQL of "anubisctl migrate". See store_migrate.h. */
#include "ctl/store_migrate.h"

#include <string.h>

#include "pg/schema.h"
#include "sql/statements.h"

/* What we wait for in the middle of a migration stalls the application behind us. */
#define LIMIT_LOCKS "set local lock_timeout = '5s'"
#define BEGIN                                                                                                \
    "begin; set local statement_timeout = 0; set local lock_timeout = 0; "                                   \
    "set local idle_in_transaction_session_timeout = 0; "                                                    \
    "set local client_min_messages = warning; " LIMIT_LOCKS

/* Not a key of lock_key(): that function and the schema, whose OID is part of the key, may not exist yet. */
static const struct pg_statement try_turn = {
    "", "select pg_try_advisory_xact_lock(hashtextextended('anubisctl migrate ' || $1, 0))"};

/* Columns: quoted name, whether it exists, lacks, the database's name, tables of an application in
 * "public". */
static const struct pg_statement find_place = {"", sql_migrate_place};

static const struct pg_statement find_table = {
    "", "select exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        "                where n.nspname = $1 and c.relname = 'anubis_migrations')"};

static const struct pg_statement read_applied = {
    "", "select version, name, checksum, applied_by from anubis_migrations order by version"};

static const struct pg_statement checksum = {"", "select encode(sha256(convert_to($1, 'UTF8')), 'hex')"};

/* Those that exist, in the order given or the other way round. */
static const struct pg_statement find_tables = {
    "",
    "select string_agg(format('%I.%I', n.nspname, c.relname), ', ' order by case when $3 then -t.number else t.number end)"
    "  from unnest(string_to_array($2, ' ')) with ordinality as t (name, number)"
    "  join pg_class c on c.relname = t.name and c.relkind in ('r', 'p')"
    "  join pg_namespace n on n.oid = c.relnamespace and n.nspname = $1"};

/* Whoever waits for a lock longer than deadlock_timeout looks for a deadlock and ends somebody, perhaps a
 * transaction of the application's that holds one of these tables and wants another. We give up before. */
static const struct pg_statement limit_patience = {
    "", "select set_config('lock_timeout', greatest(10, least(800, setting::int * 4 / 5))::text, true)"
        "  from pg_settings where name = 'deadlock_timeout'"};

static const struct pg_statement record_step = {
    "",
    "insert into anubis_migrations (version, name, checksum, applied_by, oldest_daemon)"
    " values ($1, $2, encode(sha256(convert_to($3, 'UTF8')), 'hex'), $4 || ', role ' || current_user, $5)"};

static const struct pg_statement record_repeatable = {
    "", "insert into anubis_repeatables (name, checksum, applied_by)"
        " values ($1, encode(sha256(convert_to($2, 'UTF8')), 'hex'), $3 || ', role ' || current_user)"
        " on conflict (name) do update set checksum = excluded.checksum, applied_at = now(),"
        "                                  applied_by = excluded.applied_by"};

static const struct pg_statement is_applied = {
    "", "select exists (select from anubis_repeatables"
        "                where name = $1 and checksum = encode(sha256(convert_to($2, 'UTF8')), 'hex'))"};

static const struct pg_statement sequence_cache = {
    "", "select seqcache from pg_sequence where seqrelid = to_regclass('ledger_id_seq')"};

static const struct pg_statement blockers = {"", sql_migrate_blockers};

static int query_text(struct pg *pg, const struct pg_statement *statement, const char *parameter,
                      struct pg_result **ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, parameter);
    return pg_query(pg, statement, &args, ret, err);
}

int store_migrate_begin(struct pg *pg, struct error *err)
{
    return pg_execute(pg, BEGIN, err);
}

int store_migrate_try_turn(struct pg *pg, const char *schema, bool *ret, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    int r = query_text(pg, &try_turn, schema, &result, err);
    if (r == PG_DONE)
        *ret = pg_get_bool(result, 0, 0);
    return r;
}

int store_migrate_place(struct pg *pg, const char *schema, struct store_place *place, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    int r = query_text(pg, &find_place, schema, &result, err);
    if (r != PG_DONE)
        return r;
    strbuf_adds(&place->quoted, pg_get_text(result, 0, 0));
    place->exists = pg_get_bool(result, 0, 1);
    strbuf_adds(&place->lacks, pg_get_text(result, 0, 2));
    strbuf_adds(&place->database, pg_get_text(result, 0, 3));
    place->beside = !place->exists && pg_get_bool(result, 0, 4);
    return PG_DONE;
}

int store_migrate_create_schema(struct pg *pg, const char *quoted, struct error *err)
{
    CLEANUP(freep) char *sql = xasprintf("create schema %s", quoted);

    return pg_execute(pg, sql, err);
}

int store_migrate_read(struct pg *pg, const char *schema, struct store_applied **ret, size_t *ret_count,
                       struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *table = NULL, *rows = NULL;

    int r = query_text(pg, &find_table, schema, &table, err);
    if (r == PG_DONE && pg_get_bool(table, 0, 0))
        r = pg_query(pg, &read_applied, NULL, &rows, err);
    if (r != PG_DONE)
        return r;
    *ret_count = rows ? (size_t) pg_rows(rows) : 0;
    *ret = xcalloc(*ret_count, sizeof(**ret));
    for (int i = 0; i < (int) *ret_count; i++)
        (*ret)[i] =
            (struct store_applied){(int) pg_get_i64(rows, i, 0), xstrdup(pg_get_text(rows, i, 1)),
                                   xstrdup(pg_get_text(rows, i, 2)), xstrdup(pg_get_text(rows, i, 3))};
    return PG_DONE;
}

void store_applied_free(struct store_applied *items, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(items[i].name);
        free(items[i].checksum);
        free(items[i].applied_by);
    }
    free(items);
}

int store_migrate_checksum(struct pg *pg, const char *text, char **ret, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    int r = query_text(pg, &checksum, text, &result, err);
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
        r = pg_query(pg, &limit_patience, NULL, NULL, err);
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
    int r = pg_query(pg, &find_tables, &args, &result, err);
    if (r != PG_DONE || pg_is_null(result, 0, 0))
        return r;
    return lock(pg, pg_get_text(result, 0, 0), ret_busy, err);
}

int store_migrate_is_applied(struct pg *pg, const struct sql_file *repeatable, bool *ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_text(&args, repeatable->name);
    pg_arg_text(&args, repeatable->text);
    int r = pg_query(pg, &is_applied, &args, &result, err);
    if (r == PG_DONE)
        *ret = pg_get_bool(result, 0, 0);
    return r;
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
    return pg_query(pg, version >= 0 ? &record_step : &record_repeatable, &args, NULL, err);
}

int store_migrate_sequence_cache(struct pg *pg, int64_t *ret, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    int r = pg_query(pg, &sequence_cache, NULL, &result, err);
    if (r == PG_DONE)
        *ret = pg_rows(result) ? pg_get_i64(result, 0, 0) : 0;
    return r;
}

int store_migrate_blockers(struct pg *pg, const char *schema, const char *tables, struct strbuf *out,
                           struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_text(&args, schema);
    pg_arg_text(&args, tables);
    int r = pg_query(pg, &blockers, &args, &result, err);
    if (r == PG_DONE)
        strbuf_adds(out, pg_get_text(result, 0, 0));
    return r;
}
