/* SQL of the consumers. See store_consumer.h.
 *
 * On the consumers' threads. Everything is set-based: one statement for a batch, never one for an event. */
#include "consumers/store_consumer.h"

#include <string.h>

static void add_bytes(struct pg_args *args, const char *bytes, size_t len)
{
    if (bytes)
        pg_array_bytes(args, bytes, len);
    else
        pg_array_null(args);
}

/* --- members ---------------------------------------------------------------------------------- */

int store_limit_session(struct pg *pg, struct error *err)
{
    return pg_execute(pg, "set idle_in_transaction_session_timeout = '5s'", err);
}

static const struct pg_statement take_member = {
    "take_member", "select pg_try_advisory_lock(hashtextextended($1 || '/' || $2, lock_key('member')))"};

int store_take_member(struct pg *pg, const char *group, const char *member, bool *ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_text(&args, group);
    pg_arg_text(&args, member);
    int r = pg_query(pg, &take_member, &args, &result, err);
    if (r == PG_DONE)
        *ret = pg_get_bool(result, 0, 0);
    return r;
}

/* --- offsets ---------------------------------------------------------------------------------- */

static const struct pg_statement read_offsets = {
    "read_offsets", "select a.n, o.next_offset"
                    "  from unnest($2::text[], $3::int[]) with ordinality as a (topic, partition, n)"
                    "  join consumer_offsets o on o.consumer_group = $1 and o.topic = a.topic"
                    "                         and o.partition = a.partition"};

int store_read_offsets(struct pg *pg, const char *group, struct store_offset *items, size_t count,
                       struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_text(&args, group);
    pg_arg_texts(&args, &items->topic, sizeof(*items), count);
    pg_arg_i32s(&args, &items->partition, sizeof(*items), count);
    int r = pg_query(pg, &read_offsets, &args, &result, err);
    if (r != PG_DONE)
        return r;
    for (size_t i = 0; i < count; i++)
        items[i].next = -1;
    for (int row = 0; row < pg_rows(result); row++)
        items[pg_get_i64(result, row, 0) - 1].next = pg_get_i64(result, row, 1);
    return PG_DONE;
}

static const struct pg_statement place_offset = {
    "place_offset", "insert into consumer_offsets as o (consumer_group, topic, partition, next_offset)"
                    "  values ($1, $2, $3, $5)"
                    "  on conflict (consumer_group, topic, partition)"
                    "  do update set next_offset = excluded.next_offset, updated_at = now()"
                    "  where o.next_offset = $4"};

int store_place_offset(struct pg *pg, const char *group, const struct store_offset *item, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, group);
    pg_arg_text(&args, item->topic);
    pg_arg_i32(&args, item->partition);
    pg_arg_i64(&args, item->expected);
    pg_arg_i64(&args, item->next);
    return pg_query(pg, &place_offset, &args, NULL, err);
}

static const struct pg_statement advance = {
    "advance",
    "update consumer_offsets o"
    "   set next_offset = a.next, foreign_messages = o.foreign_messages + a.foreign_messages, updated_at = now()"
    "  from unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[])"
    "       as a (topic, partition, expected, next, foreign_messages)"
    " where o.consumer_group = $1 and o.topic = a.topic and o.partition = a.partition"
    "   and o.next_offset = a.expected"};

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
    int r = pg_query(pg, &advance, &args, &result, err);
    if (r == PG_DONE)
        *ret_fenced = pg_affected(result) != (int64_t) count;
    return r;
}

/* --- bitmaps ---------------------------------------------------------------------------------- */

static const struct pg_statement read_chunks = {
    "read_chunks",
    "select a.n, b.version, b.bits"
    "  from unnest($2::text[], $3::int[], $4::bigint[]) with ordinality as a (topic, partition, chunk, n)"
    "  join consumer_bitmaps b on b.consumer_group = $1 and b.topic = a.topic and b.partition = a.partition"
    "                         and b.chunk = a.chunk"};

static void add_places(struct pg_args *args, const char *group, const struct store_chunk *items, size_t count)
{
    pg_arg_text(args, group);
    pg_arg_texts(args, &items->topic, sizeof(*items), count);
    pg_arg_i32s(args, &items->partition, sizeof(*items), count);
    pg_array_begin(args, PG_INT8);
    for (size_t i = 0; i < count; i++)
        pg_array_i64(args, items[i].chunk->number);
    pg_array_end(args);
}

int store_read_chunks(struct pg *pg, const char *group, const struct store_chunk *items, size_t count,
                      struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    add_places(&args, group, items, count);
    int r = pg_query(pg, &read_chunks, &args, &result, err);
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

/* Versions are counted from 1, so 0 says that the row is still to be made. */
static const struct pg_statement write_chunks = {
    "write_chunks",
    "with a as materialized ("
    "  select * from unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[], $6::bytea[])"
    "         as a (topic, partition, chunk, version, bits)"
    "), made as ("
    "  insert into consumer_bitmaps (consumer_group, topic, partition, chunk, bits)"
    "  select $1, topic, partition, chunk, bits from a where version = 0"
    "      on conflict do nothing returning 1"
    "), changed as ("
    "  update consumer_bitmaps b set bits = a.bits, version = b.version + 1 from a"
    "   where b.consumer_group = $1 and b.topic = a.topic and b.partition = a.partition and b.chunk = a.chunk"
    "     and b.version = a.version and a.version > 0 returning 1)"
    " select (select count(*) from made) + (select count(*) from changed)"};

int store_write_chunks(struct pg *pg, const char *group, const struct store_chunk *items, size_t count,
                       bool *ret_fenced, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    add_places(&args, group, items, count);
    pg_array_begin(&args, PG_INT8);
    for (size_t i = 0; i < count; i++)
        pg_array_i64(&args, items[i].chunk->version);
    pg_array_end(&args);
    pg_array_begin(&args, PG_BYTEA);
    for (size_t i = 0; i < count; i++)
        pg_array_bytes(&args, (const char *) items[i].chunk->bits, sizeof(items[i].chunk->bits));
    pg_array_end(&args);
    int r = pg_query(pg, &write_chunks, &args, &result, err);
    if (r == PG_DONE)
        *ret_fenced = pg_get_i64(result, 0, 0) != (int64_t) count;
    return r;
}

/* --- dead letters ----------------------------------------------------------------------------- */

static const struct pg_statement dead_letters = {
    "dead_letters",
    "insert into dead_letters (consumer_group, topic, partition, \"offset\", key, headers, value, error)"
    "  select $1, a.topic, a.partition, a.position, a.key, a.headers::jsonb, a.value, a.error"
    "    from unnest($2::text[], $3::int[], $4::bigint[], $5::bytea[], $6::text[], $7::bytea[], $8::text[])"
    "         as a (topic, partition, position, key, headers, value, error)"
    "  on conflict do nothing"};

int store_dead_letters(struct pg *pg, const char *group, const struct store_dead_letter *items, size_t count,
                       struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, group);
    pg_arg_texts(&args, &items->topic, sizeof(*items), count);
    pg_arg_i32s(&args, &items->partition, sizeof(*items), count);
    pg_arg_i64s(&args, &items->offset, sizeof(*items), count);
    pg_array_begin(&args, PG_BYTEA);
    for (size_t i = 0; i < count; i++)
        add_bytes(&args, items[i].key, items[i].key_len);
    pg_array_end(&args);
    pg_array_begin(&args, PG_TEXT);
    for (size_t i = 0; i < count; i++)
        add_bytes(&args, items[i].headers, items[i].headers_len);
    pg_array_end(&args);
    pg_array_begin(&args, PG_BYTEA);
    for (size_t i = 0; i < count; i++)
        add_bytes(&args, items[i].value, items[i].value_len);
    pg_array_end(&args);
    pg_arg_texts(&args, &items->error, sizeof(*items), count);
    return pg_query(pg, &dead_letters, &args, NULL, err);
}
