/* Reading Kafka messages. See message.h.
 *
 * Runs on the consumers' threads, for each message: one pass over the headers, one over the value, no
 * allocation. Touches neither Kafka nor the database. */
#include "consumers/message.h"

#include <string.h>

#include "base/json.h"
#include "base/timeutil.h"
#include "crypto/ids.h"

/* --- headers ---------------------------------------------------------------------------------- */

static bool take_sequence(struct message_event *e, const char *value, size_t len)
{
    return parse_digits(value, len, INT64_MAX, &e->sequence) && e->sequence > 0;
}

static bool take_event_id(struct message_event *e, const char *value, size_t len)
{
    return ids_read_uuid(value, len, e->id);
}

/* The topic has said it already. */
static bool take_event_type(struct message_event *e, const char *value, size_t len)
{
    const char *word = event_type_word(e->type);

    return len == strlen(word) && memcmp(value, word, len) == 0;
}

static bool take_integration_id(struct message_event *e, const char *value, size_t len)
{
    return parse_digits(value, len, INT64_MAX, &e->integration_id) && e->integration_id > 0;
}

static bool take_attempt(struct message_event *e, const char *value, size_t len)
{
    return parse_digits(value, len, INT32_MAX, &e->attempt);
}

/* A later minor version only adds. */
static bool take_version(struct message_event *e, const char *value, size_t len)
{
    (void) e;
    return len >= 2 && memcmp(value, "1.", 2) == 0;
}

static bool take_timestamp(struct message_event *e, const char *value, size_t len)
{
    return parse_timestamp(value, len, &e->created_at) == 0;
}

static bool take_text(struct message_event *e, const char *value, size_t len)
{
    (void) e;
    (void) value;
    return len > 0;
}

#define HEADER(name, take)                                                                                   \
    {                                                                                                        \
        name, take, "the header \"" name "\" is missing", "the header \"" name "\" is malformed"             \
    }
#define OPTIONAL(name, take)                                                                                 \
    {                                                                                                        \
        name, take, NULL, "the header \"" name "\" is malformed"                                             \
    }

/* "sequence" stands first: without it the message is not ours. */
static const struct header_rule {
    const char *name;
    bool (*take)(struct message_event *e, const char *value, size_t len);
    const char *missing, *malformed;
} rules[] = {
    HEADER("sequence", take_sequence),     HEADER("event_id", take_event_id),
    HEADER("event_type", take_event_type), HEADER("timestamp", take_timestamp),
    HEADER("service", take_text),          HEADER("version", take_version),
    HEADER("content_type", take_text),     OPTIONAL("integration_id", take_integration_id),
    OPTIONAL("attempt", take_attempt),
};

static const struct kafka_header *found_by_rule(const struct header_rule *rule, const struct kafka_message *m)
{
    for (size_t i = m->header_count; i-- > 0;)
        if (m->headers[i].name[0] == rule->name[0] && strcmp(m->headers[i].name, rule->name) == 0)
            return &m->headers[i];
    return NULL;
}

/* NULL, or the fault. */
static const char *read_headers(const struct kafka_message *m, struct message_event *e)
{
    for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
        const struct kafka_header *h = found_by_rule(&rules[i], m);
        if (!h && rules[i].missing)
            return rules[i].missing;
        if (h && !(h->value.p && rules[i].take(e, h->value.p, h->value.len)))
            return rules[i].malformed;
    }
    return NULL;
}

/* --- value ------------------------------------------------------------------------------------ */

/* A stretch of text that the strict check has passed. */
struct span {
    const char *p, *end;
};

static void skip_space(struct span *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\t' || *s->p == '\r'))
        s->p++;
}

/* Escapes are pairs: an odd number of backslashes before it makes the quote a part of the text. */
static bool is_escaped(const char *begin, const char *quote)
{
    const char *p = quote;

    while (p > begin && p[-1] == '\\')
        p--;
    return (quote - p) % 2 != 0;
}

/* At an opening quote: returns what stands between the quotes, escapes and all. */
static struct span take_string(struct span *s)
{
    struct span inner = {.p = ++s->p};
    const char *from = inner.p, *quote;

    while ((quote = memchr(from, '"', (size_t) (s->end - from))) && is_escaped(inner.p, quote))
        from = quote + 1;
    inner.end = quote ? quote : s->end;
    s->p = quote ? quote + 1 : s->end;
    return inner;
}

static bool ends_scalar(char c)
{
    return c == ',' || c == '}' || c == ']' || c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* At a value: returns it and stands behind it. */
static struct span take_value(struct span *s)
{
    struct span value = {.p = s->p};
    size_t depth = 0;

    while (s->p < s->end) {
        if (*s->p == '"') {
            take_string(s);
        } else if (*s->p == '{' || *s->p == '[') {
            depth++;
            s->p++;
        } else if (depth > 0) {
            depth -= *s->p == '}' || *s->p == ']';
            s->p++;
        } else {
            while (s->p < s->end && !ends_scalar(*s->p))
                s->p++;
        }
        if (depth == 0)
            break;
    }
    value.end = s->p;
    return value;
}

static bool find_member(struct span object, const char *name, struct span *ret)
{
    size_t len = strlen(name);

    skip_space(&object);
    if (object.p == object.end || *object.p++ != '{')
        return false;
    for (;;) {
        skip_space(&object);
        if (object.p == object.end || *object.p != '"')
            return false;
        struct span found = take_string(&object);
        skip_space(&object);
        object.p++; /* the colon */
        skip_space(&object);
        struct span value = take_value(&object);
        if ((size_t) (found.end - found.p) == len && memcmp(found.p, name, len) == 0) {
            *ret = value;
            return true;
        }
        skip_space(&object);
        if (object.p == object.end || *object.p++ != ',')
            return false;
    }
}

/* How the error_message of an event begins: what anubisd itself writes there, see outcome.c, http_cause.c,
 * expire_leases.sql, subscription_updated(), anubisctl retry and settle, confirmations_settle.part.sql. */
static const char *const apart[] = {"\"HTTP 429",         "\"lease expired", "\"cut off when",
                                    "\"shortage on this", "\"not sent",      "\"status set to",
                                    "\"put back by ",     "\"operator ",     "\"confirmation: "};
/* 503 does with Retry-After. */
static const char *const may_cost_nothing[] = {
    "\"HTTP 503", "\"HTTP 401", "\"HTTP 410", "\"invalid URL", "\"address not allowed", "\"no credentials"};

static bool begins_with(struct span text, const char *const *beginnings, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t len = strlen(beginnings[i]);
        if ((size_t) (text.end - text.p) > len && memcmp(text.p, beginnings[i], len) == 0)
            return true;
    }
    return false;
}

/* What is tried again has a time for that; what is held or was put back has none. */
static void judge_failure(struct span object, struct message_event *e)
{
    struct span message, next;

    e->apart = e->type == EVENT_RETRIED && !find_member(object, "next_attempt_at", &next);
    if (e->apart || !find_member(object, "error_message", &message))
        return;
    e->apart = begins_with(message, apart, ARRAY_SIZE(apart));
    e->may_cost_nothing = begins_with(message, may_cost_nothing, ARRAY_SIZE(may_cost_nothing));
}

/* The relay writes the answer last. */
static bool ends_unanswered(struct span value)
{
    static const char end[] = "\"response_data\":null}";
    size_t len = sizeof(end) - 1;

    return (size_t) (value.end - value.p) > len && memcmp(value.end - len, end, len) == 0;
}

static const char *check_value(const struct kafka_message *m, struct message_event *e)
{
    struct span value = {m->value.p, m->value.p + m->value.len};
    int64_t id;

    if (m->value.len == 0)
        return "the value is empty";
    if (!json_is_valid(m->value.p, m->value.len, JSON_MAX_DEPTH))
        return "the value is not JSON";
    if (e->type == EVENT_FAILED || e->type == EVENT_RETRIED)
        judge_failure(value, e);
    e->unanswered = e->type == EVENT_SENT && ends_unanswered(value);
    if (!find_member(value, "subscription", &value) || !find_member(value, "id", &value) ||
        !parse_digits(value.p, (size_t) (value.end - value.p), INT64_MAX, &id))
        return "the value is no event of a subscription";
    return id == e->subscription_id ? NULL : "the key is not the subscription's id";
}

/* --- the whole -------------------------------------------------------------------------------- */

static const struct header_rule installation_rule = {.name = "installation"};

static bool is_installation(const struct kafka_header *h, const char *installation)
{
    return h && h->value.p && h->value.len == strlen(installation) &&
           memcmp(h->value.p, installation, h->value.len) == 0;
}

bool message_installation(const struct kafka_message *message, const char *installation,
                          char ret[INSTALLATION_TEXT])
{
    const struct kafka_header *h = found_by_rule(&installation_rule, message);
    unsigned char uuid[16];

    if (!h || !h->value.p || !ids_read_uuid(h->value.p, h->value.len, uuid) ||
        is_installation(h, installation))
        return false;
    memcpy(ret, h->value.p, h->value.len);
    ret[h->value.len] = '\0';
    return true;
}

enum message_verdict message_parse(const struct kafka_message *message, enum event_type type,
                                   const char *installation, struct message_event *ret,
                                   const char **ret_fault)
{
    struct message_event e = {.type = type};
    const char *fault;

    if (!found_by_rule(&rules[0], message) ||
        !is_installation(found_by_rule(&installation_rule, message), installation))
        return MESSAGE_FOREIGN;
    fault = read_headers(message, &e);
    if (!fault && (!parse_digits(message->key.p, message->key.len, INT64_MAX, &e.subscription_id) ||
                   e.subscription_id == 0))
        fault = "the key is not the subscription's id";
    if (!fault)
        fault = check_value(message, &e);
    if (fault) {
        *ret_fault = fault;
        return MESSAGE_FAULTY;
    }
    *ret = e;
    return MESSAGE_EVENT;
}

/* A sign of several bytes, and a byte that is no text, become one question mark. */
static void make_ascii(struct strbuf *text)
{
    size_t len = 0;

    for (size_t i = 0; i < text->len; i++)
        if ((text->data[i] & 0xc0) != 0x80)
            text->data[len++] = text->data[i] & 0x80 ? '?' : text->data[i];
    text->len = len;
}

static void add_repaired(struct strbuf *out, struct strbuf *scratch, const char *text, size_t len, bool ascii)
{
    strbuf_clear(scratch);
    strbuf_add_utf8(scratch, text, len);
    if (ascii)
        make_ascii(scratch);
    json_add_string(out, strbuf_str(scratch), scratch->len);
}

void message_headers_json(const struct kafka_message *message, bool ascii, struct strbuf *out)
{
    CLEANUP(strbuf_free) struct strbuf scratch = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    strbuf_addc(out, '{');
    for (size_t i = 0; i < message->header_count; i++) {
        const struct kafka_header *h = &message->headers[i];
        if (i > 0)
            strbuf_addc(out, ',');
        add_repaired(out, &scratch, h->name, strlen(h->name), ascii);
        strbuf_addc(out, ':');
        if (h->value.p)
            add_repaired(out, &scratch, h->value.p, h->value.len, ascii);
        else
            strbuf_adds(out, "null");
    }
    strbuf_addc(out, '}');
}
