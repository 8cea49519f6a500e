/* The topic <kafka.topic_prefix>audit: the checkpoints of the audit log, in order, for those who keep them
 * where nobody of ours can write. The row is the outbox; Kafka's report marks it. See alert_sink.h. */
#include <string.h>

#include "alerts/alert_sink.h"
#include "alerts/topic_sender.h"
#include "sql/statements.h"

#define AGAIN_USEC (30 * USEC_PER_SEC)

struct checkpoint_topic {
    struct topic_sender *sender;
    uint64_t due_at; /* monotonic */
};

struct checkpoint_topic *checkpoint_topic_new(void)
{
    struct checkpoint_topic *t = xcalloc(1, sizeof(*t));

    t->sender = topic_sender_new("audit", "the audit log's checkpoints");
    return t;
}

void checkpoint_topic_free(struct checkpoint_topic *t)
{
    if (!t)
        return;
    topic_sender_free(t->sender);
    free(t);
}

static struct bytes bytes_of(const char *text)
{
    return (struct bytes){text, strlen(text)};
}

/* The note is the value, as it is hashed and signed. */
static void send(struct checkpoint_topic *t, struct pg_row row)
{
    int64_t id = pg_next_i64(&row);
    const char *at = pg_next_text(&row), *signed_by = pg_next_text(&row), *note = pg_next_text(&row);
    const struct kafka_header headers[] = {
        {"content_type", bytes_of("text/plain; charset=utf-8")},
        {"checkpoint_at", bytes_of(at)},
        {"checkpoint_signed_by", bytes_of(signed_by ? signed_by : "")},
    };
    /* The installation stands in the second line. */
    const char *key = strchr(note, '\n');
    key = key ? key + 1 : note;
    topic_sender_add(t->sender, id, (struct bytes){key, strcspn(key, "\n")}, bytes_of(note), headers,
                     ARRAY_SIZE(headers));
}

static int mark(struct alerts *a, const int64_t *ids, size_t count, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64s(&args, ids, sizeof(*ids), count);
    return pg_query(a->pg, &sql_checkpoints_published, &args, NULL, err);
}

static int report(struct alerts *a, struct checkpoint_topic *t, struct error *err)
{
    const int64_t *ids;
    size_t taken;
    bool refused;
    size_t count = topic_sender_end(t->sender, &ids, &taken, &refused);
    int r = taken > 0 ? mark(a, ids, taken, err) : PG_DONE;

    if (r != PG_DONE || count == 0)
        return r;
    if (taken < count)
        t->due_at = now_monotonic_usec() + AGAIN_USEC;
    topic_sender_say(t->sender, taken == count);
    return PG_DONE;
}

int checkpoint_topic_turn(struct alerts *a, struct checkpoint_topic *t, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    if (topic_sender_waits(t->sender))
        return PG_DONE;
    int r = report(a, t, err);
    if (r != PG_DONE || now_monotonic_usec() < t->due_at)
        return r;
    pg_arg_i64(&args, TOPIC_SENDER_MAX);
    r = pg_query(a->pg, &sql_checkpoints_unpublished, &args, &rows, err);
    if (r != PG_DONE || pg_rows(rows) == 0) {
        topic_sender_rest(t->sender);
        return r;
    }
    topic_sender_begin(t->sender, a->config);
    for (int i = 0; i < pg_rows(rows); i++)
        send(t, (struct pg_row){rows, i, 0});
    topic_sender_flush(t->sender);
    return PG_DONE;
}
