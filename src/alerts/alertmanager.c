/* Alertmanager, API v2. See alert_sink.h.
 *
 * It keeps no alert for long: one that fires is told again every minute with an end four minutes ahead, as
 * Prometheus does. So a silent daemon's alerts end, and an Alertmanager that lost all of them learns them
 * within a minute. What has resolved is told for a quarter of an hour. In a cluster each one gets all.
 *
 * What fires and what is over is also a row of the outbox for each of them, until it has taken a body with
 * it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "alerts/alert_sink.h"
#include "base/log.h"
#include "sql/statements.h"

#define AGAIN_USEC (60 * USEC_PER_SEC)
#define TIMEOUT_USEC (10 * USEC_PER_SEC)

struct instance {
    struct alerts *alerts;
    char *url; /* as configured */
    char *body;
    char sink[ALERTMANAGER_SINK];            /* in the outbox: by its number in the configuration */
    int64_t covered;                         /* rows of the outbox up to this are in the body; 0 = none */
    enum { UNASKED, TAKEN, REFUSED } answer; /* not yet in the outbox */
    struct error why;
    bool under_way;
    bool gone; /* from the configuration: freed when its answer is there */
    uint64_t due_at;
    struct backoff backoff;
    struct trouble away;
    struct instance *next;
};

struct alertmanagers {
    struct instance *first;
    char *urls; /* of the configuration that the list was made from */
};

void alertmanager_sink(size_t number, char ret[ALERTMANAGER_SINK])
{
    snprintf(ret, ALERTMANAGER_SINK, "alertmanager %zu", number);
}

size_t alertmanagers_count(const char *urls)
{
    size_t count = *urls != '\0';

    for (const char *p = urls; *p; p++)
        count += *p == ' ';
    return count;
}

struct alertmanagers *alertmanagers_new(void)
{
    return xcalloc(1, sizeof(struct alertmanagers));
}

static void instance_free(struct instance *i)
{
    free(i->url);
    free(i->body);
    free(i);
}

void alertmanagers_free(struct alertmanagers *m)
{
    if (!m)
        return;
    while (m->first) {
        struct instance *i = m->first;
        m->first = i->next;
        instance_free(i);
    }
    free(m->urls);
    free(m);
}

/* Forgets those that are gone and have nothing under way. */
static void drop_gone(struct alertmanagers *m)
{
    for (struct instance **at = &m->first; *at;) {
        struct instance *i = *at;
        if (!i->gone || i->under_way) {
            at = &i->next;
            continue;
        }
        *at = i->next;
        instance_free(i);
    }
}

static void take_urls(struct alertmanagers *m, const char *urls)
{
    CLEANUP(freep) char *copy = xstrdup(urls);
    char *rest = copy, *url;

    if (m->urls && strcmp(m->urls, urls) == 0)
        return;
    free(m->urls);
    m->urls = xstrdup(urls);
    for (struct instance *i = m->first; i; i = i->next)
        i->gone = true;
    for (size_t n = 0; *urls && (url = strsep(&rest, " "));) {
        struct instance *i = xcalloc(1, sizeof(*i));
        i->url = xstrdup(url);
        alertmanager_sink(++n, i->sink);
        i->backoff = BACKOFF_RECONNECT;
        i->next = m->first;
        m->first = i;
    }
}

static void on_answer(const struct http_result *result, void *userdata)
{
    struct instance *i = userdata;

    i->under_way = false;
    i->answer = alert_sink_took(result, &i->why) ? TAKEN : REFUSED;
    i->alerts->hurry |= i->covered > 0;
    if (i->answer == TAKEN) {
        backoff_reset(&i->backoff);
        if (trouble_ends(&i->away))
            log_notice("%s takes alerts again", i->sink);
        return;
    }
    i->due_at = now_monotonic_usec() + backoff_next_usec(&i->backoff);
    if (trouble_begins(&i->away))
        log_warning("%s (alerts.alertmanager_urls) does not take alerts: %s; trying again", i->sink,
                    i->why.text);
}

/* What became of the last request, for the outbox. */
static int report(struct alerts *a, struct instance *i, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    bool taken = i->answer == TAKEN;

    if (i->answer == UNASKED || i->covered == 0 || i->gone) {
        i->answer = UNASKED;
        return PG_DONE;
    }
    pg_arg_text(&args, i->sink);
    pg_arg_i64(&args, i->covered);
    if (!taken)
        pg_arg_text(&args, i->why.text);
    int r = pg_query(a->pg, taken ? &sql_alertmanager_took : &sql_alertmanager_refused, &args, NULL, err);
    if (r == PG_DONE)
        i->answer = UNASKED;
    return r;
}

static void post(struct alerts *a, struct instance *i, const char *body, uint64_t now)
{
    CLEANUP(freep) char *base = NULL, *authorization = NULL, *url = NULL;

    alert_sink_read_url(i->url, &base, &authorization);
    size_t len = strlen(base);
    url = xasprintf("%s%sapi/v2/alerts", base, len > 0 && base[len - 1] == '/' ? "" : "/");
    const char *const headers[] = {"Content-Type: application/json", authorization, NULL};
    free(i->body);
    i->body = xstrdup(body);
    i->under_way = true;
    i->alerts = a;
    i->due_at = now + AGAIN_USEC;
    const struct http_request request = {.url = url,
                                         .headers = headers,
                                         .body = i->body,
                                         .body_len = strlen(i->body),
                                         .timeout_usec = TIMEOUT_USEC};
    http_post(a->http, &request, on_answer, i);
}

static bool is_due(const struct instance *i, uint64_t now)
{
    return !i->gone && !i->under_way && now >= i->due_at;
}

static int tell(struct alerts *a, struct instance *i, uint64_t now, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_text(&args, i->sink);
    int r = pg_query(a->pg, &sql_alertmanager, &args, &result, err);
    if (r != PG_DONE)
        return r;
    struct pg_row row = {result, 0, 0};
    const char *body = pg_next_text(&row);
    i->covered = pg_next_i64(&row);
    if (*body)
        post(a, i, body, now);
    else
        i->due_at = now + AGAIN_USEC;
    return PG_DONE;
}

int alertmanagers_turn(struct alerts *a, struct alertmanagers *m, bool changed, struct error *err)
{
    uint64_t now = now_monotonic_usec();
    int r = PG_DONE;

    take_urls(m, a->rules->alerts.alertmanager_urls);
    drop_gone(m);
    for (struct instance *i = m->first; r == PG_DONE && i; i = i->next) {
        r = report(a, i, err);
        if (changed && !i->away.said)
            i->due_at = 0;
        if (r == PG_DONE && is_due(i, now))
            r = tell(a, i, now, err);
    }
    return r;
}
