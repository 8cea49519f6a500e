/* Where a partition goes on: the database's offset against the log and what the group has committed. What is
 * committed: consumer_commit_offsets() in consumer_position.c. Pure. */
#pragma once

#include "base/util.h"

struct offset_facts {
    int64_t next;       /* consumer_offsets.next_offset, -1 = the database has never seen the partition */
    int64_t first, end; /* of the log: its oldest message, and behind its newest */
    int64_t committed;  /* what Kafka holds for the group, -1 = nothing */
    bool patient;       /* an end before `next` may still be a new leader's that is catching up */
    bool doubted;       /* the broker was away, or lacked `next` for a while */
};

enum offset_decision {
    OFFSET_AGREED,    /* go on at `next` */
    OFFSET_FIRST,     /* new to the database: at `first`; what Kafka holds may be another installation's */
    OFFSET_FORGOTTEN, /* at `first`: Kafka no longer knows that the group was here */
    OFFSET_GONE,      /* at `first`: messages were removed before they were read */
    OFFSET_BEYOND,    /* at `first`: the log ends before what was read */
    OFFSET_DOUBTED, /* some way before `next`: a broker that lost its end may have other messages there now */
    OFFSET_WAIT,    /* look again */
};
/* Reading a log from its beginning is safe always: what was handled is known. */
enum offset_decision decide_offset(const struct offset_facts *facts);
