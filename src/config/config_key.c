/* One key: its text, or the text behind its reference, is checked and stored. Main thread, at load only. */
#include <errno.h>
#include <string.h>

#include "config/config_internal.h"

/* Rails' own parameters in a URL of the environment are meant for another program. */
static const char *without_rails(struct config_loader *l, const char *url, const struct config_origin *where,
                                 struct strbuf *ret)
{
    CLEANUP(strbuf_free) struct strbuf dropped = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    config_conninfo_drop_rails(url, ret, &dropped);
    if (dropped.len > 0)
        config_notice(l, where, "parameters that only Rails knows were left out: %s", dropped.data);
    return strbuf_str(ret);
}

enum config_secrets config_secrets_of(const struct config_loader *l, const struct config_key *key)
{
    const char *group = l->secrets == CONFIG_SECRETS_DATABASE ? "database"
                        : l->secrets == CONFIG_SECRETS_KAFKA  ? "kafka"
                                                              : NULL;

    if (!group)
        return l->secrets;
    return strcmp(key->group, group) == 0 ? CONFIG_SECRETS_RESOLVE : CONFIG_SECRETS_KEEP;
}

static bool judge(const struct config_loader *l, const struct config_key *key, const char *text,
                  struct strbuf *why)
{
    if ((key->flags & KEY_CONNINFO) && l->judges->conninfo)
        return l->judges->conninfo(text, why);
    if ((key->flags & KEY_SIGNING) && l->judges->signing)
        return !*text || l->judges->signing(text, why);
    if ((key->flags & KEY_NOTE_KEY) && l->judges->note_key)
        return !*text || l->judges->note_key(text, why);
    if ((key->flags & KEY_CERTIFICATES) && l->judges->certificates)
        return !*text || l->judges->certificates(text, why);
    return true;
}

static void set_plain(struct config_loader *l, const struct config_key *key, const char *text,
                      const struct config_origin *where)
{
    CLEANUP(strbuf_wipe) struct strbuf cleaned = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    CLEANUP(strbuf_free) struct strbuf why = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    struct config_origin *origin = config_origin(l->config, key);
    bool quotable = !origin->reference && !(key->flags & (KEY_SECRET | KEY_CONNINFO));
    union config_value value;

    if ((key->flags & KEY_CONNINFO) && where->source == SOURCE_ENVIRONMENT)
        text = without_rails(l, text, where, &cleaned);
    if (config_value_parse(key, text, quotable, &value, &why) < 0 || !judge(l, key, text, &why)) {
        config_problem(l, where, "%s%s%s %s", key->group, *key->group ? "." : "", key->name,
                       strbuf_str(&why));
        return;
    }
    config_value_set(l->config, key, value);
    origin->unknown = false;
}

void config_notice_unset(struct config_loader *l, const struct config_origin *where, const char *reference)
{
    if (config_is_unset_variable(reference))
        config_notice(l, where,
                      "%s: the variable is not set here; without it in its own environment the daemon does "
                      "not start",
                      reference);
}

/* References stay as they are written when a configuration is only checked; a file that can be read is judged
 * all the same, where somebody can judge it. */
static void judge_file(struct config_loader *l, const struct config_key *key, const char *reference,
                       const struct config_origin *where)
{
    CLEANUP(strbuf_wipe) struct strbuf value = STRBUF_INIT(2 * CONFIG_SECRET_MAX);
    CLEANUP(strbuf_free) struct strbuf why = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    if (!(key->flags & (KEY_SIGNING | KEY_NOTE_KEY)) || strncmp(reference, "file:", strlen("file:")) != 0)
        return;
    if (config_resolve(reference, CONFIG_SECRETS_RESOLVE, &value, &why) < 0)
        config_problem(l, where, "%s.%s: %s: %s", key->group, key->name, reference, strbuf_str(&why));
    else if (!judge(l, key, strbuf_str(&value), &why))
        config_problem(l, where, "%s.%s %s (%s)", key->group, key->name, strbuf_str(&why), reference);
}

static void set_reference(struct config_loader *l, const struct config_key *key, const char *reference,
                          const struct config_origin *where)
{
    CLEANUP(strbuf_wipe) struct strbuf value = STRBUF_INIT(2 * CONFIG_SECRET_MAX);
    CLEANUP(strbuf_free) struct strbuf why = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    enum config_secrets secrets = config_secrets_of(l, key);

    config_origin(l->config, key)->reference = xstrdup(reference);
    int r = config_resolve(reference, secrets, &value, &why);
    if (r < 0) {
        l->n_absent += r == -ENOENT;
        config_problem(l, where, "%s%s%s: %s: %s", key->group, *key->group ? "." : "", key->name, reference,
                       strbuf_str(&why));
    } else if (secrets == CONFIG_SECRETS_RESOLVE) {
        set_plain(l, key, strbuf_str(&value), where);
    } else if (key->type == TYPE_STRING || key->type == TYPE_URLS) {
        config_value_set(l->config, key, (union config_value){.s = reference});
    }
    if (secrets != CONFIG_SECRETS_CHECK)
        return;
    judge_file(l, key, reference, where);
    config_notice_unset(l, where, reference);
}

void config_key_set(struct config_loader *l, const struct config_key *key, const char *text,
                    const struct config_origin *where)
{
    struct config_origin *origin = config_origin(l->config, key);

    free(origin->reference);
    *origin = *where;
    origin->reference = NULL;
    origin->unknown = true;
    if (config_is_reference(text))
        set_reference(l, key, text, where);
    else
        set_plain(l, key, text, where);
}
