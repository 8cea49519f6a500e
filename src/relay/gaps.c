/* Which ledger ids have been published. See gaps.h. */
#include "relay/gaps.h"

#include <errno.h>
#include <string.h>

void gaps_free(struct gaps *g)
{
    free(g->items);
    free(g->passed.items);
    free(g->reopened.items);
    *g = (struct gaps){0};
}

static void note(struct gap_notes *n, int64_t first, int64_t last)
{
    if (n->count == n->capacity) {
        n->capacity = n->capacity ? n->capacity * 2 : 16;
        n->items = xreallocarray(n->items, n->capacity, sizeof(*n->items));
    }
    n->items[n->count++] = (struct gap){first, last, 0};
}

static void append(struct gaps *g, int64_t first, int64_t last, int64_t horizon)
{
    if (first > last)
        return;
    if (g->count == g->capacity) {
        g->capacity = g->capacity ? g->capacity * 2 : 16;
        g->items = xreallocarray(g->items, g->capacity, sizeof(*g->items));
    }
    g->items[g->count++] = (struct gap){first, last, horizon};
}

int gaps_load(struct gaps *g, int64_t high, const int64_t *first, const int64_t *last, const int64_t *horizon,
              size_t count)
{
    int64_t before = 0;

    for (size_t i = 0; i < count; i++) {
        if (first[i] <= before || last[i] < first[i] || last[i] > high || horizon[i] < 0)
            return -EINVAL;
        before = last[i];
    }
    if (high < 0)
        return -EINVAL;
    gaps_free(g);
    g->high = high;
    for (size_t i = 0; i < count; i++)
        append(g, first[i], last[i], horizon[i]);
    return 0;
}

/* Each found id lies in a gap that was probed, and all ids ascend. */
static bool fits(const struct gaps *g, const struct gaps_read *read)
{
    size_t at = 0;
    int64_t before = g->high;

    for (size_t i = 0; i < read->found_count; i++) {
        int64_t id = read->found[i];
        while (at < g->count && g->items[at].last < id)
            at++;
        if (at == g->count || id < g->items[at].first || id > read->probed_through ||
            (i > 0 && id <= read->found[i - 1]))
            return false;
    }
    for (size_t i = 0; i < read->above_count; i++) {
        if (read->above[i] <= before)
            return false;
        before = read->above[i];
    }
    return read->above_count == 0 || read->overtakes || g->count == 0 ||
           g->items[g->count - 1].last <= read->probed_through;
}

/* The read has shown no id from first to last: the rest of them, or all, stays a gap. */
static void keep(struct gaps *to, int64_t first, int64_t last, int64_t horizon, const struct gaps_read *read)
{
    bool over = horizon > 0 && read->xmin >= horizon && read->probed_through >= first;
    int64_t passed_to = over ? MIN(last, read->probed_through) : first - 1;

    if (over)
        note(&to->passed, first, passed_to);
    append(to, passed_to + 1, last, horizon);
}

int gaps_take(struct gaps *g, const struct gaps_read *read)
{
    struct gaps next = {.high = g->high, .passed = g->passed, .reopened = g->reopened};
    size_t found = 0;

    if (!fits(g, read))
        return -EINVAL;
    for (size_t i = 0; i < g->count; i++) {
        const struct gap *gap = &g->items[i];
        int64_t first = gap->first;
        for (; found < read->found_count && read->found[found] <= gap->last; found++) {
            if (first < read->found[found])
                keep(&next, first, read->found[found] - 1, gap->horizon, read);
            first = read->found[found] + 1;
        }
        if (first <= gap->last)
            keep(&next, first, gap->last, gap->horizon, read);
    }
    for (size_t i = 0; i < read->above_count; i++) {
        append(&next, next.high + 1, read->above[i] - 1, 0);
        next.high = read->above[i];
    }
    free(g->items);
    *g = next;
    return 0;
}

bool gaps_reopen(struct gaps *g, int64_t first, int64_t last)
{
    size_t at = 0;

    while (at < g->count && g->items[at].last < first)
        at++;
    if (last > g->high || (at < g->count && g->items[at].first <= last))
        return false;
    append(g, first, last, 0);
    memmove(g->items + at + 1, g->items + at, (g->count - 1 - at) * sizeof(*g->items));
    g->items[at] = (struct gap){first, last, 0};
    note(&g->reopened, first, last);
    return true;
}

void gaps_were_saved(struct gaps *g)
{
    g->passed.count = 0;
    g->reopened.count = 0;
}

bool gaps_need_horizon(const struct gaps *g)
{
    for (size_t i = 0; i < g->count; i++)
        if (g->items[i].horizon == 0)
            return true;
    return false;
}

void gaps_stamp(struct gaps *g, int64_t xid)
{
    for (size_t i = 0; i < g->count; i++)
        if (g->items[i].horizon == 0)
            g->items[i].horizon = xid;
}

void gaps_unstamp(struct gaps *g)
{
    for (size_t i = 0; i < g->count; i++)
        g->items[i].horizon = 0;
}
