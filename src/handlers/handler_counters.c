/* The integration status handler: integration_runtime.sent and failed. See handler.h.
 *
 * On a consumer's thread. One row update for each integration of a batch, however many events it holds. The
 * monitor brings successful_sends and failed_sends of the integrations to these counts. */
#include "handlers/handler_counters.h"

#include "consumers/store_consumer.h"
#include "sql/statements.h"

static void add(struct integration_deltas *d, const struct message_event *e)
{
    if (d->count == 0 || d->items[d->count - 1].integration_id != e->integration_id) {
        if (d->count == d->capacity) {
            d->capacity = MAX(d->capacity * 2, (size_t) 64);
            d->items = xreallocarray(d->items, d->capacity, sizeof(*d->items));
        }
        d->items[d->count++] = (struct integration_delta){.integration_id = e->integration_id};
    }
    struct integration_delta *last = &d->items[d->count - 1];
    last->failed += e->type == EVENT_FAILED;
    if (e->type != EVENT_SENT)
        return;
    last->sent++;
    last->sent_at = MAX(last->sent_at, e->created_at);
}

static int by_id(const void *a, const void *b)
{
    const struct integration_delta *x = a, *y = b;

    return (x->integration_id > y->integration_id) - (x->integration_id < y->integration_id);
}

static void merge(struct integration_deltas *d)
{
    size_t n = 0;

    for (size_t i = 1; i < d->count; i++) {
        if (d->items[n].integration_id == d->items[i].integration_id) {
            d->items[n].sent += d->items[i].sent;
            d->items[n].failed += d->items[i].failed;
            d->items[n].sent_at = MAX(d->items[n].sent_at, d->items[i].sent_at);
        } else {
            d->items[++n] = d->items[i];
        }
    }
    d->count = MIN(d->count, n + 1);
}

void integration_deltas_collect(struct integration_deltas *d, const struct message_event *const *events,
                                size_t count)
{
    d->count = 0;
    for (size_t i = 0; i < count; i++)
        if (events[i]->integration_id && (events[i]->type == EVENT_SENT || events[i]->type == EVENT_FAILED))
            add(d, events[i]);
    if (d->count == 0)
        return;
    qsort(d->items, d->count, sizeof(*d->items), by_id);
    merge(d);
}

void integration_deltas_free(struct integration_deltas *d)
{
    free(d->items);
    *d = (struct integration_deltas){0};
}

/* Adds the deltas to the counts. *ret_unknown gets the ids that no integration has, ascending; the caller
 * frees. */
static int count_sends(struct pg *pg, const struct integration_deltas *deltas, int64_t **ret_unknown,
                       size_t *ret_count, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_i64s(&args, &deltas->items->integration_id, sizeof(*deltas->items), deltas->count);
    pg_arg_i64s(&args, &deltas->items->sent, sizeof(*deltas->items), deltas->count);
    pg_arg_i64s(&args, &deltas->items->failed, sizeof(*deltas->items), deltas->count);
    pg_arg_times(&args, &deltas->items->sent_at, sizeof(*deltas->items), deltas->count);
    int r = pg_query(pg, &sql_count_sends, &args, &result, err);
    if (r != PG_DONE)
        return r;
    *ret_count = (size_t) pg_rows(result);
    *ret_unknown = xcalloc(*ret_count + 1, sizeof(**ret_unknown));
    for (int i = 0; i < pg_rows(result); i++)
        (*ret_unknown)[i] = pg_get_i64(result, i, 0);
    return PG_DONE;
}

static int find_id(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static int apply(struct pg *pg, const struct message_event *const *events, size_t count, const char **faults,
                 struct error *err)
{
    CLEANUP(integration_deltas_free) struct integration_deltas d = {0};
    CLEANUP(freep) int64_t *unknown = NULL;
    size_t unknown_count = 0;

    integration_deltas_collect(&d, events, count);
    if (d.count == 0)
        return PG_DONE;
    int r = count_sends(pg, &d, &unknown, &unknown_count, err);
    if (r != PG_DONE || unknown_count == 0)
        return r;
    for (size_t i = 0; i < count; i++)
        if (bsearch(&events[i]->integration_id, unknown, unknown_count, sizeof(*unknown), find_id))
            faults[i] = "the integration does not exist";
    return PG_DONE;
}

static int compare(struct pg *pg, const char *model, bool *ret_known, struct error *err)
{
    return store_stop_unmarked(pg, &sql_stop_unmarked, model, " --from-ledger", ret_known, err);
}

const struct handler handler_counters = {
    .types = 1U << EVENT_SENT | 1U << EVENT_FAILED,
    .apply = apply,
    .compare = compare,
};
