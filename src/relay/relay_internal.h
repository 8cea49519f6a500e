/* What the relay's files share; nobody else includes it. Each file calls those below it:
 *
 * relay.c           the thread, and the order of its turns
 * relay_publish.c   a batch: read, flushed, sent, saved
 * relay_holes.c     have events come with ids that were passed?
 * relay_tail.c      is Kafka ahead of the database?
 * relay_producer.c  the producer and its topics
 * relay_session.c   the session with Postgres, and the lead
 *
 * A turn is a function of the relay that does one thing, waits a second at most, and returns how many
 * microseconds the relay waits before the next turn. */
#pragma once

#include "base/backoff.h"
#include "base/timeutil.h"
#include "base/trouble.h"
#include "base/worker.h"
#include "kafka/kafka_producer.h"
#include "kafka/kafka_tail.h"
#include "pg/pg.h"
#include "relay/event.h"
#include "relay/gaps.h"
#include "relay/relay.h"
#include "relay/relay_batch.h"
#include "relay/relay_names.h"
#include "relay/relay_topics.h"
#include "relay/store_relay.h"

#define RELAY_TURN_USEC USEC_PER_SEC

enum { NOW = 0 };

struct relay_session {
    struct pg *pg;
    bool leading;
    bool lost; /* at the end of this turn the session is closed, and the lead given up */
    struct store_relay_lead lead;
    struct store_relay_identity identity; /* to be saved with the next position */
    uint64_t check_at, compare_at;
    struct backoff backoff;
    enum relay_trouble shown; /* in the session's name */
    struct {
        uint64_t since;         /* monotonic: the leader cannot reach Kafka, 0 = it can */
        uint64_t look_at;       /* when it looks next for a daemon that could lead */
        uint64_t patience_usec; /* how long it goes on leading beside one; doubles with each lead given up */
        uint64_t stand_back_until;
    } cut_off;
    struct trouble refused, unidentified, without_wal;
    struct {
        uint64_t at;           /* monotonic; when it began */
        struct trouble stalls; /* the database has not answered for long */
    } turn;                    /* under way */
    struct {
        struct trouble unlike; /* its topics have other names */
        struct trouble hidden; /* its session is not ours to see */
        struct trouble stranger;
    } other;              /* the daemon that leads, or who has its lock */
    char *former_prefix;  /* of the topics of the last leader, where ours have other names; else NULL */
    bool refused_leading; /* it was refused what a leader does, not the session */
    int64_t refused_at;   /* real time */
};

/* The look at what Kafka has already, once for each lead. */
struct relay_tail {
    struct kafka_tail *reader;
    int64_t compared_at; /* see struct store_relay_start */
    bool mixed;          /* tables are of different times: what they remember of Kafka may be too new */
    struct store_relay_known *events; /* of ours, behind the position, that are not compared yet */
    size_t count, read;
    struct store_relay_known newest; /* of those that are lost; id 0 = none is */
    int64_t believed;                /* the highest id that may have been given out */
    size_t invented;                 /* messages with others, in our name */
    uint64_t begun_at, came_at;      /* monotonic; the look, and its last message */
    uint64_t anew_at;                /* when a new client begins, should nothing come */
    struct error why;                /* what did not answer last, "" = nothing */
    struct trouble waits, refused;
    bool known;
};

struct relay_kafka {
    struct kafka_producer *producer;
    size_t batch_step;    /* how much smaller than usual Kafka's batches are, 0 = usual */
    uint64_t batch_until; /* monotonic; when the usual size is tried again */
    struct relay_topics topics;
    bool topics_ready;
    struct relay_tail tail;
    uint64_t look_at;
    uint64_t leaders_at; /* monotonic; the next look whether each partition has a leader again */
    uint64_t reached_at; /* monotonic; when it is written next how far Kafka has our messages */
    size_t places;       /* of these, in how many partitions */
    struct backoff backoff;
    struct trouble away, leaderless, topics_missing, topics_forbidden, refuses_batches;
    struct {
        uint64_t ask_at; /* monotonic */
        struct trouble topics;
    } compacted;
    bool why_said; /* why it is away: at first no connection may have come so far that it fails */
};

/* How far the ledger is read and published. */
struct relay_position {
    struct gaps gaps;
    bool flushed;        /* the batch may be sent: Postgres cannot lose its rows */
    uint64_t idle_usec;  /* the last wait without work */
    uint64_t rows_at;    /* monotonic; when the last read that found rows began */
    uint64_t rest_until; /* no read before */
    /* The last read left rows to the next one, as far as it could see: */
    enum { NOTHING_WAITS, WITHIN_GAPS, ABOVE_GAPS } waiting;
    uint64_t backlog_since; /* monotonic; rows above the gaps wait, 0 = they do not */
    uint64_t overtake_at;
    uint64_t holes_at;       /* monotonic; the next look into holes */
    int64_t holes_below;     /* where the walk through all of them goes on; 0 = at the newest */
    struct trouble refilled; /* events have ids that had been passed */
};

/* The batch on its way to Kafka. */
struct relay_sending {
    struct event_builder builder;
    struct relay_names names;
    struct relay_batch batch;
    struct backoff backoff;
    uint64_t progress_at;   /* when Kafka last took a message, or there was no message to take */
    struct error no_broker; /* why no broker could be reached since, "" = brokers are reached */
    struct {
        uint64_t since;         /* monotonic; Kafka takes nothing, though it is whole; 0 = not so */
        uint64_t patience_usec; /* for how long; doubles with each new producer that changes nothing */
    } stuck;
    int64_t stopped_on; /* the event that Kafka refused, 0 = none */
};

struct relay {
    struct config *config;
    struct worker worker;
    int wake_fd;
    int abandon_fd; /* raised when the thread must not wait for the database's last answer either */
    struct relay_stats stats;
    struct relay_session session;
    struct relay_kafka kafka;
    struct relay_position position;
    struct relay_sending sending;
};

/* --- relay_session.c -------------------------------------------------------------------------- */

uint64_t relay_open_session(struct relay *relay);
/* A turn begins, and has ended. */
void relay_begin_turn(struct relay *relay);
void relay_end_turn(struct relay *relay);
uint64_t relay_take_lead(struct relay *relay);
/* A session without work may have ended meanwhile, and the schema may have changed. */
uint64_t relay_check_session(struct relay *relay);
/* A statement was not successful (an outcome or an error of store_relay.h): the relay starts over with a new
 * session. Returns when. */
uint64_t relay_lose_session(struct relay *relay, int r, const struct error *err);
/* It was not refused: the session, or with `leading` what a leader does. */
void relay_works(struct relay *relay, bool leading);
/* Kafka was compared: the next leader need not look at what is older, and looks at our topics. 0, or an error
 * of pg_query(). */
int relay_note_compared(struct relay *relay, struct error *err);
/* A leader that cannot reach Kafka for long lets another daemon try. */
void relay_consider_others(struct relay *relay);
/* For anubisctl status, which knows the database alone. That the relay is stopped on an event is saved with
 * the position. */
void relay_show_trouble(struct relay *relay);

/* --- relay_producer.c ------------------------------------------------------------------------- */

uint64_t relay_open_producer(struct relay *relay);
void relay_drop_producer(struct relay *relay); /* messages on their way will be sent again */
/* Kafka refuses a batch as a whole, though one event may be the cause, or none (each fits, together they do
 * not): the next producer sends fewer events together. False when each event went alone already. */
bool relay_shrink_batches(struct relay *relay);
void relay_restore_batches(struct relay *relay); /* after a while, when nothing is on its way */
uint64_t relay_look_at_topics(struct relay *relay);
uint64_t relay_watch_kafka(struct relay *relay); /* when nothing is on its way: does Kafka answer? */
void relay_kafka_lost(struct relay *relay, const char *words);
/* Messages have been on their way for long, and nothing is known of Kafka's trouble: asks what it may be. */
void relay_kafka_silent(struct relay *relay);
void relay_kafka_back(struct relay *relay);
/* Messages have been on their way for long, though Kafka answers and each partition has a leader: the client
 * keeps them to itself, as it may after the death of the broker that led (librdkafka 2.0.2), or the brokers
 * refuse them for now. True once it has lasted: a new producer may help. */
bool relay_producer_is_stuck(struct relay *relay);

/* --- relay_tail.c ----------------------------------------------------------------------------- */

/* Before the first event of a lead: when Kafka has newer events of this installation than the database has
 * ids, ids are left out. Every partition has to answer; nothing is published before. */
uint64_t relay_look_at_tail(struct relay *relay);
void relay_end_tail(struct relay *relay); /* the next lead looks again */

/* --- relay_holes.c ---------------------------------------------------------------------------- */

/* Between batches, now and then: ids that were passed without an event, and that one has now, become gaps
 * again. 0, or an error of pg_query(). */
int relay_look_into_holes(struct relay *relay, struct error *err);

/* --- relay_publish.c -------------------------------------------------------------------------- */

uint64_t relay_read_batch(struct relay *relay);
/* Before an event of the batch leaves: Postgres must not lose it in a crash (a row committed asynchronously
 * is visible before it is on disk, and its id would be given out again), and new gaps get their horizon. */
uint64_t relay_ensure_flushed(struct relay *relay);
/* Sends and waits for reports; when all of the batch is delivered, saves the position. */
uint64_t relay_publish(struct relay *relay);
uint64_t relay_idle(struct relay *relay); /* there is no work: how long to wait */
