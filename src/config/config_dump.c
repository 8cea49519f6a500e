/* Reports about a configuration: the dump, the difference of two, the keys without effect, the list of keys.
 * Derives from the table; any thread that holds a reference. */
#include <string.h>

#include "config/config_internal.h"

#define HIDDEN "***"

/* A string in libconfig's syntax. */
static void add_string(struct strbuf *out, const char *text)
{
    static const char escapes[] = "\"\"\\\\\nn\rr\tt\ff";

    strbuf_addc(out, '"');
    for (const char *p = text; *p; p++) {
        const char *e = escapes;

        while (*e && *e != *p)
            e += 2;
        if (*e)
            strbuf_addf(out, "\\%c", e[1]);
        else if ((unsigned char) *p < 0x20 || *p == 0x7F)
            strbuf_addf(out, "\\x%02x", (unsigned char) *p);
        else
            strbuf_addc(out, *p);
    }
    strbuf_addc(out, '"');
}

static void add_urls(const struct config_key *key, const char *urls, struct strbuf *out)
{
    CLEANUP(freep) char *copy = xstrdup(urls);
    char *rest = copy, *url;
    const char *separator = "( ";

    while (*urls && (url = strsep(&rest, " "))) {
        CLEANUP(strbuf_free) struct strbuf shown = STRBUF_INIT(STRBUF_MAX_DEFAULT);

        config_value_scrub(key, url, &shown);
        strbuf_adds(out, separator);
        add_string(out, strbuf_str(&shown));
        separator = ", ";
    }
    strbuf_adds(out, *urls ? " )" : "( )");
}

/* A reference is shown as written: it holds no secret, and the dump can be loaded again. */
static void add_shown(const struct config *c, const struct config_key *key, struct strbuf *out)
{
    CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    CLEANUP(strbuf_free) struct strbuf shown = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    const char *reference = config_origin(c, key)->reference;

    config_value_add(key, config_value_get(c, key), &text);
    if (key->type == TYPE_URLS) {
        add_urls(key, reference ? reference : strbuf_str(&text), out);
        return;
    }
    if ((key->flags & KEY_SECRET) && text.len > 0)
        strbuf_adds(&shown, HIDDEN);
    else if (reference)
        strbuf_adds(&shown, reference);
    else
        config_value_scrub(key, strbuf_str(&text), &shown);
    if (config_is_quoted(key))
        add_string(out, strbuf_str(&shown));
    else
        strbuf_adds(out, strbuf_str(&shown));
}

/* A path may hold anything; a line feed in it would end the comment. */
static void add_path(const char *path, struct strbuf *out)
{
    for (; *path; path++)
        strbuf_addc(out, (unsigned char) *path < 0x20 || *path == 0x7F ? '?' : *path);
}

static void add_line_of_file(const struct config *c, unsigned line, const char *reference, struct strbuf *out)
{
    add_path(c->origins->path, out);
    strbuf_addf(out, ":%u", line);
    if (reference) {
        strbuf_adds(out, ", ");
        add_path(reference, out);
    }
}

static bool is_default(const struct config *c, const struct config_key *key)
{
    CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    if (key->type == TYPE_PROPERTIES)
        return config_properties_get(c, key)->count == 0;
    config_value_add(key, config_value_get(c, key), &text);
    return strcmp(strbuf_str(&text), key->fallback) == 0;
}

static void add_comment(const struct config *c, const struct config_key *key, struct strbuf *out)
{
    const struct config_origin *origin = config_origin(c, key);

    strbuf_adds(out, "  # ");
    switch (origin->source) {
    case SOURCE_DEFAULT:
        /* Only the instance's default is worked out at load. */
        strbuf_adds(out, is_default(c, key) ? "default" : "default: the host name");
        break;
    case SOURCE_ENVIRONMENT:
        strbuf_addf(out, "environment %s", origin->environment);
        break;
    case SOURCE_FILE:
        add_line_of_file(c, origin->line, origin->reference, out);
        break;
    }
    if (key->flags & KEY_UNUSED)
        strbuf_adds(out, "; without effect in this version");
    strbuf_addc(out, '\n');
}

static void dump_property(const struct config *c, const struct config_property *p, struct strbuf *out)
{
    CLEANUP(strbuf_free) struct strbuf shown = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    strbuf_adds(out, "        ");
    for (const char *n = p->name; *n; n++)
        strbuf_addc(out, *n == '.' ? '_' : *n);
    if (config_property_is_secret(p->name) && *p->value)
        strbuf_adds(&shown, HIDDEN);
    else
        config_url_scrub(p->reference ? p->reference : p->value, &shown);
    strbuf_adds(out, " = ");
    add_string(out, strbuf_str(&shown));
    strbuf_adds(out, ";  # ");
    add_line_of_file(c, p->line, p->reference, out);
    strbuf_addc(out, '\n');
}

static void dump_properties(const struct config *c, const struct config_key *key, struct strbuf *out)
{
    const struct config_properties *properties = config_properties_get(c, key);

    if (properties->count == 0) {
        strbuf_addf(out, "    %s: { };", key->name);
        add_comment(c, key, out);
        return;
    }
    strbuf_addf(out, "    %s:\n    {\n", key->name);
    for (size_t i = 0; i < properties->count; i++)
        dump_property(c, &properties->items[i], out);
    strbuf_adds(out, "    };\n");
}

static void dump_key(const struct config *c, const struct config_key *key, struct strbuf *out)
{
    if (key->type == TYPE_PROPERTIES) {
        dump_properties(c, key, out);
        return;
    }
    strbuf_addf(out, "%s%s = ", *key->group ? "    " : "", key->name);
    add_shown(c, key, out);
    strbuf_addc(out, ';');
    add_comment(c, key, out);
}

void config_dump(const struct config *c, struct strbuf *out)
{
    const char *group = "";

    for (size_t i = 0; i < config_keys_count; i++) {
        const struct config_key *key = &config_keys[i];

        if (strcmp(key->group, group) != 0) {
            strbuf_addf(out, "%s\n%s:\n{\n", *group ? "};\n" : "", key->group);
            group = key->group;
        }
        dump_key(c, key, out);
    }
    strbuf_adds(out, "};\n");
}

static bool is_equal(const struct config *a, const struct config *b, const struct config_key *key)
{
    union config_value x = config_value_get(a, key), y = config_value_get(b, key);

    if (key->type == TYPE_PROPERTIES)
        return config_properties_equal(config_properties_get(a, key), config_properties_get(b, key));
    return config_is_text(key) ? strcmp(x.s, y.s) == 0 : config_value_compare(key, x, y) == 0;
}

void config_diff(const struct config *before, const struct config *after, struct strbuf *live,
                 struct strbuf *restart)
{
    for (size_t i = 0; i < config_keys_count; i++) {
        const struct config_key *key = &config_keys[i];
        struct strbuf *out = key->flags & KEY_RESTART ? restart : live;

        if (is_equal(before, after, key))
            continue;
        config_key_add_name(key, out);
        strbuf_addc(out, '\n');
    }
}

void config_unused(const struct config *c, struct strbuf *out)
{
    for (size_t i = 0; i < config_keys_count; i++) {
        const struct config_key *key = &config_keys[i];

        if (!(key->flags & KEY_UNUSED) || is_default(c, key))
            continue;
        config_key_add_name(key, out);
        strbuf_addc(out, '\n');
    }
}

void config_notice_unused(const struct config *c, struct strbuf *out)
{
    for (size_t i = 0; i < config_keys_count; i++) {
        const struct config_key *key = &config_keys[i];

        if (!(key->flags & KEY_UNUSED) || is_default(c, key))
            continue;
        add_line_of_file(c, config_origin(c, key)->line, NULL, out);
        strbuf_adds(out, ": ");
        config_key_add_name(key, out);
        strbuf_adds(out, " has no effect in this version\n");
    }
}

void config_list_keys(struct strbuf *out)
{
    for (size_t i = 0; i < config_keys_count; i++) {
        const struct config_key *key = &config_keys[i];

        config_key_add_name(key, out);
        strbuf_addc(out, '\t');
        if (config_is_quoted(key))
            add_string(out, key->fallback);
        else if (key->type == TYPE_URLS)
            add_urls(key, key->fallback, out);
        else
            strbuf_adds(out, key->fallback);
        strbuf_addf(out, "\t%s%s\n", key->flags & KEY_RESTART ? "restart" : "live",
                    key->flags & KEY_UNUSED ? " unused" : "");
    }
}
