/* Reading what delivery_settings hold. See settings_read.h. */
#include "delivery/settings_read.h"

#include <errno.h>
#include <string.h>

#include "config/config.h"

#define CREDENTIAL "credential:"

static int fault(struct error *why, const char *words)
{
    error_set(why, "%s", words);
    return -EINVAL;
}

/* What keeps a text from being a value, or NULL. */
static const char *text_fault(const struct strbuf *text, enum settings_kind kind)
{
    if (text->len == 0)
        return "is empty";
    if (memchr(text->data, '\0', text->len))
        return "contains a NUL byte";
    for (size_t i = 0; i < text->len && kind != SETTINGS_PEM; i++)
        if ((unsigned char) text->data[i] < ' ' || text->data[i] == 0x7f)
            return "holds control characters, perhaps the end of a line";
    return NULL;
}

static int resolve(struct strbuf *text, struct error *why)
{
    CLEANUP(strbuf_wipe) struct strbuf found = STRBUF_INIT(2 * CONFIG_SECRET_MAX);
    struct error err;

    (void) strbuf_reserve(&found, CONFIG_SECRET_MAX + 2); /* no copy is left behind where it grew */
    if (config_database_secret(text->data, &found, &err) < 0) {
        error_set(why, "cannot be used: %s", err.text);
        return -EINVAL;
    }
    strbuf_clear(text);
    strbuf_add(text, found.data, found.len);
    return 0;
}

int settings_read_text(const struct json_value *value, enum settings_kind kind, char **ret, struct error *why)
{
    CLEANUP(strbuf_wipe) struct strbuf text = STRBUF_INIT(2 * CONFIG_SECRET_MAX);
    const char *words;

    if (value->type != JSON_STRING)
        return fault(why, "is no string");
    (void) strbuf_reserve(&text, CONFIG_SECRET_MAX + 2);
    json_add_text(&text, value);
    bool refers = kind != SETTINGS_TEXT && strncmp(strbuf_str(&text), CREDENTIAL, strlen(CREDENTIAL)) == 0;
    if (kind != SETTINGS_TEXT && (strncmp(text.data, "file:", 5) == 0 || strncmp(text.data, "env:", 4) == 0))
        return fault(why, "cannot be read from a file or from the environment; it is the text itself or "
                          "\"credential:NAME\"");
    int r = refers ? resolve(&text, why) : 0;
    if (r == 0 && (words = text_fault(&text, kind)))
        r = fault(why, words);
    if (r < 0)
        return r;
    free_secret(*ret);
    *ret = strbuf_take(&text);
    return 0;
}

static int read_member(const struct json_value *name, const struct json_value *value,
                       const struct settings_member *members, size_t count, struct error *why)
{
    struct error err;

    for (size_t i = 0; i < count; i++) {
        if (!json_is_text(name, members[i].name))
            continue;
        int r = settings_read_text(value, members[i].kind, members[i].ret, &err);
        if (r < 0)
            error_set(why, "has a \"%s\" that %s", members[i].name, err.text);
        return r;
    }
    return fault(why, "has a key that is not known to this version");
}

int settings_read_members(const struct json_value *object, const char *skip,
                          const struct settings_member *members, size_t count, struct error *why)
{
    struct json_value name, value;

    for (struct json_walk w = json_walk(object); json_next(&w, &name, &value);) {
        int r = skip && json_is_text(&name, skip) ? 0 : read_member(&name, &value, members, count, why);
        if (r < 0)
            return r;
    }
    for (size_t i = 0; i < count; i++)
        if (members[i].required && !*members[i].ret) {
            error_set(why, "lacks \"%s\"", members[i].name);
            return -EINVAL;
        }
    return 0;
}

int settings_check_header_value(char *value, struct error *why)
{
    size_t from = strspn(value, " "), len = strlen(value);
    bool blank = true;

    for (const char *p = value; *p; p++) {
        blank &= *p == ' ';
        if ((unsigned char) *p >= 0x80)
            return fault(why, "holds characters that are not ASCII");
    }
    if (blank)
        return fault(why, "is blank");
    while (value[len - 1] == ' ')
        len--;
    memmove(value, value + from, len - from);
    value[len - from] = '\0';
    return 0;
}
