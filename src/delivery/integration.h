/* The integrations that this process has claimed for: endpoint, headers, and how many requests are under way.
 *
 * Main thread only. Kept up to date by each claim, which brings the settings along. */
#pragma once

#include "delivery/burst.h"
#include "delivery/circuit.h"
#include "delivery/failures.h"
#include "delivery/network_lost.h"
#include "delivery/outage.h"
#include "delivery/pace.h"
#include "delivery/rate.h"
#include "delivery/settings.h"
#include "delivery/store_delivery.h"

struct integration {
    int64_t id;
    char *name;                   /* its first characters */
    int in_flight, retries, held; /* requests, those of rows with a due time, and refused_results.h */
    enum store_used used;         /* by its last claim: more rows may wait for these slots */
    struct {
        struct store_place last; /* where its last claim ended */
        struct store_place far;  /* the furthest that a claim came */
        uint64_t claimed;        /* rows, since integrations_forget_places() */
        bool slot_freed;         /* of those that its last claim used */
        bool asked; /* for more by its rate_limit, though no slot was freed since they gave rows */
    } places;
    char *endpoint_url;
    int64_t fingerprint; /* of endpoint_url, auth_token and delivery_settings */
    struct {
        char *text;            /* auth_token, as the database has it */
        char *line;            /* "Authorization: Bearer …", NULL = none */
        char *problem;         /* why nothing can be sent with it, or NULL; holds nothing of the token */
        bool lacks_credential; /* the problem is a credential that cannot be used */
    } token;
    struct settings settings;
    struct {
        struct http_transfer *transfer; /* by which a token is asked for; NULL = none is */
        struct deliveries *all;
        struct delivery *waiting; /* for it */
        uint64_t client;          /* its number */
        uint64_t asked_at;        /* boot time */
        char *body;
        bool again; /* in the other form than before */
    } asking;
    struct {
        uint64_t timeout_usec;
        int max_attempts; /* 0 = the default */
    } request;
    struct outage outage; /* as far as this daemon has seen */
    struct failures failures;
    struct pace pace;
    struct rate rate;
    struct circuit circuit;
    struct reach reach;
    struct burst burst;
};

struct integrations; /* by id */

struct integrations *integrations_new(void);
void integrations_free(struct integrations *all);
/* Calls `visit` for each. */
void integrations_each(struct integrations *all, void (*visit)(struct integration *i, void *userdata),
                       void *userdata);
/* The entry of a claimed row, made or brought up to date as far as the row tells. */
struct integration *integrations_note(struct integrations *all, const struct store_claimed *row);
/* Why nothing can be sent to it, or NULL; holds nothing of a secret. *ret_lacks_credential: because a
 * credential cannot be used, which its owner mends without the database. */
const char *integration_problem(const struct integration *i, bool *ret_lacks_credential);
/* The header that its requests carry for their authentication, or NULL. */
const char *integration_authorization(const struct integration *i);
/* Nothing is to be sent that was claimed before: it asked for time, or its circuit is opening or open. */
bool integration_is_held(const struct integration *i, uint64_t now);
/* The one with this id, or NULL. */
struct integration *integrations_find(struct integrations *all, int64_t id);
/* The database knows what came of its requests: nothing is held back for that any more. `probe_at`: see
 * struct circuit. */
void integrations_circuit_stored(struct integrations *all, int64_t id, uint64_t probe_at);
/* When the next probe is due after `now`, of the circuits that this process has seen open; USEC_INFINITY =
 * none. */
uint64_t integrations_next_probe(const struct integrations *all, uint64_t now);
void integrations_count_reach(const struct integrations *all, uint64_t now, struct reach_count *ret);
/* When the next backoff ends, or more rows may be claimed for a rate_limit, as far as the last call of
 * integrations_loads() saw; USEC_INFINITY = none. */
uint64_t integrations_next_end(const struct integrations *all);
/* Credentials are read again with the next claim. */
void integrations_forget_credentials(struct integrations *all);
/* Where the last claims ended, of those where more rows may wait as far as these claims tell, and slots are
 * free; each is taken for exhausted from now on until a claim says otherwise. The array lives until the next
 * call of one of these three. */
size_t integrations_take_places(struct integrations *all, uint64_t now, const struct store_place **ret);
/* A little before the furthest claims, of those of which many rows were claimed: a look from there on walks
 * over few entries of claimed rows, and misses what was put back or committed long after its neighbours. */
size_t integrations_near_places(struct integrations *all, const struct store_place **ret);
/* Behind the furthest claims, of those that can be sent to without a TLS handshake. */
size_t integrations_ready_places(struct integrations *all, const struct http *http,
                                 const struct store_place **ret);
/* The entries of claimed rows are gone: looks may begin at the start. */
void integrations_forget_places(struct integrations *all);
/* Those with requests under way, and those that may not have as many as they like. `last_slots`: none is for
 * silent ones. The array lives until the next call. */
size_t integrations_loads(struct integrations *all, uint64_t now, bool last_slots,
                          const struct store_load **ret);
