/* The topic <kafka.topic_prefix>metrics: each hour of integration_stats that has changed, as it is by now.
 * The rows of integration_stats_changes are the outbox; Kafka's report removes them. See alert_sink.h. */
#include <string.h>

#include "alerts/alert_sink.h"
#include "alerts/topic_sender.h"
#include "sql/statements.h"

/* Between two walks through what has changed: the current hour of a busy integration always has. */
#define WALK_USEC (20 * USEC_PER_SEC)
#define AGAIN_USEC (30 * USEC_PER_SEC)

struct cell {
    int64_t integration_id, hour, changes; /* hour in microseconds since 1970 */
};

struct metrics_topic {
    struct topic_sender *sender;
    struct cell cells[TOPIC_SENDER_MAX]; /* of the round */
    struct cell behind;                  /* the walk goes on behind this one */
    uint64_t due_at;                     /* monotonic */
};

static const struct cell walk_begins = {.integration_id = INT64_MIN, .hour = INT64_MIN};

struct metrics_topic *metrics_topic_new(void)
{
    struct metrics_topic *t = xcalloc(1, sizeof(*t));

    t->sender = topic_sender_new("metrics", "metrics");
    t->behind = walk_begins;
    return t;
}

void metrics_topic_free(struct metrics_topic *t)
{
    if (!t)
        return;
    topic_sender_free(t->sender);
    free(t);
}

static int forget(struct alerts *a, const struct metrics_topic *t, size_t count, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64s(&args, &t->cells->integration_id, sizeof(*t->cells), count);
    pg_arg_times(&args, &t->cells->hour, sizeof(*t->cells), count);
    pg_arg_i64s(&args, &t->cells->changes, sizeof(*t->cells), count);
    return pg_query(a->pg, &sql_metrics_published, &args, NULL, err);
}

static int report(struct alerts *a, struct metrics_topic *t, struct error *err)
{
    const int64_t *ids;
    size_t taken;
    bool refused;
    size_t count = topic_sender_end(t->sender, &ids, &taken, &refused);
    int r = taken > 0 ? forget(a, t, taken, err) : PG_DONE;

    if (r != PG_DONE || count == 0)
        return r;
    if (taken < count) {
        t->behind = walk_begins;
        t->due_at = now_monotonic_usec() + AGAIN_USEC;
    }
    topic_sender_say(t->sender, taken == count);
    return PG_DONE;
}

static void send(struct metrics_topic *t, const struct pg_result *rows, int i)
{
    struct pg_row row = {rows, i, 0};

    t->cells[i].integration_id = pg_next_i64(&row);
    t->cells[i].hour = pg_next_time(&row);
    t->cells[i].changes = pg_next_i64(&row);
    struct bytes key = pg_next_blob(&row), value = pg_next_blob(&row), installation = pg_next_blob(&row);
    const struct kafka_header headers[] = {{"content_type", {"application/json", strlen("application/json")}},
                                           {"installation", installation}};
    topic_sender_add(t->sender, i, key, value, headers, ARRAY_SIZE(headers));
}

int metrics_topic_turn(struct alerts *a, struct metrics_topic *t, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    if (topic_sender_waits(t->sender))
        return PG_DONE;
    int r = report(a, t, err);
    if (r != PG_DONE || now_monotonic_usec() < t->due_at)
        return r;
    pg_arg_times(&args, &t->behind.hour, sizeof(t->behind.hour), 1);
    pg_arg_i64(&args, t->behind.integration_id);
    pg_arg_i64(&args, TOPIC_SENDER_MAX);
    r = pg_query(a->pg, &sql_metrics_changed, &args, &rows, err);
    if (r != PG_DONE)
        return r;
    int count = pg_rows(rows);
    if (count == 0)
        topic_sender_rest(t->sender);
    else
        topic_sender_begin(t->sender, a->config);
    for (int i = 0; i < count; i++)
        send(t, rows, i);
    if (count > 0)
        topic_sender_flush(t->sender);
    t->behind = count == TOPIC_SENDER_MAX ? t->cells[count - 1] : walk_begins;
    t->due_at = count == TOPIC_SENDER_MAX ? 0 : now_monotonic_usec() + WALK_USEC;
    return PG_DONE;
}
