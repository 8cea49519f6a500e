/* From libconfig's tree to keys. The only file that includes libconfig; main thread, at load only. */
#include <libconfig.h>
#include <limits.h>
#include <string.h>

#include "config/config_internal.h"

/* libconfig 1.5 loses a few bytes at each syntax error: not ours, and a reload is no loop. */
#if defined(__SANITIZE_ADDRESS__)
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libconfig.so\n";
}
#endif

static const char *kind(const config_setting_t *setting)
{
    static const char *const words[] = {
        [CONFIG_TYPE_GROUP] = "a group",    [CONFIG_TYPE_INT] = "an integer",
        [CONFIG_TYPE_INT64] = "an integer", [CONFIG_TYPE_FLOAT] = "a floating-point number",
        [CONFIG_TYPE_STRING] = "a string",  [CONFIG_TYPE_BOOL] = "true or false",
        [CONFIG_TYPE_ARRAY] = "an array",   [CONFIG_TYPE_LIST] = "a list",
    };
    return words[config_setting_type(setting)];
}

/* A scalar as text. False for anything else. */
static bool add_scalar(const config_setting_t *setting, struct strbuf *out)
{
    switch (config_setting_type(setting)) {
    case CONFIG_TYPE_INT:
        strbuf_add_i64(out, config_setting_get_int(setting));
        return true;
    case CONFIG_TYPE_INT64:
        strbuf_add_i64(out, config_setting_get_int64(setting));
        return true;
    case CONFIG_TYPE_FLOAT:
        config_add_double(out, config_setting_get_float(setting));
        return true;
    case CONFIG_TYPE_BOOL:
        strbuf_adds(out, config_setting_get_bool(setting) ? "true" : "false");
        return true;
    case CONFIG_TYPE_STRING:
        strbuf_adds(out, config_setting_get_string(setting));
        return true;
    default:
        return false;
    }
}

/* config_source.c clamps what does not fit into 64 bits. */
static bool is_clamped(const config_setting_t *setting)
{
    long long value;

    if (config_setting_type(setting) != CONFIG_TYPE_INT64)
        return false;
    value = config_setting_get_int64(setting);
    return value == LLONG_MAX || value == LLONG_MIN;
}

/* What libconfig may give for a key of each type: a bit for each of its own types. */
static const unsigned accepted[] = {
    [TYPE_STRING] = 1 << CONFIG_TYPE_STRING,
    [TYPE_WORD] = 1 << CONFIG_TYPE_STRING,
    [TYPE_CHOICE] = 1 << CONFIG_TYPE_STRING,
    [TYPE_BOOL] = 1 << CONFIG_TYPE_BOOL,
    [TYPE_INT] = 1 << CONFIG_TYPE_INT | 1 << CONFIG_TYPE_INT64,
    [TYPE_FLOAT] = 1 << CONFIG_TYPE_INT | 1 << CONFIG_TYPE_INT64 | 1 << CONFIG_TYPE_FLOAT,
    [TYPE_DURATION] = 1 << CONFIG_TYPE_STRING,
    [TYPE_SIZE] = 1 << CONFIG_TYPE_STRING,
    [TYPE_URLS] = 1 << CONFIG_TYPE_LIST | 1 << CONFIG_TYPE_ARRAY,
    [TYPE_PROPERTIES] = 1 << CONFIG_TYPE_GROUP,
};

static void report_type(struct config_loader *l, const struct config_key *key,
                        const config_setting_t *setting)
{
    CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    config_key_add_name(key, &text);
    strbuf_addc(&text, ' ');
    config_value_add_form(key, &text);
    bool is_list = config_setting_is_array(setting) || config_setting_is_list(setting);
    if (is_list && key->type == TYPE_STRING) {
        strbuf_clear(&text);
        config_key_add_name(key, &text);
        config_problem_line(
            l, setting->line,
            "%s must be a string, not %s: several values are one string, with commas in it: \"a,b\"",
            strbuf_str(&text), kind(setting));
        return;
    }
    config_problem_line(l, setting->line, "%s, not %s", strbuf_str(&text), kind(setting));
}

static void report_clamped(struct config_loader *l, const config_setting_t *setting)
{
    config_problem_line(l, setting->line, "%s is an integer of more than 64 bits, too big for any key",
                        config_setting_name(setting));
}

static void read_property(struct config_loader *l, const struct config_key *key,
                          const config_setting_t *setting)
{
    CLEANUP(strbuf_wipe) struct strbuf text = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    struct config_origin where = {.source = SOURCE_FILE, .line = setting->line};

    if (is_clamped(setting))
        report_clamped(l, setting);
    else if (add_scalar(setting, &text))
        config_property_set(l, key, config_setting_name(setting), strbuf_str(&text), &where);
    else
        config_problem_line(l, setting->line, "property %s must be a string, a number, true or false, not %s",
                            config_setting_name(setting), kind(setting));
}

/* An element that is no string, or has a space, is no URL: the check of the whole says so. */
static void add_list(const config_setting_t *list, struct strbuf *out)
{
    for (int i = 0; i < config_setting_length(list); i++) {
        const char *text = config_setting_get_string_elem(list, i);

        if (i > 0)
            strbuf_addc(out, ' ');
        strbuf_adds(out, text && *text ? text : "?");
    }
}

static void read_key(struct config_loader *l, const struct config_key *key, const config_setting_t *setting)
{
    CLEANUP(strbuf_wipe) struct strbuf text = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    struct config_origin where = {.source = SOURCE_FILE, .line = setting->line};

    /* Until the value is accepted, rules must not judge the default that stands in its place. */
    config_origin(l->config, key)->unknown = true;
    if (!(accepted[key->type] >> config_setting_type(setting) & 1)) {
        report_type(l, key, setting);
    } else if (key->type == TYPE_PROPERTIES) {
        config_key_set(l, key, "", &where);
        for (int i = 0; i < config_setting_length(setting); i++)
            read_property(l, key, config_setting_get_elem(setting, (unsigned) i));
    } else if (key->type == TYPE_URLS) {
        add_list(setting, &text);
        config_key_set(l, key, strbuf_str(&text), &where);
    } else if (is_clamped(setting)) {
        report_clamped(l, setting);
    } else {
        add_scalar(setting, &text);
        config_key_set(l, key, strbuf_str(&text), &where);
    }
}

static void report_unknown(struct config_loader *l, const char *group, const config_setting_t *setting)
{
    CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    const char *name = config_setting_name(setting);

    if (!*group && config_setting_is_group(setting)) {
        strbuf_addf(&text, "unknown group \"%s\"", name);
        config_suggest_group(name, &text);
    } else {
        strbuf_addf(&text, "unknown key \"%s\"", name);
        if (*group)
            strbuf_addf(&text, " in group \"%s\"", group);
        config_suggest_key(group, name, &text);
        if (strcmp(group, "kafka") == 0)
            strbuf_adds(&text, "; librdkafka's own properties go into properties: { … };");
    }
    config_problem_line(l, setting->line, "%s", strbuf_str(&text));
}

static void read_member(struct config_loader *l, const char *group, const config_setting_t *setting)
{
    const struct config_key *key = config_key_find(group, config_setting_name(setting));

    if (key)
        read_key(l, key, setting);
    else
        report_unknown(l, group, setting);
}

static void read_root_member(struct config_loader *l, const config_setting_t *setting)
{
    const char *name = config_setting_name(setting);

    if (!config_group_exists(name)) {
        read_member(l, "", setting);
    } else if (!config_setting_is_group(setting)) {
        config_problem_line(l, setting->line, "%s must be a group: %s: { … }; not %s", name, name,
                            kind(setting));
    } else {
        for (int i = 0; i < config_setting_length(setting); i++)
            read_member(l, name, config_setting_get_elem(setting, (unsigned) i));
    }
}

static void report_syntax(struct config_loader *l, const config_t *tree, const char *source,
                          unsigned open_string)
{
    const char *text = config_error_text(tree) ? config_error_text(tree) : "syntax error";
    unsigned line = (unsigned) config_error_line(tree);

    if (open_string > 0 && open_string <= line)
        config_problem_line(l, line,
                            "syntax error; the string that starts in line %u runs over several lines: is its "
                            "closing quote missing?",
                            open_string);
    else if (!config_syntax_explain(l, source))
        config_problem_line(l, line, "%s; a key is written  name = value;  and a group  name: { … };", text);
}

void config_tree_read(struct config_loader *l, const struct strbuf *text, unsigned open_string)
{
    config_t tree;

    config_init(&tree);
    if (config_read_string(&tree, strbuf_str(text)) == CONFIG_TRUE) {
        const config_setting_t *root = config_root_setting(&tree);

        for (int i = 0; i < config_setting_length(root); i++)
            read_root_member(l, config_setting_get_elem(root, (unsigned) i));
    } else {
        report_syntax(l, &tree, strbuf_str(text), open_string);
    }
    config_destroy(&tree);
}
