/* SQL of the consumers. See store_consumer.h.
 *
 * On the consumers' threads. Everything is set-based: one statement for a batch, never one for an event. */
#include "consumers/store_consumer.h"

#include <errno.h>

#include <stdio.h>
#include <string.h>

#include "base/timeutil.h"
#include "consumers/id_runs.h"
#include "sql/statements.h"

/* --- members ---------------------------------------------------------------------------------- */

int store_limit_session(struct pg *pg, struct error *err)
{
    int r = pg_execute(pg, "set idle_in_transaction_session_timeout = '5s'", err);

    return r == PG_DONE ? pg_query(pg, &sql_end_silent, NULL, NULL, err) : r;
}

int store_installation(struct pg *pg, char ret[INSTALLATION_TEXT], struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    int r = pg_query(pg, &sql_read_installation, NULL, &result, err);

    if (r == PG_DONE)
        snprintf(ret, INSTALLATION_TEXT, "%s", pg_get_text(result, 0, 0));
    return r;
}

int store_take_member(struct pg *pg, const char *group, const char *member, bool *ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, group);
    pg_arg_text(&args, member);
    return pg_query_bool(pg, &sql_take_member, &args, ret, err);
}

/* --- offsets ---------------------------------------------------------------------------------- */

int store_read_offsets(struct pg *pg, const char *group, struct store_offset *items, size_t count,
                       struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_text(&args, group);
    pg_arg_texts(&args, &items->topic, sizeof(*items), count);
    pg_arg_i32s(&args, &items->partition, sizeof(*items), count);
    int r = pg_query(pg, &sql_read_offsets, &args, &result, err);
    if (r != PG_DONE)
        return r;
    for (size_t i = 0; i < count; i++)
        items[i].next = items[i].unread_until = -1;
    for (int row = 0; row < pg_rows(result); row++) {
        struct store_offset *item = &items[pg_get_i64(result, row, 0) - 1];
        item->next = pg_get_i64(result, row, 1);
        item->unread_until = pg_get_i64(result, row, 2);
    }
    return PG_DONE;
}

int store_place_offset(struct pg *pg, const char *group, const char *model, const struct store_offset *item,
                       struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, group);
    pg_arg_text(&args, item->topic);
    pg_arg_i32(&args, item->partition);
    pg_arg_i64(&args, item->expected);
    pg_arg_i64(&args, item->next);
    pg_arg_text(&args, model);
    pg_arg_i64(&args, item->unread_until);
    return pg_query(pg, &sql_place_offset, &args, NULL, err);
}

int store_lock_marks(struct pg *pg, const char *model, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, model);
    return pg_query(pg, &sql_lock_marks, &args, NULL, err);
}

int store_advance(struct pg *pg, const char *group, const char *model, const struct store_offset *items,
                  size_t count, bool alone, bool *ret_fenced, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_text(&args, group);
    pg_arg_texts(&args, &items->topic, sizeof(*items), count);
    pg_arg_i32s(&args, &items->partition, sizeof(*items), count);
    pg_arg_i64s(&args, &items->expected, sizeof(*items), count);
    pg_arg_i64s(&args, &items->next, sizeof(*items), count);
    pg_arg_i64s(&args, &items->foreign, sizeof(*items), count);
    pg_arg_text(&args, model);
    pg_arg_bool(&args, alone);
    int r = pg_query(pg, &sql_advance, &args, &result, err);
    if (r == PG_DONE)
        *ret_fenced = pg_affected(result) != (int64_t) count;
    return r;
}

int store_find_marked(struct pg *pg, const char *model, const char *type, int32_t partition,
                      const int64_t *ids, size_t count, bool *ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_text(&args, model);
    pg_arg_text(&args, type);
    pg_arg_i64(&args, partition);
    pg_arg_i64s(&args, ids, sizeof(*ids), count);
    int r = pg_query(pg, &sql_find_marked, &args, &result, err);
    for (int i = 0; r == PG_DONE && i < pg_rows(result); i++)
        ret[pg_get_i64(result, i, 0) - 1] = true;
    return r;
}

int store_read_homes(struct pg *pg, const char *topic, struct homes *ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_text(&args, topic);
    int r = pg_query(pg, &sql_read_homes, &args, &result, err);
    if (r != PG_DONE)
        return r;
    ret->counts = xcalloc((size_t) pg_rows(result) + 1, sizeof(*ret->counts));
    ret->len = 0;
    ret->moved = false;
    for (int i = 0; i < pg_rows(result); i++) {
        if (pg_is_null(result, i, 0))
            ret->moved = true;
        else
            ret->counts[ret->len++] =
                (struct home_count){pg_get_i64(result, i, 0), (int32_t) pg_get_i64(result, i, 1)};
    }
    return PG_DONE;
}

/* --- groups that have stopped ----------------------------------------------------------------- */

int store_stop_unmarked(struct pg *pg, const struct pg_statement *statement, const char *model,
                        const char *options, bool *ret_known, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(freep) char *command = xasprintf("replay --group %s%s", model, options);

    pg_arg_text(&args, model);
    pg_arg_text(&args, command);
    return pg_query_bool(pg, statement, &args, ret_known, err);
}

void store_stop_done(struct store_stop *stop)
{
    free(stop->reason);
    free(stop->command);
}

int store_find_rival(struct pg *pg, const char *group, const char *model, char **ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_text(&args, group);
    pg_arg_text(&args, model);
    int r = pg_query(pg, &sql_find_rival, &args, &result, err);
    if (r == PG_DONE && pg_rows(result) > 0)
        *ret = xstrdup(pg_get_text(result, 0, 0));
    return r;
}

int store_find_elsewhere(struct pg *pg, const char *group, const struct kafka_strangers *found, char **ret,
                         struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_text(&args, group);
    pg_array_begin(&args, PG_TEXT);
    for (size_t i = 0; i < found->alike_count; i++)
        pg_array_bytes(&args, found->alike[i], strlen(found->alike[i]));
    int r = pg_query(pg, &sql_members_elsewhere, &args, &result, err);
    if (r == PG_DONE && pg_rows(result) > 0)
        *ret = xstrdup(pg_get_text(result, 0, 0));
    return r;
}

int store_read_stop(struct pg *pg, const char *model, struct store_stop *ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_text(&args, model);
    int r = pg_query(pg, &sql_read_stop, &args, &result, err);
    if (r != PG_DONE || pg_rows(result) == 0)
        return r;
    ret->reason = xstrdup(pg_get_text(result, 0, 0));
    ret->passes_ms = pg_get_i64(result, 0, 1);
    ret->command = pg_is_null(result, 0, 2) ? NULL : xstrdup(pg_get_text(result, 0, 2));
    return r;
}

int store_stop_group(struct pg *pg, const char *model, const char *reason, bool *ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, model);
    pg_arg_text(&args, reason);
    return pg_query_bool(pg, &sql_stop_group, &args, ret, err);
}

/* --- bitmaps ---------------------------------------------------------------------------------- */

static void add_places(struct pg_args *args, const char *model, const struct store_chunk *items, size_t count)
{
    pg_arg_text(args, model);
    pg_arg_texts(args, &items->type, sizeof(*items), count);
    pg_arg_i32s(args, &items->partition, sizeof(*items), count);
    pg_array_begin(args, PG_INT8);
    for (size_t i = 0; i < count; i++)
        pg_array_i64(args, items[i].chunk->number);
}

int store_read_chunks(struct pg *pg, const char *model, const struct store_chunk *items, size_t count,
                      struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    add_places(&args, model, items, count);
    int r = pg_query(pg, &sql_read_chunks, &args, &result, err);
    if (r != PG_DONE)
        return r;
    for (int row = 0; row < pg_rows(result); row++) {
        struct bitmap_chunk *chunk = items[pg_get_i64(result, row, 0) - 1].chunk;
        size_t len;
        const char *bits = pg_get_bytes(result, row, 2, &len);
        chunk->version = pg_get_i64(result, row, 1);
        memcpy(chunk->bits, bits, MIN(len, sizeof(chunk->bits)));
    }
    return PG_DONE;
}

int store_write_chunks(struct pg *pg, const char *model, const struct store_chunk *items, size_t count,
                       bool *ret_fenced, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    int64_t written = 0;

    add_places(&args, model, items, count);
    pg_array_begin(&args, PG_INT8);
    for (size_t i = 0; i < count; i++)
        pg_array_i64(&args, items[i].chunk->version);
    pg_array_begin(&args, PG_BYTEA);
    for (size_t i = 0; i < count; i++)
        pg_array_bytes(&args, (const char *) items[i].chunk->bits, sizeof(items[i].chunk->bits));
    int r = pg_query_i64(pg, &sql_write_chunks, &args, &written, err);
    if (r == PG_DONE)
        *ret_fenced = written != (int64_t) count;
    return r;
}

/* --- the ledger ------------------------------------------------------------------------------- */

/* What a message says of an event, at the event's place among the ledger's ids. */
struct said {
    int64_t subscription_id, integration_id, created_at;
    char type; /* its place among the words, from 1 on; 0 = no event */
};

static void add_said(struct pg_args *args, const struct message_event *const *events, size_t count,
                     const struct id_runs *runs)
{
    CLEANUP(freep) struct said *said = xcalloc(runs->width, sizeof(*said));
    CLEANUP(freep) char *types = xcalloc(runs->width, 1);
    CLEANUP(freep) char *event_ids = xcalloc(runs->width, sizeof(events[0]->id));

    for (size_t i = 0; i < count; i++) {
        const struct message_event *e = events[i];
        said[runs->places[i]] = (struct said){.subscription_id = e->subscription_id,
                                              .integration_id = e->integration_id,
                                              .created_at = e->created_at};
        types[runs->places[i]] = (char) (e->type + 1);
        memcpy(event_ids + runs->places[i] * sizeof(e->id), e->id, sizeof(e->id));
    }
    pg_array_begin(args, PG_TEXT);
    for (enum event_type type = 0; type < EVENT_TYPES; type++)
        pg_array_bytes(args, event_type_word(type), strlen(event_type_word(type)));
    pg_arg_blob(args, types, runs->width);
    pg_arg_i64s(args, &said->subscription_id, sizeof(*said), runs->width);
    pg_arg_i64s(args, &said->integration_id, sizeof(*said), runs->width);
    pg_arg_times(args, &said->created_at, sizeof(*said), runs->width);
    pg_arg_blob(args, event_ids, runs->width * sizeof(events[0]->id));
}

/* How many of the events the ledger has as they are; 0 also when one of them comes twice. */
static int count_known(struct pg *pg, const struct message_event *const *events, size_t count, int64_t *ret,
                       int64_t *ret_topics, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    CLEANUP(id_runs_free) struct id_runs runs = {0};
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(freep) int64_t *ids = xcalloc(count, sizeof(*ids));

    for (size_t i = 0; i < count; i++)
        ids[i] = events[i]->sequence;
    id_runs_make(&runs, ids, sizeof(*ids), count);
    *ret = 0;
    *ret_topics = -1;
    if (runs.twice)
        return PG_DONE;
    id_runs_args(&runs, &args);
    add_said(&args, events, count, &runs);
    int r = pg_query(pg, &sql_count_known, &args, &result, err);
    if (r != PG_DONE)
        return r;
    *ret = pg_get_i64(result, 0, 0);
    *ret_topics = pg_get_i64(result, 0, 1);
    return PG_DONE;
}

static void add_events(struct pg_args *args, const struct message_event *const *events, size_t count)
{
    int64_t first = INT64_MAX, last = 0;

    pg_array_begin(args, PG_INT8);
    for (size_t i = 0; i < count; i++)
        pg_array_i64(args, events[i]->sequence);
    pg_array_begin(args, PG_TEXT);
    for (size_t i = 0; i < count; i++) {
        const char *type = event_type_word(events[i]->type);
        pg_array_bytes(args, type, strlen(type));
    }
    pg_array_begin(args, PG_INT8);
    for (size_t i = 0; i < count; i++)
        pg_array_i64(args, events[i]->subscription_id);
    pg_array_begin(args, PG_INT8);
    for (size_t i = 0; i < count; i++)
        pg_array_i64(args, events[i]->integration_id);
    pg_array_begin(args, PG_TIMESTAMPTZ);
    for (size_t i = 0; i < count; i++) {
        pg_array_i64(args, events[i]->created_at - PG_EPOCH_USEC);
        first = MIN(first, events[i]->sequence);
        last = MAX(last, events[i]->sequence);
    }
    pg_array_begin(args, PG_BYTEA);
    for (size_t i = 0; i < count; i++)
        pg_array_bytes(args, (const char *) events[i]->id, sizeof(events[i]->id));
    pg_arg_i64(args, first);
    pg_arg_i64(args, last);
}

/* A partition may have been detached, or another table may be in the ledger's place, since this session was
 * admitted. */
static int check_ledger(struct pg *pg, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *amiss = NULL;
    int r = pg_query(pg, &sql_ledger_amiss, NULL, &amiss, err);

    if (r != PG_DONE || pg_is_null(amiss, 0, 0))
        return r;
    error_set(err, "the ledger: %s", pg_get_text(amiss, 0, 0));
    return -ECONNRESET;
}

static int find_unknown(struct pg *pg, const struct message_event *const *events, size_t count,
                        bool *ret_unknown, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    add_events(&args, events, count);
    int r = pg_query(pg, &sql_find_unknown, &args, &result, err);
    for (int row = 0; r == PG_DONE && row < pg_rows(result); row++)
        ret_unknown[pg_get_i64(result, row, 0) - 1] = true;
    return r == PG_DONE && pg_rows(result) > 0 ? check_ledger(pg, err) : r;
}

/* Nearly always the ledger has them all, which costs a third of finding out which. */
int store_find_unknown(struct pg *pg, const struct message_event *const *events, size_t count,
                       bool *ret_unknown, int64_t *ret_topics, struct error *err)
{
    int64_t known;
    int r = count_known(pg, events, count, &known, ret_topics, err);

    if (r != PG_DONE || known == (int64_t) count)
        return r;
    return find_unknown(pg, events, count, ret_unknown, err);
}

int store_count_unknown(struct pg *pg, const char *group, const struct store_offset *items, size_t count,
                        struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, group);
    pg_arg_texts(&args, &items->topic, sizeof(*items), count);
    pg_arg_i32s(&args, &items->partition, sizeof(*items), count);
    pg_arg_i64s(&args, &items->unknown, sizeof(*items), count);
    return pg_query(pg, &sql_count_unknown, &args, NULL, err);
}

/* --- dead letters ----------------------------------------------------------------------------- */

int store_letters_known(struct pg *pg, const char *model, const struct store_dead_letter *items, size_t count,
                        bool *ret_known, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_text(&args, model);
    pg_arg_texts(&args, &items->topic, sizeof(*items), count);
    pg_arg_i32s(&args, &items->partition, sizeof(*items), count);
    pg_arg_i64s(&args, &items->offset, sizeof(*items), count);
    pg_arg_i64s(&args, &items->written_ms, sizeof(*items), count);
    int r = pg_query(pg, &sql_letters_known, &args, &result, err);
    for (int row = 0; r == PG_DONE && row < pg_rows(result); row++)
        ret_known[pg_get_i64(result, row, 0) - 1] = true;
    return r;
}

int store_dead_letters(struct pg *pg, const char *group, const char *model,
                       const struct store_dead_letter *items, size_t count, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, group);
    pg_arg_texts(&args, &items->topic, sizeof(*items), count);
    pg_arg_i32s(&args, &items->partition, sizeof(*items), count);
    pg_arg_i64s(&args, &items->offset, sizeof(*items), count);
    pg_arg_bytes(&args, PG_BYTEA, &items->key, sizeof(*items), count);
    pg_arg_bytes(&args, PG_TEXT, &items->headers, sizeof(*items), count);
    pg_arg_bytes(&args, PG_BYTEA, &items->value, sizeof(*items), count);
    pg_arg_texts(&args, &items->error, sizeof(*items), count);
    pg_arg_i32s(&args, &items->discard_only, sizeof(*items), count);
    pg_arg_text(&args, model);
    pg_arg_i64s(&args, &items->written_ms, sizeof(*items), count);
    return pg_query(pg, &sql_dead_letters, &args, NULL, err);
}
