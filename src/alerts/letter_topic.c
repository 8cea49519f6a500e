/* The topic <kafka.topic_prefix>dead_letters: the rows of dead_letters, in order, each as it came, with
 * headers that say where from and why. The row is the outbox; Kafka's report marks it. See alert_sink.h. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "alerts/alert_sink.h"
#include "alerts/topic_sender.h"
#include "sql/statements.h"

#define ROUND_BYTES (INT64_C(4) << 20) /* of values; one letter in any case */
#define AGAIN_USEC (30 * USEC_PER_SEC)
#define HEADERS_MAX 80
#define VALUE_LEFT_OUT "too large for this topic beside these headers; it stands in the table dead_letters"
#define REST_LEFT_OUT "too large for this topic, with the key; they stand in the table dead_letters"

struct letter_topic {
    struct topic_sender *sender;
    uint64_t due_at;    /* monotonic */
    int64_t refused_id; /* Kafka has refused it: the next time less of it goes */
    enum { WHOLE, WITHOUT_VALUE, PLACE_ONLY } extent; /* of that one */
};

struct letter_topic *letter_topic_new(void)
{
    struct letter_topic *t = xcalloc(1, sizeof(*t));

    t->sender = topic_sender_new("dead_letters", "dead letters");
    return t;
}

void letter_topic_free(struct letter_topic *t)
{
    if (!t)
        return;
    topic_sender_free(t->sender);
    free(t);
}

struct headers {
    struct kafka_header items[HEADERS_MAX];
    size_t count;
};

static void add_header(struct headers *h, const char *name, const char *value)
{
    if (h->count < HEADERS_MAX)
        h->items[h->count++] = (struct kafka_header){name, {value, value ? strlen(value) : 0}};
}

/* The rows of one letter: each has one of its headers. Returns the row behind the last. */
static int send(struct letter_topic *t, const struct pg_result *rows, int first)
{
    struct headers h = {.count = 0};
    struct pg_row row = {rows, first, 0};
    int64_t id = pg_next_i64(&row);
    int next = first, extent = id == t->refused_id ? (int) t->extent : WHOLE;

    add_header(&h, "dead_letter_group", pg_next_text(&row));
    add_header(&h, "dead_letter_topic", pg_next_text(&row));
    add_header(&h, "dead_letter_partition", pg_next_text(&row));
    add_header(&h, "dead_letter_offset", pg_next_text(&row));
    add_header(&h, "dead_letter_error", pg_next_text(&row));
    add_header(&h, "dead_letter_at", pg_next_text(&row));
    struct bytes key = pg_next_blob(&row), value = pg_next_blob(&row);
    for (; next < pg_rows(rows) && pg_get_i64(rows, next, 0) == id; next++)
        if (extent < PLACE_ONLY && !pg_is_null(rows, next, 9))
            add_header(&h, pg_get_text(rows, next, 9),
                       pg_is_null(rows, next, 10) ? NULL : pg_get_text(rows, next, 10));
    if (extent >= WITHOUT_VALUE) {
        value = (struct bytes){0};
        add_header(&h, "dead_letter_value", VALUE_LEFT_OUT);
    }
    if (extent == PLACE_ONLY) {
        key = (struct bytes){0};
        add_header(&h, "dead_letter_headers", REST_LEFT_OUT);
    }
    topic_sender_add(t->sender, id, key, value, h.items, h.count);
    return next;
}

static int mark(struct alerts *a, const int64_t *ids, size_t count, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64s(&args, ids, sizeof(*ids), count);
    return pg_query(a->pg, &sql_letters_published, &args, NULL, err);
}

static int report(struct alerts *a, struct letter_topic *t, struct error *err)
{
    const int64_t *ids;
    size_t taken;
    bool refused;
    size_t count = topic_sender_end(t->sender, &ids, &taken, &refused);
    int r = taken > 0 ? mark(a, ids, taken, err) : PG_DONE;

    if (r != PG_DONE || count == 0)
        return r;
    if (taken == count) {
        topic_sender_say(t->sender, true);
        return PG_DONE;
    }
    /* Refused for its size, perhaps. If not, what is left of it is refused, too. */
    bool again = t->refused_id == ids[taken], smaller = refused && !(again && t->extent == PLACE_ONLY);
    t->extent = again && smaller ? PLACE_ONLY : WITHOUT_VALUE;
    t->refused_id = smaller ? ids[taken] : 0;
    t->due_at = smaller ? 0 : now_monotonic_usec() + AGAIN_USEC;
    if (!smaller)
        topic_sender_say(t->sender, false);
    return PG_DONE;
}

int letter_topic_turn(struct alerts *a, struct letter_topic *t, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    if (topic_sender_waits(t->sender))
        return PG_DONE;
    int r = report(a, t, err);
    if (r != PG_DONE || now_monotonic_usec() < t->due_at)
        return r;
    pg_arg_i64(&args, TOPIC_SENDER_MAX);
    pg_arg_i64(&args, ROUND_BYTES);
    r = pg_query(a->pg, &sql_letters_unpublished, &args, &rows, err);
    if (r != PG_DONE || pg_rows(rows) == 0) {
        topic_sender_rest(t->sender);
        return r;
    }
    topic_sender_begin(t->sender, a->config);
    for (int i = 0; i < pg_rows(rows);)
        i = send(t, rows, i);
    topic_sender_flush(t->sender);
    return PG_DONE;
}
