/* The monitor. See monitor.h. Blocking, bounded by deadlines and the stop descriptor. */
#include "monitor/monitor.h"

#include <inttypes.h>
#include <malloc.h>
#include <stdatomic.h>
#include <string.h>

#include "base/backoff.h"
#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"
#include "base/trouble.h"
#include "base/worker.h"
#include "monitor/auditor.h"
#include "monitor/checkpoint.h"
#include "monitor/clocks.h"
#include "monitor/retention.h"
#include "monitor/router.h"
#include "monitor/sweeper.h"
#include "monitor/unread.h"
#include "pg/pg_session.h"
#include "pg/schema.h"
#include "sql/statements.h"

#define TURN_USEC USEC_PER_SEC
#define LOOK_USEC (5 * USEC_PER_SEC)
#define EXTEND_USEC (20 * USEC_PER_SEC)
/* After a crash the server may take a while to notice that our former session, which had the name, is
 * gone. */
#define NAME_USEC (10 * USEC_PER_SEC)

/* A snapshot that is held for so long keeps each version of an integration's row, over which inserts that
 * refer to it walk: their counters follow once a minute then. */
#define OLD_SNAPSHOT_USEC (5 * 60 * USEC_PER_SEC)
#define FOLD_RARELY_USEC (60 * USEC_PER_SEC)

/* Of integrations whose counters are brought to their counts in one transaction. */
#define FOLD_MAX 1000

#define TIMES_USEC (60 * USEC_PER_SEC)

/* Memory between what is in use. */
#define SPARE_BYTES ((size_t) 8 << 20)
#define SPARE_USEC (60 * USEC_PER_SEC)

/* Numbers of jobs: the last one is looked at again after a reload. */
#define JOBS 15
#define RETENTION (JOBS - 1)

struct monitor;

struct monitor {
    struct monitor_params params;
    struct config *config;         /* as of the start: sessions */
    struct config *rules;          /* the latest: what the group "audit" says */
    _Atomic(struct config *) next; /* a reload's, not taken over yet */
    struct worker worker;
    struct monitor_stats stats;
    struct auditor *auditor;
    struct pg *pg;
    struct backoff backoff;
    uint64_t opened_at, open_at;                       /* monotonic: no session is opened before the second */
    uint64_t due_at[JOBS];                             /* monotonic, of each job */
    struct trouble extending, indexing, folding, full; /* full: a counter that has no room */
    struct {
        int64_t id;     /* see sql_oldest_snapshot */
        uint64_t since; /* monotonic: when it was seen first */
    } oldest;           /* snapshot */
    struct {
        bool held;
        struct trouble taken; /* by another daemon */
    } name;
    struct trouble cleaning; /* subscriptions and events may be deleted here */
    struct {
        struct router router;
        struct sweeper sweeper;
        struct clocks clocks;
        struct retention retention;
        struct unread unread;
        bool checkpoint_untold; /* one may have been written without the journal's knowledge */
    } work;                     /* what jobs of a file of their own know */
};

static void give_up_session(struct monitor *m)
{
    pg_close(TAKE_PTR(m->pg));
    m->name.held = false;
    m->work.retention.leads = false;
    m->open_at = now_monotonic_usec() + backoff_next_usec(&m->backoff);
    m->stats.waiting = m->stats.unrouted = -1;
}

/* Sessions that were admitted before are to be judged anew. */
static void tell_misfit(struct monitor *m)
{
    schema_doubt();
    m->params.schema_misfit(m->params.userdata);
}

/* The dispatcher says when the database is away. While its session lasts it does not look at the schema: what
 * is amiss where it works is told. That this session alone came elsewhere is nothing to it. */
static void open_session(struct monitor *m)
{
    struct error err;
    bool is_here = false;
    struct pg_params params = pg_session_params(m->config, "anubisd monitor", 10 * USEC_PER_SEC);

    params.lock_timeout_usec = USEC_PER_SEC;
    params.stop_fd = m->worker.stop_fd;
    params.ret_is_here = &is_here;
    int r = pg_open(&m->pg, &params, &err);
    if (r != PG_DONE) {
        if (r == PG_SCHEMA_MISFIT && is_here)
            tell_misfit(m);
        give_up_session(m);
        return;
    }
    backoff_reset(&m->backoff);
    m->opened_at = now_monotonic_usec();
    memset(m->due_at, 0, sizeof(m->due_at));
}

/* --- the jobs --------------------------------------------------------------------------------- */

static void warn_of_cleaning(struct monitor *m)
{
    bool allowed = false;

    if (pg_query_bool(m->pg, &sql_cleaning_allowed, NULL, &allowed, NULL) != PG_DONE)
        return;
    if (!allowed)
        (void) trouble_ends(&m->cleaning);
    else if (trouble_begins(&m->cleaning))
        log_warning(
            "a test database: its subscriptions and events may be deleted (installation.allows_cleaning); "
            "the ledger proves nothing here");
}

static uint64_t check_schema(struct monitor *m)
{
    struct error err;

    int r = schema_check_for_work(m->pg, &err);
    if (r == PG_SCHEMA_MISFIT) {
        tell_misfit(m);
        give_up_session(m);
    } else if (r == PG_DONE) {
        warn_of_cleaning(m);
        (void) pg_query(m->pg, &sql_note_subscriptions, NULL, NULL, NULL);
    }
    return LOOK_USEC;
}

static uint64_t read_backlog(struct monitor *m)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    uint64_t began = now_monotonic_usec();

    if (pg_query(m->pg, &sql_backlog, NULL, &result, NULL) != PG_DONE)
        return LOOK_USEC;
    struct pg_row row = {.result = result};
    m->stats.waiting = pg_next_i64(&row);
    m->stats.unrouted = pg_next_i64(&row);
    m->stats.circuits_open = pg_next_i64(&row);
    m->stats.unpublished = pg_next_i64(&row);
    m->stats.relay_stopped = !pg_next_is_null(&row);
    /* It counts over the entries of claimed rows, which an old snapshot keeps. */
    return MAX(LOOK_USEC, 10 * (now_monotonic_usec() - began));
}

/* Two daemons of one name: claims and leaders no longer tell which of them it was. Work goes on. */
static uint64_t take_name(struct monitor *m)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    uint64_t now = now_monotonic_usec();

    pg_arg_text(&args, m->config->instance);
    if (m->name.held || pg_query_bool(m->pg, &sql_take_name, &args, &m->name.held, NULL) != PG_DONE)
        return LOOK_USEC;
    if (m->name.held && trouble_ends(&m->name.taken))
        log_notice("no other daemon is \"%s\" any more", m->config->instance);
    else if (!m->name.held && trouble_lasts(&m->name.taken, now, now, NAME_USEC))
        log_warning("another daemon on this database is \"%s\", too: nobody can tell whose claims are whose; "
                    "give each its own name (instance, by default the host's name)",
                    m->config->instance);
    return LOOK_USEC;
}

static uint64_t extend_ledger(struct monitor *m)
{
    struct error err;
    int64_t made;

    if (pg_query_i64(m->pg, &sql_extend_ledger, NULL, &made, &err) == PG_DONE) {
        if (trouble_ends(&m->extending))
            log_notice("partitions of the ledger can be made ahead again");
        if (made > 0)
            log_info("made %d partition%s of the ledger ahead", (int) made, plural(made));
        return EXTEND_USEC;
    }
    /* A lock of another session usually goes by, and partitions lie far ahead. */
    if (pg_usable(m->pg) && strcmp(pg_error_sqlstate(m->pg), "55P03") != 0 && trouble_begins(&m->extending))
        log_warning("could not make partitions of the ledger ahead: %s; trying again", err.text);
    return LOOK_USEC;
}

/* One partition in a turn. ledger_extend() bounds their width, so that this ends well before the session's
 * deadline. */
static uint64_t index_ledger(struct monitor *m)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    struct error err;

    if (pg_query(m->pg, &sql_index_ledger, NULL, &result, &err) != PG_DONE) {
        if (pg_usable(m->pg) && trouble_begins(&m->indexing))
            log_warning("could not index a partition of the ledger that is full: %s; trying again", err.text);
        return EXTEND_USEC;
    }
    if (trouble_ends(&m->indexing))
        log_notice("full partitions of the ledger can be indexed again");
    struct pg_row row = {.result = result};
    if (pg_next_is_null(&row))
        return EXTEND_USEC;
    log_info("indexed %s, which is full, by subscription", pg_next_text(&row));
    return 0;
}

/* Says once what keeps counters from following their counts. */
static void note_refused(struct monitor *m, const struct error *err)
{
    if (pg_usable(m->pg) && strcmp(pg_error_sqlstate(m->pg), "55P03") != 0 && trouble_begins(&m->folding))
        log_warning("the counters of some integrations cannot follow (integration_runtime has them): %s",
                    err->text);
}

static void note_full(struct monitor *m, const struct pg_result *full)
{
    if (pg_rows(full) > 0 && trouble_begins(&m->full))
        log_warning("integration %" PRId64
                    " \"%s\": successful_sends or failed_sends has reached the greatest number "
                    "of its type; integration_runtime counts on",
                    pg_get_i64(full, 0, 0), pg_get_text(full, 0, 1));
}

/* In a transaction that has been begun; ends it. True when one of them is to blame that none could follow. */
static bool fold(struct monitor *m, const int64_t *ids, size_t count)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *full = NULL;
    struct error err, ignored;

    pg_arg_i64s(&args, ids, sizeof(*ids), count);
    int r = pg_query(m->pg, &sql_fold_counts, &args, &full, &err);
    if (r == PG_DONE)
        note_full(m, full);
    else
        note_refused(m, &err);
    bool blames_row = r != PG_DONE && pg_usable(m->pg) && pg_blames_row(pg_error_sqlstate(m->pg));
    (void) pg_execute(m->pg, r == PG_DONE ? "commit" : "rollback", &ignored);
    return blames_row;
}

/* One at a time: a rule of the application's refuses one of them. */
static void fold_each(struct monitor *m, const int64_t *ids, size_t count)
{
    struct error err;

    for (size_t i = 0; i < count && pg_usable(m->pg); i++)
        if (pg_execute(m->pg, "begin", &err) == PG_DONE)
            (void) fold(m, &ids[i], 1);
}

static bool snapshot_is_old(struct monitor *m)
{
    uint64_t now = now_monotonic_usec();
    int64_t oldest;

    if (pg_query_i64(m->pg, &sql_oldest_snapshot, NULL, &oldest, NULL) != PG_DONE)
        return false;
    if (oldest == 0 || oldest != m->oldest.id)
        m->oldest.since = now;
    m->oldest.id = oldest;
    return now - m->oldest.since >= OLD_SNAPSHOT_USEC;
}

static uint64_t fold_counts(struct monitor *m)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    CLEANUP(freep) int64_t *ids = NULL;
    struct error err;

    pg_arg_i64(&args, FOLD_MAX);
    if (pg_execute(m->pg, "begin", &err) != PG_DONE)
        return LOOK_USEC;
    int r = pg_query(m->pg, &sql_fold_lock, &args, &result, &err);
    if (r != PG_DONE || pg_rows(result) == 0) {
        (void) pg_execute(m->pg, "rollback", &err);
        return LOOK_USEC;
    }
    size_t count = (size_t) pg_rows(result);
    ids = xcalloc(count, sizeof(*ids));
    for (size_t i = 0; i < count; i++)
        ids[i] = pg_get_i64(result, (int) i, 0);
    if (fold(m, ids, count))
        fold_each(m, ids, count);
    if (count == FOLD_MAX)
        return 0;
    return snapshot_is_old(m) ? FOLD_RARELY_USEC : LOOK_USEC;
}

/* The server's clock decides when a retry is due, and it may have been hours ahead for a while. The statement
 * walks over all that is scheduled: seldom. */
static uint64_t mend_times(struct monitor *m)
{
    uint64_t began = now_monotonic_usec();
    int64_t mended;

    if (pg_query_i64(m->pg, &sql_mend_times, NULL, &mended, NULL) == PG_DONE && mended > 0)
        log_warning("the database server's clock was set back: %" PRId64
                    " subscription%s would have waited for its old time, and now wait%s as long as any other",
                    mended, plural(mended), mended == 1 ? "s" : "");
    return MAX(TIMES_USEC, 100 * (now_monotonic_usec() - began));
}

/* Said in the journal, which may be kept where nobody can change it. */
static uint64_t write_checkpoint(struct monitor *m)
{
    CLEANUP(checkpoint_done) struct checkpoint c = {0};
    struct error err;

    bool told = !m->work.checkpoint_untold;
    int r = checkpoint_write(m->pg, m->rules->audit.signing_key, &c, &err);

    m->work.checkpoint_untold = r != PG_DONE;
    if (r != PG_DONE || !*c.digest || (!c.is_new && told))
        return LOOK_USEC;
    log_line(LOG_INFO, MSG_AUDIT_CHECKPOINT, "audit log: checkpoint of %" PRId64 " leaves, SHA-256 %s%s%s",
             c.leaves, c.digest, c.signed_by ? ", signed by " : "", c.signed_by ? c.signed_by : "");
    return TIMES_USEC;
}

static uint64_t watch_confirmations(struct monitor *m)
{
    return sweeper_run(&m->work.sweeper, m->pg);
}

static uint64_t wake_auditor(struct monitor *m)
{
    bool due = false;

    if (pg_query_bool(m->pg, &sql_audit_due, NULL, &due, NULL) == PG_DONE && due && m->auditor)
        auditor_wake(m->auditor);
    return LOOK_USEC;
}

static uint64_t route_unrouted(struct monitor *m)
{
    return router_run(&m->work.router, m->pg);
}

/* One daemon does it: two would have all of it published twice. */
static uint64_t look_for_unread(struct monitor *m)
{
    return m->work.retention.leads ? unread_run(&m->work.unread, m->pg) : LOOK_USEC;
}

/* Answers and batches of any size leave holes, which free() alone does not give back: see malloc_trim(3). */
static uint64_t give_back_memory(struct monitor *m)
{
    struct mallinfo2 heap = mallinfo2();

    (void) m;
    if (heap.fordblks > SPARE_BYTES && heap.fordblks > heap.uordblks / 2)
        (void) malloc_trim(0);
    return SPARE_USEC;
}

static uint64_t let_go(struct monitor *m)
{
    return retention_run(&m->work.retention, m->pg, m->rules);
}

static uint64_t compare_clocks(struct monitor *m)
{
    return clocks_run(&m->work.clocks, m->pg, m->config->instance);
}

/* What is done by the clock: each returns when to run it again, in microseconds from now. */
static uint64_t (*const jobs[JOBS])(struct monitor *m) = {
    check_schema, read_backlog,    take_name,        extend_ledger,  index_ledger,
    fold_counts,  mend_times,      write_checkpoint, route_unrouted, watch_confirmations,
    wake_auditor, look_for_unread, give_back_memory, compare_clocks, let_go,
};

/* --- the thread ------------------------------------------------------------------------------- */

static void run_jobs(struct monitor *m)
{
    for (size_t i = 0; i < JOBS && m->pg; i++) {
        if (now_monotonic_usec() < m->due_at[i])
            continue;
        uint64_t delay_usec = jobs[i](m);
        m->due_at[i] = now_monotonic_usec() + delay_usec;
        if (m->pg && (!pg_usable(m->pg) || pg_is_blind(pg_error_sqlstate(m->pg), m->opened_at)))
            give_up_session(m);
    }
}

/* In microseconds from now, at most a turn. */
static uint64_t until_next_job(const struct monitor *m)
{
    uint64_t now = now_monotonic_usec(), next = now + TURN_USEC;

    for (size_t i = 0; i < JOBS && m->pg; i++)
        next = MIN(next, MAX(m->due_at[i], now));
    return next - now;
}

static void take_over(struct monitor *m)
{
    struct config *next = atomic_exchange(&m->next, NULL);

    if (!next)
        return;
    config_unref(m->rules);
    m->rules = next;
    m->due_at[RETENTION] = 0;
}

static void *run(void *userdata)
{
    struct monitor *m = userdata;
    struct error err;

    if (auditor_start(&m->auditor, m->config, m->worker.stop_fd, &err) < 0)
        log_warning("%s; nobody proves the audit log", err.text);
    do {
        take_over(m);
        if (!m->pg && now_monotonic_usec() >= m->open_at)
            open_session(m);
        run_jobs(m);
        worker_wait(&m->worker, -1, MAX(until_next_job(m), 1)); /* 0 would not beat */
    } while (!worker_is_stopping(&m->worker));
    pg_close(TAKE_PTR(m->pg));
    auditor_join(m->auditor);
    return NULL;
}

static void monitor_free(struct monitor *m)
{
    router_free(&m->work.router);
    retention_free(&m->work.retention);
    unread_end(&m->work.unread);
    config_unref(m->config);
    config_unref(m->rules);
    config_unref(m->next);
    free(m);
}

int monitor_start(struct monitor **ret, const struct monitor_params *params, struct error *err)
{
    struct monitor *m = xcalloc(1, sizeof(*m));

    m->params = *params;
    m->config = config_ref(params->config);
    m->rules = config_ref(params->config);
    m->worker = (struct worker){.stop_fd = params->stop_fd, .heartbeat = params->heartbeat};
    m->backoff = BACKOFF_RECONNECT;
    m->stats.waiting = m->stats.unrouted = -1;
    int r = worker_start(&m->worker, "monitor", run, m, err);
    if (r < 0) {
        monitor_free(m);
        return r;
    }
    *ret = m;
    return 0;
}

void monitor_join(struct monitor *m)
{
    if (!m)
        return;
    pthread_join(m->worker.thread, NULL);
    monitor_free(m);
}

void monitor_reload(struct monitor *m, struct config *config)
{
    config_unref(atomic_exchange(&m->next, config_ref(config)));
}

const struct monitor_stats *monitor_stats(const struct monitor *m)
{
    return &m->stats;
}
