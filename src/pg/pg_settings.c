/* The settings of this program's sessions. See pg_internal.h. Pure. */
#include "pg/pg_internal.h"

/* Our statements are made for the planner as it comes. A method that is switched off for somebody else's sake
 * has them read whole tables, and workers that seem to cost nothing are started anew for each of them. Server
 * versions know different methods. */
#define PLAN_AS_IT_COMES                                                                                     \
    "; select set_config(name, boot_val, false) from pg_catalog.pg_settings "                                \
    "where setting <> boot_val and context = 'user' and (starts_with(name, 'enable_') "                      \
    "or name = any ('{geqo,geqo_threshold,from_collapse_limit,join_collapse_limit,cursor_tuple_fraction,"    \
    "constraint_exclusion,force_parallel_mode,debug_parallel_query}'))"

void pg_settings_write(struct strbuf *sql, const struct pg_params *params, const char *schema, int version)
{
    strbuf_addf(
        sql,
        "set timezone = 'UTC'; set search_path = %s; set jit = off; set row_security = off; set datestyle = 'ISO'; "
        "set standard_conforming_strings = on; set backslash_quote = safe_encoding; set client_min_messages = %s; "
        "set tcp_keepalives_idle = 15; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3; "
        "set default_transaction_isolation = 'read committed'; set idle_in_transaction_session_timeout = '5min'; "
        "set statement_timeout = %llu; set lock_timeout = %llu; select "
        "set_config('work_mem', greatest(pg_size_bytes(current_setting('work_mem')) / 1024, 4096)::text, false)",
        schema, params->remark ? "notice" : "warning",
        (unsigned long long) params->statement_timeout_usec / 1000,
        (unsigned long long) params->lock_timeout_usec / 1000);
    /* Ours are idle for as long as there is nothing to do. */
    if (version >= 140000)
        strbuf_adds(sql, "; set idle_session_timeout = 0");
    if (version >= 170000)
        strbuf_adds(sql, "; set transaction_timeout = 0");
    strbuf_adds(sql, PLAN_AS_IT_COMES);
    if (params->keep_to_indexes)
        strbuf_adds(sql, "; set enable_seqscan = off; set plan_cache_mode = force_generic_plan; "
                         "set max_parallel_workers_per_gather = 0");
}
