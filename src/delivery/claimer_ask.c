/* What a claim asks for: how many rows, and of which integrations. See claimer_internal.h. */
#include <limits.h>

#include "base/timeutil.h"
#include "delivery/claimer_internal.h"
#include "delivery/store_delivery.h"

#define STARVED_MAX_USEC (20 * USEC_PER_MSEC)

/* True when it is better to let more slots get free first. */
static bool better_to_wait(struct claimer *c, int slots, bool reserve, int64_t budget)
{
    int worthwhile = MIN(c->config->delivery.batch_size, MAX(c->config->delivery.max_in_flight / 4, 1));
    uint64_t now = now_monotonic_usec();

    if (slots >= worthwhile && !reserve && (budget > 0 || deliveries_count(c->parts.deliveries) == 0)) {
        c->starved_since = 0;
        return false;
    }
    if (!c->starved_since)
        c->starved_since = now;
    if (slots == 0 || budget <= 0) {
        /* No ring could lead to a claim; the end of a delivery does. */
        doorbell_release(c->parts.doorbell);
        return true;
    }
    if (now - c->starved_since >= STARVED_MAX_USEC) {
        c->starved_since = 0;
        return false;
    }
    claimer_soon(c, c->starved_since + STARVED_MAX_USEC - now);
    return true;
}

/* Those that need no handshake do not wait for the handshakes of all others. A ring may come from anywhere;
 * else the integrations that are known to have more go first for a while. NULL: it is too soon. */
static const struct pg_statement *choose_statement(struct claimer *c, size_t *count,
                                                   const struct store_place **places)
{
    uint64_t now = now_monotonic_usec();
    struct integrations *all = deliveries_integrations(c->parts.deliveries);

    if (c->now.is_probe)
        return &sql_claim_probe;
    if (c->now.is_mass) {
        *places = &c->now.mass;
        *count = 1;
        return &sql_claim_on;
    }
    if (c->now.ready_only) {
        sight_had(c->parts.sight); /* others would wait for their handshakes */
        *count = deliveries_ready_places(c->parts.deliveries, places);
        claimer_soon(c, READY_PAUSE_USEC);
        return *count > 0 ? &sql_claim_on : NULL;
    }
    if (!c->now.was_rung && !c->now.reserve && looks_can_wait(&c->looks, now) && c->refusals.limit == 0)
        *count = integrations_take_places(all, now, places);
    if (*count > 0)
        return &sql_claim_on;
    if (now < c->looks.everywhere_at)
        *count = integrations_near_places(all, places);
    c->now.look = *count > 0 ? &c->looks.nearby : &c->looks.everywhere;
    if (now < c->now.look->again_at) {
        if (c->now.was_rung)
            doorbell_release(c->parts.doorbell); /* no ring could lead to a claim before */
        claimer_soon(c, MIN(c->now.look->again_at, c->looks.everywhere_at) - now);
        return NULL;
    }
    return &sql_claim;
}

static void fill_args(struct claimer *c, int64_t budget, size_t place_count, const struct store_place *places)
{
    struct pg_args *args = queue_session_args(c->parts.session);
    const struct store_load *loads;
    const int64_t *passed_over;
    size_t count = deliveries_loads(c->parts.deliveries, c->now.last_slots, &loads);
    size_t passed_over_count = refusals_ids(&c->refusals, now_monotonic_usec(), &passed_over);
    const struct config *config = c->config;

    /* While a row is searched that is refused, it may be one of theirs. */
    if (c->now.look && c->refusals.limit == 0) {
        count = masses_loads(c->parts.masses, count, loads, &loads);
        place_count = masses_places(c->parts.masses, place_count, places, &places);
    }
    store_claim_args(args,
                     &(struct store_claim_request){
                         .claimed_by = config->instance,
                         .token = c->now.token,
                         .lease_usec = config->delivery.lease_usec,
                         .default_timeout_usec = config->delivery.timeout_usec,
                         .limit = c->now.limit,
                         .default_max_in_flight = config->delivery.max_in_flight_per_integration,
                         .after_integration = c->now.first_integration,
                         .byte_budget = MAX(budget, 1),
                         .passed_over_count = passed_over_count,
                         .passed_over = passed_over,
                         .max_slots = c->now.reserve ? 1 : INT_MAX,
                     },
                     count, loads);
    store_claim_places(args, c->process, place_count, places);
    if (c->now.is_probe)
        store_claim_probe_args(args, config->circuit_breaker.max_recovery_timeout_usec);
}

void claimer_claim(struct claimer *c)
{
    int64_t budget =
        (int64_t) c->config->delivery.max_claim_bytes - (int64_t) deliveries_bytes(c->parts.deliveries);
    const struct store_place *places = NULL;
    struct store_place mass = {0};
    size_t count = 0;
    bool reserve;
    int slots = deliveries_free_slots(c->parts.deliveries, c->callbacks.unsettled(c->userdata), &reserve);

    if (better_to_wait(c, slots, reserve, budget)) {
        sight_had(c->parts.sight);
        return;
    }
    uint64_t now = now_monotonic_usec();
    /* The last one may have taken longer than the time until the next: claims have their turn in between. */
    bool is_probe =
        !c->now.is_probe && probes_are_due(&c->probes, c->config->delivery.poll_interval_usec, now);
    bool ready_only = !is_probe && c->refusals.limit == 0 && deliveries_are_congested(c->parts.deliveries);
    bool is_mass = !is_probe && !ready_only && !c->now.is_mass && c->refusals.limit == 0 &&
                   masses_next(c->parts.masses, now, &mass);
    int64_t *last = is_probe     ? &c->last_integration.probe
                    : ready_only ? &c->last_integration.ready
                    : is_mass    ? &c->last_integration.mass
                                 : &c->last_integration.any;
    c->now = (struct claim){
        .is_probe = is_probe,
        .is_mass = is_mass,
        .mass = mass,
        .token = (int64_t) (random_u64() >> 1) | 1,
        .ready_only = ready_only,
        .first_integration = *last,
        .last_integration = last,
        .limit = refusals_limit(is_probe ? &c->probes.search : &c->refusals, slots),
        .was_rung = c->rung,
        .reserve = reserve,
        .last_slots = reserve && slots <= c->config->delivery.max_in_flight / 8,
        .sent_at = now_boottime_usec(),
    };
    const struct pg_statement *statement = choose_statement(c, &count, &places);
    if (!statement)
        return;
    fill_args(c, budget, count, places);
    c->missed = false;
    c->rung = c->rung && (is_probe || is_mass);
    if (is_probe)
        probes_begun(&c->probes, now);
    (void) queue_session_ask(c->parts.session, statement, claimer_on_claimed, c);
}
