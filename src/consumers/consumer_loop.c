/* A consumer thread: its session, its Kafka member, its turns. See consumer_internal.h.
 *
 * Each thread owns its session, its member and its batch; threads share nothing. When anything is out of
 * order (the database away, somebody else's write, a lost answer) a thread parks its partitions, goes on
 * polling so that its membership stays, and starts over from what the database says. No wait is longer than
 * the daemon lets a heartbeat pause. */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"
#include "consumers/consumer_internal.h"
#include "consumers/store_consumer.h"
#include "pg/pg_session.h"

#define TURN_USEC (250 * USEC_PER_MSEC)
#define CONNECT_MAX_USEC (10 * USEC_PER_SEC)
/* A batch takes milliseconds; what takes longer is a database in trouble. */
#define STATEMENT_MAX_USEC (8 * USEC_PER_SEC)
#define LOCK_USEC (5 * USEC_PER_SEC)
/* After a crash our former session may hold the member's name until the server has noticed. */
#define MEMBER_WAIT_USEC (2 * USEC_PER_SEC)
#define LOOK_USEC (1 * USEC_PER_SEC)
#define LOOK_MS 500
/* In an outage deliveries may notice a little later than we do. */
#define REFUSED_PATIENCE_USEC (5 * USEC_PER_SEC)

static bool stopping(const struct consumer *c)
{
    struct pollfd fd = {.fd = c->stop_fd, .events = POLLIN};

    return poll(&fd, 1, 0) > 0;
}

static void wait_stop(const struct consumer *c, uint64_t usec)
{
    struct pollfd fd = {.fd = c->stop_fd, .events = POLLIN};

    poll(&fd, 1, (int) (usec / USEC_PER_MSEC));
}

/* --- the database session --------------------------------------------------------------------- */

/* True when it has been so for a while: a role's or the server's limit of connections, say. */
static bool refused_alone(struct consumer *c)
{
    uint64_t now = now_monotonic_usec();

    if (c->pg || !*c->database_up)
        c->pg_refused_since = 0;
    else if (!c->pg_refused_since)
        c->pg_refused_since = now;
    return c->pg_refused_since && now - c->pg_refused_since >= REFUSED_PATIENCE_USEC;
}

/* That the database is away, lets nobody in or lacks the schema is said by the dispatcher; what it refuses to
 * this session alone is said here, once, until it works again: `applying` trouble until a batch was applied,
 * other until the session stands. */
static void database_trouble(struct consumer *c, int reason, bool applying, const struct error *err)
{
    bool alone = refused_alone(c);
    bool ours = alone || (c->pg && (reason == -EBADMSG || reason == -EPERM));

    if (alone && !c->pg_troubled)
        log_event(LOG_WARNING, MSG_DATABASE_LOST, NULL,
                  "%s: has no session with the database, while deliveries have theirs: %s; trying again",
                  c->name, err->text);
    else if (ours && !c->pg_troubled)
        log_event(LOG_WARNING, MSG_DATABASE_LOST, NULL,
                  "%s: could not write to the database: %s; trying again", c->name, err->text);
    else
        log_debug("%s: waits for the database: %s", c->name, err->text);
    c->pg_troubled |= ours;
    c->pg_troubled_applying |= applying;
    c->stats.database_up = false;
    pg_close(TAKE_PTR(c->pg));
    c->pg_retry_at = now_monotonic_usec() + backoff_next_usec(&c->pg_backoff);
}

static void database_works(struct consumer *c, bool applying)
{
    if (c->pg_troubled_applying && !applying)
        return;
    if (c->pg_troubled)
        log_event(LOG_NOTICE, MSG_DATABASE_BACK, NULL, "%s: the database takes it again", c->name);
    else if (!c->stats.database_up)
        log_debug("%s: the database is back", c->name);
    c->pg_troubled = c->pg_troubled_applying = false;
    c->pg_refused_since = 0;
    c->stats.database_up = true;
    backoff_reset(&c->pg_backoff);
}

/* After any outcome but success: what was read is given up, and read again from where the database stands. */
static void start_over(struct consumer *c)
{
    consumer_batch_drop(c);
    if (c->kafka)
        consumer_park_all(c);
    c->start_at = 0;
}

static void open_session(struct consumer *c)
{
    CLEANUP(freep) char *application_name = xasprintf("anubisd %s", c->name);
    struct pg_params params = pg_session_params(c->config, application_name, STATEMENT_MAX_USEC);

    params.connect_timeout_usec = MIN(params.connect_timeout_usec, CONNECT_MAX_USEC);
    params.lock_timeout_usec = LOCK_USEC;
    params.stop_fd = c->stop_fd;
    struct error err;
    int r = pg_open(&c->pg, &params, &err);

    if (r == PG_DONE)
        r = store_limit_session(c->pg, &err);
    if (r == -ECANCELED)
        return;
    if (r != PG_DONE) {
        database_trouble(c, r, false, &err);
        return;
    }
    /* The lock on our name went with the former session. Should somebody else have it now, Kafka will end our
     * membership, and joining again settles it. */
    if (c->kafka && c->name_taken)
        (void) store_take_member(c->pg, c->group_id, c->member, &c->name_taken, &err);
    if (!consumer_has_parked(c))
        database_works(c, false);
}

/* Another session means that everything known about the database may be wrong: start over. */
static void keep_session(struct consumer *c)
{
    if (c->pg && !pg_usable(c->pg))
        pg_close(TAKE_PTR(c->pg));
    if (c->pg || now_monotonic_usec() < c->pg_retry_at)
        return;
    start_over(c);
    open_session(c);
}

/* --- the Kafka member ------------------------------------------------------------------------- */

static void kafka_trouble(struct consumer *c, const struct error *err)
{
    if (strcmp(c->kafka_trouble.text, err->text) == 0) {
        log_debug("%s: %s", c->name, err->text);
        return;
    }
    c->kafka_trouble = *err;
    log_warning("%s: Kafka says: %s", c->name, err->text);
}

static void kafka_away(struct consumer *c, const struct error *err)
{
    if (!c->kafka_troubled)
        log_event(LOG_WARNING, MSG_KAFKA_LOST, NULL, "%s: could not reach Kafka: %s; trying again", c->name,
                  err->text);
    c->kafka_troubled = true;
    c->stats.kafka_up = false;
    c->look_at = now_monotonic_usec() + LOOK_USEC;
}

static void kafka_works(struct consumer *c)
{
    if (c->kafka_troubled)
        log_event(LOG_NOTICE, MSG_KAFKA_BACK, NULL, "%s: Kafka is back", c->name);
    c->kafka_troubled = false;
    c->stats.kafka_up = true;
}

enum { MEMBER_NAMED = 10, MEMBER_NAMELESS, MEMBER_LATER };

/* Two processes with one instance name would throw each other out of the group for ever: a lock says which of
 * them has the name. One of the above, or an outcome or error of the database. */
static int choose_name(struct consumer *c, struct error *err)
{
    uint64_t now = now_monotonic_usec();
    int r = store_take_member(c->pg, c->group_id, c->member, &c->name_taken, err);

    if (r != PG_DONE)
        return r;
    if (!c->name_taken && !c->name_wanted_at)
        c->name_wanted_at = now;
    if (!c->name_taken && now < c->name_wanted_at + MEMBER_WAIT_USEC)
        return MEMBER_LATER;
    c->name_wanted_at = 0;
    if (c->name_taken)
        return MEMBER_NAMED;
    log_notice("%s: another process is \"%s\", so this one joins without a fixed name (see instance)",
               c->name, c->member);
    return MEMBER_NAMELESS;
}

static void join_group(struct consumer *c)
{
    struct error err;
    int r = choose_name(c, &err);

    if (r == MEMBER_LATER || r == -ECANCELED)
        return;
    if (r != MEMBER_NAMED && r != MEMBER_NAMELESS) {
        database_trouble(c, r, false, &err);
        return;
    }
    const struct kafka_consumer_params params = {.config = c->config,
                                                 .group = c->group_id,
                                                 .topics = (const char *const *) c->topics,
                                                 .instance = r == MEMBER_NAMED ? c->member : NULL};
    r = kafka_consumer_new(&c->kafka, &params, &err);
    if (r < 0) {
        kafka_trouble(c, &err);
        c->kafka_retry_at = now_monotonic_usec() + backoff_next_usec(&c->kafka_backoff);
        return;
    }
    c->topics_missing = true;
    c->look_at = now_monotonic_usec() + LOOK_USEC;
}

static void leave_group(struct consumer *c)
{
    consumer_batch_drop(c);
    consumer_forget_all(c);
    kafka_consumer_free(TAKE_PTR(c->kafka));
}

static void end_member(struct consumer *c, const struct error *err)
{
    log_warning("%s: Kafka has ended this membership: %s; joining again", c->name, err->text);
    leave_group(c);
    c->kafka_retry_at = now_monotonic_usec() + backoff_next_usec(&c->kafka_backoff);
}

/* --- the turn --------------------------------------------------------------------------------- */

static void judge(struct consumer *c, int r, const struct error *err)
{
    switch (r) {
    case APPLY_DONE:
        database_works(c, true);
        backoff_reset(&c->kafka_backoff);
        return;
    case -ECANCELED:
    case APPLY_CAREFUL:
        break;
    case APPLY_FENCED:
        log_notice("%s: somebody else has moved the offset of a partition; starting over from it", c->name);
        break;
    default:
        database_trouble(c, r, true, err);
        break;
    }
    start_over(c);
}

static void apply(struct consumer *c)
{
    struct error err = {{0}};

    if (c->batch.count == 0)
        return;
    if (c->pg)
        judge(c, consumer_apply(c, &err), &err);
    else
        start_over(c);
}

static void start_parked(struct consumer *c)
{
    struct error err = {{0}};

    if (!c->pg || !c->kafka || now_monotonic_usec() < c->start_at || !consumer_has_parked(c))
        return;
    int r = consumer_start_parked(c, &err);
    if (r == PG_DONE)
        database_works(c, false);
    else if (r != -ECANCELED)
        database_trouble(c, r, false, &err);
}

static void revoke(struct consumer *c, const struct kafka_poll *poll)
{
    /* Still ours until we answer; what we cannot finish the next owner reads again. */
    if (poll->lost) {
        start_over(c);
    } else {
        apply(c);
        (void) consumer_tell_kafka(c);
    }
    consumer_hand_back(c, poll);
}

/* False when this round of polling is over. */
static bool handle(struct consumer *c, enum kafka_poll_result event, const struct kafka_poll *poll)
{
    switch (event) {
    case KAFKA_NOTHING:
        return false;
    case KAFKA_MESSAGE:
        consumer_take(c, &poll->message);
        return !consumer_batch_full(c);
    case KAFKA_ASSIGNED:
        kafka_works(c);
        consumer_take_over(c, poll);
        return true;
    case KAFKA_REVOKED:
        revoke(c, poll);
        return true;
    case KAFKA_OUT_OF_RANGE:
        apply(c);
        consumer_park_one(c, poll->partitions[0].topic, poll->partitions[0].partition);
        /* The log may say so again at once. */
        c->start_at = now_monotonic_usec() + LOOK_USEC;
        return true;
    case KAFKA_NO_TOPIC:
        c->topics_missing = true;
        return true;
    case KAFKA_AWAY:
        kafka_away(c, &poll->error);
        return true;
    case KAFKA_TROUBLE:
        kafka_trouble(c, &poll->error);
        return true;
    case KAFKA_FATAL:
        end_member(c, &poll->error);
        return false;
    }
    return false;
}

static void poll_round(struct consumer *c)
{
    struct kafka_poll poll;
    uint64_t now = now_monotonic_usec(), due = consumer_batch_due(c);
    int wait_ms = (int) (MIN(due > now ? due - now : 0, TURN_USEC) / USEC_PER_MSEC);

    for (int n = 0; n < c->config->consumers.max_poll_records; n++) {
        enum kafka_poll_result event = kafka_consumer_poll(c->kafka, wait_ms, &poll);
        wait_ms = 0;
        if (!handle(c, event, &poll))
            return;
    }
}

/* A broker answers a member's questions in turn, so while that joins its group again none is answered,
 * however long others let the group wait. What was read meanwhile is to be handled: this takes a fifth of the
 * time. */
static void tell_kafka(struct consumer *c)
{
    uint64_t asked_at = now_monotonic_usec();

    if (!consumer_tell_kafka(c))
        start_over(c);
    uint64_t now = now_monotonic_usec();
    c->look_at = MAX(c->look_at, now + 4 * (now - asked_at));
}

/* Once a second: how far behind we are, and whether Kafka and the topics are there where that is in doubt. */
static void look(struct consumer *c)
{
    struct error err;
    size_t missing;

    c->look_at = now_monotonic_usec() + LOOK_USEC;
    c->stats.lag = consumer_lag(c);
    if (!c->kafka_troubled)
        tell_kafka(c);
    if (!(c->kafka_troubled || c->topics_missing) ||
        kafka_consumer_look(c->kafka, LOOK_MS, &missing, &err) < 0)
        return;
    kafka_works(c);
    c->topics_missing = missing > 0;
    if (missing > 0 && !c->missing_said)
        log_info("%s: waits for %zu topic%s not there yet", c->name, missing, plural((int64_t) missing));
    c->missing_said = missing > 0;
}

static void turn(struct consumer *c)
{
    heartbeat_beat(c->heartbeat);
    keep_session(c);
    if (c->pg && !c->kafka && now_monotonic_usec() >= c->kafka_retry_at)
        join_group(c);
    if (!c->kafka) {
        wait_stop(c, TURN_USEC);
        return;
    }
    start_parked(c);
    poll_round(c);
    if (c->kafka && consumer_batch_due(c) <= now_monotonic_usec())
        apply(c);
    if (c->kafka && now_monotonic_usec() >= c->look_at)
        look(c);
}

void *consumer_run(void *arg)
{
    struct consumer *c = arg;

    while (!stopping(c))
        turn(c);
    if (c->kafka && !c->kafka_troubled)
        (void) consumer_tell_kafka(c);
    leave_group(c);
    pg_close(TAKE_PTR(c->pg));
    return NULL;
}
