/* SQL of the consumers. See store_consumer.h.
 *
 * On the consumers' threads. Everything is set-based: one statement for a batch, never one for an event. */
#include "consumers/store_consumer.h"

#include <errno.h>

#include <stdio.h>
#include <string.h>

#include "base/timeutil.h"
#include "sql/statements.h"

/* --- members ---------------------------------------------------------------------------------- */

int store_limit_session(struct pg *pg, struct error *err)
{
    return pg_execute(pg, "set idle_in_transaction_session_timeout = '5s'", err);
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
        items[i].next = -1;
    for (int row = 0; row < pg_rows(result); row++)
        items[pg_get_i64(result, row, 0) - 1].next = pg_get_i64(result, row, 1);
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
    return pg_query(pg, &sql_place_offset, &args, NULL, err);
}

int store_advance(struct pg *pg, const char *group, const struct store_offset *items, size_t count,
                  bool *ret_fenced, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_text(&args, group);
    pg_arg_texts(&args, &items->topic, sizeof(*items), count);
    pg_arg_i32s(&args, &items->partition, sizeof(*items), count);
    pg_arg_i64s(&args, &items->expected, sizeof(*items), count);
    pg_arg_i64s(&args, &items->next, sizeof(*items), count);
    pg_arg_i64s(&args, &items->foreign, sizeof(*items), count);
    int r = pg_query(pg, &sql_advance, &args, &result, err);
    if (r == PG_DONE)
        *ret_fenced = pg_affected(result) != (int64_t) count;
    return r;
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

static void add_events(struct pg_args *args, const struct message_event *const *events, size_t count)
{
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
    for (size_t i = 0; i < count; i++)
        pg_array_i64(args, events[i]->created_at - PG_EPOCH_USEC);
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

/* So many rows are read in the time that one is looked up. */
#define NEAR_ROWS 4

int store_find_unknown(struct pg *pg, const struct message_event *const *events, size_t count,
                       bool *ret_unknown, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    int64_t first = INT64_MAX, last = 0;

    for (size_t i = 0; i < count; i++) {
        first = MIN(first, events[i]->sequence);
        last = MAX(last, events[i]->sequence);
    }
    add_events(&args, events, count);
    pg_arg_i64(&args, first);
    pg_arg_i64(&args, last);
    bool near = last - first < NEAR_ROWS * (int64_t) count;
    int r = pg_query(pg, near ? &sql_find_unknown_near : &sql_find_unknown, &args, &result, err);
    for (int row = 0; r == PG_DONE && row < pg_rows(result); row++)
        ret_unknown[pg_get_i64(result, row, 0) - 1] = true;
    return r == PG_DONE && pg_rows(result) > 0 ? check_ledger(pg, err) : r;
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

int store_dead_letters(struct pg *pg, const char *model, const struct store_dead_letter *items, size_t count,
                       struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, model);
    pg_arg_texts(&args, &items->topic, sizeof(*items), count);
    pg_arg_i32s(&args, &items->partition, sizeof(*items), count);
    pg_arg_i64s(&args, &items->offset, sizeof(*items), count);
    pg_arg_bytes(&args, PG_BYTEA, &items->key, sizeof(*items), count);
    pg_arg_bytes(&args, PG_TEXT, &items->headers, sizeof(*items), count);
    pg_arg_bytes(&args, PG_BYTEA, &items->value, sizeof(*items), count);
    pg_arg_texts(&args, &items->error, sizeof(*items), count);
    return pg_query(pg, &sql_dead_letters, &args, NULL, err);
}
