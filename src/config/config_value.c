/* Values: from text to a field of struct config, and back. No policy of its own; any thread. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/timeutil.h"
#include "base/utf8.h"
#include "config/config_internal.h"

#define STRING_MAX ((size_t) 8 << 10)
#define QUOTED_MAX ((size_t) 80)

void config_add_quoted(struct strbuf *out, const char *text)
{
    size_t full = strnlen(text, QUOTED_MAX + 1), len = utf8_cut(text, full, QUOTED_MAX), from;

    strbuf_addc(out, '"');
    from = out->len;
    strbuf_add_utf8(out, text, len);
    for (size_t i = from; i < out->len; i++)
        if ((unsigned char) out->data[i] < 0x20 || out->data[i] == 0x7F)
            out->data[i] = '?';
    strbuf_adds(out, len < full ? "…\"" : "\"");
}

/* Adds ", not X" behind the form that is right. Numbers stand without quotes, as in the file. */
static void add_not(const struct config_key *key, const char *text, bool quotable, struct strbuf *why)
{
    CLEANUP(strbuf_free) struct strbuf shown = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    if (!quotable)
        return;
    strbuf_adds(why, ", not ");
    if (key->type == TYPE_INT || key->type == TYPE_FLOAT) {
        strbuf_adds(why, text);
        return;
    }
    config_value_scrub(key, text, &shown);
    config_add_quoted(why, strbuf_str(&shown));
}

static int parse_string(const struct config_key *key, const char *text, struct strbuf *why)
{
    CLEANUP(strbuf_free) struct strbuf utf8 = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    size_t len = strlen(text);

    if (len > STRING_MAX) {
        strbuf_addf(why, "must have at most %zu bytes, not %zu", STRING_MAX, len);
        return -EINVAL;
    }
    for (size_t i = 0; i < len; i++) {
        if ((key->flags & KEY_NOTE_KEY) && strchr("\r\n", text[i])) /* PEM has lines */
            continue;
        if ((unsigned char) text[i] < 0x20 || text[i] == 0x7F) {
            strbuf_adds(why, "must not contain control characters such as line feeds or tabs");
            return -EINVAL;
        }
    }
    strbuf_add_utf8(&utf8, text, len);
    if (strcmp(strbuf_str(&utf8), text) != 0) {
        strbuf_adds(why, "must be valid UTF-8");
        return -EINVAL;
    }
    return key->check && !key->check(text, why) ? -EINVAL : 0;
}

static const struct config_choice *find_choice(const struct config_key *key, const char *text)
{
    for (const struct config_choice *c = key->choices; c->word; c++)
        if (strcasecmp(c->word, text) == 0)
            return c;
    return NULL;
}

static void add_choices(const struct config_key *key, struct strbuf *why)
{
    const char *separator = "must be ";

    for (const struct config_choice *c = key->choices; c->word; c++) {
        strbuf_addf(why, "%s\"%s\"", separator, c->word);
        separator = c[1].word && c[2].word ? ", " : " or ";
    }
}

static int parse_choice(const struct config_key *key, const char *text, bool quotable,
                        union config_value *ret, struct strbuf *why)
{
    const struct config_choice *choice = find_choice(key, text);

    if (!choice) {
        add_choices(key, why);
        add_not(key, text, quotable, why);
        return -EINVAL;
    }
    if (key->type == TYPE_WORD)
        ret->s = choice->word;
    else
        ret->i = choice->value;
    return 0;
}

static int parse_double(const char *text, double *ret)
{
    char *end;

    errno = 0;
    *ret = strtod(text, &end);
    if (end == text || *end != '\0')
        return -EINVAL;
    return isfinite(*ret) ? 0 : -ERANGE;
}

/* By type alone, without limits. 0, -EINVAL or -ERANGE. */
static int parse_number(enum config_type type, const char *text, union config_value *ret)
{
    int64_t i;
    int r;

    switch (type) {
    case TYPE_INT:
        r = parse_i64(text, INT32_MIN, INT32_MAX, &i);
        if (r == 0)
            ret->i = (int) i;
        return r;
    case TYPE_FLOAT:
        return parse_double(text, &ret->f);
    case TYPE_DURATION:
        return parse_duration(text, &ret->u);
    case TYPE_SIZE:
        return parse_size(text, &ret->u);
    default:
        return -EINVAL;
    }
}

static bool within_limits(const struct config_key *key, union config_value value)
{
    union config_value min, max;

    /* The table's own limits always parse: a unit test sees to it. */
    return parse_number(key->type, key->min, &min) == 0 && parse_number(key->type, key->max, &max) == 0 &&
           config_value_compare(key, value, min) >= 0 && config_value_compare(key, value, max) <= 0;
}

void config_value_add_form(const struct config_key *key, struct strbuf *out)
{
    static const char *const forms[] = {
        [TYPE_STRING] = "a string in double quotes",
        [TYPE_WORD] = "a string in double quotes",
        [TYPE_CHOICE] = "a string in double quotes",
        [TYPE_BOOL] = "true or false",
        [TYPE_INT] = "a whole number",
        [TYPE_FLOAT] = "a number",
        [TYPE_DURATION] = "a whole number and a unit (ms, s, m, h or d)",
        [TYPE_SIZE] = "a whole number and a unit (B, KiB, MiB or GiB)",
        [TYPE_URLS] = "a list such as ( \"http://host:9093\" )",
        [TYPE_PROPERTIES] = "a group such as { linger_ms = 5; }",
    };
    const char *quote = config_is_quoted(key) ? "\"" : "";

    strbuf_addf(out, "must be %s", forms[key->type]);
    if (key->min)
        strbuf_addf(out, " such as %s%s%s", quote, key->fallback, quote);
}

static int parse_limited(const struct config_key *key, const char *text, bool quotable,
                         union config_value *ret, struct strbuf *why)
{
    union config_value value;
    int r = parse_number(key->type, text, &value);

    if (r == 0 && within_limits(key, value)) {
        *ret = value;
        return 0;
    }
    if (r == -EINVAL) {
        config_value_add_form(key, why);
    } else {
        strbuf_addf(why, "must be between %s and %s", key->min, key->max);
    }
    add_not(key, text, quotable, why);
    return -EINVAL;
}

int config_value_parse(const struct config_key *key, const char *text, bool quotable, union config_value *ret,
                       struct strbuf *why)
{
    switch (key->type) {
    case TYPE_STRING:
    case TYPE_URLS:
        ret->s = text;
        return parse_string(key, text, why);
    case TYPE_WORD:
    case TYPE_CHOICE:
        return parse_choice(key, text, quotable, ret, why);
    case TYPE_BOOL:
        ret->b = strcmp(text, "true") == 0;
        return 0;
    case TYPE_PROPERTIES:
        return 0;
    default:
        return parse_limited(key, text, quotable, ret, why);
    }
}

/* A field's type is that of one member of union config_value; properties are none. */
static const size_t sizes[] = {
    [TYPE_STRING] = sizeof(char *), [TYPE_WORD] = sizeof(char *),   [TYPE_CHOICE] = sizeof(int),
    [TYPE_BOOL] = sizeof(bool),     [TYPE_INT] = sizeof(int),       [TYPE_FLOAT] = sizeof(double),
    [TYPE_URLS] = sizeof(char *),   [TYPE_SIZE] = sizeof(uint64_t), [TYPE_DURATION] = sizeof(uint64_t),
    [TYPE_PROPERTIES] = 0,
};

bool config_is_quoted(const struct config_key *key)
{
    return key->type != TYPE_BOOL && key->type != TYPE_INT && key->type != TYPE_FLOAT &&
           key->type != TYPE_URLS && key->type != TYPE_PROPERTIES;
}

bool config_is_text(const struct config_key *key)
{
    return key->type == TYPE_STRING || key->type == TYPE_WORD || key->type == TYPE_URLS;
}

union config_value config_value_get(const struct config *c, const struct config_key *key)
{
    union config_value value = {.u = 0};

    memcpy(&value, (const char *) c + key->offset, sizes[key->type]);
    return value;
}

void config_value_set(struct config *c, const struct config_key *key, union config_value value)
{
    char *to = (char *) c + key->offset;

    if (config_is_text(key)) {
        value.s = xstrdup(value.s);
        free_secret(*(char **) to);
    }
    memcpy(to, &value, sizes[key->type]);
}

struct config_properties *config_properties_of(struct config *c, const struct config_key *key)
{
    return (struct config_properties *) ((char *) c + key->offset);
}

const struct config_properties *config_properties_get(const struct config *c, const struct config_key *key)
{
    return (const struct config_properties *) ((const char *) c + key->offset);
}

int config_value_compare(const struct config_key *key, union config_value a, union config_value b)
{
    switch (key->type) {
    case TYPE_INT:
    case TYPE_CHOICE:
        return (a.i > b.i) - (a.i < b.i);
    case TYPE_FLOAT:
        return (a.f > b.f) - (a.f < b.f);
    default:
        return (a.u > b.u) - (a.u < b.u);
    }
}

void config_add_double(struct strbuf *out, double value)
{
    char text[32];

    for (int precision = 1; precision <= 17; precision++) {
        snprintf(text, sizeof(text), "%.*g", precision, value);
        if (strtod(text, NULL) == value)
            break;
    }
    strbuf_adds(out, text);
}

static const char *choice_word(const struct config_key *key, int value)
{
    const struct config_choice *c = key->choices;

    while (c->word && c->value != value)
        c++;
    return c->word ? c->word : "";
}

void config_value_add(const struct config_key *key, union config_value value, struct strbuf *out)
{
    switch (key->type) {
    case TYPE_STRING:
    case TYPE_WORD:
    case TYPE_URLS:
        strbuf_adds(out, value.s);
        break;
    case TYPE_CHOICE:
        strbuf_adds(out, choice_word(key, value.i));
        break;
    case TYPE_BOOL:
        strbuf_adds(out, value.b ? "true" : "false");
        break;
    case TYPE_INT:
        strbuf_add_i64(out, value.i);
        break;
    case TYPE_FLOAT:
        config_add_double(out, value.f);
        break;
    case TYPE_DURATION:
        strbuf_add_duration(out, value.u);
        break;
    case TYPE_SIZE:
        strbuf_add_size(out, value.u);
        break;
    case TYPE_PROPERTIES:
        break;
    }
}
