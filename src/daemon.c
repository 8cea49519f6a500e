/* The process: main thread with the event loop, the dispatcher on it, and the threads that may wait beside
 * it.
 *
 * Start:  signals blocked → threads (monitor, relay, alerts, consumers) → dispatcher → READY=1.
 * Stop:   dispatcher drains and settles → stop descriptor raised → consumers, relay, alerts, monitor
 * joined. A second signal ends at once: the database holds the truth, leases bring back what was under way.
 *
 * Nothing here waits for Postgres or Kafka: whatever is away, its part says so and tries again. */
#include "daemon.h"

#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "alerts/alerts.h"
#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"
#include "base/version.h"
#include "consumers/consumer.h"
#include "crypto/note_key.h"
#include "crypto/signature.h"
#include "delivery/dispatcher.h"
#include "handlers/groups.h"
#include "http/http.h"
#include "kafka/kafka_conf.h"
#include "monitor/monitor.h"
#include "pg/pg_conninfo.h"
#include "relay/relay.h"
#include "reload.h"
#include "watchdog.h"

#define TICK_USEC USEC_PER_SEC
/* After the drain: how long results may wait for a database that is away. */
#define SETTLE_AT_STOP_USEC (10 * USEC_PER_SEC)
/* Then the threads: consumers and relay have 17 seconds between them before they are left behind. */
#define JOIN_USEC (25 * USEC_PER_SEC)
/* Open descriptors of a daemon without requests, and to spare. */
#define DESCRIPTORS_BESIDE 128

enum phase {
    PHASE_RUNNING,
    PHASE_DRAINING, /* the dispatcher ends what is under way */
    PHASE_JOINING,  /* the threads end */
};

struct daemon {
    sd_event *event;
    struct config *config;
    const char *path;
    enum phase phase;
    int stop_fd;               /* readable once the threads shall go */
    int misfit_fd;             /* raised by the monitor */
    _Atomic bool database_up;  /* the dispatcher's, as of the last tick; for threads to read */
    _Atomic bool network_lost; /* the same */
    struct dispatcher *dispatcher;
    struct relay *relay;
    struct consumers *consumers;
    struct monitor *monitor;
    struct alerts *alerts;
    struct watchdog watchdog;
    struct dispatcher_stats before;
    uint64_t before_at;
};

/* --- status ----------------------------------------------------------------------------------- */

/* The dispatcher has one; others may be short of it, say when the server is full. */
static void describe_sessions(struct daemon *d, struct strbuf *out)
{
    if (relay_stats(d->relay)->trouble == RELAY_NO_DATABASE)
        strbuf_adds(out, "the relay waits for the database; ");
    consumers_describe(d->consumers, out);
}

static void add_count(struct strbuf *out, int64_t count, const char *what)
{
    strbuf_addf(out, ", %s%" PRId64 " %s", count > MONITOR_COUNTED ? "more than " : "",
                MIN(count, (int64_t) MONITOR_COUNTED), what);
}

/* Nothing of none. */
static void add_trouble(struct strbuf *out, int64_t count, const char *what, const char *more)
{
    if (count > 0)
        strbuf_addf(out, ", %" PRId64 " %s%s%s", count, what, plural(count), more);
}

static void describe(struct daemon *d, const struct dispatcher_stats *s, uint64_t now, struct strbuf *out)
{
    const struct monitor_stats *m = monitor_stats(d->monitor);
    double seconds = (double) (now - d->before_at) / (double) USEC_PER_SEC;

    if (!s->database_up)
        strbuf_addf(out, "waiting for the database: %s; ", s->database_error.text);
    else
        describe_sessions(d, out);
    if (s->database_up && s->standstill)
        strbuf_addf(out, "DELIVERIES STAND STILL: %s; ", s->standstill);
    else if (s->database_up && s->unseen)
        strbuf_addf(out, "%s; ", s->unseen);
    if (!relay_stats(d->relay)->kafka_up)
        strbuf_adds(out, "waiting for Kafka; ");
    if (m->relay_stopped)
        strbuf_adds(out, "the relay is stopped on an event, see the journal; ");
    strbuf_addf(out, "%.0f sent/s, %d in flight",
                seconds > 0 ? (double) (s->sent - d->before.sent) / seconds : 0.0, s->in_flight);
    if (s->unsettled)
        strbuf_addf(out, ", %zu to be settled", s->unsettled);
    if (m->waiting >= 0)
        add_count(out, m->waiting, "waiting");
    if (m->unrouted > 0)
        add_count(out, m->unrouted, "unrouted");
    add_trouble(out, m->circuits_open, "circuit", " open");
    add_trouble(out, alerts_firing(d->alerts), "alert", "");
    add_trouble(out, m->unpublished, "event", " to be published");
    add_trouble(out, consumers_behind(d->consumers), "message", " to be handled");
    strbuf_addf(out, "; since start: %" PRIu64 " sent, %" PRIu64 " failed, %" PRIu64 " retried", s->sent,
                s->failed, s->retried);
    d->before = *s;
    d->before_at = now;
}

static int on_tick(sd_event_source *s, uint64_t usec, void *userdata)
{
    struct daemon *d = userdata;
    CLEANUP(strbuf_free) struct strbuf status = STRBUF_INIT(4096);
    uint64_t now = now_monotonic_usec();
    struct dispatcher_stats stats;
    (void) usec;
    if (d->phase == PHASE_RUNNING)
        dispatcher_check(d->dispatcher);
    dispatcher_stats(d->dispatcher, &stats);
    d->database_up = stats.database_up;
    d->network_lost = stats.network_lost;
    if (d->phase == PHASE_RUNNING) {
        describe(d, &stats, now, &status);
        sd_notifyf(0, "STATUS=%s", strbuf_str(&status));
    }
    watchdog_feed(&d->watchdog, now);
    log_tick();
    sd_event_source_set_time(s, now + TICK_USEC);
    sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
    return 0;
}

/* --- callbacks of the parts ------------------------------------------------------------------- */

static void on_progress(void *userdata)
{
    struct daemon *d = userdata;
    relay_wake(d->relay);
}

static void on_stopped(void *userdata)
{
    struct daemon *d = userdata;
    sd_event_exit(d->event, 0);
}

static void on_misfit_thread(void *userdata)
{
    struct daemon *d = userdata;
    wakefd_raise(d->misfit_fd);
}

static int on_misfit(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
    struct daemon *d = userdata;
    (void) s;
    (void) revents;
    wakefd_clear(fd);
    dispatcher_reopen(d->dispatcher);
    return 0;
}

/* --- signals ---------------------------------------------------------------------------------- */

static int on_stop_overdue(sd_event_source *s, uint64_t usec, void *userdata)
{
    struct daemon *d = userdata;
    struct dispatcher_stats stats;
    (void) s;
    (void) usec;
    dispatcher_stats(d->dispatcher, &stats);
    log_warning(
        "%zu result%s could not be written in time: what is not settled comes back when its lease is over",
        stats.unsettled, plural((int64_t) stats.unsettled));
    sd_event_exit(d->event, 0);
    return 0;
}

static int on_terminate(sd_event_source *s, const struct signalfd_siginfo *si, void *userdata)
{
    struct daemon *d = userdata;
    (void) s;
    uint64_t drain_usec = d->config->delivery.drain_timeout_usec + SETTLE_AT_STOP_USEC;
    if (d->phase != PHASE_RUNNING) {
        log_notice("stopping at once: leases bring back what was under way");
        log_finish();
        _exit(0);
    }
    struct dispatcher_stats stats;
    dispatcher_stats(d->dispatcher, &stats);
    log_line(LOG_NOTICE, MSG_STOPPING,
             "stopping: %d request%s under way, %zu result%s to be settled (%s from process %d)",
             stats.in_flight, plural(stats.in_flight), stats.unsettled, plural((int64_t) stats.unsettled),
             si->ssi_signo == SIGTERM ? "SIGTERM" : "SIGINT", (int) si->ssi_pid);
    sd_notifyf(0, "STOPPING=1\nSTATUS=draining: %d request%s under way\nEXTEND_TIMEOUT_USEC=%" PRIu64,
               stats.in_flight, plural(stats.in_flight), drain_usec + 10 * USEC_PER_SEC);
    d->phase = PHASE_DRAINING;
    if (sd_event_add_time_relative(d->event, NULL, CLOCK_MONOTONIC, drain_usec, 0, on_stop_overdue, d) < 0)
        abort();
    dispatcher_stop(d->dispatcher);
    return 0;
}

static bool check_signing(const char *secrets, struct strbuf *why)
{
    struct signer *signer = NULL;
    struct error err;

    if (signer_new(&signer, secrets, &err) < 0)
        strbuf_adds(why, err.text);
    bool right = signer != NULL;
    signer_free(signer);
    return right;
}

static bool check_note_key(const char *pem, struct strbuf *why)
{
    struct note_key *key = NULL;
    struct error err;

    if (note_key_new(&key, pem, &err) < 0)
        strbuf_adds(why, err.text);
    bool right = key != NULL;
    note_key_free(key);
    return right;
}

const struct config_judges daemon_judges = {.conninfo = pg_conninfo_check,
                                            .certificates = http_check_ca_file,
                                            .signing = check_signing,
                                            .note_key = check_note_key,
                                            .properties = kafka_conf_check};

/* As many descriptors as the daemon may have: the lower, soft limit is for programs that use select(2).
 * Before anybody shares the configuration. */
static void fit_into_descriptors(struct config *c)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void) setrlimit(RLIMIT_NOFILE, &limit);
    (void) getrlimit(RLIMIT_NOFILE, &limit);
    rlim_t most = MAX(limit.rlim_cur - MIN(DESCRIPTORS_BESIDE, limit.rlim_cur / 2), 1);
    if ((rlim_t) c->delivery.max_in_flight <= most)
        return;
    log_warning("delivery.max_in_flight = %d is more than %" PRIu64
                " open descriptors (LimitNOFILE=) allow: %d requests are sent at once",
                c->delivery.max_in_flight, (uint64_t) limit.rlim_cur, (int) most);
    c->delivery.max_in_flight = (int) most;
    c->delivery.max_in_flight_per_integration =
        MIN(c->delivery.max_in_flight_per_integration, c->delivery.max_in_flight);
}

/* False: it has errors, and the old one stays. */
static bool reload(struct daemon *d)
{
    CLEANUP(strbuf_free) struct strbuf problems = STRBUF_INIT(1 << 20), notices = STRBUF_INIT(1 << 20);
    CLEANUP(strbuf_free) struct strbuf live = STRBUF_INIT(1 << 16), restart = STRBUF_INIT(1 << 16);
    struct config *next = NULL;

    if (config_load(&next, d->path, CONFIG_SECRETS_RESOLVE, &daemon_judges, &problems, &notices) < 0) {
        log_lines(LOG_ERR, MSG_RELOAD_REFUSED, "", strbuf_str(&problems));
        log_line(LOG_ERR, MSG_RELOAD_REFUSED, "the configuration stays as it was");
        return false;
    }
    log_lines(LOG_NOTICE, NULL, "", strbuf_str(&notices));
    fit_into_descriptors(next);
    config_diff(d->config, next, &live, &restart);
    log_lines(LOG_NOTICE, MSG_RESTART_NEEDED, "changed, needs a restart: ", strbuf_str(&restart));
    log_lines(LOG_NOTICE, MSG_RELOADED, "changed: ", strbuf_str(&live));
    log_line(LOG_NOTICE, MSG_RELOADED, "configuration read again");
    log_set_level(next->log_level);
    dispatcher_reload(d->dispatcher, next);
    alerts_reload(d->alerts, next);
    monitor_reload(d->monitor, next);
    config_unref(d->config);
    d->config = next;
    return true;
}

static int on_hangup(sd_event_source *s, const struct signalfd_siginfo *si, void *userdata)
{
    struct daemon *d = userdata;
    bool taken = false;
    (void) s;

    if (d->phase == PHASE_RUNNING) {
        sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, now_monotonic_usec());
        taken = reload(d);
        sd_notify(0, "READY=1");
    }
    reload_answer(si, taken);
    return 0;
}

/* --- start and stop --------------------------------------------------------------------------- */

static int start_loop(struct daemon *d)
{
    int r = sd_event_default(&d->event);
    if (r >= 0)
        r = sd_event_add_signal(d->event, NULL, SIGTERM, on_terminate, d);
    if (r >= 0)
        r = sd_event_add_signal(d->event, NULL, SIGINT, on_terminate, d);
    if (r >= 0)
        r = sd_event_add_signal(d->event, NULL, SIGHUP, on_hangup, d);
    if (r >= 0)
        r = sd_event_add_io(d->event, NULL, d->misfit_fd, EPOLLIN, on_misfit, d);
    if (r >= 0)
        r = sd_event_add_time_relative(d->event, NULL, CLOCK_MONOTONIC, 0, 0, on_tick, d);
    return r;
}

static int start_threads(struct daemon *d, struct error *err)
{
    d->watchdog.hearts[HEART_MONITOR].name = "monitor";
    int r = monitor_start(&d->monitor,
                          &(struct monitor_params){.config = d->config,
                                                   .stop_fd = d->stop_fd,
                                                   .heartbeat = &d->watchdog.hearts[HEART_MONITOR],
                                                   .schema_misfit = on_misfit_thread,
                                                   .userdata = d},
                          err);
    if (r < 0)
        return r;
    d->watchdog.hearts[HEART_RELAY].name = "relay";
    r = relay_start(&d->relay,
                    &(struct relay_params){.config = d->config,
                                           .stop_fd = d->stop_fd,
                                           .heartbeat = &d->watchdog.hearts[HEART_RELAY]},
                    err);
    if (r < 0)
        return r;
    d->watchdog.hearts[HEART_ALERTS].name = "alerts";
    r = alerts_start(&d->alerts,
                     &(struct alerts_params){.config = d->config,
                                             .stop_fd = d->stop_fd,
                                             .heartbeat = &d->watchdog.hearts[HEART_ALERTS],
                                             .network_lost = &d->network_lost},
                     err);
    if (r < 0)
        return r;
    return consumers_start(&d->consumers,
                           &(struct consumers_params){.config = d->config,
                                                      .groups = groups,
                                                      .group_count = groups_count,
                                                      .stop_fd = d->stop_fd,
                                                      .database_up = &d->database_up,
                                                      .heartbeats = &d->watchdog.hearts[HEART_CONSUMERS]},
                           err);
}

static int start(struct daemon *d, struct error *err)
{
    static const struct dispatcher_callbacks dispatcher = {on_progress, on_stopped};

    d->stop_fd = wakefd_new();
    d->misfit_fd = wakefd_new();
    d->before_at = now_monotonic_usec();
    error_set(err, "could not set the event loop up");
    int r = start_loop(d);
    if (r >= 0)
        r = dispatcher_new(&d->dispatcher, d->event, d->config, &dispatcher, d, err);
    return r;
}

/* Before the threads, which may have something to say at once. */
static void say_started(const struct daemon *d)
{
    CLEANUP(strbuf_free) struct strbuf unused = STRBUF_INIT(1 << 16);

    log_line(LOG_NOTICE, MSG_STARTED, "anubisd " ANUBIS_VERSION " started as \"%s\"", d->config->instance);
    config_unused(d->config, &unused);
    log_lines(LOG_NOTICE, NULL, "set, but without effect in this version: ", strbuf_str(&unused));
}

static void stop(struct daemon *d)
{
    if (d->phase == PHASE_DRAINING)
        /* However long the drain was, this comes on top. */
        sd_notifyf(0, "STATUS=ending its threads\nEXTEND_TIMEOUT_USEC=%" PRIu64, JOIN_USEC);
    d->phase = PHASE_JOINING;
    dispatcher_free(d->dispatcher);
    if (d->stop_fd >= 0)
        wakefd_raise(d->stop_fd);
    consumers_join(d->consumers);
    relay_join(d->relay);
    alerts_join(d->alerts);
    monitor_join(d->monitor);
    closep(&d->stop_fd);
    closep(&d->misfit_fd);
    d->event = sd_event_unref(d->event);
    config_unref(d->config);
}

/* By itself the resolver (resolv.conf(5)) tries each name server for 5 s: as long as a connection may take.
 * With the first one dead the second would never be asked. */
static void hasten_the_resolver(void)
{
    setenv("RES_OPTIONS", "timeout:2 attempts:2", 0);
}

/* Until a signal, or a fault of ours, ends the loop. Exit code. */
static int run(struct daemon *d)
{
    sd_notify(0, "READY=1");
    int r = sd_event_loop(d->event);
    if (r < 0)
        log_error("the event loop cannot go on: %s. What was under way comes back when its lease is over",
                  strerror(-r));
    return r < 0 ? EX_SOFTWARE : 0;
}

void daemon_block_signals(void)
{
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* libcurl writes the keys of connections there, or at least makes the file. */
static void log_no_keys(void)
{
    unsetenv("SSLKEYLOGFILE");
}

/* Each thread of ours and of librdkafka would have an arena of its own, and keep there what a backlog once
 * needed; see mallopt(3). */
#define ARENAS 2

int daemon_run(struct config *config, const char *path)
{
    struct daemon d = {.config = config_ref(config), .path = path, .stop_fd = -1, .misfit_fd = -1};
    struct error err;

    (void) mallopt(M_ARENA_MAX, ARENAS);
    watchdog_init(&d.watchdog);
    fit_into_descriptors(config);
    hasten_the_resolver();
    log_no_keys();
    int code, r = start(&d, &err);
    if (r >= 0) {
        say_started(&d);
        r = start_threads(&d, &err);
    }
    if (r < 0) {
        log_error("cannot start: %s (%s)", err.text, strerror(-r));
        code = r == -EINVAL ? EX_CONFIG : EX_SOFTWARE;
    } else {
        code = run(&d);
    }
    stop(&d);
    if (code == 0)
        log_line(LOG_NOTICE, MSG_STOPPED, "stopped");
    log_finish();
    return code;
}
