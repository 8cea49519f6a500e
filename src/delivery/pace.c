/* How many requests an institution gets at once. See pace.h. Pure, on any thread. */
#include "delivery/pace.h"

#include <limits.h>

#include "base/timeutil.h"

/* One lost connection is no silence, nor are two. */
#define UNANSWERED_ENOUGH 3
#define SILENT_SLOTS 2
/* What was known of an institution is forgotten after so long without a request. */
#define FORGOTTEN_USEC (60 * USEC_PER_SEC)

static bool is_known(const struct pace *p, uint64_t now)
{
    return p->slots > 0 && (pace_is_silent(p) || now < p->touched + FORGOTTEN_USEC);
}

/* As sql/statements/claim_free.part.sql counts them. */
static int retry_slots(int slots)
{
    return slots - slots / 4;
}

/* One more: at once up to what was enough, then one for each round. */
static void grow(struct pace *p, int in_flight, int retries)
{
    if (p->enough == 0 || p->slots < p->enough) {
        p->slots++;
        return;
    }
    if (in_flight < p->slots && retries < retry_slots(p->slots))
        return;
    if (++p->used < p->slots)
        return;
    p->used = 0;
    p->enough = ++p->slots;
}

void pace_answered(struct pace *p, bool taken, int in_flight, int retries, uint64_t now)
{
    p->touched = now;
    p->unanswered = 0;
    if (taken)
        p->backoffs = 0;
    if (p->slots > 0 && p->slots < INT_MAX && now >= p->ends)
        grow(p, in_flight, retries);
}

void pace_pushed_back(struct pace *p, uint64_t sent_at, int in_flight, uint64_t now)
{
    int slots = is_known(p, now) ? MIN(in_flight, p->slots) : in_flight;

    p->touched = now;
    p->unanswered = 0;
    if (p->pushed > 0 && sent_at <= p->pushed)
        return;
    p->pushed = now;
    p->slots = p->enough = MAX(slots / 2, 1);
    p->used = 0;
}

void pace_unanswered(struct pace *p, uint64_t now)
{
    p->touched = now;
    if (p->unanswered < INT_MAX)
        p->unanswered++;
    if (pace_is_silent(p))
        p->slots = SILENT_SLOTS;
}

int pace_backoffs(const struct pace *p, uint64_t sent_at)
{
    bool same_round = p->backoffs > 0 && sent_at <= p->since;

    return same_round || p->backoffs == INT_MAX ? p->backoffs : p->backoffs + 1;
}

void pace_back_off(struct pace *p, uint64_t sent_at, uint64_t until, uint64_t now)
{
    int backoffs = pace_backoffs(p, sent_at);

    if (backoffs != p->backoffs)
        p->since = now;
    if (!is_known(p, now))
        p->enough = 0;
    p->backoffs = backoffs;
    p->slots = 1;
    p->until = MAX(p->until, until);
    p->ends = MAX(p->ends, until);
    p->touched = now;
}

void pace_hand_over(struct pace *p, uint64_t now)
{
    p->until = MIN(p->until, now);
}

void pace_recover(struct pace *p, uint64_t now)
{
    if (is_known(p, now))
        return;
    p->slots = 1;
    p->enough = 0;
    p->touched = now;
}

int pace_slots(const struct pace *p, uint64_t now)
{
    if (now < p->until)
        return 0;
    return is_known(p, now) ? p->slots : INT_MAX;
}

bool pace_is_silent(const struct pace *p)
{
    return p->unanswered >= UNANSWERED_ENOUGH;
}
