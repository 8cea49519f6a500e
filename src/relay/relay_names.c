/* Names and types of integrations. See relay_names.h. */
#include "relay/relay_names.h"

#include <string.h>

#include "base/timeutil.h"
#include "relay/store_relay.h"

#define MAX_AGE_USEC USEC_PER_SEC

void relay_names_free(struct relay_names *n)
{
    pg_result_free(n->result);
    free(n->asked);
    *n = (struct relay_names){0};
}

static int compare_ids(const void *a, const void *b)
{
    int64_t x = *(const int64_t *) a, y = *(const int64_t *) b;

    return (x > y) - (x < y);
}

static bool is_asked(const struct relay_names *n, int64_t id)
{
    return n->asked && bsearch(&id, n->asked, n->asked_count, sizeof(id), compare_ids);
}

/* Sorts the ids and leaves each once; how many there are then. */
static size_t make_distinct(int64_t *ids, size_t count)
{
    size_t kept = 0;

    qsort(ids, count, sizeof(*ids), compare_ids);
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || ids[kept - 1] != ids[i])
            ids[kept++] = ids[i];
    return kept;
}

int relay_names_ask(struct relay_names *n, struct pg *pg, const struct pg_result *rows, int end,
                    uint64_t now_usec, struct error *err)
{
    size_t count = 0;

    if (n->asked_count > RELAY_NAMES_KEPT || now_usec - n->read_at >= MAX_AGE_USEC)
        relay_names_free(n);
    CLEANUP(freep) int64_t *ids = xcalloc((size_t) end + n->asked_count, sizeof(*ids));
    for (int row = 1; row < end; row++) {
        struct event_number id = store_relay_row_integration(rows, row);
        if (id.set && !is_asked(n, id.value))
            ids[count++] = id.value;
    }
    if (count == 0)
        return 0;
    if (n->asked)
        memcpy(ids + count, n->asked, n->asked_count * sizeof(*ids));
    count = make_distinct(ids, count + n->asked_count);
    relay_names_free(n);
    int r = store_relay_names(pg, ids, count, &n->result, err);
    if (r < 0)
        return r;
    n->asked = TAKE_PTR(ids);
    n->asked_count = count;
    n->read_at = now_usec;
    return 0;
}

void relay_names_find(const struct relay_names *n, struct event_integration *i)
{
    int low = 0, high = i->id.set && n->result ? pg_rows(n->result) : 0;

    while (low < high) {
        int middle = low + (high - low) / 2;
        int64_t id = pg_get_i64(n->result, middle, 0);
        if (id == i->id.value) {
            i->name.p = pg_get_bytes(n->result, middle, 1, &i->name.len);
            i->type.p = pg_get_bytes(n->result, middle, 2, &i->type.len);
            return;
        }
        if (id < i->id.value)
            low = middle + 1;
        else
            high = middle;
    }
}
