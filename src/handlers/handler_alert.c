/* The alert handler: outcomes become evidence of the failure rate. See handler.h.
 *
 * On a consumer's thread. It judges nothing: the alerts' thread does (src/alerts/). First attempts and final
 * results count; every retry would let one institution's bad hour outvote all that came after it.
 *
 * Few messages leave a doubt: an attempt that cost nothing is followed by another first one, and what an
 * operator calls sent had no answer. For these the database is asked. */
#include "handlers/handler_alert.h"

#include "base/timeutil.h"
#include "sql/statements.h"

bool alert_outcome_of(const struct message_event *e, struct alert_outcome *ret)
{
    bool is_first = e->type == EVENT_RETRIED && e->attempt == 1;
    bool is_outcome = e->type == EVENT_SENT || e->type == EVENT_FAILED || is_first;

    if (!is_outcome || e->apart || e->integration_id == 0)
        return false;
    *ret = (struct alert_outcome){.integration_id = e->integration_id,
                                  .coded = e->created_at * 2 + (e->type != EVENT_SENT),
                                  .first_of = is_first ? e->subscription_id : 0,
                                  .sequence = e->unanswered ? e->sequence : 0,
                                  .may_cost_nothing = is_first && e->may_cost_nothing};
    return true;
}

/* --- doubts ----------------------------------------------------------------------------------- */

/* Outcomes that do not count, by their places among those that were asked for, count no more. */
static void take_out(struct alert_outcome *outcomes, const size_t *asked, const struct pg_result *places)
{
    for (int i = 0; i < pg_rows(places); i++)
        outcomes[asked[pg_get_i64(places, i, 0) - 1]].integration_id = 0;
}

static int ask_for_firsts(struct pg *pg, struct alert_outcome *outcomes, size_t count, struct error *err)
{
    CLEANUP(freep) size_t *asked = xcalloc(count, sizeof(*asked));
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *places = NULL;
    size_t n = 0;

    for (size_t i = 0; i < count; i++)
        if (outcomes[i].first_of)
            asked[n++] = i;
    if (n == 0)
        return PG_DONE;
    pg_array_begin(&args, PG_INT8);
    for (size_t i = 0; i < n; i++)
        pg_array_i64(&args, outcomes[asked[i]].first_of);
    pg_array_begin(&args, PG_BOOL);
    for (size_t i = 0; i < n; i++)
        pg_array_bool(&args, outcomes[asked[i]].may_cost_nothing);
    int r = pg_query(pg, &sql_not_first_attempts, &args, &places, err);
    if (r == PG_DONE)
        take_out(outcomes, asked, places);
    return r;
}

static int ask_for_answers(struct pg *pg, struct alert_outcome *outcomes, size_t count, struct error *err)
{
    CLEANUP(freep) size_t *asked = xcalloc(count, sizeof(*asked));
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *places = NULL;
    int64_t lowest = INT64_MAX, highest = 0;
    size_t n = 0;

    for (size_t i = 0; i < count; i++)
        if (outcomes[i].sequence)
            asked[n++] = i;
    if (n == 0)
        return PG_DONE;
    pg_array_begin(&args, PG_INT8);
    for (size_t i = 0; i < n; i++) {
        int64_t sequence = outcomes[asked[i]].sequence;
        pg_array_i64(&args, sequence);
        lowest = MIN(lowest, sequence);
        highest = MAX(highest, sequence);
    }
    pg_arg_i64(&args, lowest);
    pg_arg_i64(&args, highest);
    int r = pg_query(pg, &sql_not_answered, &args, &places, err);
    if (r == PG_DONE)
        take_out(outcomes, asked, places);
    return r;
}

static size_t drop_taken_out(struct alert_outcome *outcomes, size_t count)
{
    size_t kept = 0;

    for (size_t i = 0; i < count; i++)
        if (outcomes[i].integration_id)
            outcomes[kept++] = outcomes[i];
    return kept;
}

/* --- counting --------------------------------------------------------------------------------- */

#define BUCKET_CODED (INT64_C(20) * USEC_PER_SEC) /* ten seconds, as outcomes are coded */

static int newest_first(const void *a, const void *b)
{
    const struct alert_outcome *x = a, *y = b;

    if (x->integration_id != y->integration_id)
        return x->integration_id < y->integration_id ? -1 : 1;
    return (x->coded < y->coded) - (x->coded > y->coded);
}

size_t alert_sum_up(struct alert_outcome *outcomes, size_t count, struct alert_bucket *buckets,
                    size_t *ret_buckets)
{
    struct alert_bucket *last = NULL;
    size_t kept = 0, of_this = 0;

    qsort(outcomes, count, sizeof(*outcomes), newest_first);
    *ret_buckets = 0;
    for (size_t i = 0; i < count; i++) {
        const struct alert_outcome *o = &outcomes[i];
        int64_t number = o->coded / BUCKET_CODED;
        bool is_same = last && last->integration_id == o->integration_id;
        if (!is_same || last->bucket != number) {
            last = &buckets[(*ret_buckets)++];
            *last = (struct alert_bucket){.integration_id = o->integration_id, .bucket = number};
        }
        last->total++;
        last->failed += o->coded % 2;
        of_this = is_same ? of_this + 1 : 0;
        if (of_this < ALERT_RECENT)
            outcomes[kept++] = *o;
    }
    return kept;
}

static int note(struct pg *pg, const struct alert_outcome *outcomes, size_t count, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64s(&args, &outcomes->integration_id, sizeof(*outcomes), count);
    pg_arg_i64s(&args, &outcomes->coded, sizeof(*outcomes), count);
    return pg_query(pg, &sql_note_outcomes, &args, NULL, err);
}

static int add(struct pg *pg, const struct alert_bucket *buckets, size_t count, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64s(&args, &buckets->integration_id, sizeof(*buckets), count);
    pg_arg_i64s(&args, &buckets->bucket, sizeof(*buckets), count);
    pg_arg_i64s(&args, &buckets->total, sizeof(*buckets), count);
    pg_arg_i64s(&args, &buckets->failed, sizeof(*buckets), count);
    return pg_query(pg, &sql_count_outcomes, &args, NULL, err);
}

/* The row of an integration is locked first, so that its counts are written by one at a time. */
static int write(struct pg *pg, struct alert_outcome *outcomes, size_t count, struct error *err)
{
    CLEANUP(freep) struct alert_bucket *buckets = xcalloc(count, sizeof(*buckets));
    size_t bucket_count;
    size_t kept = alert_sum_up(outcomes, count, buckets, &bucket_count);

    int r = note(pg, outcomes, kept, err);
    return r == PG_DONE ? add(pg, buckets, bucket_count, err) : r;
}

static int apply(struct pg *pg, const struct message_event *const *events, size_t count, const char **faults,
                 struct error *err)
{
    CLEANUP(freep) struct alert_outcome *outcomes = xcalloc(count, sizeof(*outcomes));
    size_t n = 0;

    (void) faults;
    for (size_t i = 0; i < count; i++)
        n += alert_outcome_of(events[i], &outcomes[n]);
    int r = ask_for_firsts(pg, outcomes, n, err);
    if (r == PG_DONE)
        r = ask_for_answers(pg, outcomes, n, err);
    if (r != PG_DONE)
        return r;
    n = drop_taken_out(outcomes, n);
    return n > 0 ? write(pg, outcomes, n, err) : PG_DONE;
}

const struct handler handler_alert = {
    .types = 1U << EVENT_SENT | 1U << EVENT_FAILED | 1U << EVENT_RETRIED,
    .apply = apply,
};
