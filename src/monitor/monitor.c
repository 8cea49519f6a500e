/* The monitor. See monitor.h. Blocking, bounded by deadlines and the stop descriptor. */
#include "monitor/monitor.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>

#include "base/backoff.h"
#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"
#include "monitor/store_monitor.h"
#include "pg/pg_session.h"
#include "pg/schema.h"

#define TURN_USEC USEC_PER_SEC
#define LOOK_USEC (5 * USEC_PER_SEC)
#define EXTEND_USEC (20 * USEC_PER_SEC)
/* After a crash the server may take a while to notice that our former session, which had the name, is
 * gone. */
#define NAME_USEC (10 * USEC_PER_SEC)

struct monitor {
    struct monitor_params params;
    struct config *config;
    pthread_t thread;
    struct monitor_stats stats;
    struct pg *pg;
    struct backoff backoff;
    uint64_t open_at, look_at, extend_at; /* monotonic */
    bool extend_warned;
    bool name_held, name_warned;
    uint64_t name_wanted_at; /* since when it is asked for in vain, 0 = it is not */
};

/* A second at a time, so that the heartbeat moves. True when it is time to go. */
static bool turn(struct monitor *m)
{
    struct pollfd fd = {.fd = m->params.stop_fd, .events = POLLIN};
    heartbeat_beat(m->params.heartbeat);
    return poll(&fd, 1, (int) (TURN_USEC / USEC_PER_MSEC)) > 0;
}

static void give_up_session(struct monitor *m)
{
    pg_close(TAKE_PTR(m->pg));
    m->name_held = false;
    m->open_at = now_monotonic_usec() + backoff_next_usec(&m->backoff);
    m->stats.waiting = m->stats.unrouted = -1;
}

/* The dispatcher says when the database is away; one voice is enough. */
static void open_session(struct monitor *m)
{
    struct error err;
    struct pg_params params = pg_session_params(m->config, "anubisd monitor", 10 * USEC_PER_SEC);

    params.lock_timeout_usec = USEC_PER_SEC;
    params.stop_fd = m->params.stop_fd;
    if (pg_open(&m->pg, &params, &err) != PG_DONE) {
        give_up_session(m);
        return;
    }
    backoff_reset(&m->backoff);
    m->look_at = m->extend_at = 0;
}

static void extend_ledger(struct monitor *m)
{
    struct error err;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    int r = pg_query(m->pg, &store_extend_ledger, NULL, &result, &err);
    if (r == PG_DONE) {
        m->extend_at = now_monotonic_usec() + EXTEND_USEC;
        m->extend_warned = false;
        int made = (int) pg_get_i64(result, 0, 0);
        if (made > 0)
            log_info("made %d partition%s of the ledger ahead", made, plural(made));
        return;
    }
    m->extend_at = now_monotonic_usec() + LOOK_USEC;
    /* A lock that somebody holds goes by as a rule; partitions lie far ahead. */
    if (pg_usable(m->pg) && strcmp(pg_error_sqlstate(m->pg), "55P03") != 0 && !m->extend_warned) {
        m->extend_warned = true;
        log_warning("could not make partitions of the ledger ahead: %s; trying again", err.text);
    }
}

/* Two of one name: claims and leaders no longer tell which of them it was. Work goes on all the same. */
static void take_name(struct monitor *m)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    uint64_t now = now_monotonic_usec();

    pg_arg_text(&args, m->config->instance);
    if (m->name_held || pg_query(m->pg, &store_take_name, &args, &result, NULL) != PG_DONE)
        return;
    m->name_held = pg_get_bool(result, 0, 0);
    if (m->name_held) {
        if (m->name_warned)
            log_notice("no other daemon is \"%s\" any more", m->config->instance);
        m->name_warned = false;
        m->name_wanted_at = 0;
    } else if (!m->name_wanted_at) {
        m->name_wanted_at = now;
    } else if (!m->name_warned && now - m->name_wanted_at >= NAME_USEC) {
        m->name_warned = true;
        log_warning("another daemon on this database is \"%s\", too: nobody can tell whose claims are whose; "
                    "give each its own name (instance, by default the host's name)",
                    m->config->instance);
    }
}

static void look(struct monitor *m)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    struct error err;
    int r = schema_check(m->pg, &err);
    if (r > 0) {
        m->params.schema_misfit(m->params.userdata);
        give_up_session(m);
        return;
    }
    m->look_at = now_monotonic_usec() + LOOK_USEC;
    if (r < 0 || pg_query(m->pg, &store_backlog, NULL, &result, NULL) != PG_DONE)
        return;
    m->stats.waiting = pg_get_i64(result, 0, 0);
    m->stats.unrouted = pg_get_i64(result, 0, 1);
    m->stats.unpublished = pg_get_i64(result, 0, 2);
    m->stats.relay_stopped = !pg_is_null(result, 0, 3);
}

static void *run(void *userdata)
{
    struct monitor *m = userdata;
    pthread_setname_np(pthread_self(), "monitor");
    do {
        uint64_t now = now_monotonic_usec();
        if (!m->pg && now >= m->open_at)
            open_session(m);
        if (m->pg && now >= m->look_at) {
            look(m);
            if (m->pg && pg_usable(m->pg))
                take_name(m);
        }
        if (m->pg && now >= m->extend_at)
            extend_ledger(m);
        if (m->pg && !pg_usable(m->pg))
            give_up_session(m);
    } while (!turn(m));
    pg_close(TAKE_PTR(m->pg));
    return NULL;
}

int monitor_start(struct monitor **ret, const struct monitor_params *params, struct error *err)
{
    struct monitor *m = xcalloc(1, sizeof(*m));
    m->params = *params;
    m->config = config_ref(params->config);
    m->backoff = (struct backoff){.base_usec = 250 * USEC_PER_MSEC, .max_usec = 10 * USEC_PER_SEC};
    m->stats.waiting = m->stats.unrouted = -1;
    int r = pthread_create(&m->thread, NULL, run, m);
    if (r != 0) {
        error_set(err, "could not start the monitor's thread: %s", strerror(r));
        config_unref(m->config);
        free(m);
        return -r;
    }
    *ret = m;
    return 0;
}

void monitor_join(struct monitor *m)
{
    if (!m)
        return;
    pthread_join(m->thread, NULL);
    config_unref(m->config);
    free(m);
}

const struct monitor_stats *monitor_stats(const struct monitor *m)
{
    return &m->stats;
}
