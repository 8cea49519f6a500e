/* When open circuits are looked for. See probes.h. Pure, on any thread. */
#include "delivery/probes.h"

#define LOOKS 6

void probes_plan(struct probes *p, uint64_t at)
{
    p->due = MIN(p->due, at);
}

bool probes_are_due(const struct probes *p, uint64_t poll_usec, uint64_t now)
{
    return now >= MAX(MIN(p->due, p->looked_at + poll_usec), p->look.again_at);
}

uint64_t probes_wait(const struct probes *p, uint64_t now)
{
    uint64_t at = MAX(p->due, p->look.again_at);

    return p->due == USEC_INFINITY ? USEC_INFINITY : at > now ? at - now : 0;
}

void probes_begun(struct probes *p, uint64_t now)
{
    p->looked_at = now;
    p->due = USEC_INFINITY;
}

void probes_looked(struct probes *p, uint64_t took, bool found, uint64_t next, uint64_t now)
{
    uint64_t pause = look_pause(&p->look, took);

    p->look.again_at = found ? 0 : now + pause;
    probes_plan(p, next);
    if (p->search.limit > 0)
        probes_plan(p, now + PROBES_APART_USEC);
    if (!found && ++p->fruitless < LOOKS)
        probes_plan(p, now + (PROBES_APART_USEC << p->fruitless));
}
