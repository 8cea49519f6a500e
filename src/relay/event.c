/* From a ledger row to its Kafka message. See event.h. On the relay's thread, once for each event: no printf,
 * and no allocation but the value's buffer. */
#include "relay/event.h"

#include <string.h>

#include "base/json.h"
#include "base/timeutil.h"
#include "crypto/traceparent.h"

/* A control character becomes six bytes in a JSON string. */
#define ESCAPED_MAX 6

void event_builder_init(struct event_builder *b, const unsigned char name_space[16], size_t value_max)
{
    *b = (struct event_builder){
        .ids = ids_new(), .value_max = value_max, .value = STRBUF_INIT(STRBUF_MAX_DEFAULT)};
    memcpy(b->name_space, name_space, sizeof(b->name_space));
    ids_print_uuid(name_space, b->installation);
}

void event_builder_free(struct event_builder *b)
{
    strbuf_free(&b->value);
    ids_free(TAKE_PTR(b->ids));
}

/* --- value ------------------------------------------------------------------------------------ */

#define ADD(sb, literal) strbuf_add(sb, literal, sizeof(literal) - 1)
/* A member after others; `add` writes its value. */
#define MEMBER(sb, name, add, value) (ADD(sb, ",\"" name "\":"), add(sb, value))

static void add_text(struct strbuf *sb, struct bytes text)
{
    if (text.p)
        json_add_string(sb, text.p, text.len);
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

static void add_required_text(struct strbuf *sb, struct bytes text)
{
    json_add_string(sb, text.p, text.p ? text.len : 0);
}

static void add_subscription(struct strbuf *sb, const struct event_subscription *s,
                             struct event_number integration_id)
{
    ADD(sb, ",\"subscription\":{\"id\":");
    add_number(sb, s->id);
    MEMBER(sb, "integration_id", add_number, integration_id);
    MEMBER(sb, "order_id", add_number, s->order_id);
    MEMBER(sb, "origin", add_text, s->origin);
    MEMBER(sb, "cpf", add_text, s->cpf);
    MEMBER(sb, "status", add_required_text, s->status);
    MEMBER(sb, "sent_at", add_time, s->sent_at);
    MEMBER(sb, "scheduled_to", add_time, s->scheduled_to);
    MEMBER(sb, "created_at", add_time, given(s->created_at));
    MEMBER(sb, "updated_at", add_time, given(s->updated_at));
    strbuf_addc(sb, '}');
}

static void add_integration(struct strbuf *sb, const struct event_integration *i)
{
    ADD(sb, ",\"integration\":");
    if (!i->name.p) {
        ADD(sb, "null");
        return;
    }
    ADD(sb, "{\"id\":");
    add_number(sb, i->id);
    MEMBER(sb, "name", add_text, i->name);
    MEMBER(sb, "type", add_required_text, i->type);
    strbuf_addc(sb, '}');
}

/* The last member, so that the answer gets the rest of value_max. */
static void add_response(struct event_builder *b, const struct event_attempt *attempt)
{
    struct strbuf *sb = &b->value;
    const char *bytes = attempt->response.p;
    size_t len = attempt->response.len;

    ADD(sb, ",\"response_data\":");
    size_t start = sb->len;
    size_t room = b->value_max > start + 3 ? b->value_max - start - 3 : 0; /* quotes, brace */
    if (!bytes)
        ADD(sb, "null");
    else if (!attempt->response_truncated && len <= room && json_is_valid(bytes, len, JSON_MAX_DEPTH))
        strbuf_add(sb, bytes, len);
    else
        json_add_string(sb, bytes, utf8_cut(bytes, len, room));
    if (sb->len - start > room + 2) {
        sb->len = start;
        json_add_string(sb, bytes, utf8_cut(bytes, len, room / ESCAPED_MAX));
    }
}

static void build_value(struct event_builder *b, const struct event *e, enum event_type type)
{
    struct strbuf *sb = &b->value;
    const struct event_attempt *attempt = &e->attempt;
    bool attempted = type == EVENT_SENT || type == EVENT_FAILED || type == EVENT_RETRIED;

    strbuf_clear(sb);
    ADD(sb, "{\"event_type\":");
    add_text(sb, e->event_type);
    add_subscription(sb, &e->subscription, e->integration.id);
    add_integration(sb, &e->integration);
    MEMBER(sb, "timestamp", add_time, given(e->created_at));
    ADD(sb, ",\"version\":\"1.0\"");
    if (attempt->number.set || attempted)
        MEMBER(sb, "attempt", strbuf_add_i64, attempt->number.set ? attempt->number.value : 0);
    if (type == EVENT_FAILED || type == EVENT_RETRIED) {
        MEMBER(sb, "error_message", add_required_text, attempt->error_message);
        if (attempt->ambiguous.set)
            strbuf_adds(sb, attempt->ambiguous.value ? ",\"ambiguous\":true" : ",\"ambiguous\":false");
    }
    if (type == EVENT_RETRIED && attempt->next_attempt_at.set)
        MEMBER(sb, "next_attempt_at", add_time, attempt->next_attempt_at);
    if (type == EVENT_SENT)
        add_response(b, attempt);
    strbuf_addc(sb, '}');
}

/* --- key and headers -------------------------------------------------------------------------- */

/* A strbuf that writes to an array. */
#define ON_ARRAY(array)                                                                                      \
    ((struct strbuf){.data = (array), .capacity = sizeof(array), .max = sizeof(array) - 1})

static struct bytes print_i64(struct strbuf to, int64_t value)
{
    strbuf_add_i64(&to, value);
    return (struct bytes){to.data, to.len};
}

static struct bytes print_number(struct strbuf to, struct event_number number)
{
    return number.set ? print_i64(to, number.value) : (struct bytes){0};
}

static struct bytes print_time(struct strbuf to, int64_t time)
{
    strbuf_add_timestamp(&to, time);
    return (struct bytes){to.data, to.len};
}

static struct bytes print_uuid(char to[IDS_UUID_TEXT], const unsigned char *uuid)
{
    if (!uuid)
        return (struct bytes){0};
    ids_print_uuid(uuid, to);
    return (struct bytes){to, IDS_UUID_TEXT - 1};
}

static struct bytes trace(struct event_builder *b, const struct event *e)
{
    if (e->traceparent.p && traceparent_is_valid(e->traceparent.p, e->traceparent.len))
        return e->traceparent;
    traceparent_derive(b->ids, b->name_space, e->subscription.id.value, (uint64_t) e->id, b->traceparent);
    return (struct bytes){b->traceparent, TRACEPARENT_TEXT - 1};
}

#define TEXT(literal) ((struct bytes){literal, sizeof(literal) - 1})

static void build_headers(struct event_builder *b, const struct event *e, struct event_message *m)
{
    const struct kafka_header all[EVENT_HEADERS_MAX] = {
        {"event_id", print_uuid(b->event_id, e->event_id)},
        {"timestamp", print_time(ON_ARRAY(b->timestamp), e->created_at)},
        {"service", TEXT("anubis")},
        {"version", TEXT("1.0")},
        {"event_type", e->event_type},
        {"integration_id", print_number(ON_ARRAY(b->integration_id), e->integration.id)},
        {"origin", e->subscription.origin},
        {"sequence", print_i64(ON_ARRAY(b->sequence), e->id)},
        {"installation", {b->installation, IDS_UUID_TEXT - 1}},
        {"attempt", print_number(ON_ARRAY(b->attempt), e->attempt.number)},
        {"traceparent", trace(b, e)},
        {"content_type", TEXT("application/json")},
    };

    m->header_count = 0;
    for (size_t i = 0; i < ARRAY_SIZE(all); i++)
        if (all[i].value.p)
            m->headers[m->header_count++] = all[i];
}

bool event_build(struct event_builder *b, const struct event *e, struct event_message *ret)
{
    if (!e->subscription.id.set || !event_type_find(e->event_type, &ret->type))
        return false;
    ret->key = print_i64(ON_ARRAY(b->key), e->subscription.id.value);
    build_headers(b, e, ret);
    build_value(b, e, ret->type);
    ret->value = (struct bytes){b->value.data, b->value.len};
    return true;
}
