/* SQL of the relay. See store_relay.h. On the relay's thread. */
#include "relay/store_relay.h"

#include <errno.h>
#include <string.h>

/* --- leadership ------------------------------------------------------------------------------- */

static const struct pg_statement try_lead = {"relay_try_lead",
                                             "select pg_try_advisory_lock(lock_key('relay'))"};

int store_relay_try_lead(struct pg *pg, bool *ret_leader, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    int r = pg_query(pg, &try_lead, NULL, &result, err);

    if (r == PG_DONE)
        *ret_leader = pg_get_bool(result, 0, 0);
    return r;
}

static const struct pg_statement show_trouble = {
    "relay_show_trouble", "select set_config('application_name', '" STORE_RELAY_SESSION
                          "' || coalesce(' (' || nullif($1::text, '') || ')', ''), false)"};

int store_relay_show_trouble(struct pg *pg, const char *trouble, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_text(&args, trouble);
    return pg_query(pg, &show_trouble, &args, &result, err);
}

/* The WAL's own name tells the timeline at once after a promotion; the control file only after the next
 * checkpoint. */
static const struct pg_statement identify = {
    "relay_identify",
    "select (select system_identifier from pg_control_system()),"
    "       ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::integer"};

int store_relay_identify(struct pg *pg, struct store_relay_identity *ret, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    int r = pg_query(pg, &identify, NULL, &result, err);

    if (r == PG_DONE)
        *ret =
            (struct store_relay_identity){true, pg_get_i64(result, 0, 0), (int32_t) pg_get_i64(result, 0, 1)};
    return r;
}

static const struct pg_statement begin = {
    "relay_begin",
    "update relay_state set epoch = epoch + 1, leader = $1, updated_at = now()"
    " returning epoch, high, gap_first, gap_last, gap_horizon, system_identifier, timeline, stopped_on is not null,"
    "           uuid_send((select namespace from installation))"};

static int load(struct gaps *gaps, const struct pg_result *result)
{
    CLEANUP(freep) int64_t *first = NULL, *last = NULL, *horizon = NULL;
    size_t count = pg_get_i64_array(result, 0, 2, &first);

    if (pg_get_i64_array(result, 0, 3, &last) != count || pg_get_i64_array(result, 0, 4, &horizon) != count)
        return -EINVAL;
    return gaps_load(gaps, pg_get_i64(result, 0, 1), first, last, horizon, count);
}

int store_relay_begin(struct pg *pg, const char *leader, struct gaps *gaps, struct store_relay_start *ret,
                      struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    size_t len = 0;
    /* What we write down must not be taken back, whatever the server's default is. */
    int r = pg_execute(pg, "set synchronous_commit = on", err);

    pg_arg_text(&args, leader);
    if (r == PG_DONE)
        r = pg_query(pg, &begin, &args, &result, err);
    if (r != PG_DONE)
        return r;
    const char *name_space = pg_rows(result) == 1 ? pg_get_bytes(result, 0, 8, &len) : NULL;
    if (len != sizeof(ret->name_space) || load(gaps, result) < 0) {
        error_set(err,
                  "the tables \"relay_state\" and \"installation\" do not hold what anubisd wrote there");
        return -EBADMSG;
    }
    *ret = (struct store_relay_start){
        .epoch = pg_get_i64(result, 0, 0),
        .saved = {!pg_is_null(result, 0, 5), pg_get_i64(result, 0, 5), (int32_t) pg_get_i64(result, 0, 6)},
        .stopped = pg_get_bool(result, 0, 7),
    };
    memcpy(ret->name_space, name_space, sizeof(ret->name_space));
    return PG_DONE;
}

/* By nextval(), never by setval(), which could give an id out twice beside a transaction that draws one. */
static const struct pg_statement advance_sequence = {
    "relay_advance_sequence",
    "select count(nextval('ledger_id_seq')) from generate_series(1, least($1 - (select last_value from ledger_id_seq), 100000))"};

int store_relay_advance_sequence(struct pg *pg, int64_t high, bool *ret_done, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_i64(&args, high);
    int r = pg_query(pg, &advance_sequence, &args, &result, err);
    if (r == PG_DONE)
        *ret_done = pg_get_i64(result, 0, 0) == 0;
    return r;
}

/* --- reading ---------------------------------------------------------------------------------- */

#define COLUMNS                                                                                                                           \
    " f.id, f.event_id, f.event_type, f.created_at, f.subscription_id, f.integration_id, f.integration_name, f.integration_type,"         \
    " f.order_id, f.origin, f.cpf, f.status, f.sent_at, f.scheduled_to, f.subscription_created_at, f.subscription_updated_at, f.attempt," \
    " f.response, f.response_truncated, f.error_message, f.ambiguous, f.next_attempt_at, f.traceparent"
#define BYTES "(500 + coalesce(octet_length(f.response), 0))"
#define TOTAL "sum" BYTES " over (order by f.id rows unbounded preceding) as total"

enum column {
    KIND,
    ID,
    EVENT_ID,
    EVENT_TYPE,
    CREATED_AT,
    SUBSCRIPTION_ID,
    INTEGRATION_ID,
    INTEGRATION_NAME,
    INTEGRATION_TYPE,
    ORDER_ID,
    ORIGIN,
    CPF,
    STATUS,
    SENT_AT,
    SCHEDULED_TO,
    SUBSCRIPTION_CREATED_AT,
    SUBSCRIPTION_UPDATED_AT,
    ATTEMPT,
    RESPONSE,
    RESPONSE_TRUNCATED,
    ERROR_MESSAGE,
    AMBIGUOUS,
    NEXT_ATTEMPT_AT,
    TRACEPARENT,
    ROW_TOTAL,
    ROW_BYTES,
};

/* Each part by itself in the order of the primary key: an OR of them would scan the whole ledger. The head's
 * WAL position is read after the snapshot was taken, so no row shown was committed behind it. */
static const struct pg_statement read_ledger = {
    "relay_read",
    "select 0 as kind, pg_snapshot_xmin(pg_current_snapshot())::text::bigint as id, null::text, null::text, null::timestamptz,"
    "       (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint, null::bigint, null::text, null::text, null::bigint, null::text,"
    "       null::text, null::text, null::timestamptz, null::timestamptz, null::timestamptz, null::timestamptz, null::integer, null::text,"
    "       null::boolean, null::text, null::boolean, null::timestamptz, null::text, null::bigint, null::integer"
    " union all "
    "(select 1, w.* from (select" COLUMNS ", " TOTAL ", " BYTES " as bytes from"
    "   (select" COLUMNS " from unnest($4::bigint[], $5::bigint[]) g (first, last) cross join lateral"
    "     (select * from subscription_event_feed e where e.id between g.first and g.last order by e.id limit $2) f"
    "    order by f.id limit $2) f) w where w.total - w.bytes < $3)"
    " union all "
    "(select 2, w.* from (select" COLUMNS ", " TOTAL ", " BYTES " as bytes from"
    "   (select * from subscription_event_feed e where e.id > $1 order by e.id limit $2) f) w where w.total - w.bytes < $3)"};

int store_relay_read(struct pg *pg, const struct gaps *gaps, int limit, int64_t byte_budget,
                     struct pg_result **ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64(&args, gaps->high);
    pg_arg_i64(&args, limit);
    pg_arg_i64(&args, byte_budget);
    pg_array_begin(&args, PG_INT8);
    for (size_t i = 0; i < gaps->count; i++)
        pg_array_i64(&args, gaps->items[i].first);
    pg_array_end(&args);
    pg_array_begin(&args, PG_INT8);
    for (size_t i = 0; i < gaps->count; i++)
        pg_array_i64(&args, gaps->items[i].last);
    pg_array_end(&args);
    return pg_query(pg, &read_ledger, &args, ret, err);
}

void store_relay_head(const struct pg_result *result, struct store_relay_head *ret)
{
    ret->xmin = pg_get_i64(result, 0, ID);
    ret->wal_position = pg_get_i64(result, 0, SUBSCRIPTION_ID);
}

enum store_relay_kind store_relay_row_kind(const struct pg_result *result, int row, int64_t *ret_id,
                                           int64_t *ret_total)
{
    *ret_id = pg_get_i64(result, row, ID);
    *ret_total = pg_get_i64(result, row, ROW_TOTAL);
    return (enum store_relay_kind) pg_get_i64(result, row, KIND);
}

static struct bytes text(const struct pg_result *result, int row, enum column column)
{
    struct bytes t = {0};

    if (!pg_is_null(result, row, column))
        t.p = pg_get_bytes(result, row, column, &t.len);
    return t;
}

static struct event_number number(const struct pg_result *result, int row, enum column column)
{
    return (struct event_number){!pg_is_null(result, row, column), pg_get_i64(result, row, column)};
}

static struct event_number time_of(const struct pg_result *result, int row, enum column column)
{
    return (struct event_number){!pg_is_null(result, row, column), pg_get_time(result, row, column)};
}

static struct event_number boolean(const struct pg_result *result, int row, enum column column)
{
    return (struct event_number){!pg_is_null(result, row, column), pg_get_bool(result, row, column)};
}

void store_relay_row(const struct pg_result *result, int row, struct event *ret)
{
    *ret = (struct event){
        .id = pg_get_i64(result, row, ID),
        .event_id = text(result, row, EVENT_ID),
        .event_type = text(result, row, EVENT_TYPE),
        .created_at = pg_get_time(result, row, CREATED_AT),
        .subscription_id = number(result, row, SUBSCRIPTION_ID),
        .integration_id = number(result, row, INTEGRATION_ID),
        .integration_name = text(result, row, INTEGRATION_NAME),
        .integration_type = text(result, row, INTEGRATION_TYPE),
        .order_id = number(result, row, ORDER_ID),
        .origin = text(result, row, ORIGIN),
        .cpf = text(result, row, CPF),
        .status = text(result, row, STATUS),
        .sent_at = time_of(result, row, SENT_AT),
        .scheduled_to = time_of(result, row, SCHEDULED_TO),
        .subscription_created_at = pg_get_time(result, row, SUBSCRIPTION_CREATED_AT),
        .subscription_updated_at = pg_get_time(result, row, SUBSCRIPTION_UPDATED_AT),
        .attempt = number(result, row, ATTEMPT),
        .response = text(result, row, RESPONSE),
        .response_truncated = pg_get_bool(result, row, RESPONSE_TRUNCATED),
        .error_message = text(result, row, ERROR_MESSAGE),
        .ambiguous = boolean(result, row, AMBIGUOUS),
        .next_attempt_at = time_of(result, row, NEXT_ATTEMPT_AT),
        .traceparent = text(result, row, TRACEPARENT),
    };
}

/* --- writing down ----------------------------------------------------------------------------- */

static const struct pg_statement is_flushed = {"relay_is_flushed",
                                               "select pg_current_wal_flush_lsn() - '0/0'::pg_lsn >= $1"};

int store_relay_is_flushed(struct pg *pg, int64_t wal_position, bool *ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_i64(&args, wal_position);
    int r = pg_query(pg, &is_flushed, &args, &result, err);
    if (r == PG_DONE)
        *ret = pg_get_bool(result, 0, 0);
    return r;
}

static const struct pg_statement mark = {
    "relay_mark",
    "update relay_state set updated_at = now() where epoch = $1 returning pg_current_xact_id()::text::bigint"};

int store_relay_mark(struct pg *pg, int64_t epoch, int64_t *ret_xid, bool *ret_fenced, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_i64(&args, epoch);
    int r = pg_query(pg, &mark, &args, &result, err);
    if (r != PG_DONE)
        return r;
    *ret_fenced = pg_rows(result) == 0;
    *ret_xid = *ret_fenced ? 0 : pg_get_i64(result, 0, 0);
    return PG_DONE;
}

static int execute_fenced(struct pg *pg, const struct pg_statement *statement, const struct pg_args *args,
                          bool *ret_fenced, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    int r = pg_query(pg, statement, args, &result, err);

    if (r == PG_DONE)
        *ret_fenced = pg_affected(result) == 0;
    return r;
}

static const struct pg_statement save = {
    "relay_save",
    "update relay_state set high = $2, gap_first = $3, gap_last = $4, gap_horizon = $5,"
    "       system_identifier = case when $6 then $7 else system_identifier end, timeline = case when $6 then $8 else timeline end,"
    "       stopped_on = null, stopped_reason = null, updated_at = now()"
    " where epoch = $1"};

static void add_gaps(struct pg_args *args, const struct gaps *gaps, size_t field)
{
    pg_array_begin(args, PG_INT8);
    for (size_t i = 0; i < gaps->count; i++) {
        const int64_t fields[] = {gaps->items[i].first, gaps->items[i].last, gaps->items[i].horizon};
        pg_array_i64(args, fields[field]);
    }
    pg_array_end(args);
}

int store_relay_save(struct pg *pg, int64_t epoch, const struct gaps *gaps,
                     const struct store_relay_identity *identity, bool *ret_fenced, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64(&args, epoch);
    pg_arg_i64(&args, gaps->high);
    for (size_t field = 0; field < 3; field++)
        add_gaps(&args, gaps, field);
    pg_arg_bool(&args, identity->known);
    pg_arg_i64(&args, identity->system);
    pg_arg_i32(&args, identity->timeline);
    return execute_fenced(pg, &save, &args, ret_fenced, err);
}

static const struct pg_statement stop = {
    "relay_stop", "update relay_state set stopped_on = $2, stopped_reason = $3, updated_at = now()"
                  " where epoch = $1"};

int store_relay_stop(struct pg *pg, int64_t epoch, int64_t id, const char *reason, bool *ret_fenced,
                     struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64(&args, epoch);
    pg_arg_i64(&args, id);
    pg_arg_text(&args, reason);
    return execute_fenced(pg, &stop, &args, ret_fenced, err);
}

/* --- topics ----------------------------------------------------------------------------------- */

static const struct pg_statement partitions = {
    "relay_partitions",
    "select from_sequence, partitions from relay_topics where topic = $1 order by from_sequence"};

int store_relay_partitions(struct pg *pg, const char *topic, struct pg_result **ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, topic);
    return pg_query(pg, &partitions, &args, ret, err);
}

static const struct pg_statement next_id = {"relay_next_id", "select last_value + 1 from ledger_id_seq"};

int store_relay_next_id(struct pg *pg, int64_t *ret, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    int r = pg_query(pg, &next_id, NULL, &result, err);

    if (r == PG_DONE)
        *ret = pg_get_i64(result, 0, 0);
    return r;
}

static const struct pg_statement add_partitions = {
    "relay_add_partitions",
    "insert into relay_topics (topic, from_sequence, partitions) values ($1, $2, $3)"
    " on conflict (topic, from_sequence) do update set partitions = excluded.partitions"};

int store_relay_add_partitions(struct pg *pg, const char *topic, int64_t from_sequence, int count,
                               struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, topic);
    pg_arg_i64(&args, from_sequence);
    pg_arg_i32(&args, count);
    return pg_query(pg, &add_partitions, &args, NULL, err);
}
