/* Events that Kafka let go before a consumer group had read them: they are published again. A group that
 * finds a part of its log gone notes up to where it has to read before that can be told; then the ledger is
 * compared with the group's marks, some events at a time. What the relay is to publish again stands in
 * relay_holes. See monitor_unread.sql.
 *
 * On the monitor's thread and session, of one daemon at a time. */
#pragma once

#include "base/trouble.h"
#include "pg/pg.h"

struct unread {
    char *topic, *groups, *partitions,
        *words;        /* as sql_unread_ready gives them; NULL = no look is under way */
    int64_t at, below; /* ids: looked at up to this one, and to be looked at up to this one */
    int64_t found, first, last;
    struct trouble unable; /* the database refuses */
    bool going;            /* from topic to topic */
    bool resting; /* the relay has just published some again, and groups may not have handled them yet */
};

/* In microseconds from now, when to run it again. */
uint64_t unread_run(struct unread *u, struct pg *pg);
void unread_end(struct unread *u); /* what was under way begins anew */
