/* SQL of "anubisctl migrate". See store_migrate.h. */
#include "ctl/store_migrate.h"

#include <string.h>

/* What we wait for in the middle of a migration stalls the application behind us. */
#define BEGIN                                                                                                \
    "begin; set local statement_timeout = 0; set local lock_timeout = 0; "                                   \
    "set local idle_in_transaction_session_timeout = 0"
#define LIMIT_LOCKS "set local lock_timeout = '5s'"

/* Not lock_key('migrate'): the function and the schema, whose OID is part of the key, may not exist yet. */
static const struct pg_statement wait_turn = {
    "", "select pg_advisory_xact_lock(hashtextextended('anubisctl migrate ' || $1, 0))"};

/* Columns: quoted name, whether it exists, lacks, the database's name, tables of an application in "public". */
static const struct pg_statement find_place = {
    "",
    "with d as (select oid, datname, pg_get_userbyid(datdba) as owner from pg_database"
    "            where datname = current_database()),"
    "     s as (select oid, nspname, pg_get_userbyid(nspowner) as owner from pg_namespace where nspname = $1),"
    "     lack (text) as ("
    "  select format('role \"%s\" may not create the schema \"%s\": let \"%s\", who owns the database, run"
    " \"grant create on database %I to %I\"', current_user, $1, owner, datname, current_user)"
    "    from d where not exists (select from s) and not has_database_privilege(oid, 'create')"
    "  union all"
    "  select format('role \"%s\" may not make temporary functions in the database: let \"%s\", who owns it, run"
    " \"grant temporary on database %I to %I\"', current_user, owner, datname, current_user)"
    "    from d where not has_database_privilege(oid, 'temporary')"
    "  union all"
    "  select format('role \"%s\" may not create anything in the schema \"%s\": let \"%s\", who owns it, run"
    " \"grant usage, create on schema %I to %I\"', current_user, $1, owner, nspname, current_user)"
    "    from s where not (has_schema_privilege(oid, 'create') and has_schema_privilege(oid, 'usage'))"
    "  union all"
    "  select format('%s \"%s\" belongs to role \"%s\", not to \"%s\": run anubisctl --database \"user=%s ...\" migrate,"
    " or let an administrator run \"grant %I to %I\"', case c.relkind when 'S' then 'sequence' when 'v' then 'view'"
    " else 'table' end, c.relname, o.owner, current_user, o.owner, o.owner, current_user)"
    "    from s join pg_class c on c.relnamespace = s.oid, pg_get_userbyid(c.relowner) as o (owner)"
    "   where not pg_has_role(c.relowner, 'usage')"
    "     and c.relname in ('anubis_migrations', 'integrations', 'integration_filters', 'subscriptions',"
    "                       'subscription_events', 'ledger_id_seq'))"
    " select quote_ident($1), exists (select from s), string_agg(text, E'\\n'), current_database(),"
    "        to_regclass('public.integrations') is not null and to_regclass('public.subscriptions') is not null"
    "   from lack"};

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

static const struct pg_statement record = {
    "", "insert into anubis_migrations (version, name, checksum, applied_by, oldest_daemon)"
        " values ($1, $2, $3, $4 || ', role ' || current_user, $5)"};

static const struct pg_statement sequence_cache = {
    "", "select seqcache from pg_sequence where seqrelid = to_regclass('ledger_id_seq')"};

static const struct pg_statement backend = {"", "select pg_backend_pid()"};

static const struct pg_statement blockers = {
    "",
    "select string_agg(case when b.pid = 0 then 'a prepared transaction' else format('session %s (role %s%s%s%s)',"
    "         b.pid, a.usename, ', ' || nullif(a.application_name, ''), ', from ' || host(a.client_addr),"
    "         case when a.state like 'idle in transaction%' then ', idle in a transaction for '"
    "              || extract(epoch from now() - a.state_change)::int || ' s'"
    "              when a.xact_start is not null then ', in a transaction for '"
    "              || extract(epoch from now() - a.xact_start)::int || ' s' end) end, ', ' order by b.pid)"
    "  from unnest(pg_blocking_pids($1)) as b (pid) left join pg_stat_activity a on a.pid = b.pid"};

static int query_text(struct pg *pg, const struct pg_statement *statement, const char *parameter,
                      struct pg_result **ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, parameter);
    return pg_query(pg, statement, &args, ret, err);
}

int store_migrate_begin(struct pg *pg, const char *schema, struct error *err)
{
    int r = pg_execute(pg, BEGIN, err);
    if (r == PG_DONE)
        r = query_text(pg, &wait_turn, schema, NULL, err);
    if (r == PG_DONE)
        r = pg_execute(pg, LIMIT_LOCKS, err);
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

int store_migrate_record(struct pg *pg, const struct store_applied *item, int oldest_daemon,
                         struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i32(&args, item->version);
    pg_arg_text(&args, item->name);
    pg_arg_text(&args, item->checksum);
    pg_arg_text(&args, item->applied_by);
    pg_arg_i32(&args, oldest_daemon);
    return pg_query(pg, &record, &args, NULL, err);
}

int store_migrate_sequence_cache(struct pg *pg, int64_t *ret, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    int r = pg_query(pg, &sequence_cache, NULL, &result, err);
    if (r == PG_DONE)
        *ret = pg_rows(result) ? pg_get_i64(result, 0, 0) : 0;
    return r;
}

int store_backend(struct pg *pg, int *ret_pid, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    int r = pg_query(pg, &backend, NULL, &result, err);
    if (r == PG_DONE)
        *ret_pid = (int) pg_get_i64(result, 0, 0);
    return r;
}

int store_blockers(struct pg *pg, int pid, struct strbuf *out, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_i32(&args, pid);
    int r = pg_query(pg, &blockers, &args, &result, err);
    if (r == PG_DONE)
        strbuf_adds(out, pg_get_text(result, 0, 0));
    return r;
}
