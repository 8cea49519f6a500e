/* Ledger row to Kafka message. See event.h. On the relay's thread, once for each event: no printf, no
 * allocation but the value's buffer. */
#include "relay/event.h"

#include <string.h>

#include "base/json.h"
#include "base/timeutil.h"
#include "crypto/ids.h"

/* A control character becomes six bytes in a JSON string. */
#define ESCAPED_MAX 6

static const struct {
    const char *suffix;
    int partitions;
} topics[] = {
    [EVENT_CREATED] = {"subscriptions.created", 3}, [EVENT_UPDATED] = {"subscriptions.updated", 3},
    [EVENT_SENT] = {"subscriptions.sent", 3},       [EVENT_FAILED] = {"subscriptions.failed", 3},
    [EVENT_RETRIED] = {"subscriptions.retried", 2},
};

#define SUFFIX_GROUP "subscriptions."

const char *event_topic_suffix(enum event_topic topic)
{
    return topics[topic].suffix;
}

int event_topic_partitions(enum event_topic topic)
{
    return topics[topic].partitions;
}

static bool find_topic(struct event_text type, enum event_topic *ret)
{
    for (enum event_topic t = 0; t < EVENT_TOPICS; t++) {
        const char *word = topics[t].suffix + strlen(SUFFIX_GROUP);
        if (type.bytes && strlen(word) == type.len && memcmp(word, type.bytes, type.len) == 0) {
            *ret = t;
            return true;
        }
    }
    return false;
}

void event_builder_init(struct event_builder *b, const unsigned char name_space[16], size_t value_max)
{
    *b = (struct event_builder){.value_max = value_max, .value = STRBUF_INIT(STRBUF_MAX_DEFAULT)};
    memcpy(b->name_space, name_space, sizeof(b->name_space));
}

void event_builder_free(struct event_builder *b)
{
    strbuf_free(&b->value);
}

/* --- value ------------------------------------------------------------------------------------ */

#define ADD(sb, literal) strbuf_add(sb, literal, sizeof(literal) - 1)

static void add_text(struct strbuf *sb, struct event_text text)
{
    if (text.bytes)
        json_add_string(sb, text.bytes, text.len);
    else
        ADD(sb, "null");
}

static void add_number(struct strbuf *sb, struct event_number number)
{
    if (number.set)
        strbuf_add_i64(sb, number.value);
    else
        ADD(sb, "null");
}

static void add_time(struct strbuf *sb, struct event_number time)
{
    if (!time.set) {
        ADD(sb, "null");
        return;
    }
    strbuf_addc(sb, '"');
    strbuf_add_timestamp(sb, time.value);
    strbuf_addc(sb, '"');
}

static struct event_number given(int64_t value)
{
    return (struct event_number){true, value};
}

static void add_subscription(struct strbuf *sb, const struct event *e)
{
    ADD(sb, ",\"subscription\":{\"id\":");
    add_number(sb, e->subscription_id);
    ADD(sb, ",\"integration_id\":");
    add_number(sb, e->integration_id);
    ADD(sb, ",\"order_id\":");
    add_number(sb, e->order_id);
    ADD(sb, ",\"origin\":");
    add_text(sb, e->origin);
    ADD(sb, ",\"cpf\":");
    add_text(sb, e->cpf);
    ADD(sb, ",\"status\":");
    json_add_string(sb, e->status.bytes, e->status.bytes ? e->status.len : 0);
    ADD(sb, ",\"sent_at\":");
    add_time(sb, e->sent_at);
    ADD(sb, ",\"scheduled_to\":");
    add_time(sb, e->scheduled_to);
    ADD(sb, ",\"created_at\":");
    add_time(sb, given(e->subscription_created_at));
    ADD(sb, ",\"updated_at\":");
    add_time(sb, given(e->subscription_updated_at));
    strbuf_addc(sb, '}');
}

static void add_integration(struct strbuf *sb, const struct event *e)
{
    ADD(sb, ",\"integration\":");
    if (!e->integration_name.bytes) {
        ADD(sb, "null");
        return;
    }
    ADD(sb, "{\"id\":");
    add_number(sb, e->integration_id);
    ADD(sb, ",\"name\":");
    add_text(sb, e->integration_name);
    ADD(sb, ",\"type\":");
    json_add_string(sb, e->integration_type.bytes, e->integration_type.bytes ? e->integration_type.len : 0);
    strbuf_addc(sb, '}');
}

/* Last but for the closing brace, so that what is left of value_max is the answer's. */
static void add_response(struct event_builder *b, const struct event *e)
{
    struct strbuf *sb = &b->value;
    const char *bytes = e->response.bytes;
    size_t len = e->response.len;

    ADD(sb, ",\"response_data\":");
    size_t start = sb->len;
    size_t room = b->value_max > start + 3 ? b->value_max - start - 3 : 0; /* quotes, brace */
    if (!bytes)
        ADD(sb, "null");
    else if (!e->response_truncated && len <= room && json_is_valid(bytes, len, JSON_MAX_DEPTH))
        strbuf_add(sb, bytes, len);
    else
        json_add_string(sb, bytes, utf8_cut(bytes, len, room));
    if (sb->len - start > room + 2) {
        sb->len = start;
        json_add_string(sb, bytes, utf8_cut(bytes, len, room / ESCAPED_MAX));
    }
}

static void build_value(struct event_builder *b, const struct event *e, enum event_topic topic)
{
    struct strbuf *sb = &b->value;
    bool attempted = topic == EVENT_SENT || topic == EVENT_FAILED || topic == EVENT_RETRIED;

    strbuf_clear(sb);
    ADD(sb, "{\"event_type\":");
    add_text(sb, e->event_type);
    add_subscription(sb, e);
    add_integration(sb, e);
    ADD(sb, ",\"timestamp\":");
    add_time(sb, given(e->created_at));
    ADD(sb, ",\"version\":\"1.0\"");
    if (e->attempt.set || attempted) {
        ADD(sb, ",\"attempt\":");
        strbuf_add_i64(sb, e->attempt.set ? e->attempt.value : 0);
    }
    if (topic == EVENT_FAILED || topic == EVENT_RETRIED) {
        ADD(sb, ",\"error_message\":");
        json_add_string(sb, e->error_message.bytes, e->error_message.bytes ? e->error_message.len : 0);
        if (e->ambiguous.set)
            strbuf_adds(sb, e->ambiguous.value ? ",\"ambiguous\":true" : ",\"ambiguous\":false");
    }
    if (topic == EVENT_RETRIED && e->next_attempt_at.set) {
        ADD(sb, ",\"next_attempt_at\":");
        add_time(sb, e->next_attempt_at);
    }
    if (topic == EVENT_SENT)
        add_response(b, e);
    strbuf_addc(sb, '}');
}

/* --- key and headers -------------------------------------------------------------------------- */

static struct event_text print_i64(char *to, int64_t value)
{
    char *end = to + 24, *p = end;
    uint64_t rest = value < 0 ? 0 - (uint64_t) value : (uint64_t) value;

    do
        *--p = (char) ('0' + rest % 10);
    while ((rest /= 10) > 0);
    if (value < 0)
        *--p = '-';
    return (struct event_text){p, (size_t) (end - p)};
}

static struct event_text print_number(char *to, struct event_number number)
{
    return number.set ? print_i64(to, number.value) : (struct event_text){0};
}

static struct event_text print_time(char *to, size_t size, int64_t time)
{
    struct strbuf sb = {.data = to, .capacity = size, .max = size - 1};

    strbuf_add_timestamp(&sb, time);
    return (struct event_text){to, sb.len};
}

static struct event_text trace(struct event_builder *b, const struct event *e)
{
    if (e->traceparent.bytes && ids_is_traceparent(e->traceparent.bytes, e->traceparent.len))
        return e->traceparent;
    ids_traceparent(b->name_space, e->subscription_id.value, (uint64_t) e->id, b->traceparent);
    return (struct event_text){b->traceparent, IDS_TRACEPARENT_TEXT - 1};
}

#define TEXT(literal) ((struct event_text){literal, sizeof(literal) - 1})

static void build_headers(struct event_builder *b, const struct event *e, struct event_message *m)
{
    const struct event_header all[EVENT_HEADERS_MAX] = {
        {"event_id", e->event_id},
        {"timestamp", print_time(b->timestamp, sizeof(b->timestamp), e->created_at)},
        {"service", TEXT("anubis")},
        {"version", TEXT("1.0")},
        {"event_type", e->event_type},
        {"integration_id", print_number(b->integration_id, e->integration_id)},
        {"origin", e->origin},
        {"sequence", print_i64(b->sequence, e->id)},
        {"attempt", print_number(b->attempt, e->attempt)},
        {"traceparent", trace(b, e)},
        {"content_type", TEXT("application/json")},
    };

    m->header_count = 0;
    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        if (all[i].value.bytes)
            m->headers[m->header_count++] = all[i];
}

bool event_build(struct event_builder *b, const struct event *e, struct event_message *ret)
{
    if (!e->subscription_id.set || !find_topic(e->event_type, &ret->topic))
        return false;
    ret->key = print_i64(b->key, e->subscription_id.value);
    build_headers(b, e, ret);
    build_value(b, e, ret->topic);
    ret->value = (struct event_text){b->value.data, b->value.len};
    return true;
}
