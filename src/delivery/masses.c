/* Integrations that are looked at apart from all others. See masses.h. Pure, on any thread. */
#include "delivery/masses.h"

#include <stdlib.h>
#include <string.h>

#include "base/timeutil.h"

/* A look at all integrations that takes so long twice in a row makes them be weighed. */
#define SLOW_USEC (100 * USEC_PER_MSEC)
#define PAUSE_FACTOR 10
#define PAUSE_MAX_USEC (60 * USEC_PER_SEC)
#define FRUITLESS_MAX 6

static uint64_t pause_after(uint64_t took)
{
    return MIN(took, PAUSE_MAX_USEC / PAUSE_FACTOR) * PAUSE_FACTOR;
}

void masses_free(struct masses *m)
{
    free(m->loads);
    free(m->places);
}

void masses_saw(struct masses *m, uint64_t took, uint64_t now)
{
    uint64_t usual = MIN(took, m->took);

    m->took = took;
    m->wanted = usual >= SLOW_USEC && now >= m->weigh_at;
}

static int by_id(const void *a, const void *b)
{
    const struct mass *one = a, *other = b;

    return (one->integration_id > other->integration_id) - (one->integration_id < other->integration_id);
}

void masses_weighed(struct masses *m, size_t count, const struct mass *found, uint64_t took, uint64_t now)
{
    m->wanted = m->doubted = false;
    m->took = 0;
    m->count = MIN(count, (size_t) MASSES_MAX);
    memcpy(m->all, found, m->count * sizeof(*found));
    qsort(m->all, m->count, sizeof(*m->all), by_id);
    m->turn = 0;
    m->again_at = now + pause_after(took);
    /* Where no single one is to blame, another weighing would say the same. */
    m->weigh_at = now + (m->count > 0 ? pause_after(took) : PAUSE_MAX_USEC << m->fruitless);
    m->fruitless = m->count > 0 ? 0 : MIN(m->fruitless + 1, FRUITLESS_MAX);
}

bool masses_next(const struct masses *m, uint64_t now, struct store_place *ret)
{
    if (m->count == 0 || m->doubted || now < m->again_at)
        return false;
    *ret = STORE_PLACE_START(m->all[m->turn].integration_id);
    return true;
}

uint64_t masses_wait(const struct masses *m, uint64_t now)
{
    if (m->count == 0)
        return USEC_INFINITY;
    return m->again_at > now ? m->again_at - now : 0;
}

static void next_turn(struct masses *m, uint64_t took, uint64_t now)
{
    m->again_at = now + pause_after(took);
    m->all[m->turn].took = took;
    m->turn = (m->turn + 1) % m->count;
}

void masses_looked(struct masses *m, uint64_t took, uint64_t now)
{
    m->doubted = took < MASS_USEC / 2;
    if (!m->doubted)
        next_turn(m, took, now);
}

void masses_judged(struct masses *m, uint64_t took, uint64_t now)
{
    m->doubted = false;
    if (took >= MASS_USEC / 2) {
        next_turn(m, took, now);
        return;
    }
    m->count--;
    memmove(&m->all[m->turn], &m->all[m->turn + 1], (m->count - m->turn) * sizeof(*m->all));
    m->turn = m->count > 0 ? m->turn % m->count : 0;
}

size_t masses_loads(struct masses *m, size_t count, const struct store_load *loads,
                    const struct store_load **ret)
{
    size_t n = 0, mass = 0;

    *ret = loads;
    if (m->count == 0)
        return count;
    m->loads = xreallocarray(m->loads, count + m->count, sizeof(*loads));
    for (size_t i = 0; i < count; i++) {
        for (; mass < m->count && m->all[mass].integration_id < loads[i].integration_id; mass++)
            m->loads[n++] = (struct store_load){.integration_id = m->all[mass].integration_id};
        m->loads[n] = loads[i];
        if (mass < m->count && m->all[mass].integration_id == loads[i].integration_id) {
            m->loads[n].slots = 0;
            mass++;
        }
        n++;
    }
    for (; mass < m->count; mass++)
        m->loads[n++] = (struct store_load){.integration_id = m->all[mass].integration_id};
    *ret = m->loads;
    return n;
}

size_t masses_places(struct masses *m, size_t count, const struct store_place *places,
                     const struct store_place **ret)
{
    size_t n = 0, mass = 0;

    *ret = places;
    if (m->count == 0)
        return count;
    m->places = xreallocarray(m->places, count + m->count, sizeof(*places));
    for (size_t i = 0; i < count; i++) {
        for (; mass < m->count && m->all[mass].integration_id < places[i].integration_id; mass++)
            m->places[n++] = STORE_PLACE_START(m->all[mass].integration_id);
        mass += mass < m->count && m->all[mass].integration_id == places[i].integration_id;
        m->places[n++] = places[i];
    }
    for (; mass < m->count; mass++)
        m->places[n++] = STORE_PLACE_START(m->all[mass].integration_id);
    *ret = m->places;
    return n;
}
