/* Refusals in a row. See burst.h. Pure, on any thread. */
#include "delivery/burst.h"

#include "base/timeutil.h"

#define LATELY_USEC (3600 * USEC_PER_SEC)
/* The database is told again, unless it hears it from the counters. */
#define TOLD_USEC (300 * USEC_PER_SEC)
/* A claim that was sent before the pause has answered after so long. */
#define CLAIM_USEC (5 * USEC_PER_SEC)

bool burst_taken(struct burst *b, uint64_t now)
{
    bool is_news = b->is_counted || b->told_at == 0 || now - b->told_at >= TOLD_USEC;

    b->is_counted = b->is_vain = false;
    b->taken_at = now;
    if (is_news)
        b->told_at = now;
    return is_news;
}

void burst_took(struct burst *b, uint64_t usec, uint64_t now)
{
    if (usec >= now)
        return;
    b->taken_at = MAX(b->taken_at, now - usec);
    b->told_at = MAX(b->told_at, now - usec);
}

bool burst_refused(struct burst *b, uint64_t now)
{
    bool lately = b->taken_at > 0 && now - b->taken_at <= LATELY_USEC;

    if (b->is_vain && !lately)
        return false;
    b->is_counted = true;
    return true;
}

void burst_counted(struct burst *b, bool is_vain)
{
    b->is_vain = is_vain;
}

void burst_paused(struct burst *b, int64_t turn, uint64_t now)
{
    b->is_counted = false;
    b->paused_turn = turn;
    b->paused_at = now;
}

void burst_claimed(struct burst *b, int64_t turn, bool is_counted)
{
    b->turn = turn;
    b->is_counted |= is_counted;
}

void burst_begin_anew(struct burst *b)
{
    b->is_vain = false;
}

bool burst_holds(const struct burst *b, uint64_t now)
{
    return b->turn < b->paused_turn && now - b->paused_at < CLAIM_USEC;
}
