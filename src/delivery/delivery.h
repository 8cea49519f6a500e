/* Deliveries under way: one claimed subscription each, from its claim to its outcome.
 *
 * Main thread only. Builds the request, hands it to http, turns the result into a settlement. */
#pragma once

#include <systemd/sd-event.h>

#include "config/config.h"
#include "delivery/integration.h"
#include "delivery/store_delivery.h"

struct deliveries;
struct delivery;

struct deliveries_callbacks {
    /* A delivery has ended; takes the settlement over. integration_has_more: a slot got free where rows may
     * wait for it. */
    void (*delivered)(struct store_settlement *settlement, bool integration_has_more, void *userdata);
    void (*wait_wanted)(const struct store_wait *wait, void *userdata);
    /* What came of a request is to be noted for the integration's circuit. */
    void (*circuit_note)(const struct store_circuit_rules *rules, const struct store_circuit *note,
                         void *userdata);
    /* The institution refused the row of a delivery for its data, and deliveries_decided() is to be called
     * with it; with NULL it took one, after refusals. */
    void (*verdict_wanted)(const struct store_refusal *refusal, struct delivery *d, void *userdata);
    /* A shortage of this machine's that kept an integration from being sent to may be over. */
    void (*reachable)(void *userdata);
};

int deliveries_new(struct deliveries **ret, sd_event *event, struct config *config,
                   const struct deliveries_callbacks *callbacks, void *userdata, struct error *err);
void deliveries_free(struct deliveries *d);
void deliveries_reload(struct deliveries *d, struct config *config);
/* Its send_usec is from now on, and less than zero when that is over. */
void deliveries_start(struct deliveries *d, const struct store_claimed *row, int64_t token, bool is_probe);
void deliveries_cancel_all(struct deliveries *d);
int deliveries_count(const struct deliveries *d);
bool deliveries_network_lost(const struct deliveries *d);
size_t deliveries_bytes(const struct deliveries *d); /* of payloads held */
/* See integrations_loads(). */
size_t deliveries_loads(struct deliveries *d, bool last_slots, const struct store_load **ret);
/* Monotonic: when the next integration has waited long enough, as far as this daemon knows; past or
 * USEC_INFINITY = none waits. */
uint64_t deliveries_wait_until(const struct deliveries *d);
/* The database knows that this integration waits: it has the say from now on, and others may end it there. */
void deliveries_wait_stored(struct deliveries *d, int64_t integration_id);
/* Whether a row that was refused for its data fails, or is tried again; it is over then. */
void deliveries_decided(struct delivery *d, bool fails);
/* What the database says of an integration's refusals, and why it is paused where it is. */
void deliveries_told(struct deliveries *d, const struct store_verdict *verdict, const char *reason);
struct integrations *deliveries_integrations(struct deliveries *d);
/* For new claims. A result that waits for the database (`unsettled` of them) takes no slot from the next
 * request, until as many wait as there are slots: more requests would only add to them. The last quarter is
 * for integrations that have no request under way: one each, so that those that are slow or silent cannot
 * take all slots from the others. */
int deliveries_free_slots(const struct deliveries *d, size_t unsettled, bool *ret_reserve);
bool deliveries_are_congested(const struct deliveries *d);                            /* see http.h */
size_t deliveries_ready_places(struct deliveries *d, const struct store_place **ret); /* see integration.h */
void deliveries_tokens(const struct deliveries *d, void (*note)(int64_t token, void *userdata),
                       void *userdata);

struct outcome_rules deliveries_rules(const struct config *config);
