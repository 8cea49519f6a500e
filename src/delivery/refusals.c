/* Rows that the database refuses to change. See refusals.h. */
#include "delivery/refusals.h"

#include "base/timeutil.h"

#define FIRST_PAUSE_USEC (5 * USEC_PER_SEC)
#define MAX_PAUSE_USEC (300 * USEC_PER_SEC)
/* Refusals in a row that are looked into without delay; then a millisecond that doubles up to a second. */
#define QUICK_REFUSALS 8
#define MAX_DOUBLINGS 10
#define WIDE_ROWS 256 /* a statement for so many that is not refused ends the search */

void refusals_free(struct refusals *r)
{
    free(r->rows);
    free(r->ids);
    *r = (struct refusals){0};
}

int refusals_limit(const struct refusals *r, int wanted)
{
    return r->limit == 0 ? wanted : MIN(wanted, r->limit);
}

bool refusals_narrow(struct refusals *r, int limit)
{
    r->limit = MAX(limit / 2, 1);
    return limit <= 1;
}

void refusals_widen(struct refusals *r, int limit, int rows)
{
    r->in_row = 0;
    if (r->limit == 0)
        return;
    r->limit = rows < limit || limit >= WIDE_ROWS ? 0 : MAX(r->limit, 2 * limit);
}

static struct refusal *find(struct refusals *r, int64_t id)
{
    struct refusal *first_over = NULL;

    for (size_t i = 0; i < r->count; i++) {
        if (r->rows[i].id == id)
            return &r->rows[i];
        if (!first_over || r->rows[i].until < first_over->until)
            first_over = &r->rows[i];
    }
    if (r->count == REFUSALS_MAX) {
        *first_over = (struct refusal){.id = id};
        return first_over;
    }
    if (!r->rows) {
        r->rows = xreallocarray(NULL, REFUSALS_MAX, sizeof(*r->rows));
        r->ids = xreallocarray(NULL, REFUSALS_MAX, sizeof(*r->ids));
    }
    r->rows[r->count] = (struct refusal){.id = id};
    return &r->rows[r->count++];
}

uint64_t refusals_add(struct refusals *r, int64_t id, uint64_t now)
{
    struct refusal *row = find(r, id);

    row->pause_usec = row->pause_usec ? MIN(2 * row->pause_usec, MAX_PAUSE_USEC) : FIRST_PAUSE_USEC;
    row->until = now + row->pause_usec;
    r->in_row++;
    return row->pause_usec;
}

/* One that was not refused again long after its while was over has come through, or is gone. */
static void forget_old(struct refusals *r, uint64_t now)
{
    size_t kept = 0;

    for (size_t i = 0; i < r->count; i++)
        if (now < r->rows[i].until + MAX_PAUSE_USEC)
            r->rows[kept++] = r->rows[i];
    r->count = kept;
}

size_t refusals_ids(struct refusals *r, uint64_t now, const int64_t **ret)
{
    size_t count = 0;

    forget_old(r, now);
    for (size_t i = 0; i < r->count; i++)
        if (now < r->rows[i].until)
            r->ids[count++] = r->rows[i].id;
    *ret = r->ids;
    return count;
}

uint64_t refusals_pause_usec(const struct refusals *r)
{
    if (r->in_row <= QUICK_REFUSALS)
        return 0;
    return USEC_PER_MSEC << MIN(r->in_row - QUICK_REFUSALS - 1, MAX_DOUBLINGS);
}
