/* The integrations that this process has claimed for: endpoint, headers, and how many requests are under way.
 *
 * Main thread only. Kept up to date by each claim, which brings the settings along. */
#pragma once

#include "delivery/outage.h"
#include "delivery/store_delivery.h"

struct integration {
    int64_t id;
    int in_flight;
    bool may_have_more;       /* its last claim used all its slots */
    struct store_place place; /* where its last claim ended */
    char *endpoint_url;
    unsigned moves;      /* how often that has changed */
    char *auth_token;    /* as the database has it */
    char *authorization; /* "Authorization: Bearer …", NULL = none */
    const char *problem; /* why nothing can be sent, or NULL */
    uint64_t timeout_usec;
    int max_attempts;     /* 0 = the default */
    struct outage outage; /* as far as this daemon has seen */
};

struct integrations; /* by id */

struct integrations *integrations_new(void);
void integrations_free(struct integrations *all);
/* The entry of a claimed row, made or brought up to date as far as the row tells. */
struct integration *integrations_note(struct integrations *all, const struct store_claimed *row);
/* Those where more rows may wait, as far as the last claims tell; each is taken for exhausted from now on
 * until a claim says otherwise. The array lives until the next call. */
size_t integrations_take_places(struct integrations *all, const struct store_place **ret);
/* Those with requests under way: fills arrays that live until the next call, returns how many. */
size_t integrations_busy(struct integrations *all, const int64_t **ret_ids, const int **ret_in_flight);
