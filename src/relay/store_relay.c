/* The relay's statements. See store_relay.h. On the relay's thread. */
#include "relay/store_relay.h"

#include <errno.h>
#include <string.h>

#include "sql/statements.h"

/* --- leadership ------------------------------------------------------------------------------- */

static const struct pg_statement try_lead = {"relay_try_lead",
                                             "select pg_try_advisory_lock(lock_key('relay'))"};

int store_relay_try_lead(struct pg *pg, bool *ret_leader, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    int r = pg_query(pg, &try_lead, NULL, &result, err);

    if (r == 0)
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

/* After a promotion the WAL's name has the new timeline at once, the control file only after the next
 * checkpoint. */
static const struct pg_statement identify = {
    "relay_identify",
    "select (select system_identifier from pg_control_system()),"
    "       ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::integer"};

int store_relay_identify(struct pg *pg, struct store_relay_identity *ret, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    int r = pg_query(pg, &identify, NULL, &result, err);

    if (r == 0)
        *ret =
            (struct store_relay_identity){true, pg_get_i64(result, 0, 0), (int32_t) pg_get_i64(result, 0, 1)};
    return r;
}

static const struct pg_statement begin = {
    "relay_begin", "update relay_state set epoch = epoch + 1, leader = $1, updated_at = now()"
                   " returning epoch, high, gap_first, gap_last, gap_horizon, system_identifier, timeline,"
                   "           uuid_send((select namespace from installation))"};

enum { EPOCH, HIGH, GAP_FIRST, GAP_LAST, GAP_HORIZON, SYSTEM_IDENTIFIER, TIMELINE, NAMESPACE };

static int load(struct gaps *gaps, const struct pg_result *result)
{
    CLEANUP(freep) int64_t *first = NULL, *last = NULL, *horizon = NULL;
    size_t count = pg_get_i64_array(result, 0, GAP_FIRST, &first);

    if (pg_get_i64_array(result, 0, GAP_LAST, &last) != count ||
        pg_get_i64_array(result, 0, GAP_HORIZON, &horizon) != count)
        return -EINVAL;
    return gaps_load(gaps, pg_get_i64(result, 0, HIGH), first, last, horizon, count);
}

int store_relay_begin(struct pg *pg, const char *leader, struct gaps *gaps, struct store_relay_start *ret,
                      struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    size_t len = 0;
    /* A position that was saved must not be lost, whatever the server's default is. */
    int r = pg_execute(pg, "set synchronous_commit = on", err);

    pg_arg_text(&args, leader);
    if (r == 0)
        r = pg_query(pg, &begin, &args, &result, err);
    if (r < 0)
        return r;
    const char *name_space = pg_rows(result) == 1 ? pg_get_bytes(result, 0, NAMESPACE, &len) : NULL;
    if (len != sizeof(ret->name_space) || load(gaps, result) < 0) {
        error_set(err,
                  "the tables \"relay_state\" and \"installation\" have values that anubisd did not write");
        return -EBADMSG;
    }
    *ret = (struct store_relay_start){
        .epoch = pg_get_i64(result, 0, EPOCH),
        .saved = {.known = !pg_is_null(result, 0, SYSTEM_IDENTIFIER),
                  .system = pg_get_i64(result, 0, SYSTEM_IDENTIFIER),
                  .timeline = (int32_t) pg_get_i64(result, 0, TIMELINE)},
    };
    memcpy(ret->name_space, name_space, sizeof(ret->name_space));
    return 0;
}

/* By nextval(), never by setval(), which could give an id out twice beside a transaction that draws one. */
static const struct pg_statement advance_sequence = {
    "relay_advance_sequence",
    "select count(nextval('ledger_id_seq'))"
    "  from generate_series(1, least($1 - (select last_value from ledger_id_seq), 100000))"};

int store_relay_advance_sequence(struct pg *pg, int64_t high, bool *ret_done, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_i64(&args, high);
    int r = pg_query(pg, &advance_sequence, &args, &result, err);
    if (r == 0)
        *ret_done = pg_get_i64(result, 0, 0) == 0;
    return r;
}

/* --- reading ---------------------------------------------------------------------------------- */

/* Of relay_read.sql; in the head two of them have another meaning, see store_relay_head(). */
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

static const struct pg_statement read_ledger = {"relay_read", sql_relay_read};

/* The gaps, or when there are none a place to point at. */
static const struct gap *items_of(const struct gaps *gaps)
{
    static const struct gap nothing;

    return gaps->items ? gaps->items : &nothing;
}

static void add_gaps(struct pg_args *args, const struct gaps *gaps)
{
    pg_arg_i64s(args, &items_of(gaps)->first, sizeof(struct gap), gaps->count);
    pg_arg_i64s(args, &items_of(gaps)->last, sizeof(struct gap), gaps->count);
}

int store_relay_read(struct pg *pg, const struct gaps *gaps, int limit, int64_t byte_budget,
                     struct pg_result **ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64(&args, gaps->high);
    pg_arg_i64(&args, limit);
    pg_arg_i64(&args, byte_budget);
    add_gaps(&args, gaps);
    return pg_query(pg, &read_ledger, &args, ret, err);
}

void store_relay_head(const struct pg_result *result, int64_t *ret_xmin, int64_t *ret_wal_position)
{
    *ret_xmin = pg_get_i64(result, 0, ID);
    *ret_wal_position = pg_get_i64(result, 0, SUBSCRIPTION_ID);
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
        .traceparent = text(result, row, TRACEPARENT),
        .created_at = pg_get_time(result, row, CREATED_AT),
        .subscription =
            {
                .id = number(result, row, SUBSCRIPTION_ID),
                .order_id = number(result, row, ORDER_ID),
                .origin = text(result, row, ORIGIN),
                .cpf = text(result, row, CPF),
                .status = text(result, row, STATUS),
                .sent_at = time_of(result, row, SENT_AT),
                .scheduled_to = time_of(result, row, SCHEDULED_TO),
                .created_at = pg_get_time(result, row, SUBSCRIPTION_CREATED_AT),
                .updated_at = pg_get_time(result, row, SUBSCRIPTION_UPDATED_AT),
            },
        .integration = {.id = number(result, row, INTEGRATION_ID),
                        .name = text(result, row, INTEGRATION_NAME),
                        .type = text(result, row, INTEGRATION_TYPE)},
        .attempt = {.number = number(result, row, ATTEMPT),
                    .response = text(result, row, RESPONSE),
                    .response_truncated = pg_get_bool(result, row, RESPONSE_TRUNCATED),
                    .error_message = text(result, row, ERROR_MESSAGE),
                    .ambiguous = boolean(result, row, AMBIGUOUS),
                    .next_attempt_at = time_of(result, row, NEXT_ATTEMPT_AT)},
    };
}

/* --- saving ----------------------------------------------------------------------------------- */

static const struct pg_statement is_flushed = {"relay_is_flushed",
                                               "select pg_current_wal_flush_lsn() - '0/0'::pg_lsn >= $1"};

int store_relay_is_flushed(struct pg *pg, int64_t wal_position, bool *ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_i64(&args, wal_position);
    int r = pg_query(pg, &is_flushed, &args, &result, err);
    if (r == 0)
        *ret = pg_get_bool(result, 0, 0);
    return r;
}

static const struct pg_statement mark = {"relay_mark",
                                         "update relay_state set updated_at = now() where epoch = $1"
                                         " returning pg_current_xact_id()::text::bigint"};

int store_relay_mark(struct pg *pg, int64_t epoch, int64_t *ret_xid, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_i64(&args, epoch);
    int r = pg_query(pg, &mark, &args, &result, err);
    if (r < 0)
        return r;
    if (pg_rows(result) == 0)
        return STORE_RELAY_FENCED;
    *ret_xid = pg_get_i64(result, 0, 0);
    return 0;
}

static int execute_fenced(struct pg *pg, const struct pg_statement *statement, const struct pg_args *args,
                          struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    int r = pg_query(pg, statement, args, &result, err);

    return r == 0 && pg_affected(result) == 0 ? STORE_RELAY_FENCED : r;
}

static const struct pg_statement save = {
    "relay_save", "update relay_state set high = $2, gap_first = $3, gap_last = $4, gap_horizon = $5,"
                  "       system_identifier = case when $6 then $7 else system_identifier end,"
                  "       timeline = case when $6 then $8 else timeline end,"
                  "       stopped_on = null, stopped_reason = null, updated_at = now()"
                  " where epoch = $1"};

int store_relay_save(struct pg *pg, int64_t epoch, const struct gaps *gaps,
                     const struct store_relay_identity *identity, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64(&args, epoch);
    pg_arg_i64(&args, gaps->high);
    add_gaps(&args, gaps);
    pg_arg_i64s(&args, &items_of(gaps)->horizon, sizeof(struct gap), gaps->count);
    pg_arg_bool(&args, identity->known);
    pg_arg_i64(&args, identity->system);
    pg_arg_i32(&args, identity->timeline);
    return execute_fenced(pg, &save, &args, err);
}

static const struct pg_statement stop = {
    "relay_stop", "update relay_state set stopped_on = $2, stopped_reason = $3, updated_at = now()"
                  " where epoch = $1"};

int store_relay_stop(struct pg *pg, int64_t epoch, int64_t id, const char *reason, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64(&args, epoch);
    pg_arg_i64(&args, id);
    pg_arg_text(&args, reason);
    return execute_fenced(pg, &stop, &args, err);
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

    if (r == 0)
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
