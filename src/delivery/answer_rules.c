/* Rules for answers. See answer_rules.h. */
#include "delivery/answer_rules.h"

#include <errno.h>
#include <string.h>

/* --- reading ---------------------------------------------------------------------------------- */

static int wrong(struct error *why, const char *words)
{
    error_set(why, "%s", words);
    return -EINVAL;
}

static char *text_of(const struct json_value *value)
{
    struct strbuf text = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    json_add_text(&text, value);
    return text.data ? strbuf_take(&text) : xstrdup("");
}

/* A status that an answer may have (RFC 9110, section 15), or a class such as "4xx". */
static bool add_status(struct answer_rule *rule, const struct json_value *value)
{
    CLEANUP(freep) char *text = text_of(value);
    int64_t number;
    int first, last;

    if (rule->status_count == ANSWER_STATUSES_MAX)
        return false;
    if (value->type == JSON_NUMBER && parse_i64(text, 200, 599, &number) == 0) {
        first = last = (int) number;
    } else if (value->type == JSON_STRING && text[0] >= '2' && text[0] <= '5' &&
               strcmp(text + 1, "xx") == 0) {
        first = (text[0] - '0') * 100;
        last = first + 99;
    } else {
        return false;
    }
    rule->statuses = xreallocarray(rule->statuses, (size_t) rule->status_count + 1, sizeof(*rule->statuses));
    rule->statuses[rule->status_count].first = first;
    rule->statuses[rule->status_count++].last = last;
    return true;
}

static int read_status(struct answer_rule *rule, const struct json_value *value, struct error *why)
{
    struct json_value name, element;
    bool good = true;

    if (value->type != JSON_ARRAY) {
        good = add_status(rule, value);
    } else {
        for (struct json_walk w = json_walk(value); good && json_next(&w, &name, &element);)
            good = add_status(rule, &element);
        good = good && rule->status_count > 0;
    }
    return good
               ? 0
               : wrong(why,
                       "status is a number from 200 to 599, a class from \"2xx\" to \"5xx\", or a list of at "
                       "most 50 of both");
}

/* A text that is not empty. */
static int read_text(char **ret, const char *name, const struct json_value *value, struct error *why)
{
    if (value->type != JSON_STRING || value->len <= 2 || value->len > ANSWER_TEXT_MAX) {
        error_set(why, "%s is a text of 1 to %d bytes", name, ANSWER_TEXT_MAX);
        return -EINVAL;
    }
    *ret = text_of(value);
    return 0;
}

static int read_contains(struct answer_rule *rule, const struct json_value *value, struct error *why)
{
    return read_text(&rule->contains, "contains", value, why);
}

static int read_content_type(struct answer_rule *rule, const struct json_value *value, struct error *why)
{
    int r = read_text(&rule->content_type, "content_type", value, why);

    if (r == 0 && strpbrk(rule->content_type, "; ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
        return wrong(
            why, "content_type is a media type in lower case and without parameters, such as \"text/html\"");
    return r;
}

static int read_field(struct answer_rule *rule, const struct json_value *value, struct error *why)
{
    bool is_text = value->type == JSON_STRING && value->len <= ANSWER_TEXT_MAX;

    if (is_text)
        rule->field = text_of(value);
    return is_text && json_is_pointer(rule->field)
               ? 0
               : wrong(why, "field is a JSON pointer such as \"/status/code\"");
}

static int read_value(struct answer_rule *rule, const struct json_value *value, struct error *why)
{
    if (rule->value)
        return wrong(why, "a rule has \"is\" or \"not\", one of them");
    if (value->type == JSON_ARRAY || value->type == JSON_OBJECT || value->len > ANSWER_TEXT_MAX)
        return wrong(why, "\"is\" and \"not\" take a text, a number, true, false or null");
    rule->value = text_of(value);
    return 0;
}

static int read_not(struct answer_rule *rule, const struct json_value *value, struct error *why)
{
    rule->is_not = true;
    return read_value(rule, value, why);
}

static int read_then(struct answer_rule *rule, const struct json_value *value, struct error *why)
{
    static const char *const words[] = {
        [ANSWER_SENT] = "sent", [ANSWER_FAILED] = "failed", [ANSWER_RETRY] = "retry", [ANSWER_HELD] = "hold"};

    for (size_t i = ANSWER_SENT; i < ARRAY_SIZE(words); i++)
        if (value->type == JSON_STRING && json_is_text(value, words[i]))
            rule->then = (enum answer_means) i;
    return rule->then ? 0 : wrong(why, "then is \"sent\", \"failed\", \"retry\" or \"hold\"");
}

static const struct {
    const char *name;
    int (*read)(struct answer_rule *rule, const struct json_value *value, struct error *why);
} members[] = {
    {"status", read_status}, {"contains", read_contains}, {"content_type", read_content_type},
    {"field", read_field},   {"is", read_value},          {"not", read_not},
    {"then", read_then},
};

static int read_member(struct answer_rule *rule, const struct json_value *name,
                       const struct json_value *value, struct error *why)
{
    for (size_t i = 0; i < ARRAY_SIZE(members); i++)
        if (json_is_text(name, members[i].name))
            return members[i].read(rule, value, why);
    return wrong(why, "a rule has status, contains, field with is or not, content_type, and then");
}

static int read_rule(struct answer_rule *rule, const struct json_value *value, struct error *why)
{
    struct json_value name, member;
    int r = 0;

    if (value->type != JSON_OBJECT)
        return wrong(why, "a rule is an object such as {\"status\": 400, \"then\": \"retry\"}");
    for (struct json_walk w = json_walk(value); r == 0 && json_next(&w, &name, &member);)
        r = read_member(rule, &name, &member, why);
    if (r < 0)
        return r;
    if (!rule->then)
        return wrong(why, "then is missing");
    if (!rule->field != !rule->value)
        return wrong(why, "field goes with is or not");
    if (!rule->status_count && !rule->contains && !rule->field && !rule->content_type)
        return wrong(why, "it would match every answer: it needs a status, contains, field or content_type");
    return 0;
}

int answer_rules_read(const struct json_value *value, struct answer_rules *ret, struct error *why)
{
    struct json_value name, rule;

    if (value->type != JSON_ARRAY)
        return wrong(why, "is a list of rules");
    for (struct json_walk w = json_walk(value); json_next(&w, &name, &rule);) {
        struct error in;
        if (ret->count == ANSWER_RULES_MAX)
            return wrong(why, "has more than 100 rules");
        ret->list = xreallocarray(ret->list, (size_t) ret->count + 1, sizeof(*ret->list));
        ret->list[ret->count] = (struct answer_rule){0};
        if (read_rule(&ret->list[ret->count++], &rule, &in) < 0) {
            error_set(why, "rule %d: %s", ret->count, in.text);
            return -EINVAL;
        }
    }
    return 0;
}

void answer_rules_free(struct answer_rules *rules)
{
    for (int i = 0; i < rules->count; i++) {
        struct answer_rule *rule = &rules->list[i];
        free(rule->statuses);
        free(rule->contains);
        free(rule->field);
        free(rule->value);
        free(rule->content_type);
    }
    free(rules->list);
    *rules = (struct answer_rules){0};
}

/* --- deciding --------------------------------------------------------------------------------- */

/* Read at most once for an answer, and only when a rule asks for a field. */
struct document {
    enum { UNREAD, READ, NO_JSON } state;
    struct json_value root;
};

static bool status_matches(const struct answer_rule *rule, int status)
{
    for (int i = 0; i < rule->status_count; i++)
        if (status >= rule->statuses[i].first && status <= rule->statuses[i].last)
            return true;
    return rule->status_count == 0;
}

static bool field_matches(const struct answer_rule *rule, const struct http_result *result,
                          struct document *d)
{
    /* Some servers begin with a byte order mark, which RFC 8259 lets a reader pass over. */
    size_t bom = result->body_len >= 3 && memcmp(result->body, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    struct json_value value;

    if (d->state == UNREAD)
        d->state = json_read(result->body + bom, result->body_len - bom, &d->root) ? READ : NO_JSON;
    if (d->state == NO_JSON || !json_find(&d->root, rule->field, &value))
        return false;
    bool is_text = value.type != JSON_ARRAY && value.type != JSON_OBJECT;
    return (is_text && json_is_text(&value, rule->value)) != rule->is_not;
}

static bool rule_matches(const struct answer_rule *rule, const struct http_result *result, struct document *d)
{
    const char *type = result->content_type ? result->content_type : "";

    return status_matches(rule, result->status) &&
           (!rule->content_type || strcmp(rule->content_type, type) == 0) &&
           (!rule->contains ||
            memmem(result->body, result->body_len, rule->contains, strlen(rule->contains))) &&
           (!rule->field || field_matches(rule, result, d));
}

int answer_rules_decide(const struct answer_rules *rules, const struct http_result *result,
                        enum answer_means *ret)
{
    struct document document = {.state = UNREAD};

    if (result->cause != HTTP_ANSWERED)
        return 0;
    for (int i = 0; i < rules->count; i++) {
        if (rule_matches(&rules->list[i], result, &document)) {
            *ret = rules->list[i].then;
            return i + 1;
        }
    }
    return 0;
}
