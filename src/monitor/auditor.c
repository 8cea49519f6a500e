/* The proof of the audit log by the daemon. See auditor.h. */
#include "monitor/auditor.h"

#include <inttypes.h>
#include <stdlib.h>

#include "audit/audit_proof.h"
#include "base/log.h"
#include "base/timeutil.h"
#include "base/worker.h"
#include "pg/pg_session.h"
#include "sql/statements.h"

#define WAIT_USEC (60 * 60 * USEC_PER_SEC)
/* The longest statement compares all leaves with the ledger. */
#define STATEMENT_USEC (60 * 60 * USEC_PER_SEC)
#define WORDS_MAX 300

struct auditor {
    const struct config *config;
    struct worker worker;
    int wake_fd;
};

/* Alone: it has time, and the daemon's other work goes first. */
static int prove(struct pg *pg, int64_t since, struct audit_result *ret, struct error *err)
{
    struct audit a = {0};

    int r = audit_open(&a, pg);
    if (r == PG_DONE)
        r = audit_prove(&a, &(struct audit_order){.since = since}, ret);
    if (r == PG_DONE)
        r = audit_end(&a);
    *err = a.err;
    audit_close(&a);
    return r;
}

static int note(struct pg *pg, bool whole, const struct audit_result *result, uint64_t began,
                struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(freep)
    char *words = result->differences.count ? xstrndup(result->differences.items[0], WORDS_MAX) : xstrdup("");

    pg_arg_bool(&args, whole);
    pg_arg_i64(&args, result->last_checkpoint);
    pg_arg_i64(&args, (int64_t) result->differences.count + result->unnamed);
    pg_arg_text(&args, words);
    pg_arg_i64(&args, (int64_t) ((now_monotonic_usec() - began) / USEC_PER_MSEC));
    return pg_query(pg, &sql_audit_note, &args, NULL, err);
}

static int work(struct pg *pg, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    struct audit_result result = {0};
    uint64_t began = now_monotonic_usec();

    int r = pg_query(pg, &sql_audit_begin, NULL, &rows, err);
    if (r != PG_DONE || !pg_get_bool(rows, 0, 0))
        return r;
    bool whole = pg_get_bool(rows, 0, 1);
    r = prove(pg, whole ? 0 : pg_get_i64(rows, 0, 2), &result, err);
    if (r == PG_DONE)
        r = note(pg, whole, &result, began, err);
    sentences_free(&result.differences);
    return r;
}

static void audit_once(struct auditor *a)
{
    struct pg_params params = pg_session_params(a->config, "anubisd auditor", STATEMENT_USEC);
    struct pg *pg = NULL;
    struct error err;

    params.stop_fd = a->worker.stop_fd;
    int r = pg_open(&pg, &params, &err);
    if (r == PG_DONE)
        r = work(pg, &err);
    if (r != PG_DONE)
        log_debug("auditor: %s", err.text);
    pg_close(pg);
}

static void *run(void *userdata)
{
    struct auditor *a = userdata;

    for (;;) {
        worker_wait(&a->worker, a->wake_fd, WAIT_USEC);
        if (worker_is_stopping(&a->worker))
            return NULL;
        wakefd_clear(a->wake_fd);
        audit_once(a);
    }
}

int auditor_start(struct auditor **ret, const struct config *config, int stop_fd, struct error *err)
{
    struct auditor *a = xcalloc(1, sizeof(*a));

    a->config = config;
    a->worker.stop_fd = stop_fd;
    a->wake_fd = wakefd_new();
    int r = worker_start(&a->worker, "auditor", run, a, err);
    if (r < 0) {
        closep(&a->wake_fd);
        free(a);
        return r;
    }
    *ret = a;
    return 0;
}

void auditor_join(struct auditor *a)
{
    if (!a)
        return;
    pthread_join(a->worker.thread, NULL);
    closep(&a->wake_fd);
    free(a);
}

void auditor_wake(struct auditor *a)
{
    wakefd_raise(a->wake_fd);
}
