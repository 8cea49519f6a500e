/* Whether claims see what is due: what keeps them from looking for ten seconds stands in the journal and in
 * systemctl status, as do the institutions that are looked at apart (masses.h).
 *
 * Main thread only. A zeroed one has nothing to say. */
#pragma once

#include "base/trouble.h"
#include "delivery/look.h"
#include "delivery/masses.h"
#include "delivery/queue_session.h"

struct sight {
    uint64_t
        wanted_since; /* monotonic: it was time for a look, and there was none since; 0 = there was one */
    struct trouble blind, apart;
    char *words; /* for systemctl status; NULL = nothing */
};

void sight_free(struct sight *s);
/* It is time for a look. */
void sight_wanted(struct sight *s, uint64_t now);
/* There was one, or no use for one. */
void sight_had(struct sight *s);
/* Once a second. */
void sight_check(struct sight *s, const struct queue_session *session, const struct looks *looks,
                 const struct masses *masses, uint64_t now);
