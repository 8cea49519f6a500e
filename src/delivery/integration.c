/* The integrations that this process has claimed for. See integration.h. */
#include "delivery/integration.h"

#include <search.h>
#include <string.h>

#include "config/config.h"

struct integrations {
    void *tree; /* tsearch(3), by id */
    int64_t *busy_ids;
    int *busy_counts;
    size_t busy, busy_capacity;
    struct store_place *places;
    size_t place_count, place_capacity;
};

static int by_id(const void *a, const void *b)
{
    int64_t x = ((const struct integration *) a)->id, y = ((const struct integration *) b)->id;
    return (x > y) - (x < y);
}

struct integrations *integrations_new(void)
{
    return xcalloc(1, sizeof(struct integrations));
}

static void integration_free(void *node)
{
    struct integration *i = node;
    free(i->endpoint_url);
    free_secret(i->auth_token);
    free_secret(i->authorization);
    free(i);
}

void integrations_free(struct integrations *all)
{
    if (!all)
        return;
    tdestroy(all->tree, integration_free);
    free(all->busy_ids);
    free(all->busy_counts);
    free(all->places);
    free(all);
}

static bool has_control_character(const char *s)
{
    for (; *s; s++)
        if ((unsigned char) *s < 0x20 || *s == 0x7f)
            return true;
    return false;
}

/* What stands in the way of using the token, or NULL. */
static const char *take_token(struct integration *i, const char *auth_token)
{
    CLEANUP(strbuf_wipe) struct strbuf token = STRBUF_INIT(128 << 10);

    free_secret(TAKE_PTR(i->authorization));
    if (!*auth_token)
        return NULL;
    if (config_database_secret(auth_token, &token, NULL) < 0)
        return "its auth_token names a credential that the daemon was not given (LoadCredential= in its unit)";
    if (has_control_character(strbuf_str(&token)))
        return "its auth_token holds control characters";
    i->authorization = xasprintf("Authorization: Bearer %s", strbuf_str(&token));
    return NULL;
}

static void take_settings(struct integration *i, const struct store_claimed *row)
{
    i->timeout_usec = row->timeout_usec;
    i->max_attempts = row->max_attempts;
    if (strcmp(i->endpoint_url, row->endpoint_url) != 0) {
        free(i->endpoint_url);
        i->endpoint_url = xstrdup(row->endpoint_url);
        i->moves++;
    }
    if (i->auth_token && strcmp(i->auth_token, row->auth_token) == 0)
        return;
    free_secret(i->auth_token);
    i->auth_token = xstrdup(row->auth_token);
    i->problem = take_token(i, row->auth_token);
}

struct integration *integrations_note(struct integrations *all, const struct store_claimed *row)
{
    struct integration key = {.id = row->integration_id};
    struct integration **found = tfind(&key, &all->tree, by_id);
    struct integration *i;
    if (found) {
        i = *found;
    } else {
        i = xcalloc(1, sizeof(*i));
        i->id = row->integration_id;
        i->endpoint_url = xstrdup("");
        if (!tsearch(i, &all->tree, by_id))
            abort();
    }
    if (row->has_integration) {
        take_settings(i, row);
        i->may_have_more = row->quota_used;
        i->place = (struct store_place){.integration_id = i->id, .due = INT64_MIN};
    }
    if (row->due > i->place.due || (row->due == i->place.due && row->id > i->place.id)) {
        i->place.due = row->due;
        i->place.id = row->id;
    }
    return i;
}

static void take_place(const void *node, VISIT visit, void *closure)
{
    struct integration *i = *(struct integration *const *) node;
    struct integrations *all = closure;
    if ((visit != postorder && visit != leaf) || !i->may_have_more)
        return;
    if (all->place_count == all->place_capacity) {
        all->place_capacity = all->place_capacity ? 2 * all->place_capacity : 64;
        all->places = xreallocarray(all->places, all->place_capacity, sizeof(*all->places));
    }
    all->places[all->place_count++] = i->place;
    i->may_have_more = false;
}

size_t integrations_take_places(struct integrations *all, const struct store_place **ret)
{
    all->place_count = 0;
    twalk_r(all->tree, take_place, all);
    *ret = all->places;
    return all->place_count;
}

static void note_busy(const void *node, VISIT visit, void *closure)
{
    const struct integration *i = *(struct integration *const *) node;
    struct integrations *all = closure;
    if ((visit != postorder && visit != leaf) || i->in_flight == 0)
        return;
    if (all->busy == all->busy_capacity) {
        all->busy_capacity = all->busy_capacity ? 2 * all->busy_capacity : 64;
        all->busy_ids = xreallocarray(all->busy_ids, all->busy_capacity, sizeof(*all->busy_ids));
        all->busy_counts = xreallocarray(all->busy_counts, all->busy_capacity, sizeof(*all->busy_counts));
    }
    all->busy_ids[all->busy] = i->id;
    all->busy_counts[all->busy++] = i->in_flight;
}

size_t integrations_busy(struct integrations *all, const int64_t **ret_ids, const int **ret_in_flight)
{
    all->busy = 0;
    twalk_r(all->tree, note_busy, all);
    *ret_ids = all->busy_ids;
    *ret_in_flight = all->busy_counts;
    return all->busy;
}
