/* What the consumer*.c files share: one thread's state. Nobody else includes it.
 *
 * consumer.c           starting and joining the threads of the groups
 * consumer_loop.c      a thread's turns: its session, its member, and when to do what
 * consumer_position.c  which partitions are ours, and where each goes on
 * consumer_batch.c     from messages to one transaction
 * inbox.c              messages that are no events of ours
 * stop.c               a group that cannot handle most of a batch stops
 * homes.c              is an event in the partition where it belongs?
 * held_back.c          what is said of a partition that a transaction of others keeps from being read
 * unreadable.c         what the library cannot unpack
 * denied.c             what Kafka's rules of access forbid
 * strangers.c          what is said of messages that are passed over, or come where none was to come
 * dead_letters.c       what becomes of a message that cannot be handled */
#pragma once

#include "base/backoff.h"
#include "base/trouble.h"
#include "base/worker.h"
#include "consumers/bitmap.h"
#include "consumers/consumer.h"
#include "consumers/handler.h"
#include "consumers/store_consumer.h"
#include "crypto/sha256.h"
#include "kafka/kafka_consumer.h"
#include "pg/pg.h"

/* A partition that the group gave us. */
struct consumer_partition {
    char *topic;
    int32_t number;
    enum event_type type; /* EVENT_TYPES = it is one of the group's inbox */
    bool started;         /* it is being read, from `next` on */
    bool read;            /* it was, since it was given to us */
    int64_t next;   /* consumer_offsets.next_offset as we left it; no one else changes it while we own it */
    bool committed; /* Kafka was seen to hold an offset of the group */
    bool told;      /* and it is ours */
    int64_t careful_until; /* messages below it are kept until their transaction is over */
    bool doubted;          /* Kafka was away, or lacked `next`: see offset_decision.h */
    int64_t known_until;   /* it was read up to here before: foreign messages below are counted already */
    struct {
        int64_t from, to;  /* what is read once more because the log is in doubt */
        bool whole;        /* from its beginning */
        bool farther;      /* it begins with new events */
        bool remade;       /* its topic was made anew */
        bool said;         /* that it has new ones */
    } again;               /* see late.c */
    uint64_t beyond_since; /* since when the log has ended before next_offset, 0 = it does not */
    struct held_back {
        int64_t next, end; /* as they were at the last look; end -1 = nothing was held back */
        uint64_t since;
        bool said;
    } held; /* see held_back.c */
    struct unreadable {
        int64_t at;        /* the offset where reading stands still */
        uint64_t since;    /* monotonic; 0 = it does not */
        bool passed;       /* it is passed over, with the next batch */
    } unreadable;          /* see unreadable.c */
    struct bitmap handled; /* what the database holds, and in a transaction what it will hold */
    struct homes homes;
    int64_t window_next; /* what the transaction under way moves next_offset to, -1 = it has none of ours */
    int64_t window_foreign; /* foreign messages in it */
    int64_t window_unknown; /* and those of them that are unknown */
};

/* What is left of a message in dead_letters: the more the database refuses, the less. Key and value are
 * bytes, which it takes in any encoding; headers are text there. */
enum letter_extent { LETTER_WHOLE, LETTER_ASCII_HEADERS, LETTER_PLACE_ONLY };

/* A message that was read: an event, an entry of the inbox, foreign, or (with a fault) a dead letter. */
struct consumer_item {
    struct consumer_partition *partition;
    int64_t offset, written_ms; /* its time in Kafka, since 1970; 0 = not told */
    struct message_event event;
    const char *fault;         /* a constant, or the batch's refusal */
    bool foreign;              /* passed over */
    bool unknown;              /* foreign, but in our name: the ledger does not have it, or not there */
    bool repeated;             /* it was handled when its topic had more partitions */
    bool late;                 /* new, where the partition was read before */
    bool known;                /* it was put aside before, and counts for no stop */
    enum letter_extent extent; /* how much of it the database lets be put aside */
    struct kafka_kept *kept;   /* dead letters need it; NULL = let go */
    void *entry;               /* of the inbox */
};

/* In the order of arrival, which is that of each partition. */
struct consumer_batch {
    struct consumer_item *items;
    size_t count, capacity;
    size_t bytes; /* of what is kept */
    bool careful;
    uint64_t first_at;
    bool after_many;       /* the one before had many events */
    struct sha256 *sha256; /* of the values; NULL = no handler wants them */
    char refusal[64];
};

/* The session with the database. */
struct consumer_session {
    struct pg *pg; /* NULL = there is none */
    char installation[INSTALLATION_TEXT];
    struct trouble trouble; /* that the database refuses this session alone */
    bool while_applying;    /* the trouble is over only once a batch was applied */
    struct trouble alone;   /* we get no session, while deliveries have theirs */
    struct backoff backoff;
    uint64_t retry_at;
    uint64_t compare_at; /* the next look at offsets, see consumer_find_moved() */
    struct {
        int64_t topics; /* rows of relay_topics, by the transaction under way; -1 = it has not looked */
        bool alone;     /* events may be marked under another prefix: transactions are alone with the marks */
    } marks;            /* see homes.c */
};

/* The look for partitions that no member reads, see consumer_find_unassigned(). */
struct consumer_unassigned {
    bool seen;
    uint64_t look_at, pause;
    uint32_t names; /* that were given up for it */
};

/* The member of the Kafka group. */
struct consumer_member {
    struct kafka_consumer *client; /* NULL = there is none */
    char *name;                    /* group.instance.id, when it is ours to use */
    bool name_taken;               /* the lock on it is held by our session */
    uint64_t name_wanted_at;       /* since when we ask for it, 0 = we do not */
    struct trouble away;           /* no broker can be reached */
    uint64_t doubted_until;        /* partitions taken over before are doubted, see offset_decision.h */
    bool topics_missing;
    struct trouble missing;
    struct trouble denied;    /* by Kafka's rules of access */
    const char *denied_topic; /* NULL = the group */
    uint64_t denied_ask_at;   /* monotonic */
    bool shared_said;         /* that another installation's events are in our topics */
    struct error last_said;   /* of the other troubles */
    struct consumer_unassigned unassigned;
    struct {
        struct trouble trouble;   /* another program is a member of our group */
        struct trouble hidden;    /* or has it for itself */
        struct trouble elsewhere; /* a member that is like ours has no session with this database */
        uint64_t look_at;         /* monotonic */
    } strangers;
    struct trouble outside; /* we are no member of it, though Kafka answers */
    struct trouble waits;   /* the same, whichever client it is */
    struct {
        struct trouble trouble; /* another group handles our read model */
        uint64_t look_at;       /* monotonic */
        uint64_t quiet_until;   /* that somebody was faster was said */
    } rival;
    struct backoff backoff;
    uint64_t retry_at;
};

struct consumer {
    const struct consumer_group *group;
    struct config *config;
    struct worker worker;
    const _Atomic bool *database_up; /* of the deliveries */
    char *group_id;                  /* anubis-integration-group */
    char *instance;                  /* of this thread, in any group */
    char *name;                      /* for the journal: the group, and the thread where there are several */
    char **topics;                   /* NULL at the end; topic_types alike, EVENT_TYPES = the inbox */
    enum event_type topic_types[EVENT_TYPES + 1];
    struct {
        _Atomic bool has_database; /* and works with it */
        _Atomic int64_t behind;    /* messages of our partitions that are to be handled, a second ago */
    } told;                        /* for other threads to read */

    struct consumer_session session;
    struct consumer_member kafka;
    uint64_t look_at, start_at;

    struct consumer_partition **partitions;
    size_t partition_count;

    struct consumer_batch batch;
    uint64_t applied_at;
    struct consumer_stop {
        _Atomic bool is_stopped; /* other threads read it */
        uint64_t passes_until;   /* what cannot be handled is put aside, however much; 0 = not */
        bool marks_known;    /* they were compared with the counters, or somebody knows that they differ */
        bool was_stopped;    /* what an operator lets go on all the same is his decision */
        uint64_t compare_at; /* monotonic; not again before */
        size_t ours, faults; /* of the batches before, the older they are the less they count */
    } stop;                  /* of the group, see stop.c */
    struct consumer_unknown {
        uint64_t count; /* of unknown events that were passed over and not said yet */
        uint64_t quiet_until;
    } unknown;
};

/* --- consumer_loop.c -------------------------------------------------------------------------- */

void *consumer_run(void *consumer); /* until the stop descriptor is raised */

/* --- consumer_position.c ---------------------------------------------------------------------- */

/* NULL when it is not ours, or parked. */
struct consumer_partition *consumer_started(struct consumer *c, const char *topic, int32_t number);
void consumer_on_assigned(struct consumer *c, const struct kafka_poll *poll); /* KAFKA_ASSIGNED */
void consumer_on_revoked(struct consumer *c, const struct kafka_poll *poll);  /* KAFKA_REVOKED, batch empty */
/* Stops reading and forgets what the database held; the partitions remain ours. The batch must be empty. */
void consumer_park_all(struct consumer *c);
/* Reads it from its offset in the database again. */
void consumer_read_on(struct consumer *c, struct consumer_partition *p);
void consumer_park_one(struct consumer *c, const char *topic, int32_t number);
/* Where new events may begin before what was read again, more is read: late.c. The batch must be empty. */
void consumer_read_farther(struct consumer *c);
/* A topic that was made anew: what is at our offsets is something else. */
void consumer_park_topic(struct consumer *c, const char *topic);
/* Starts what is parked at the offset that the database (else Kafka, else the log) gives. 0, or an error or
 * outcome of the database; what Kafka does not tell yet stays parked. */
int consumer_start_parked(struct consumer *c, struct error *err);
bool consumer_has_parked(const struct consumer *c);
/* Every ten seconds, between batches; *ret: somebody has moved the offset of a partition that is being read.
 * As pg_query(). */
int consumer_find_moved(struct consumer *c, bool *ret, struct error *err);
void consumer_forget_all(struct consumer *c); /* the member is gone */
void consumer_drop_cache(struct consumer *c); /* the bitmaps are not what the database holds */
/* Commits to Kafka how far we are, for tools that show lag. False when it has forgotten the group's offset
 * since: the topic was made anew, so start over. */
bool consumer_commit_offsets(struct consumer *c);
void consumer_measure(struct consumer *c); /* sets `behind` */

/* --- consumer_batch.c ------------------------------------------------------------------------- */

void consumer_take(struct consumer *c, const struct kafka_message *message);
/* An empty item at its end. */
struct consumer_item *consumer_append(struct consumer_batch *b);
bool consumer_batch_full(const struct consumer *c);
/* When the batch is to be applied, USEC_INFINITY when it is empty. */
uint64_t consumer_batch_due(const struct consumer *c);
void consumer_batch_drop(struct consumer *c);

enum {
    APPLY_DONE = 0,
    APPLY_FENCED = 1, /* somebody else owns a partition, or an operator moved its offset */
    APPLY_CAREFUL,    /* to be read again with care: something in it cannot be handled */
    APPLY_STOPPED,    /* nothing of it: the group has stopped */
};
/* Applies the batch: one transaction, or several when the database refuses something in it. Whatever it
 * returns, the batch is empty afterwards, and what was not applied lies behind next_offset in the database:
 * but for APPLY_DONE, park everything and start over. An outcome of above or an error of pg_query(). */
int consumer_apply(struct consumer *c, struct error *err);

/* --- inbox.c ---------------------------------------------------------------------------------- */

/* Reads a message of the inbox into its item. It is kept: nothing that comes again would tell its fault. */
void consumer_read_inbox(struct consumer *c, struct consumer_item *item, const struct kafka_message *message);
/* Hands the entries to the inbox, in the transaction under way. *ret_rejected: some have got their fault, and
 * the transaction is to be rolled back and done again without them. PG_DONE or as pg_query(). */
int consumer_apply_inbox(struct consumer *c, struct consumer_item *items, size_t item_count,
                         bool *ret_rejected, struct error *err);

/* --- held_back.c ------------------------------------------------------------------------------ */

/* Every ten seconds: says when a partition goes on and cannot be read. */
void consumer_look_behind(struct consumer *c);

/* --- denied.c --------------------------------------------------------------------------------- */

/* A person has to change Kafka's rules: alert-worthy, though nothing is lost. Said once. */
void consumer_say_denied(struct consumer *c, const struct kafka_poll *poll);
/* topic: a message of it was read; NULL = the group has given partitions out. */
void consumer_say_allowed(struct consumer *c, const char *topic);
/* Every few seconds, while a topic is denied. */
void consumer_ask_whether_allowed(struct consumer *c);

/* --- static_member.c -------------------------------------------------------------------------- */

/* Sets kafka.name, when the installation is known. */
void consumer_name_member(struct consumer *c);
enum { MEMBER_NAMED = 1, MEMBER_NAMELESS, MEMBER_LATER };
/* May we join under our name? One of the above, or an error of the database. */
int consumer_choose_name(struct consumer *c, struct error *err);
/* Now and then: *ret tells that partitions of the topics have no reader for longer, which is said. PG_DONE or
 * as pg_query(). */
int consumer_find_unassigned(struct consumer *c, bool *ret, struct error *err);
/* Says that we have been no member for long, though Kafka answers: a client that was given a wrong address of
 * the group's coordinator keeps it, and only a new one asks again. */
bool consumer_is_outside(struct consumer *c);

/* --- stop.c ----------------------------------------------------------------------------------- */

/* Whether most of the batch cannot be handled, or of the last batches where they are small. That looks like
 * our own fault, not the messages': so they are not put aside, and the group stops in all daemons until an
 * operator has looked. */
bool consumer_must_stop(const struct consumer *c);
/* The batch was applied. */
void consumer_note_faults(struct consumer *c);
/* Stops it, unless it finds that so many were put aside before and are only read again: PG_DONE then, or
 * APPLY_STOPPED, or an error of pg_query(). */
int consumer_stop(struct consumer *c, struct error *err);
/* Somebody else has written marks or offsets: before anything starts they are compared with the counters. */
void consumer_doubt_marks(struct consumer *c);
/* Finds out whether the group is stopped: then nothing is to be started. As pg_query(). */
int consumer_ask_stopped(struct consumer *c, struct error *err);

/* --- homes.c ---------------------------------------------------------------------------------- */

enum { STRAYS_BESIDE = 1 }; /* roll back, and ask again: from now on marks.alone is set */
/* Which of the items at these places are not in the partition where they belong; and notes those that are
 * repeated. The above, or as pg_query(). */
int consumer_find_strays(struct consumer *c, struct consumer_item *items, const size_t *at, size_t count,
                         bool *strays, struct error *err);

/* --- late.c ----------------------------------------------------------------------------------- */

/* Where to read on in a log that is in doubt, which begins at `first` and was read up to `next`. */
int64_t consumer_read_again_from(struct consumer_partition *p, int64_t first, int64_t next);
/* New events that stood where others had been read: says so, once for a partition that was begun again. */
void consumer_note_late(const struct consumer *c, const struct consumer_item *items, size_t item_count);

/* --- unreadable.c ----------------------------------------------------------------------------- */

/* What comes next in poll->partitions[0] cannot be read, and all before it is handled. */
void consumer_pass_unreadable(struct consumer *c, const struct kafka_poll *poll);

/* --- strangers.c ------------------------------------------------------------------------------ */

/* Says that another daemon handles our events in a group of another name. */
void consumer_find_rival(struct consumer *c);
/* A batch was rolled back, since somebody else was faster. */
void consumer_say_fenced(struct consumer *c);
/* A foreign message was read: says once when another installation's events are in our topics. */
void consumer_say_shared(struct consumer *c, const struct kafka_message *message);
/* Does it count among those that are passed over? Not when the partition was read to here before. */
bool consumer_is_counted(const struct consumer_item *item);
/* Counts unknown events, in the transaction under way. As pg_query(). */
int consumer_count_unknown(struct consumer *c, const struct consumer_item *items, size_t item_count,
                           struct error *err);
/* Unknown events were passed over for good: says so, at most once a minute. */
void consumer_say_unknown(struct consumer *c, const struct consumer_item *items, size_t item_count);
/* Says how many there were since. */
void consumer_recall_unknown(struct consumer *c);

/* --- dead_letters.c --------------------------------------------------------------------------- */

/* Writes those of the items that have a fault, in the transaction under way. */
int consumer_put_aside(struct consumer *c, const struct consumer_item *items, size_t item_count,
                       struct error *err);
/* Names the first of them in the journal, once they are written. */
void consumer_say_dead_letters(const struct consumer *c, const struct consumer_item *items,
                               size_t item_count);
