/* The relay's statements. See store_relay.h. On the relay's thread. */
#include "relay/store_relay.h"

#include <errno.h>
#include <string.h>

#include "base/timeutil.h"
#include "base/utf8.h"
#include "sql/statements.h"

/* --- leadership ------------------------------------------------------------------------------- */

int store_relay_show_trouble(struct pg *pg, const char *trouble, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, STORE_RELAY_SESSION);
    pg_arg_text(&args, trouble);
    return pg_query(pg, &sql_relay_show_trouble, &args, NULL, err);
}

int store_relay_others(struct pg *pg, bool *ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, STORE_RELAY_SESSION);
    return pg_query_bool(pg, &sql_relay_others, &args, ret, err);
}

int store_relay_identify(struct pg *pg, struct store_relay_identity *ret, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    int r = pg_query(pg, &sql_relay_identify, NULL, &result, err);

    if (r == 0)
        *ret =
            (struct store_relay_identity){true, pg_get_i64(result, 0, 0), (int32_t) pg_get_i64(result, 0, 1)};
    return r;
}

int store_relay_next_id(struct pg *pg, int64_t *ret, struct error *err)
{
    return pg_query_i64(pg, &sql_relay_next_id, NULL, ret, err);
}

int store_relay_reached(struct pg *pg, int64_t epoch, const char *topic, const struct kafka_reached *reached,
                        int partitions, int64_t *ret_lost, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64(&args, epoch);
    pg_arg_text(&args, topic);
    pg_arg_i64s(&args, &reached->next, sizeof(*reached), (size_t) partitions);
    pg_arg_i64s(&args, &reached->first, sizeof(*reached), (size_t) partitions);
    return pg_query_i64(pg, &sql_relay_reached, &args, ret_lost, err);
}

int store_relay_known_until(struct pg *pg, const char *topic, int64_t *ret, int partitions, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    for (int p = 0; p < partitions; p++)
        ret[p] = -1;
    pg_arg_text(&args, topic);
    int r = pg_query(pg, &sql_relay_known_until, &args, &result, err);
    for (int row = 0; r == 0 && row < pg_rows(result); row++) {
        int64_t partition = pg_get_i64(result, row, 0);
        if (partition >= 0 && partition < partitions)
            ret[partition] = pg_get_i64(result, row, 1);
    }
    return r;
}

int store_relay_lost(struct pg *pg, int64_t published, const struct store_relay_known *known, size_t count,
                     struct store_relay_known *newest, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    if (count == 0)
        return 0;
    pg_arg_i64(&args, published);
    pg_arg_i64s(&args, &known->id, sizeof(*known), count);
    pg_arg_times(&args, &known->created_at, sizeof(*known), count);
    int r = pg_query(pg, &sql_relay_lost, &args, &result, err);
    if (r < 0 || pg_rows(result) == 0)
        return r;
    struct pg_row row = {result, 0, 0};
    int64_t id = pg_next_i64(&row), created_at = pg_next_time(&row);
    newest->id = MAX(newest->id, id);
    newest->created_at = MAX(newest->created_at, created_at);
    return 0;
}

int store_relay_leap(struct pg *pg, int64_t published, const struct store_relay_known *newest,
                     struct store_relay_leap *ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_i64(&args, published);
    pg_arg_i64(&args, newest->id);
    pg_arg_i64(&args, newest->created_at);
    int r = pg_query(pg, &sql_relay_leap, &args, &result, err);
    if (r < 0)
        return r;
    struct pg_row row = {result, 0, 0};
    ret->drawn = pg_next_i64(&row);
    ret->next = pg_next_i64(&row);
    ret->moved = pg_next_i64(&row);
    ret->old_first = pg_next_i64(&row);
    ret->new_first = pg_next_i64(&row);
    return 0;
}

static int load_gaps(struct gaps *gaps, struct pg_row *row)
{
    CLEANUP(freep) int64_t *first = NULL, *last = NULL, *horizon = NULL;
    int64_t high = pg_next_i64(row);
    size_t count = pg_next_i64_array(row, &first);

    if (pg_next_i64_array(row, &last) != count || pg_next_i64_array(row, &horizon) != count)
        return -EINVAL;
    return gaps_load(gaps, high, first, last, horizon, count);
}

static int read_start(struct pg_row *row, struct gaps *gaps, struct store_relay_start *ret)
{
    size_t len;

    ret->lead.epoch = pg_next_i64(row);
    if (load_gaps(gaps, row) < 0)
        return -EINVAL;
    ret->saved.known = !pg_next_is_null(row);
    ret->saved.system = pg_next_i64(row);
    ret->saved.timeline = (int32_t) pg_next_i64(row);
    const char *name_space = pg_next_bytes(row, &len);
    if (len != sizeof(ret->name_space))
        return -EINVAL;
    memcpy(ret->name_space, name_space, len);
    ret->was_ahead = !pg_next_is_null(row);
    ret->found_at = pg_next_i64(row);
    ret->missed = pg_next_i64(row);
    ret->compared_at = pg_next_time(row);
    ret->lead.written_by = pg_next_i64(row);
    return 0;
}

int store_relay_begin(struct pg *pg, const char *leader, struct gaps *gaps, struct store_relay_start *ret,
                      struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    /* A position that was saved must not be lost, whatever the server's default is. */
    int r = pg_execute(pg, "set synchronous_commit = on", err);

    pg_arg_text(&args, leader);
    if (r == 0)
        r = pg_query(pg, &sql_relay_begin, &args, &result, err);
    if (r == 0)
        r = pg_query(pg, &sql_relay_trim_holes, NULL, NULL, err);
    if (r < 0)
        return r;
    struct pg_row row = {result, 0, 0};
    if (pg_rows(result) == 1 && read_start(&row, gaps, ret) == 0)
        return 0;
    error_set(err, "the tables \"relay_state\" and \"installation\" have values that anubisd did not write");
    return -EBADMSG;
}

/* --- reading ---------------------------------------------------------------------------------- */

/* Columns of relay_read.sql: of the head, and the first ones of a row. */
enum { XMIN, WAL_POSITION, FIRST_LEFT_OUT };
enum { ID, SUBSCRIPTION_ID, INTEGRATION_ID };

/* Characters of a text of the application's own. */
#define TEXT_MAX 1000
#define ERROR_MESSAGE_MAX 8000
#define TRACEPARENT_MAX 100

/* The gaps, or when there are none a place to point at. */
static const struct gap *items_of(const struct gaps *gaps)
{
    static const struct gap nothing;

    return gaps->items ? gaps->items : &nothing;
}

static void add_notes(struct pg_args *args, const struct gap_notes *n, bool last)
{
    static const struct gap nothing;
    const struct gap *first = n->items ? n->items : &nothing;

    pg_arg_i64s(args, last ? &first->last : &first->first, sizeof(struct gap), n->count);
}

static void add_firsts(struct pg_args *args, const struct gaps *gaps)
{
    pg_arg_i64s(args, &items_of(gaps)->first, sizeof(struct gap), gaps->count);
}

static void add_lasts(struct pg_args *args, const struct gaps *gaps)
{
    pg_arg_i64s(args, &items_of(gaps)->last, sizeof(struct gap), gaps->count);
}

/* The lowest id, and the ranges: the gaps, and all above high up to `last`. */
static void add_ranges(struct pg_args *args, const struct gaps *gaps, int64_t last)
{
    pg_arg_i64(args, gaps->count ? gaps->items[0].first : gaps->high + 1);
    add_firsts(args, gaps);
    pg_array_i64(args, gaps->high + 1);
    add_lasts(args, gaps);
    pg_array_i64(args, last);
}

int store_relay_read(struct pg *pg, const struct gaps *gaps, int limit, int64_t byte_budget,
                     struct pg_result **ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    add_ranges(&args, gaps, INT64_MAX);
    pg_arg_i64(&args, limit);
    pg_arg_i64(&args, byte_budget);
    return pg_query(pg, &sql_relay_read, &args, ret, err);
}

int store_relay_overtake(struct pg *pg, const struct gaps *gaps, int64_t from, int limit, int64_t **ret,
                         size_t *ret_count, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    add_ranges(&args, gaps, from);
    pg_arg_i64(&args, from);
    pg_arg_i64(&args, limit);
    int r = pg_query(pg, &sql_relay_overtake, &args, &result, err);
    if (r < 0)
        return r;
    *ret_count = (size_t) pg_rows(result);
    *ret = xcalloc(*ret_count + 1, sizeof(**ret));
    for (int row = 0; row < pg_rows(result); row++)
        (*ret)[row] = pg_get_i64(result, row, 0);
    return 0;
}

int store_relay_read_ids(struct pg *pg, const int64_t *ids, size_t count, int64_t byte_budget,
                         struct pg_result **ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64(&args, ids[0]);
    pg_arg_i64s(&args, ids, sizeof(*ids), count);
    pg_arg_i64s(&args, ids, sizeof(*ids), count);
    pg_arg_i64(&args, (int64_t) count);
    pg_arg_i64(&args, byte_budget);
    return pg_query(pg, &sql_relay_read, &args, ret, err);
}

void store_relay_head(const struct pg_result *result, struct store_relay_head *ret)
{
    ret->xmin = pg_get_i64(result, 0, XMIN);
    ret->wal_position = pg_get_i64(result, 0, WAL_POSITION);
    ret->cut = !pg_is_null(result, 0, FIRST_LEFT_OUT);
}

int64_t store_relay_row_id(const struct pg_result *result, int row)
{
    return pg_get_i64(result, row, ID);
}

static struct event_number next_number(struct pg_row *row)
{
    bool is_set = !pg_next_is_null(row);

    return (struct event_number){is_set, pg_next_i64(row)};
}

struct event_number store_relay_row_integration(const struct pg_result *result, int row)
{
    return next_number(&(struct pg_row){result, row, INTEGRATION_ID});
}

static struct bytes next_text(struct pg_row *row)
{
    bool is_null = pg_next_is_null(row);
    struct bytes text;

    text.p = pg_next_bytes(row, &text.len);
    if (is_null)
        text.p = NULL;
    return text;
}

static struct bytes next_text_of(struct pg_row *row, size_t characters)
{
    struct bytes text = next_text(row);

    text.len = utf8_first(text.p, text.len, characters);
    return text;
}

static const unsigned char *next_uuid(struct pg_row *row)
{
    struct bytes uuid = next_text(row);

    return uuid.len == 16 ? (const unsigned char *) uuid.p : NULL;
}

static struct event_number next_time(struct pg_row *row)
{
    bool is_set = !pg_next_is_null(row);

    return (struct event_number){is_set, pg_next_time(row)};
}

static int64_t next_time_or(struct pg_row *row, int64_t otherwise)
{
    struct event_number time = next_time(row);

    return time.set ? time.value : otherwise;
}

void store_relay_row(const struct pg_result *result, int number, struct event *ret)
{
    struct pg_row row = {result, number, ID};

    *ret = (struct event){.id = pg_next_i64(&row)};
    ret->subscription.id = next_number(&row);
    ret->integration.id = next_number(&row);
    ret->subscription.order_id = next_number(&row);
    ret->event_id = next_uuid(&row);
    ret->created_at = next_time_or(&row, 0);
    ret->event_type = next_text(&row);
    ret->subscription.origin = next_text_of(&row, TEXT_MAX);
    ret->subscription.cpf = next_text_of(&row, TEXT_MAX);
    ret->subscription.status = next_text(&row);
    ret->subscription.sent_at = next_time(&row);
    ret->subscription.scheduled_to = next_time(&row);
    ret->subscription.created_at = next_time_or(&row, ret->created_at);
    ret->subscription.updated_at = next_time_or(&row, ret->created_at);
    ret->attempt.number = next_number(&row);
    ret->attempt.response = next_text(&row);
    ret->attempt.response_truncated = pg_next_bool(&row);
    ret->attempt.error_message = next_text_of(&row, ERROR_MESSAGE_MAX);
    ret->attempt.ambiguous = next_number(&row);
    ret->attempt.next_attempt_at = next_time(&row);
    ret->traceparent = next_text_of(&row, TRACEPARENT_MAX);
}

int store_relay_holes(struct pg *pg, int64_t below, int limit, struct pg_result **ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64(&args, below);
    pg_arg_i64(&args, limit);
    return pg_query(pg, &sql_relay_holes, &args, ret, err);
}

int store_relay_unread(struct pg *pg, int limit, struct pg_result **ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64(&args, limit);
    return pg_query(pg, &sql_relay_unread, &args, ret, err);
}

int store_relay_names(struct pg *pg, const int64_t *ids, size_t count, struct pg_result **ret,
                      struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64s(&args, ids, sizeof(*ids), count);
    return pg_query(pg, &sql_relay_names, &args, ret, err);
}

/* --- saving ----------------------------------------------------------------------------------- */

int store_relay_is_flushed(struct pg *pg, const struct store_relay_lead *lead, int64_t wal_position,
                           bool *ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    if (wal_position == 0) {
        *ret = false;
        return 0;
    }
    pg_arg_i64(&args, wal_position);
    pg_arg_i64(&args, lead->epoch);
    pg_arg_i64(&args, lead->written_by);
    return pg_query_bool(pg, &sql_relay_is_flushed, &args, ret, err);
}

int store_relay_leads(struct pg *pg, const struct store_relay_lead *lead, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    bool leads = false;

    pg_arg_i64(&args, lead->epoch);
    pg_arg_i64(&args, lead->written_by);
    int r = pg_query_bool(pg, &sql_relay_leads, &args, &leads, err);
    return r == 0 && !leads ? STORE_RELAY_FENCED : r;
}

/* The first column tells who wrote relay_state: we, or there is no row. */
static int write_fenced(struct pg *pg, const struct pg_statement *statement, const struct pg_args *args,
                        struct store_relay_lead *lead, struct pg_result **ret, struct error *err)
{
    int r = pg_query(pg, statement, args, ret, err);

    if (r == 0 && pg_rows(*ret) == 0)
        return STORE_RELAY_FENCED;
    if (r == 0)
        lead->written_by = pg_get_i64(*ret, 0, 0);
    return r;
}

int store_relay_compared(struct pg *pg, struct store_relay_lead *lead, const char *topic_prefix,
                         struct pg_result **ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64(&args, lead->epoch);
    pg_arg_text(&args, topic_prefix);
    pg_arg_i64(&args, now_realtime_usec());
    pg_arg_i64(&args, lead->written_by);
    return write_fenced(pg, &sql_relay_compared, &args, lead, ret, err);
}

int store_relay_mark(struct pg *pg, struct store_relay_lead *lead, int64_t *ret_xid, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_i64(&args, lead->epoch);
    pg_arg_i64(&args, lead->written_by);
    int r = write_fenced(pg, &sql_relay_mark, &args, lead, &result, err);
    if (r == 0)
        *ret_xid = pg_get_i64(result, 0, 1);
    return r;
}

int store_relay_save(struct pg *pg, struct store_relay_lead *lead, const struct gaps *gaps,
                     const struct store_relay_identity *identity, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_i64(&args, lead->epoch);
    pg_arg_i64(&args, gaps->high);
    add_firsts(&args, gaps);
    add_lasts(&args, gaps);
    pg_arg_i64s(&args, &items_of(gaps)->horizon, sizeof(struct gap), gaps->count);
    pg_arg_bool(&args, identity->known);
    pg_arg_i64(&args, identity->system);
    pg_arg_i32(&args, identity->timeline);
    add_notes(&args, &gaps->passed, false);
    add_notes(&args, &gaps->passed, true);
    add_notes(&args, &gaps->reopened, false);
    pg_arg_i64(&args, now_realtime_usec());
    pg_arg_i64(&args, lead->written_by);
    return write_fenced(pg, &sql_relay_save, &args, lead, &result, err);
}

int store_relay_stop(struct pg *pg, struct store_relay_lead *lead, int64_t id, const char *reason,
                     struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_i64(&args, lead->epoch);
    pg_arg_i64(&args, id);
    pg_arg_text(&args, reason);
    pg_arg_i64(&args, lead->written_by);
    return write_fenced(pg, &sql_relay_stop, &args, lead, &result, err);
}

/* --- topics ----------------------------------------------------------------------------------- */

int store_relay_partitions(struct pg *pg, const char *topic, struct pg_result **ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, topic);
    return pg_query(pg, &sql_relay_partitions, &args, ret, err);
}

int store_relay_add_partitions(struct pg *pg, const char *topic, int64_t from_sequence, int count,
                               struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, topic);
    pg_arg_i64(&args, from_sequence);
    pg_arg_i32(&args, count);
    return pg_query(pg, &sql_relay_add_partitions, &args, NULL, err);
}
