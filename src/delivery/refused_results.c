/* Results that the database refuses. See refused_results.h. */
#include "delivery/refused_results.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"
#include "delivery/refused_row.h"
#include "sql/statements.h"

#define PAUSE_USEC (5 * USEC_PER_SEC)
#define LOST_MAX 3
#define SHOW_USEC USEC_PER_SEC /* between two names of the session, while results are refused */
#define DEADLINE_USEC (45 * USEC_PER_SEC)

static void say_many(struct refused_results *r, const char *words)
{
    CLEANUP(freep) char *kept = xasprintf("%zu results are refused one by one: %s", r->count, words);

    standstill_kept(r->standstill, STANDSTILL_RESULTS, kept);
    if (trouble_begins(&r->many))
        log_line(
            LOG_ERR, MSG_DATABASE_REFUSES,
            "the database refuses the results of more than %d subscriptions, one by one, the last one for: "
            "%s; they stay \"processing\", and are tried again until it takes them. Further ones are not "
            "named",
            REFUSED_NAMED_MAX, words);
}

void refused_results_note(struct refused_results *r, struct store_settlement *item, const char *sqlstate,
                          const struct error *err)
{
    char words[REFUSED_WORDS_MAX];
    bool is_first = item->refusals < 2;

    item->refusals = 2;
    item->not_before = now_monotonic_usec() + PAUSE_USEC;
    (void) snprintf(item->refused_for, sizeof(item->refused_for), "%s", sqlstate);
    r->is_unshown = true;
    if (is_first) {
        r->count++;
        r->held(item->integration_id, 1, r->userdata);
    }
    refused_row_words(words, sizeof(words), sqlstate, err);
    log_about(is_first && r->count <= REFUSED_NAMED_MAX ? LOG_ERR : LOG_DEBUG, MSG_CHANGE_REFUSED,
              &(struct log_about){.subscription_id = item->id},
              "could not settle subscription %" PRId64 " (%s): trying again until it can be", item->id,
              words);
    if (r->count > REFUSED_NAMED_MAX)
        say_many(r, words);
}

void refused_results_lost(struct refused_results *r, const struct settlements *batch, size_t *limit,
                          const struct error *err)
{
    if (++r->lost < LOST_MAX)
        return;
    *limit = MAX(batch->count / 2, 1);
    if (batch->count == 1)
        refused_results_note(r, batch->data[0], "08006", err);
}

void refused_results_gone(struct refused_results *r, const struct store_settlement *item)
{
    if (item->refusals < 2)
        return;
    r->count--;
    r->is_unshown = true;
    r->held(item->integration_id, -1, r->userdata);
    log_about(r->count < REFUSED_NAMED_MAX ? LOG_NOTICE : LOG_DEBUG, NULL,
              &(struct log_about){.subscription_id = item->id},
              "the result of subscription %" PRId64 " is no longer refused", item->id);
    if (r->count > 0 || !trouble_ends(&r->many))
        return;
    standstill_over(r->standstill, STANDSTILL_RESULTS);
    log_line(LOG_NOTICE, MSG_DATABASE_REFUSES, "the database takes all results again");
}

void refused_results_opened(struct refused_results *r)
{
    r->is_unshown = r->count > 0;
}

static int show(struct refused_results *r, const struct settlements *queue, struct pg_async *pg,
                struct pg_args *args, pg_async_callback done, void *userdata)
{
    const struct store_settlement *first = NULL;

    for (size_t i = 0; i < queue->count; i++)
        if (queue->data[i]->refusals == 2 && (!first || queue->data[i]->id < first->id))
            first = queue->data[i];
    store_refused_args(args, r->count, first);
    r->is_unshown = false;
    r->show_at = now_monotonic_usec() + SHOW_USEC;
    return pg_async_query(pg, &sql_session_name, args, DEADLINE_USEC, done, userdata);
}

static int renew_leases(struct refused_results *r, const struct settlements *queue, struct pg_async *pg,
                        struct pg_args *args, pg_async_callback done, void *userdata)
{
    CLEANUP(freep) const struct store_settlement **items = xcalloc(queue->count + 1, sizeof(*items));
    size_t count = 0;

    for (size_t i = 0; i < queue->count; i++)
        if (queue->data[i]->refusals == 2)
            items[count++] = queue->data[i];
    store_renew_leases_args(args, count, items, r->lease_usec);
    r->renew_at = now_monotonic_usec() + r->lease_usec / 3;
    return pg_async_query(pg, &sql_renew_leases, args, DEADLINE_USEC, done, userdata);
}

bool refused_results_turn(struct refused_results *r, const struct settlements *queue, struct pg_async *pg,
                          struct pg_args *args, pg_async_callback done, void *userdata)
{
    uint64_t now = now_monotonic_usec();

    if (r->count > 0 && r->lease_usec > 0 && now >= r->renew_at)
        return renew_leases(r, queue, pg, args, done, userdata) == 0;
    if (r->is_unshown && (r->count == 0 || now >= r->show_at))
        return show(r, queue, pg, args, done, userdata) == 0;
    return false;
}
