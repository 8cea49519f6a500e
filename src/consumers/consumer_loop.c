/* A consumer thread: its session, its Kafka member, its turns. See consumer_internal.h.
 *
 * Each thread owns its session, its member and its batch; threads share nothing. When anything is out of
 * order (the database away, somebody else's write, a lost answer) a thread parks its partitions, goes on
 * polling so that its membership stays, and starts over from what the database says. No wait is longer than
 * the daemon lets a heartbeat pause. */
#include <errno.h>
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
#define LOOK_USEC (1 * USEC_PER_SEC)
#define LOOK_MS 500
#define MISSING_USEC (3 * USEC_PER_SEC)
/* So long after a start or an outage a group may need to give its partitions out, once it has found out which
 * members are gone. */
#define DOUBT_USEC (60 * USEC_PER_SEC)
/* In an outage deliveries may notice a little later than we do. */
#define REFUSED_PATIENCE_USEC (5 * USEC_PER_SEC)

/* --- the database session --------------------------------------------------------------------- */

/* True when the database has refused this session alone for a while: a role's or the server's limit of
 * connections, say. */
static bool refused_alone(struct consumer *c)
{
    uint64_t now = now_monotonic_usec();
    struct trouble *alone = &c->session.alone;

    if (c->session.pg || !*c->database_up)
        (void) trouble_ends(alone);
    else
        (void) trouble_lasts(alone, now, now, REFUSED_PATIENCE_USEC);
    return alone->said;
}

/* The dispatcher says that the database is away, refuses everybody or lacks the schema. What it refuses to
 * this session alone is said here, once, until it works again: trouble with applying until a batch was
 * applied, other trouble until the session stands. */
static void database_trouble(struct consumer *c, int r, bool applying, const struct error *err)
{
    struct consumer_session *s = &c->session;
    bool alone = refused_alone(c);
    bool ours = alone || (s->pg && (r == -EBADMSG || r == -EPERM));

    if (!ours || !trouble_begins(&s->trouble))
        log_debug("%s: waits for the database: %s", c->name, err->text);
    else if (alone)
        log_line(LOG_WARNING, MSG_DATABASE_LOST,
                 "%s: has no session with the database, while deliveries have theirs: %s; trying again",
                 c->name, err->text);
    else
        log_line(LOG_WARNING, MSG_DATABASE_LOST, "%s: could not write to the database: %s; trying again",
                 c->name, err->text);
    s->while_applying |= applying;
    c->told.has_database = false;
    pg_close(TAKE_PTR(s->pg));
    s->retry_at = now_monotonic_usec() + backoff_next_usec(&s->backoff);
}

static void database_works(struct consumer *c, bool applying)
{
    struct consumer_session *s = &c->session;

    if (s->while_applying && !applying)
        return;
    if (trouble_ends(&s->trouble))
        log_line(LOG_NOTICE, MSG_DATABASE_BACK, "%s: the database takes it again", c->name);
    else if (!c->told.has_database)
        log_debug("%s: the database is back", c->name);
    s->while_applying = false;
    (void) trouble_ends(&s->alone);
    c->told.has_database = true;
    backoff_reset(&s->backoff);
}

/* After any outcome but success: what was read is given up, and read again from where the database stands. */
static void start_over(struct consumer *c)
{
    consumer_batch_drop(c);
    if (c->kafka.client)
        consumer_park_all(c);
    c->start_at = 0;
}

static void open_session(struct consumer *c)
{
    CLEANUP(freep) char *application_name = xasprintf("anubisd %s", c->name);
    struct pg_params params = pg_session_params(c->config, application_name, STATEMENT_MAX_USEC);

    params.connect_timeout_usec = MIN(params.connect_timeout_usec, CONNECT_MAX_USEC);
    params.lock_timeout_usec = LOCK_USEC;
    params.stop_fd = c->worker.stop_fd;
    struct error err;
    int r = pg_open(&c->session.pg, &params, &err);

    if (r == PG_DONE)
        r = store_limit_session(c->session.pg, &err);
    if (r == PG_DONE)
        r = store_installation(c->session.pg, c->session.installation, &err);
    if (r == -ECANCELED)
        return;
    if (r != PG_DONE) {
        database_trouble(c, r, false, &err);
        return;
    }
    if (!c->kafka.client)
        consumer_name_member(c);
    /* The lock on our name went with the former session. Should somebody else have it now, Kafka will end our
     * membership, and joining again settles it. */
    if (c->kafka.client && c->kafka.name_taken)
        (void) store_take_member(c->session.pg, c->group_id, c->kafka.name, &c->kafka.name_taken, &err);
    if (!consumer_has_parked(c))
        database_works(c, false);
}

/* Another session means that everything known about the database may be wrong: start over. */
static void keep_session(struct consumer *c)
{
    if (c->session.pg && !pg_usable(c->session.pg))
        pg_close(TAKE_PTR(c->session.pg));
    if (c->session.pg || now_monotonic_usec() < c->session.retry_at)
        return;
    start_over(c);
    open_session(c);
}

/* --- the Kafka member ------------------------------------------------------------------------- */

static void kafka_trouble(struct consumer *c, const struct error *err)
{
    if (strcmp(c->kafka.last_said.text, err->text) == 0) {
        log_debug("%s: %s", c->name, err->text);
        return;
    }
    c->kafka.last_said = *err;
    log_warning("%s: Kafka says: %s", c->name, err->text);
}

static void kafka_away(struct consumer *c, const struct error *err)
{
    if (trouble_begins(&c->kafka.away))
        log_line(LOG_WARNING, MSG_KAFKA_LOST, "%s: could not reach Kafka: %s; trying again", c->name,
                 err->text);
    c->look_at = now_monotonic_usec() + LOOK_USEC;
}

/* What Kafka holds now may not be what was read. The group may give partitions out anew meanwhile. */
static void doubt(struct consumer *c)
{
    c->kafka.doubted_until = now_monotonic_usec() + c->config->consumers.session_timeout_usec + DOUBT_USEC;
    for (size_t i = 0; i < c->partition_count; i++)
        c->partitions[i]->doubted = true;
}

static void kafka_works(struct consumer *c)
{
    if (!trouble_ends(&c->kafka.away))
        return;
    log_line(LOG_NOTICE, MSG_KAFKA_BACK, "%s: Kafka is back", c->name);
    doubt(c);
    start_over(c);
}

static void join_group(struct consumer *c)
{
    struct error err;
    int r = consumer_choose_name(c, &err);

    if (r == MEMBER_LATER || r == -ECANCELED)
        return;
    if (r != MEMBER_NAMED && r != MEMBER_NAMELESS) {
        database_trouble(c, r, false, &err);
        return;
    }
    const struct kafka_consumer_params params = {.config = c->config,
                                                 .group = c->group_id,
                                                 .topics = (const char *const *) c->topics,
                                                 .instance = r == MEMBER_NAMED ? c->kafka.name : NULL};
    r = kafka_consumer_new(&c->kafka.client, &params, &err);
    if (r < 0) {
        kafka_trouble(c, &err);
        c->kafka.retry_at = now_monotonic_usec() + backoff_next_usec(&c->kafka.backoff);
        return;
    }
    c->kafka.topics_missing = true;
    c->look_at = now_monotonic_usec() + LOOK_USEC;
}

static void leave_group(struct consumer *c)
{
    consumer_batch_drop(c);
    consumer_forget_all(c);
    kafka_consumer_free(TAKE_PTR(c->kafka.client));
}

static void end_member(struct consumer *c, const struct error *err)
{
    log_warning("%s: Kafka has ended this membership: %s; joining again", c->name, err->text);
    leave_group(c);
    c->kafka.retry_at = now_monotonic_usec() + backoff_next_usec(&c->kafka.backoff);
}

/* --- the turn --------------------------------------------------------------------------------- */

static void after_apply(struct consumer *c, int r, const struct error *err)
{
    switch (r) {
    case APPLY_DONE:
        database_works(c, true);
        backoff_reset(&c->kafka.backoff);
        consumer_read_farther(c);
        return;
    case -ECANCELED:
    case APPLY_CAREFUL:
    case APPLY_STOPPED:
        break;
    case APPLY_FENCED:
        consumer_say_fenced(c);
        /* Or the tables were made anew, and with them the installation: all of it is read again. Or they were
         * restored from another time. */
        pg_close(TAKE_PTR(c->session.pg));
        consumer_doubt_marks(c);
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
    if (c->session.pg)
        after_apply(c, consumer_apply(c, &err), &err);
    else
        start_over(c);
}

static void start_parked(struct consumer *c)
{
    struct error err = {{0}};

    if (!c->session.pg || !c->kafka.client || now_monotonic_usec() < c->start_at || !consumer_has_parked(c))
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
        (void) consumer_commit_offsets(c);
    }
    consumer_on_revoked(c, poll);
}

/* False when this round of polling is over. */
static bool handle(struct consumer *c, enum kafka_poll_result result, const struct kafka_poll *poll)
{
    switch (result) {
    case KAFKA_NOTHING:
        return false;
    case KAFKA_MESSAGE:
        consumer_say_allowed(c, poll->message.topic);
        consumer_take(c, &poll->message);
        return !consumer_batch_full(c);
    case KAFKA_ASSIGNED:
        kafka_works(c);
        consumer_say_allowed(c, NULL);
        *c->kafka.last_said.text = '\0';
        consumer_on_assigned(c, poll);
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
    case KAFKA_UNREADABLE:
        apply(c);
        consumer_pass_unreadable(c, poll);
        return true;
    case KAFKA_NO_PARTITION:
        apply(c);
        kafka_trouble(c, &poll->error);
        doubt(c);
        consumer_park_topic(c, poll->partitions[0].topic);
        c->start_at = now_monotonic_usec() + LOOK_USEC;
        return true;
    case KAFKA_NO_TOPIC:
        c->kafka.topics_missing = true;
        return true;
    case KAFKA_DENIED:
        consumer_say_denied(c, poll);
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
        enum kafka_poll_result result = kafka_consumer_poll(c->kafka.client, wait_ms, &poll);
        wait_ms = 0;
        if (!handle(c, result, &poll))
            return;
    }
}

/* A broker answers a member's questions in turn, so while that joins its group again none is answered,
 * however long others let the group wait. What was read meanwhile is to be handled: this takes a fifth of the
 * time. */
static void commit_offsets(struct consumer *c)
{
    uint64_t asked_at = now_monotonic_usec();

    if (!consumer_commit_offsets(c))
        start_over(c);
    uint64_t now = now_monotonic_usec();
    c->look_at = MAX(c->look_at, now + 4 * (now - asked_at));
}

/* Where nothing comes, no transaction would find that an operator has moved offsets. */
static void look_for_moved(struct consumer *c)
{
    struct error err;
    bool moved;
    int r = consumer_find_moved(c, &moved, &err);

    if (r != PG_DONE || moved)
        after_apply(c, r == PG_DONE ? (int) APPLY_FENCED : r, &err);
}

/* A member of another name makes the group give all partitions out anew. The former one ends with its session
 * in Kafka. */
static void look_for_unassigned(struct consumer *c)
{
    struct error err;
    bool open;
    int r = consumer_find_unassigned(c, &open, &err);

    if (r != PG_DONE) {
        after_apply(c, r, &err);
    } else if (open) {
        leave_group(c);
        c->kafka.unassigned.names++;
        consumer_name_member(c);
    }
}

/* Once a second: tells Kafka how far we are, and looks for Kafka and the topics where they are in doubt. */
static void look(struct consumer *c)
{
    struct error err;
    size_t missing;

    c->look_at = now_monotonic_usec() + LOOK_USEC;
    consumer_measure(c);
    consumer_recall_unknown(c);
    look_for_moved(c);
    consumer_find_rival(c);
    look_for_unassigned(c);
    if (c->kafka.client && consumer_is_outside(c))
        leave_group(c);
    if (!c->kafka.client)
        return;
    if (!c->kafka.away.said) {
        commit_offsets(c);
        consumer_ask_whether_allowed(c);
    }
    if (!(c->kafka.away.said || c->kafka.topics_missing) ||
        kafka_consumer_look(c->kafka.client, LOOK_MS, &missing, &err) < 0)
        return;
    kafka_works(c);
    c->kafka.topics_missing = missing > 0;
    if (missing == 0)
        (void) trouble_ends(&c->kafka.missing);
    /* One that is forbidden is not shown either, which the library tells a moment later. */
    else if (!c->kafka.denied.said && trouble_lasts(&c->kafka.missing, c->look_at, c->look_at, MISSING_USEC))
        log_info("%s: waits for %zu topic%s not there yet", c->name, missing, plural((int64_t) missing));
}

static void turn(struct consumer *c)
{
    heartbeat_beat(c->worker.heartbeat);
    keep_session(c);
    if (c->session.pg && !c->kafka.client && now_monotonic_usec() >= c->kafka.retry_at)
        join_group(c);
    if (!c->kafka.client) {
        worker_wait(&c->worker, -1, TURN_USEC);
        return;
    }
    start_parked(c);
    poll_round(c);
    if (c->kafka.client && consumer_batch_due(c) <= now_monotonic_usec())
        apply(c);
    if (c->kafka.client && now_monotonic_usec() >= c->look_at)
        look(c);
}

void *consumer_run(void *arg)
{
    struct consumer *c = arg;

    doubt(c);
    while (!worker_is_stopping(&c->worker))
        turn(c);
    if (c->kafka.client && !c->kafka.away.said)
        (void) consumer_commit_offsets(c);
    leave_group(c);
    pg_close(TAKE_PTR(c->session.pg));
    return NULL;
}
