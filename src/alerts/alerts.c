/* The alerts' thread. See alerts.h. Its statements block, bounded by deadlines and the stop descriptor; its
 * requests run on its own event loop. */
#include "alerts/alerts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>

#include "alerts/alert_sink.h"
#include "base/log.h"
#include "base/version.h"
#include "pg/pg_session.h"
#include "sql/statements.h"

#define STATEMENT_USEC (10 * USEC_PER_SEC)
#define USER_AGENT "anubisd/" ANUBIS_VERSION
#define PRUNE_USEC (60 * USEC_PER_SEC)
#define HURRY_USEC (100 * USEC_PER_MSEC) /* between two turns, at least */
/* A look takes at most a tenth of the time. */
#define LOOK_REST 9

/* --- the session ------------------------------------------------------------------------------ */

static void give_up_session(struct alerts *a)
{
    pg_close(TAKE_PTR(a->pg));
    a->leading = a->shows_lost = a->sinks.settled = false;
    a->firing = -1;
    a->open_at = now_monotonic_usec() + backoff_next_usec(&a->backoff);
}

/* The dispatcher says when the database is away. */
static void open_session(struct alerts *a)
{
    struct pg_params params = pg_session_params(a->config, ALERTS_SESSION, STATEMENT_USEC);
    struct error err;

    params.lock_timeout_usec = USEC_PER_SEC;
    params.stop_fd = a->worker.stop_fd;
    if (pg_open(&a->pg, &params, &err) != PG_DONE) {
        give_up_session(a);
        return;
    }
    backoff_reset(&a->backoff);
    a->opened_at = now_monotonic_usec();
    a->look_at = a->prune_at = 0;
}

/* Each daemon says in its session's name that its network is lost: so it needs no table, and what a dead
 * daemon said ends with its session. */
static int show_network(struct alerts *a, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    bool lost = *a->network_lost;

    if (lost == a->shows_lost)
        return PG_DONE;
    pg_arg_text(&args, lost ? ALERTS_SESSION_LOST : ALERTS_SESSION);
    int r = pg_query(a->pg, &sql_session_name, &args, NULL, err);
    if (r == PG_DONE)
        a->shows_lost = lost;
    return r;
}

static int prune(struct alerts *a, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    a->prune_at = now_monotonic_usec() + PRUNE_USEC;
    pg_arg_i64(&args, (int64_t) (a->rules->alerts.window_usec / USEC_PER_MSEC));
    return pg_query(a->pg, &sql_alerts_prune, &args, NULL, err);
}

static int count_firing(struct alerts *a, struct error *err)
{
    int64_t firing;
    int r = pg_query_i64(a->pg, &sql_alerts_firing, NULL, &firing, err);

    if (r == PG_DONE)
        a->firing = firing;
    return r;
}

/* Their URLs are the conf file's own: they may be http, and on a private network. */
static struct http_params http_params(const struct config *c)
{
    return (struct http_params){.connect_timeout_usec = 5 * USEC_PER_SEC,
                                .response_limit = 1024,
                                .max_connections = 4,
                                .allow_http = true,
                                .allow_private_networks = true,
                                .ca_file = c->delivery.ca_file,
                                .proxy = "",
                                .user_agent = *c->delivery.user_agent ? c->delivery.user_agent : USER_AGENT};
}

/* --- a turn ----------------------------------------------------------------------------------- */

static int look(struct alerts *a, bool *ret_changed, struct error *err)
{
    uint64_t began = now_monotonic_usec();

    if (began < a->look_at)
        return PG_DONE;
    int r = alerts_look(a, ret_changed, err);
    uint64_t ended = now_monotonic_usec();
    a->look_at = MAX(began + ALERTS_TURN_USEC, ended + LOOK_REST * (ended - began));
    return r;
}

enum step { SETTLE, LOOK, JOURNAL, WEBHOOK, MANAGERS, TOPIC, LETTERS, CHECKPOINTS, METRICS, PRUNE, STEPS };

static int run_step(struct alerts *a, enum step step, bool *changed, struct error *err)
{
    switch (step) {
    case SETTLE:
        return a->sinks.settled ? PG_DONE : alerts_drop_unnamed(a, err);
    case LOOK:
        return look(a, changed, err);
    case JOURNAL:
        return alert_journal_turn(a, err);
    case WEBHOOK:
        return alert_webhook_turn(a, a->sinks.webhook, err);
    case MANAGERS:
        return alertmanagers_turn(a, a->sinks.managers, *changed, err);
    case TOPIC:
        return alert_topic_turn(a, a->sinks.topic, err);
    case LETTERS:
        return letter_topic_turn(a, a->sinks.letters, err);
    case CHECKPOINTS:
        return checkpoint_topic_turn(a, a->sinks.checkpoints, err);
    case METRICS:
        return metrics_topic_turn(a, a->sinks.metrics, err);
    case PRUNE:
        return now_monotonic_usec() >= a->prune_at ? prune(a, err) : PG_DONE;
    case STEPS:
        break;
    }
    return PG_DONE;
}

/* A statement that is refused for one sink keeps no other from being told. The first error is the answer. */
static int lead(struct alerts *a, struct error *err)
{
    bool changed = false;
    int r = PG_DONE;

    for (enum step step = SETTLE; step < STEPS && pg_usable(a->pg); step++) {
        struct error why;
        int one = run_step(a, step, &changed, &why);
        if (one != PG_DONE && r == PG_DONE) {
            r = one;
            *err = why;
        }
    }
    return r;
}

static int take_lead(struct alerts *a, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    int r = pg_query(a->pg, &sql_alerts_take_lead, NULL, &result, err);

    if (r != PG_DONE)
        return r;
    a->leading = pg_get_bool(result, 0, 0);
    int64_t ended = pg_get_i64(result, 0, 1);
    const char *stranger = pg_get_text(result, 0, 2);
    if (!*stranger)
        (void) trouble_ends(&a->stranger);
    else if (trouble_begins(&a->stranger))
        log_warning("no daemon can look for alerts: the lock for it is held by %s", stranger);
    if (ended > 0 && !*stranger)
        log_warning("the daemon that looks for alerts has been silent for a minute: its process hangs or is "
                    "frozen. Its session (%" PRId64 ") was ended, so that another daemon looks",
                    ended);
    return PG_DONE;
}

static int work(struct alerts *a, struct error *err)
{
    int r = show_network(a, err);

    if (r == PG_DONE && !a->leading)
        r = take_lead(a, err);
    if (r == PG_DONE && a->leading)
        r = lead(a, err);
    return r == PG_DONE ? count_firing(a, err) : r;
}

/* Said once, and once when it is over: whoever waits for alerts has to know that none come. */
static void note_refusal(struct alerts *a, int r, const struct error *err)
{
    if (r == PG_DONE) {
        if (trouble_ends(&a->look))
            log_notice("alerts are looked for again");
        return;
    }
    if (r != -ECONNRESET && r != -ECANCELED && trouble_begins(&a->look))
        log_warning("alerts cannot be looked for: %s; trying again", err->text);
    if (!pg_usable(a->pg) || pg_is_blind(pg_error_sqlstate(a->pg), a->opened_at))
        give_up_session(a);
}

static void take_over(struct alerts *a)
{
    struct config *next = atomic_exchange(&a->next, NULL);

    if (!next)
        return;
    config_unref(a->rules);
    a->rules = next;
    a->sinks.settled = false;
    const struct http_params params = http_params(next);
    http_set_params(a->http, &params);
}

static void turn(struct alerts *a)
{
    struct error err;

    take_over(a);
    if (!a->pg && now_monotonic_usec() >= a->open_at)
        open_session(a);
    if (a->pg) {
        int r = work(a, &err);
        note_refusal(a, r, &err);
    }
}

/* --- the thread ------------------------------------------------------------------------------- */

/* Requests go on meanwhile, each in many small steps: a turn for each would only ask the database. */
static void wait_for_turn(struct alerts *a)
{
    uint64_t now = now_monotonic_usec(), until = now + ALERTS_TURN_USEC;

    /* A turn that was hurried came before the look was due: the next one comes with it. */
    if (a->leading)
        until = MIN(until, MAX(a->look_at, now + HURRY_USEC));
    a->hurry = false;
    while (!a->hurry && !worker_is_stopping(&a->worker) && (now = now_monotonic_usec()) < until)
        sd_event_run(a->event, until - now);
}

static void *run(void *userdata)
{
    struct alerts *a = userdata;

    while (!worker_is_stopping(&a->worker)) {
        heartbeat_beat(a->worker.heartbeat);
        turn(a);
        wait_for_turn(a);
    }
    pg_close(TAKE_PTR(a->pg));
    return NULL;
}

/* It only ends the wait. */
static int on_stop(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
    (void) s, (void) fd, (void) revents, (void) userdata;
    return 0;
}

static void alerts_free(struct alerts *a)
{
    config_unref(a->config);
    config_unref(a->rules);
    config_unref(a->next);
    http_free(a->http);
    alert_webhook_free(a->sinks.webhook);
    alert_topic_free(a->sinks.topic);
    letter_topic_free(a->sinks.letters);
    checkpoint_topic_free(a->sinks.checkpoints);
    metrics_topic_free(a->sinks.metrics);
    alertmanagers_free(a->sinks.managers);
    sd_event_unref(a->event);
    free(a);
}

int alerts_start(struct alerts **ret, const struct alerts_params *params, struct error *err)
{
    struct alerts *a = xcalloc(1, sizeof(*a));

    a->worker = (struct worker){.stop_fd = params->stop_fd, .heartbeat = params->heartbeat};
    a->config = config_ref(params->config);
    a->rules = config_ref(params->config);
    a->network_lost = params->network_lost;
    a->backoff = BACKOFF_RECONNECT;
    a->firing = -1;
    a->sinks.webhook = alert_webhook_new();
    a->sinks.topic = alert_topic_new();
    a->sinks.letters = letter_topic_new();
    a->sinks.checkpoints = checkpoint_topic_new();
    a->sinks.metrics = metrics_topic_new();
    a->sinks.managers = alertmanagers_new();
    const struct http_params http = http_params(a->rules);
    error_set(err, "could not set the alerts' event loop up");
    int r = sd_event_new(&a->event);
    if (r >= 0)
        r = http_new(&a->http, a->event, &http, err);
    if (r >= 0)
        r = sd_event_add_io(a->event, NULL, params->stop_fd, EPOLLIN, on_stop, NULL);
    if (r >= 0)
        r = worker_start(&a->worker, "alerts", run, a, err);
    if (r < 0) {
        alerts_free(a);
        return r;
    }
    *ret = a;
    return 0;
}

void alerts_join(struct alerts *a)
{
    if (!a)
        return;
    pthread_join(a->worker.thread, NULL);
    alerts_free(a);
}

void alerts_reload(struct alerts *a, struct config *config)
{
    config_unref(atomic_exchange(&a->next, config_ref(config)));
}

int64_t alerts_firing(const struct alerts *a)
{
    return a ? a->firing : -1;
}
