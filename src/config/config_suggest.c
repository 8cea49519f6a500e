/* Suggestions for a misspelt or misplaced key. Pure; any thread. */
#include <string.h>

#include "config/config_internal.h"

/* "timeout_ms" or "delivery.timeout" for "timeout": people put the unit or the group into the name. */
static unsigned key_distance(const struct config_key *key, const char *name)
{
    size_t len = strlen(key->name), group_len = strlen(key->group);
    bool with_unit = strncmp(name, key->name, len) == 0 && name[len] == '_' && strlen(name + len) <= 4;
    bool with_group = group_len > 0 && strncmp(name, key->group, group_len) == 0 && name[group_len] == '_' &&
                      strcmp(name + group_len + 1, key->name) == 0;

    return with_unit || with_group ? 1 : words_distance(name, key->name);
}

static const struct config_key *nearest_key(const char *group, const char *name, unsigned *ret_distance)
{
    const struct config_key *nearest = NULL;

    *ret_distance = words_tolerance(name) + 1;
    for (size_t i = 0; i < config_keys_count; i++) {
        const struct config_key *key = &config_keys[i];
        unsigned distance = key_distance(key, name);

        if (group && strcmp(key->group, group) != 0)
            continue;
        if (distance < *ret_distance) {
            *ret_distance = distance;
            nearest = key;
        }
    }
    return nearest;
}

static void add_place(const struct config_key *key, struct strbuf *out)
{
    if (*key->group)
        strbuf_addf(out, "in group \"%s\"", key->group);
    else
        strbuf_adds(out, "outside the groups");
}

/* Parts of a connection string, by the names that libpq has for them and that other programs have. */
static bool is_part_of_conninfo(const char *name)
{
    static const char *const parts[] = {
        "host",     "hostaddr", "port",    "dbname",      "user",    "passfile", "options",
        "database", "name",     "url",     "username",    "service", "pool",     "adapter",
        "encoding", "sslmode",  "sslcert", "sslrootcert", "sslkey",  "sslcrl",   "target_session_attrs"};

    for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
        if (strcmp(name, parts[i]) == 0)
            return true;
    return config_is_secret_name(name, strlen(name));
}

void config_suggest_key(const char *group, const char *name, struct strbuf *out)
{
    unsigned here_distance, anywhere_distance;
    const struct config_key *here = nearest_key(group, name, &here_distance);
    const struct config_key *anywhere = nearest_key(NULL, name, &anywhere_distance);

    /* Short words resemble many: to one of another group a third of them must not differ. */
    if (anywhere && anywhere_distance * 3 >= strlen(name) && anywhere_distance > 0)
        anywhere = NULL;
    if (strcmp(group, "database") == 0 && is_part_of_conninfo(name)) {
        strbuf_adds(out, "; it stands within conninfo: conninfo = \"host=db dbname=anubis user=anubisd\";");
    } else if (anywhere && anywhere_distance == 0) {
        strbuf_adds(out, "; it belongs ");
        add_place(anywhere, out);
    } else if (here) {
        strbuf_addf(out, "; did you mean \"%s\"?", here->name);
    } else if (anywhere) {
        strbuf_addf(out, "; did you mean \"%s\" ", anywhere->name);
        add_place(anywhere, out);
        strbuf_addc(out, '?');
    }
}

void config_suggest_group(const char *name, struct strbuf *out)
{
    const char *nearest = NULL;
    unsigned best = words_tolerance(name) + 1;

    for (size_t i = 0; i < config_keys_count; i++) {
        unsigned distance = words_distance(name, config_keys[i].group);

        if (*config_keys[i].group && distance < best) {
            best = distance;
            nearest = config_keys[i].group;
        }
    }
    if (nearest)
        strbuf_addf(out, "; did you mean \"%s\"?", nearest);
}
