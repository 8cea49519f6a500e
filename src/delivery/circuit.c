/* What requests say about an institution. See circuit.h, and for the circuit's states circuit_next() in
 * sql/repeatable/10_circuits.sql. Pure, on any thread. */
#include "delivery/circuit.h"

#define LAST_REQUESTS 50
/* Fewer prove nothing. */
#define ENOUGH_REQUESTS 20
/* One-sided 99 %: 2.326 standard deviations. */
#define CONFIDENCE_SQUARED 5.41

const char *circuit_event_word(enum circuit_event event)
{
    static const char *const words[] = {
        [CIRCUIT_NEUTRAL] = "neutral",     [CIRCUIT_ALIVE] = "alive",     [CIRCUIT_FAILED] = "failed",
        [CIRCUIT_FORBIDDEN] = "forbidden", [CIRCUIT_REFUSED] = "refused", [CIRCUIT_PROVEN] = "proven",
    };
    return words[event];
}

bool circuit_event_fails(enum circuit_event event)
{
    return event >= CIRCUIT_FAILED;
}

void circuit_enter(struct circuit *c, int64_t generation, bool has_failures)
{
    if (c->generation != generation)
        *c = (struct circuit){.generation = generation};
    c->has_failures |= has_failures;
}

/* The lower bound of the share (E. B. Wilson, 1927) is above one half. */
static bool most_have_failed(const struct circuit *c, int threshold)
{
    int excess = 2 * __builtin_popcountll(c->failed_last) - c->seen;

    return c->seen >= MAX(ENOUGH_REQUESTS, threshold) && excess > 0 &&
           excess * excess > CONFIDENCE_SQUARED * c->seen;
}

enum circuit_event circuit_saw(struct circuit *c, enum circuit_event event, bool is_probe, int threshold)
{
    bool fails = circuit_event_fails(event), had_failures = c->has_failures;

    if (event == CIRCUIT_NEUTRAL)
        return event;
    c->failed_last = (c->failed_last << 1 | fails) & ((UINT64_C(1) << LAST_REQUESTS) - 1);
    c->seen = MIN(c->seen + 1, LAST_REQUESTS);
    c->has_failures = fails;
    c->in_row = fails ? MIN(c->in_row, threshold) + 1 : 0;
    if (event == CIRCUIT_FAILED && most_have_failed(c, threshold))
        event = CIRCUIT_PROVEN;
    if (event == CIRCUIT_REFUSED || event == CIRCUIT_PROVEN || c->in_row >= threshold)
        c->holds = true;
    return fails || is_probe || had_failures ? event : CIRCUIT_NEUTRAL;
}
