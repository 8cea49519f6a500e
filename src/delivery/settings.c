/* The delivery_settings of an integration. See settings.h. */
#include "delivery/settings.h"

#include <errno.h>
#include <string.h>

#include "delivery/settings_read.h"

/* The database writes no longer ones (delivery_settings_check). */
#define SETTINGS_MAX 65536
#define NAME_MAX_LEN 40

static int read_outcomes(struct settings *s, const struct json_value *value, struct error *why)
{
    return answer_rules_read(value, &s->outcomes, why);
}

static int read_on_ambiguous(struct settings *s, const struct json_value *value, struct error *why)
{
    return ambiguity_read_on_ambiguous(&s->ambiguity, value, why);
}

static int read_idempotency(struct settings *s, const struct json_value *value, struct error *why)
{
    return ambiguity_read_idempotency(&s->ambiguity, value, why);
}

static int read_lookup(struct settings *s, const struct json_value *value, struct error *why)
{
    return ambiguity_read_lookup(&s->ambiguity, value, why);
}

static const struct key {
    const char *name;
    settings_parser *parse; /* NULL = nothing that a request needs */
} keys[] = {
    {"auth", settings_read_auth},
    {"confirmation", NULL},
    {"headers", settings_read_headers},
    {"idempotency", read_idempotency},
    {"lookup", read_lookup},
    {"on_ambiguous", read_on_ambiguous},
    {"outcomes", read_outcomes},
    {"proxy", settings_read_proxy},
    {"signing_secret", settings_read_signing_secret},
    {"tls", settings_read_tls},
};

static int take_member(struct settings *s, const struct json_value *name, const struct json_value *value,
                       struct error *why)
{
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        if (json_is_text(name, keys[i].name))
            return keys[i].parse ? keys[i].parse(s, value, why) : 0;
    error_set(why, "is not known to this version");
    return -EINVAL;
}

/* A name that a person may see in the journal. */
static char *problem_of(const struct json_value *name, const char *words)
{
    CLEANUP(strbuf_free) struct strbuf plain = STRBUF_INIT(SETTINGS_MAX), out = STRBUF_INIT(SETTINGS_MAX);

    json_add_text(&plain, name);
    strbuf_adds(&out, "its delivery_settings cannot be used: ");
    strbuf_add_harmless(&out, strbuf_str(&plain), utf8_cut(strbuf_str(&plain), plain.len, NAME_MAX_LEN));
    strbuf_addf(&out, " %s", words);
    return strbuf_take(&out);
}

static char *read_all(struct settings *s)
{
    size_t len = strlen(s->text);
    struct json_value root, name, value;
    struct error why;

    if (len > SETTINGS_MAX)
        return xasprintf("its delivery_settings are longer than %d bytes", SETTINGS_MAX);
    if (!json_read(s->text, len, &root) || root.type != JSON_OBJECT)
        return xstrdup("its delivery_settings are no JSON object, or one of more than 512 levels");
    for (struct json_walk w = json_walk(&root); json_next(&w, &name, &value);)
        if (take_member(s, &name, &value, &why) < 0)
            return problem_of(&name, why.text);
    if (settings_make_way(s, &why) < 0)
        return xasprintf("its delivery_settings cannot be used: auth %s", why.text);
    return NULL;
}

void settings_free(struct settings *s)
{
    free_secret(s->text);
    free(s->problem);
    answer_rules_free(&s->outcomes);
    ambiguity_free(&s->ambiguity);
    auth_free(&s->auth);
    settings_way_free(&s->way);
    *s = (struct settings){0};
}

static bool refers_to_credentials(const struct settings *s)
{
    return s->text && strstr(s->text, "\"credential:");
}

void settings_take(struct settings *s, const char *text)
{
    if (!*text && !s->text)
        return;
    if (s->text && !s->problem && !s->is_stale && strcmp(s->text, text) == 0)
        return;
    settings_free(s);
    if (!*text)
        return;
    s->text = xstrdup(text);
    s->problem = read_all(s);
    s->lacks_credential = s->problem && refers_to_credentials(s);
}

void settings_forget_credentials(struct settings *s)
{
    s->is_stale = refers_to_credentials(s);
}
