/* What is wrong, and whether it is to be told. See alerts_internal.h. */
#include <inttypes.h>

#include "alerts/alert_sink.h"
#include "alerts/alerts_internal.h"
#include "base/log.h"
#include "sql/statements.h"

/* What the database knows, with or without Kafka. */
static int look_at_database(struct alerts *a, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    const struct config *c = a->rules;

    pg_arg_i64(&args, (int64_t) (c->alerts.backlog_age_usec / USEC_PER_MSEC));
    pg_arg_i64(&args, (int64_t) (c->circuit_breaker.recovery_timeout_usec / USEC_PER_MSEC));
    pg_arg_i32(&args, c->circuit_breaker.failure_threshold);
    pg_arg_i64(&args, (int64_t) (c->retry.max_age_usec / USEC_PER_MSEC));
    pg_arg_text(&args, ALERTS_SESSION_LOST);
    return pg_query(a->pg, &sql_alerts_look, &args, NULL, err);
}

/* Who is to be told. The names live as long as *names, which the caller frees. */
static size_t list_sinks(const struct config *c, char (**names)[ALERTMANAGER_SINK], const char ***ret)
{
    size_t managers = alertmanagers_count(c->alerts.alertmanager_urls), count = 0;
    const char **sinks = xcalloc(3 + managers, sizeof(*sinks));

    *names = xcalloc(managers + 1, sizeof(**names));
    sinks[count++] = "journal";
    sinks[count++] = "topic";
    if (*c->alerts.webhook_url)
        sinks[count++] = "webhook";
    for (size_t i = 0; i < managers; i++) {
        alertmanager_sink(i + 1, (*names)[i]);
        sinks[count++] = (*names)[i];
    }
    *ret = sinks;
    return count;
}

static int notify(struct alerts *a, bool *ret_changed, struct error *err)
{
    CLEANUP(freep) char(*names)[ALERTMANAGER_SINK] = NULL;
    CLEANUP(freep) const char **sinks = NULL;
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    size_t count = list_sinks(a->rules, &names, &sinks);
    int64_t told = 0;

    pg_arg_i64(&args, (int64_t) (a->rules->alerts.repeat_interval_usec / USEC_PER_MSEC));
    pg_arg_texts(&args, sinks, sizeof(*sinks), count);
    int r = pg_query_i64(a->pg, &sql_alerts_notify, &args, &told, err);
    if (r == PG_DONE)
        *ret_changed = told > 0;
    return r;
}

int alerts_drop_unnamed(struct alerts *a, struct error *err)
{
    CLEANUP(freep) char(*names)[ALERTMANAGER_SINK] = NULL;
    CLEANUP(freep) const char **sinks = NULL;
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    size_t count = list_sinks(a->rules, &names, &sinks);

    pg_arg_texts(&args, sinks, sizeof(*sinks), count);
    int r = pg_query(a->pg, &sql_alerts_unnamed, &args, &rows, err);
    if (r != PG_DONE)
        return r;
    a->sinks.settled = true;
    int64_t dropped = pg_get_i64(rows, 0, 1);
    if (dropped > 0)
        log_notice("the configuration no longer names these sinks of alerts: %s; %" PRId64
                   " notice%s that waited for them %s given up",
                   pg_get_text(rows, 0, 0), dropped, plural(dropped), dropped == 1 ? "is" : "are");
    return PG_DONE;
}

int alerts_look(struct alerts *a, bool *ret_changed, struct error *err)
{
    int r = look_at_database(a, err);

    if (r == PG_DONE)
        r = alerts_judge_rates(a, err);
    return r == PG_DONE ? notify(a, ret_changed, err) : r;
}
