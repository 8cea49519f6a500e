/* Environment variables that override the file. Main thread, at load only.
 *
 * Which variable belongs to which key stands in the key table. An empty variable counts as not set: that is
 * how EnvironmentFile= and container definitions leave one out. */
#include "config/config_internal.h"

/* The Rails application's variables hold milliseconds; the key wants a unit. */
static void set_milliseconds(struct config_loader *l, const struct config_key *key, const char *text,
                             const struct config_origin *where)
{
    CLEANUP(freep) char *duration = NULL;
    int64_t ms;

    if (parse_i64(text, 0, INT64_MAX, &ms) < 0) {
        struct strbuf quoted CLEANUP(strbuf_free) = STRBUF_INIT(STRBUF_MAX_DEFAULT);

        config_add_quoted(&quoted, text);
        config_problem(l, where, "must be a whole number of milliseconds such as 10000, not %s",
                       strbuf_str(&quoted));
        config_origin(l->config, key)->unknown = true;
        return;
    }
    duration = xasprintf("%sms", text);
    config_key_set(l, key, duration, where);
}

void config_apply_environment(struct config_loader *l)
{
    for (size_t i = 0; i < config_keys_count; i++) {
        const struct config_key *key = &config_keys[i];
        const char *text = key->environment ? getenv(key->environment) : NULL;
        struct config_origin where = {.source = SOURCE_ENVIRONMENT, .environment = key->environment};

        if (!text || !*text)
            continue;
        if (key->type == TYPE_DURATION)
            set_milliseconds(l, key, text, &where);
        else
            config_key_set(l, key, text, &where);
    }
}
