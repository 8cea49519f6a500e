/* Several sessions in one snapshot, each on a thread of its own. See audit_internal.h.
 *
 * A helper that cannot have its session does nothing: the others take its jobs. */
#include <stdio.h>
#include <unistd.h>

#include "audit/audit_internal.h"
#include "base/worker.h"
#include "sql/statements.h"

#define HELPERS_MAX 7
#define SNAPSHOT_TEXT 64

struct team {
    struct audit *audit;
    const struct pg_params *params;
    char snapshot[SNAPSHOT_TEXT];
    size_t count;
    audit_job *job;
    void *userdata;
    _Atomic size_t next;  /* job */
    _Atomic bool is_over; /* one has failed */
};

struct helper {
    struct team *team;
    struct worker worker;
    int r; /* of its jobs */
    struct error err;
};

static int take_jobs(struct team *t, struct audit *a)
{
    int r = PG_DONE;

    while (r == PG_DONE && !t->is_over) {
        size_t number = t->next++;
        if (number >= t->count)
            return PG_DONE;
        r = t->job(t->userdata, a, number);
    }
    if (r != PG_DONE)
        t->is_over = true;
    return r;
}

static int enter_snapshot(struct pg *pg, const char *snapshot, struct error *err)
{
    char set[SNAPSHOT_TEXT + 128];

    snprintf(set, sizeof(set),
             "begin isolation level repeatable read read only; set transaction snapshot '%s'", snapshot);
    return pg_execute(pg, set, err);
}

static void *run(void *userdata)
{
    struct helper *h = userdata;
    struct audit own = *h->team->audit;

    own.pg = NULL;
    if (pg_open(&own.pg, h->team->params, &own.err) == PG_DONE &&
        enter_snapshot(own.pg, h->team->snapshot, &own.err) == PG_DONE) {
        own.sha256 = sha256_new();
        h->r = take_jobs(h->team, &own);
        h->err = own.err;
        sha256_free(own.sha256);
    }
    pg_close(own.pg);
    return NULL;
}

static size_t wanted(size_t count)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);

    return MIN(MIN((size_t) MAX(processors, 1), (size_t) HELPERS_MAX), count > 0 ? count - 1 : 0);
}

int audit_share(struct audit *a, const struct pg_params *helpers, size_t count, audit_job *job,
                void *userdata)
{
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    struct team team = {.audit = a, .params = helpers, .count = count, .job = job, .userdata = userdata};
    struct helper team_mates[HELPERS_MAX] = {0};
    size_t started = 0;

    if (helpers && pg_query(a->pg, &sql_audit_snapshot, NULL, &rows, &a->err) == PG_DONE) {
        snprintf(team.snapshot, sizeof(team.snapshot), "%s", pg_get_text(rows, 0, 0));
        for (size_t want = wanted(count); started < want; started++) {
            team_mates[started].team = &team;
            if (worker_start(&team_mates[started].worker, "prover", run, &team_mates[started], NULL) < 0)
                break;
        }
    }
    int r = take_jobs(&team, a);
    for (size_t i = 0; i < started; i++) {
        pthread_join(team_mates[i].worker.thread, NULL);
        if (r == PG_DONE && team_mates[i].r != PG_DONE) {
            r = team_mates[i].r;
            a->err = team_mates[i].err;
        }
    }
    return r;
}
