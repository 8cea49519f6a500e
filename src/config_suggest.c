/* What a misspelt or misplaced key was meant to be. Pure; any thread. */
#include <string.h>

#include "config_private.h"

/* Longer names than ours are no misspelling of them. */
#define NAME_MAX_LEN 40

/* Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours each count one. */
static unsigned edit_distance(const char *a, const char *b)
{
    unsigned rows[3][NAME_MAX_LEN + 1];
    unsigned *before = rows[0], *above = rows[1], *row = rows[2];
    size_t len_a = strlen(a), len_b = strlen(b);

    if (len_a > NAME_MAX_LEN || len_b > NAME_MAX_LEN)
        return NAME_MAX_LEN;
    for (size_t j = 0; j <= len_b; j++)
        row[j] = (unsigned) j;
    for (size_t i = 1; i <= len_a; i++) {
        unsigned *recycled = before;

        before = above;
        above = row;
        row = recycled;
        row[0] = (unsigned) i;
        for (size_t j = 1; j <= len_b; j++) {
            bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];

            row[j] = MIN(above[j] + 1, row[j - 1] + 1);
            row[j] = MIN(row[j], above[j - 1] + (a[i - 1] != b[j - 1]));
            if (swapped)
                row[j] = MIN(row[j], before[j - 2] + 1);
        }
    }
    return row[len_b];
}

/* Above this the two words have nothing to do with each other. */
static unsigned tolerance(const char *name)
{
    return MAX(1U, MIN(4U, (unsigned) strlen(name) / 3));
}

/* "timeout_ms" or "delivery.timeout" for "timeout": people put the unit or the group into the name. */
static unsigned key_distance(const struct config_key *key, const char *name)
{
    size_t len = strlen(key->name), group_len = strlen(key->group);
    bool with_unit = strncmp(name, key->name, len) == 0 && name[len] == '_' && strlen(name + len) <= 4;
    bool with_group = group_len > 0 && strncmp(name, key->group, group_len) == 0 && name[group_len] == '_' &&
                      strcmp(name + group_len + 1, key->name) == 0;

    return with_unit || with_group ? 1 : edit_distance(name, key->name);
}

static const struct config_key *nearest_key(const char *group, const char *name, unsigned *ret_distance)
{
    const struct config_key *nearest = NULL;

    *ret_distance = tolerance(name) + 1;
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

void config_suggest_key(const char *group, const char *name, struct strbuf *out)
{
    unsigned here_distance, anywhere_distance;
    const struct config_key *here = nearest_key(group, name, &here_distance);
    const struct config_key *anywhere = nearest_key(NULL, name, &anywhere_distance);

    if (anywhere && anywhere_distance == 0) {
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
    unsigned best = tolerance(name) + 1;

    for (size_t i = 0; i < config_keys_count; i++) {
        unsigned distance = edit_distance(name, config_keys[i].group);

        if (*config_keys[i].group && distance < best) {
            best = distance;
            nearest = config_keys[i].group;
        }
    }
    if (nearest)
        strbuf_addf(out, "; did you mean \"%s\"?", nearest);
}
