/* Integrations whose rows take long to look through, and that are therefore looked at apart from all others.
 *
 * A look walks over the entries of subscriptions_due whose rows nobody may see, one by one: those of a
 * transaction that is still open above all, or of rows that are done while somebody holds an old snapshot.
 * One institution's hundreds of thousands of them would keep the rows of all others waiting. So when looks
 * at all integrations get slow, each is weighed (claim_weigh.sql). Those that are to blame are passed over
 * from then on, and one of them at a time is looked at by itself, with a pause of ten times as long.
 *
 * Pure: no clock. Times are monotonic, in microseconds. A zeroed one has none. */
#pragma once

#include "base/util.h"
#include "delivery/store_delivery.h"

#define MASSES_MAX 16
/* What is long, for one of them; and it is a mass until it takes less than half as long. */
#define MASS_USEC (50 * USEC_PER_MSEC)

struct mass {
    int64_t integration_id;
    uint64_t took; /* the last look at it */
};

struct masses {
    struct mass all[MASSES_MAX]; /* in the order of their ids */
    size_t count, turn;
    uint64_t again_at; /* the next look at one of them */
    uint64_t took;     /* the last look at all integrations */
    bool wanted;       /* integrations are to be weighed */
    bool doubted;      /* the one whose turn it is, as a look at it was quick */
    uint64_t weigh_at; /* not before */
    int fruitless;     /* weighings in a row */
    struct store_load *loads;
    struct store_place *places;
};

void masses_free(struct masses *m);
/* A look at all integrations took so long. */
void masses_saw(struct masses *m, uint64_t took, uint64_t now);
/* Integrations were weighed, which took so long: these are heavy. */
void masses_weighed(struct masses *m, size_t count, const struct mass *found, uint64_t took, uint64_t now);
/* Whether it is time to look at one, and from which place on. */
bool masses_next(const struct masses *m, uint64_t now, struct store_place *ret);
/* How long until then. */
uint64_t masses_wait(const struct masses *m, uint64_t now);
/* That look took so long. When it was quick, the one is to be weighed by itself: rows that are due later are
 * in the way of others, but not of such a look. */
void masses_looked(struct masses *m, uint64_t took, uint64_t now);
/* Its weight, when it was doubted. */
void masses_judged(struct masses *m, uint64_t took, uint64_t now);

/* What a look at all integrations is told, with the masses to be passed over: they have no slots, and a
 * place, as no step of the look walks over the entries of an integration with one. Until the next call. */
size_t masses_loads(struct masses *m, size_t count, const struct store_load *loads,
                    const struct store_load **ret);
size_t masses_places(struct masses *m, size_t count, const struct store_place *places,
                     const struct store_place **ret);
