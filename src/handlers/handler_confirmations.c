/* Confirmations. See handler_confirmations.h, and sql/002_tables.sql for why the order does not matter.
 *
 * On a consumer's thread. Both parts lock rows of the table in the order of subscriptions; a message settles
 * the subscription that it is about, should that be held. */
#include "handlers/handler_confirmations.h"

#include <stdlib.h>

#include "base/timeutil.h"
#include "handlers/confirmation.h"
#include "sql/statements.h"

/* --- what is expected ------------------------------------------------------------------------- */

static int expect(struct pg *pg, const struct message_event *const *events, size_t count, const char **faults,
                  struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    (void) faults;
    pg_array_begin(&args, PG_INT8);
    for (size_t i = 0; i < count; i++)
        pg_array_i64(&args, events[i]->subscription_id);
    pg_array_begin(&args, PG_INT8);
    for (size_t i = 0; i < count; i++)
        pg_array_i64(&args, events[i]->integration_id);
    pg_array_begin(&args, PG_TIMESTAMPTZ);
    for (size_t i = 0; i < count; i++)
        pg_array_i64(&args, events[i]->created_at - PG_EPOCH_USEC);
    pg_array_begin(&args, PG_INT8);
    for (size_t i = 0; i < count; i++)
        pg_array_i64(&args, events[i]->sequence);
    return pg_query(pg, &sql_confirmations_expect, &args, NULL, err);
}

const struct handler handler_confirmations = {
    .types = 1U << EVENT_SENT,
    .apply = expect,
};

/* --- what institutions say -------------------------------------------------------------------- */

static void *read_entry(const struct kafka_message *message, const char **ret_fault)
{
    struct confirmation *said = confirmation_read(message->key, message->value, ret_fault);

    if (said)
        said->written_at = message->written_at;
    return said;
}

struct place {
    const struct confirmation *said;
    size_t at; /* in the batch */
};

static int by_subscription(const void *a, const void *b)
{
    const struct place *x = a, *y = b;

    if (x->said->subscription_id != y->said->subscription_id)
        return x->said->subscription_id > y->said->subscription_id ? 1 : -1;
    return (x->at > y->at) - (x->at < y->at);
}

static void add_ids(struct pg_args *args, const struct place *places, size_t count)
{
    pg_array_begin(args, PG_INT8);
    for (size_t i = 0; i < count; i++)
        pg_array_i64(args, places[i].said->subscription_id);
}

static void add_words(struct pg_args *args, const struct place *places, size_t count)
{
    add_ids(args, places, count);
    pg_array_begin(args, PG_TEXT);
    for (size_t i = 0; i < count; i++)
        pg_array_bytes(args, places[i].said->rejected ? "rejected" : "confirmed",
                       sizeof("confirmed") - 1 - places[i].said->rejected);
    pg_array_begin(args, PG_TEXT);
    for (size_t i = 0; i < count; i++)
        pg_array_bytes(args, places[i].said->external_id.p, places[i].said->external_id.len);
}

static void add_times(struct pg_args *args, const struct place *places, size_t count)
{
    pg_array_begin(args, PG_TIMESTAMPTZ);
    for (size_t i = 0; i < count; i++) {
        if (places[i].said->has_time)
            pg_array_i64(args, places[i].said->confirmed_at - PG_EPOCH_USEC);
        else
            pg_array_null(args);
    }
}

static int by_id(const void *key, const void *member)
{
    const int64_t *id = key;
    const struct place *p = member;

    return (*id > p->said->subscription_id) - (*id < p->said->subscription_id);
}

/* The first message on a subscription; behind them all when there is none. */
static const struct place *find_first(const struct place *places, size_t count, int64_t id)
{
    const struct place *p = bsearch(&id, places, count, sizeof(*places), by_id);

    if (!p)
        return places + count;
    while (p > places && p[-1].said->subscription_id == id)
        p--;
    return p;
}

/* All messages on a subscription that does not exist, from the first one on. */
static void name_unknown(const struct place *first, const struct place *end, const char **faults)
{
    int64_t id = first->said->subscription_id;

    for (const struct place *p = first; p < end && p->said->subscription_id == id; p++)
        faults[p->at] = "the subscription does not exist";
}

/* The first on each subscription. */
static size_t choose_first(const struct place *places, size_t count, struct place *ret)
{
    size_t n = 0;

    for (size_t i = 0; i < count; i++)
        if (n == 0 || ret[n - 1].said->subscription_id != places[i].said->subscription_id)
            ret[n++] = places[i];
    return n;
}

static int take(struct pg *pg, const struct place *places, size_t count, const char **faults, bool *news,
                bool *ret_unknown, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *found = NULL;
    CLEANUP(freep) struct place *first = xcalloc(count, sizeof(*first));
    size_t firsts = choose_first(places, count, first);

    add_words(&args, first, firsts);
    add_times(&args, first, firsts);
    int r = pg_query(pg, &sql_confirmations_take, &args, &found, err);
    for (int i = 0; r == PG_DONE && i < pg_rows(found); i++) {
        int64_t id = pg_get_i64(found, i, 0);
        const struct place *p = find_first(places, count, id);
        if (p == places + count)
            continue;
        if (pg_get_bool(found, i, 1)) {
            news[p->at] = true;
        } else {
            name_unknown(p, places + count, faults);
            *ret_unknown = true;
        }
    }
    return r;
}

static const char about_another[] =
    "it was written before this subscription was made: it is about one of the same id that is gone, as after a "
    "restore";

/* What was written before its subscription was made is about another one of this id, which a restore has
 * forgotten: the group reads its messages again. */
static int refuse_older(struct pg *pg, const struct place *places, size_t count, const char **faults,
                        bool *ret_older, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *older = NULL;

    add_ids(&args, places, count);
    pg_array_begin(&args, PG_TIMESTAMPTZ);
    for (size_t i = 0; i < count; i++) {
        if (places[i].said->written_at > 0)
            pg_array_i64(&args, places[i].said->written_at - PG_EPOCH_USEC);
        else
            pg_array_null(&args);
    }
    int r = pg_query(pg, &sql_confirmations_older, &args, &older, err);
    for (int i = 0; r == PG_DONE && i < pg_rows(older); i++) {
        faults[places[pg_get_i64(older, i, 0) - 1].at] = about_another;
        *ret_older = true;
    }
    return r;
}

/* The subscriptions are the application's, whose rules may refuse the change of one: the words stay all the
 * same. The monitor finds what is left, and names it. */
static int settle(struct pg *pg, const struct pg_args *ids, struct error *err)
{
    int r = pg_execute(pg, "savepoint settling", err);

    if (r != PG_DONE)
        return r;
    r = pg_query(pg, &sql_confirmations_settle, ids, NULL, err);
    if (r == PG_DONE)
        r = pg_execute(pg, "set constraints all immediate; release savepoint settling", err);
    if (r == PG_DONE || !pg_usable(pg) || !pg_blames_row(pg_error_sqlstate(pg)))
        return r;
    return pg_execute(pg, "rollback to savepoint settling; release savepoint settling", err);
}

static int contradict_and_settle(struct pg *pg, const struct place *places, size_t count, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args words = PG_ARGS_INIT;
    CLEANUP(pg_args_free) struct pg_args ids = PG_ARGS_INIT;

    add_words(&words, places, count);
    add_ids(&ids, places, count);
    int r = pg_query(pg, &sql_confirmations_contradict, &words, NULL, err);
    return r == PG_DONE ? settle(pg, &ids, err) : r;
}

static int apply(struct pg *pg, void *const *entries, size_t count, const char **faults, bool *news,
                 struct error *err)
{
    CLEANUP(freep) struct place *places = xcalloc(count, sizeof(*places));
    bool has_unknown = false, has_older = false;

    for (size_t i = 0; i < count; i++)
        places[i] = (struct place){entries[i], i};
    qsort(places, count, sizeof(*places), by_subscription);
    int r = refuse_older(pg, places, count, faults, &has_older, err);
    if (r != PG_DONE || has_older)
        return r;
    r = take(pg, places, count, faults, news, &has_unknown, err);
    return r == PG_DONE && !has_unknown ? contradict_and_settle(pg, places, count, err) : r;
}

const struct inbox inbox_confirmations = {
    .topic = "confirmations",
    .read = read_entry,
    .apply = apply,
    .lasting_fault = about_another,
};
