/* Reading messages of the topic "confirmations". See confirmation.h. On a consumer's thread. */
#include "handlers/confirmation.h"

#include <string.h>

#include "base/json.h"
#include "base/timeutil.h"

/* Of a positive number, without leading zeros. */
static bool read_id(const char *text, size_t len, int64_t *ret)
{
    return len > 0 && text[0] != '0' && parse_digits(text, len, INT64_MAX, ret);
}

/* --- members of the value --------------------------------------------------------------------- */

struct reading {
    struct confirmation said;
    bool has_status;
    struct strbuf external_id;
};

static const char *read_subscription(struct reading *r, const struct json_value *v)
{
    return v->type == JSON_NUMBER && read_id(v->p, v->len, &r->said.subscription_id)
               ? NULL
               : "\"subscription_id\" is no id of a subscription";
}

static const char *read_status(struct reading *r, const struct json_value *v)
{
    r->said.rejected = v->type == JSON_STRING && json_is_text(v, "rejected");
    r->has_status = r->said.rejected || (v->type == JSON_STRING && json_is_text(v, "confirmed"));
    return r->has_status ? NULL : "\"status\" is neither \"confirmed\" nor \"rejected\"";
}

/* A person reads it on a terminal and in reports. */
static bool is_harmless(const char *text, size_t len)
{
    const unsigned char *p = (const unsigned char *) text, *end = p + len;

    for (size_t n; p < end; p += n) {
        n = utf8_sequence(p, end);
        if (n == 0 || *p == '\0' || utf8_harmful(p, n))
            return false;
    }
    return true;
}

static const char *read_external_id(struct reading *r, const struct json_value *v)
{
    if (v->type == JSON_NULL)
        return NULL;
    /* An escape is six bytes for one. */
    if (v->type != JSON_STRING || v->len > 6 * EXTERNAL_ID_MAX + 2)
        return "\"external_id\" is no text of 1 to 255 bytes";
    json_add_text(&r->external_id, v);
    if (r->external_id.len == 0 || r->external_id.len > EXTERNAL_ID_MAX)
        return "\"external_id\" is no text of 1 to 255 bytes";
    return is_harmless(r->external_id.data, r->external_id.len)
               ? NULL
               : "\"external_id\" has a control character, or one that turns the direction of a text";
}

static const char *read_confirmed_at(struct reading *r, const struct json_value *v)
{
    if (v->type == JSON_NULL)
        return NULL;
    r->said.has_time = v->type == JSON_STRING && v->len > 2 &&
                       parse_rfc3339(v->p + 1, v->len - 2, &r->said.confirmed_at) == 0;
    return r->said.has_time ? NULL : "\"confirmed_at\" is no time such as 2026-11-27T09:30:00-03:00";
}

static const struct member {
    const char *name;
    const char *(*read)(struct reading *r, const struct json_value *v);
    const char *twice;
} members[] = {
    {"subscription_id", read_subscription, "\"subscription_id\" stands there twice"},
    {"status", read_status, "\"status\" stands there twice"},
    {"external_id", read_external_id, "\"external_id\" stands there twice"},
    {"confirmed_at", read_confirmed_at, "\"confirmed_at\" stands there twice"},
};

/* Other members are let pass: they may come to mean something. */
static const char *read_members(struct reading *r, const struct json_value *object)
{
    struct json_value name, value;
    unsigned seen = 0;
    const char *fault = NULL;

    for (struct json_walk w = json_walk(object); !fault && json_next(&w, &name, &value);) {
        size_t i = 0;
        while (i < ARRAY_SIZE(members) && !json_is_text(&name, members[i].name))
            i++;
        if (i == ARRAY_SIZE(members))
            continue;
        fault = seen >> i & 1 ? members[i].twice : members[i].read(r, &value);
        seen |= 1U << i;
    }
    return fault;
}

/* --- the whole -------------------------------------------------------------------------------- */

static const char *read_all(struct reading *r, struct bytes key, struct bytes value)
{
    struct json_value object;
    int64_t id = 0;

    if (!value.p || value.len == 0)
        return "the value is empty";
    if (value.len > CONFIRMATION_MAX)
        return "the value is longer than 65536 bytes";
    if (!json_read(value.p, value.len, &object))
        return "the value is not JSON";
    if (object.type != JSON_OBJECT)
        return "the value is no JSON object";
    const char *fault = read_members(r, &object);
    if (fault)
        return fault;
    if (r->said.subscription_id == 0)
        return "\"subscription_id\" is missing";
    if (!r->has_status)
        return "\"status\" is missing";
    if (!read_id(key.p, key.len, &id) || id != r->said.subscription_id)
        return "the key is not the subscription's id";
    return NULL;
}

static struct confirmation *copy(const struct reading *r)
{
    struct confirmation *c = xcalloc(1, sizeof(*c) + r->external_id.len);

    *c = r->said;
    if (r->external_id.len > 0) {
        char *text = (char *) (c + 1);
        memcpy(text, r->external_id.data, r->external_id.len);
        c->external_id = (struct bytes){text, r->external_id.len};
    }
    return c;
}

struct confirmation *confirmation_read(struct bytes key, struct bytes value, const char **ret_fault)
{
    struct reading r = {.external_id = STRBUF_INIT(8192)};
    const char *fault = read_all(&r, key, value);
    struct confirmation *said = fault ? NULL : copy(&r);

    strbuf_free(&r.external_id);
    if (fault)
        *ret_fault = fault;
    return said;
}
