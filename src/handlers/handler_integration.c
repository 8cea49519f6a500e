/* The integration status handler: integrations.successful_sends and failed_sends. See handler.h.
 *
 * On a consumer's thread. One row update for each integration of a batch, however many events it holds: the
 * row is hot (each inserted subscription takes a key-share lock on it), so it is updated late in a short
 * transaction, and seldom. */
#include "handlers/handler_integration.h"

#include "sql/statements.h"

static void add(struct integration_deltas *d, const struct message_event *e)
{
    if (d->count > 0 && d->items[d->count - 1].integration_id == e->integration_id) {
        d->items[d->count - 1].sent += e->type == EVENT_SENT;
        d->items[d->count - 1].failed += e->type == EVENT_FAILED;
        return;
    }
    if (d->count == d->capacity) {
        d->capacity = MAX(d->capacity * 2, (size_t) 64);
        d->items = xreallocarray(d->items, d->capacity, sizeof(*d->items));
    }
    d->items[d->count++] = (struct integration_delta){.integration_id = e->integration_id,
                                                      .sent = e->type == EVENT_SENT,
                                                      .failed = e->type == EVENT_FAILED};
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

/* An integration whose counters were left as they are. */
struct not_counted {
    int64_t integration_id;
    bool unknown;                /* it has no row */
    bool sent_full, failed_full; /* the counter's type has no room for the delta */
};

/* Adds the deltas to the counters. *ret gets what was not counted, in the order of ids; the caller frees. */
static int count_sends(struct pg *pg, const struct integration_deltas *deltas, struct not_counted **ret,
                       size_t *ret_count, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_i64s(&args, &deltas->items->integration_id, sizeof(*deltas->items), deltas->count);
    int r = pg_query(pg, &sql_lock_counters, &args, NULL, err);
    pg_arg_i64s(&args, &deltas->items->sent, sizeof(*deltas->items), deltas->count);
    pg_arg_i64s(&args, &deltas->items->failed, sizeof(*deltas->items), deltas->count);
    if (r == PG_DONE)
        r = pg_query(pg, &sql_count_sends, &args, &result, err);
    if (r != PG_DONE)
        return r;
    *ret_count = (size_t) pg_rows(result);
    *ret = xcalloc(*ret_count + 1, sizeof(**ret));
    for (int i = 0; i < pg_rows(result); i++)
        (*ret)[i] = (struct not_counted){.integration_id = pg_get_i64(result, i, 0),
                                         .unknown = pg_get_bool(result, i, 1),
                                         .sent_full = pg_get_bool(result, i, 2),
                                         .failed_full = pg_get_bool(result, i, 3)};
    return PG_DONE;
}

static int find_id(const void *a, const void *b)
{
    const int64_t *x = a;
    const struct not_counted *y = b;

    return (*x > y->integration_id) - (*x < y->integration_id);
}

static const char *fault_of(const struct message_event *event, const struct not_counted *not_counted)
{
    if (!not_counted)
        return NULL;
    if (not_counted->unknown)
        return "the integration does not exist";
    if (event->type == EVENT_SENT && not_counted->sent_full)
        return "its integration's successful_sends has reached the greatest number of its type";
    if (event->type == EVENT_FAILED && not_counted->failed_full)
        return "its integration's failed_sends has reached the greatest number of its type";
    return NULL;
}

static int apply(struct pg *pg, const struct message_event *const *events, size_t count, const char **faults,
                 struct error *err)
{
    CLEANUP(integration_deltas_free) struct integration_deltas d = {0};
    CLEANUP(freep) struct not_counted *rest = NULL;
    size_t n_rest = 0;

    integration_deltas_collect(&d, events, count);
    if (d.count == 0)
        return PG_DONE;
    int r = count_sends(pg, &d, &rest, &n_rest, err);
    if (r != PG_DONE || n_rest == 0)
        return r;
    for (size_t i = 0; i < count; i++)
        faults[i] =
            fault_of(events[i], bsearch(&events[i]->integration_id, rest, n_rest, sizeof(*rest), find_id));
    return PG_DONE;
}

const struct handler handler_integration = {
    .types = 1U << EVENT_SENT | 1U << EVENT_FAILED,
    .apply = apply,
};
