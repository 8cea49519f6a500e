/* The integrations that this process has claimed for: endpoint, headers, and how many requests are under way.
 *
 * Main thread only. Kept up to date by each claim, which brings the settings along. */
#pragma once

#include "delivery/outage.h"
#include "delivery/pace.h"
#include "delivery/store_delivery.h"

struct integration {
    int64_t id;
    int in_flight;
    bool may_have_more;       /* its last claim used all its slots */
    bool slot_freed;          /* a request has ended since */
    struct store_place place; /* where its last claim ended */
    struct store_place far;   /* the furthest that a claim came */
    uint64_t claimed;         /* rows, since integrations_forget_places() */
    char *endpoint_url;
    int64_t fingerprint; /* of endpoint_url and auth_token */
    char *auth_token;    /* as the database has it */
    char *authorization; /* "Authorization: Bearer …", NULL = none */
    char *problem;       /* why nothing can be sent, or NULL; holds nothing of the token */
    uint64_t timeout_usec;
    int max_attempts;     /* 0 = the default */
    struct outage outage; /* as far as this daemon has seen */
    struct pace pace;
};

struct integrations; /* by id */

struct integrations *integrations_new(void);
void integrations_free(struct integrations *all);
/* The entry of a claimed row, made or brought up to date as far as the row tells. */
struct integration *integrations_note(struct integrations *all, const struct store_claimed *row);
/* The one with this id, or NULL. */
struct integration *integrations_find(struct integrations *all, int64_t id);
/* When the next backoff ends, as far as the last call of integrations_loads() saw; USEC_INFINITY = none. */
uint64_t integrations_next_end(const struct integrations *all);
/* Credentials are read again with the next claim. */
void integrations_forget_credentials(struct integrations *all);
/* Where the last claims ended, of those where more rows may wait as far as these claims tell, and slots are
 * free; each is taken for exhausted from now on until a claim says otherwise. The array lives until the next
 * call of one of these two. */
size_t integrations_take_places(struct integrations *all, const struct store_place **ret);
/* A little before the furthest claims, of those of which many rows were claimed: a look from there on walks
 * over few entries of claimed rows, and misses what was put back or committed long after its neighbours. */
size_t integrations_near_places(struct integrations *all, const struct store_place **ret);
/* The entries of claimed rows are gone: looks may begin at the start. */
void integrations_forget_places(struct integrations *all);
/* Those with requests under way, and those that may not have as many as they like. `last_slots`: none is for
 * silent ones. The array lives until the next call. */
size_t integrations_loads(struct integrations *all, uint64_t now, bool last_slots,
                          const struct store_load **ret);
