/* Deadlines on a wheel. See http_wheel.h. Pure; one thread at a time. */
#include "http/http_wheel.h"

#define SLOT_USEC UINT64_C(8192)

static uint64_t tick_of(uint64_t usec)
{
    return (usec + SLOT_USEC - 1) / SLOT_USEC;
}

void http_wheel_init(struct http_wheel *w, uint64_t now_usec)
{
    *w = (struct http_wheel){.tick = now_usec / SLOT_USEC};
}

void http_wheel_set(struct http_wheel *w, struct http_timer *timer, uint64_t at_usec)
{
    http_wheel_clear(timer);
    uint64_t tick = MAX(tick_of(at_usec), w->tick), slot = tick % HTTP_WHEEL_SLOTS;

    timer->at_usec = MAX(at_usec, 1);
    LIST_INSERT_HEAD(&w->slots[slot], timer, link);
    w->filled[slot / 64] |= UINT64_C(1) << slot % 64;
}

void http_wheel_clear(struct http_timer *timer)
{
    if (!timer->at_usec)
        return;
    LIST_REMOVE(timer, link);
    timer->at_usec = 0;
}

static struct http_timer *due_in_slot(struct http_wheel *w, uint64_t slot, uint64_t now_usec)
{
    struct http_timer *timer;

    if (LIST_EMPTY(&w->slots[slot]))
        w->filled[slot / 64] &= ~(UINT64_C(1) << slot % 64);
    for (timer = LIST_FIRST(&w->slots[slot]); timer; timer = LIST_NEXT(timer, link))
        if (timer->at_usec <= now_usec)
            return timer;
    return NULL;
}

struct http_timer *http_wheel_expired(struct http_wheel *w, uint64_t now_usec)
{
    uint64_t now = now_usec / SLOT_USEC;

    /* After a long absence one round sees every slot. */
    if (now > w->tick + HTTP_WHEEL_SLOTS)
        w->tick = now - HTTP_WHEEL_SLOTS;
    for (; w->tick <= now; w->tick++) {
        uint64_t slot = w->tick % HTTP_WHEEL_SLOTS;
        struct http_timer *timer =
            w->filled[slot / 64] >> slot % 64 & 1 ? due_in_slot(w, slot, now_usec) : NULL;
        if (timer) {
            http_wheel_clear(timer);
            return timer;
        }
    }
    return NULL;
}

uint64_t http_wheel_next_usec(const struct http_wheel *w)
{
    for (uint64_t i = 0; i < HTTP_WHEEL_SLOTS; i++) {
        uint64_t tick = w->tick + i, slot = tick % HTTP_WHEEL_SLOTS;
        uint64_t word = w->filled[slot / 64] >> slot % 64;
        if (word == 0)
            i += 63 - slot % 64; /* on to the next word */
        else if (word & 1)
            return tick * SLOT_USEC;
    }
    return UINT64_MAX;
}
