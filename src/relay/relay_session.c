/* The relay's session with Postgres, and the lead. See relay_internal.h. On the relay's thread.
 *
 * Who holds the leader's lock leads, and the lock ends with its session. The epoch in the saved position
 * fences off a leader who does not know yet that he has lost the lead. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "pg/pg_session.h"
#include "pg/schema.h"
#include "relay/relay_internal.h"
#include "sql/statements.h"

#define STANDBY_USEC (2 * USEC_PER_SEC) /* between tries to become the leader */
#define CHECK_USEC (5 * USEC_PER_SEC)   /* between checks of session and schema */
/* How old what is remembered becomes without events; the next look may read others' messages of that time. */
#define COMPARE_USEC (10 * 60 * USEC_PER_SEC)
#define STATEMENT_USEC (10 * USEC_PER_SEC)
/* A new leader has not written at once where it publishes. */
#define UNLIKE_USEC (5 * USEC_PER_SEC)
/* How long a leader that cannot reach Kafka goes on leading beside others, which it then lets lead. */
#define PATIENCE_USEC (10 * USEC_PER_SEC)
#define OTHERS_USEC (2 * USEC_PER_SEC) /* between looks for others: one that comes later need not wait */
#define PATIENCE_MAX_USEC (10 * 60 * USEC_PER_SEC)
#define STAND_BACK_USEC (30 * USEC_PER_SEC)
#define STALL_USEC (8 * USEC_PER_SEC)
#define SILENCE_USEC (10 * USEC_PER_SEC) /* without a message from a partition that is awaited */

static void say_fenced(struct relay *relay)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    struct error err;

    pg_arg_i64(&args, relay->session.lead.epoch);
    pg_arg_text(&args, relay->config->instance);
    int r = pg_query(relay->session.pg, &sql_relay_fenced_by, &args, &result, &err);
    if (r == 0 && !pg_is_null(result, 0, 0))
        log_warning("the relay gives up the lead, and publishes nothing until it is repaired: %s",
                    pg_get_text(result, 0, 0));
    else if (r == 0 && !pg_is_null(result, 0, 1))
        log_warning("the relay of the daemon \"%s\" has taken the lead; this one starts over",
                    pg_get_text(result, 0, 1));
    else
        log_warning(
            "the table relay_state was written by another hand (events were erased, tables restored); "
            "the relay starts over");
}

/* The dispatcher says that the database is away; a refusal that concerns the relay alone is said here. */
uint64_t relay_lose_session(struct relay *relay, int r, const struct error *err)
{
    if (r == STORE_RELAY_FENCED)
        say_fenced(relay);
    else if (r == -ECONNRESET || r == -ECANCELED)
        log_debug("relay: %s", err->text);
    else if (trouble_begins(&relay->session.refused)) {
        relay->session.refused_at = now_realtime_usec();
        log_warning("the relay could not use the database: %s; trying again", err->text);
    }
    relay->session.refused_leading |= relay->session.leading && relay->session.refused.said;
    relay->session.lost = true;
    relay->stats.trouble = RELAY_NO_DATABASE;
    return backoff_next_usec(&relay->session.backoff);
}

void relay_works(struct relay *relay, bool leading)
{
    struct relay_session *s = &relay->session;

    if (s->refused_leading && !leading)
        return;
    s->refused_leading = false;
    if (!trouble_ends(&s->refused))
        return;
    (void) trouble_ends(&s->turn.stalls);
    log_line(LOG_NOTICE, MSG_DATABASE_BACK, "the relay can use the database again");
}

/* Each second while the database has a statement of ours. */
static void on_under_way(void *userdata)
{
    struct relay *relay = userdata;

    if (trouble_lasts(&relay->session.turn.stalls, relay->session.turn.at, now_monotonic_usec(), STALL_USEC))
        log_warning(
            "the relay waits for the database, which has not answered for %" PRIu64
            " s: commits may wait for a synchronous standby (synchronous_standby_names), or a statement for a "
            "lock. Events wait in the ledger",
            STALL_USEC / USEC_PER_SEC);
}

void relay_begin_turn(struct relay *relay)
{
    relay->session.turn.at = now_monotonic_usec();
}

void relay_end_turn(struct relay *relay)
{
    const struct relay_session *s = &relay->session;

    if (s->leading && !s->lost && !s->refused.said && trouble_ends(&relay->session.turn.stalls))
        log_notice("the database answers the relay again");
}

uint64_t relay_open_session(struct relay *relay)
{
    CLEANUP(strbuf_free) struct strbuf name = STRBUF_INIT(256);
    struct relay_session *s = &relay->session;
    struct error err;
    struct pg_params params = pg_session_params(relay->config, STORE_RELAY_SESSION, STATEMENT_USEC);

    params.stop_fd = relay->abandon_fd;
    params.under_way = on_under_way;
    params.userdata = relay;
    /* It may get no further than to the lock: then its name says what keeps it. */
    if (s->refused.said) {
        strbuf_adds(&name, STORE_RELAY_SESSION " (statements fail since ");
        strbuf_add_timestamp_sec(&name, s->refused_at);
        strbuf_addc(&name, ')');
        params.application_name = strbuf_str(&name);
        s->shown = RELAY_NO_DATABASE;
    }
    /* When the relay is not admitted, the dispatcher is not admitted either, and says so. */
    return pg_open(&relay->session.pg, &params, &err) == PG_DONE
               ? NOW
               : relay_lose_session(relay, -ECONNRESET, &err);
}

/* In a database restored elsewhere transaction ids count anew. */
static int adapt(struct relay *relay, const struct store_relay_identity *saved, struct error *err)
{
    struct relay_session *s = &relay->session;
    int r = store_relay_identify(s->pg, &s->identity, err);

    if (r == -EPERM || r == -EBADMSG) {
        if (trouble_begins(&s->unidentified))
            log_notice("could not tell whether this database was restored or promoted: %s", err->text);
        s->identity.known = false;
        return 0;
    }
    if (r < 0 || !saved->known ||
        (saved->system == s->identity.system && saved->timeline == s->identity.timeline))
        return r;
    int64_t next = 0;
    r = store_relay_next_id(s->pg, &next, err);
    if (r < 0)
        return r;
    log_line(LOG_WARNING, MSG_DATABASE_SET_BACK,
             "the database was restored or promoted since the last event was published. Ledger ids go on at "
             "%" PRId64 ", so that none is given out twice; the relay checks all open gaps again",
             next);
    gaps_unstamp(&relay->position.gaps);
    return 0;
}

/* Managed servers forbid it. Once: it stays so. */
static int note_wal(struct relay *relay, struct error *err)
{
    bool known = true;
    int r = pg_query_bool(relay->session.pg, &sql_relay_knows_wal, NULL, &known, err);

    if (r == 0 && !known && trouble_begins(&relay->session.without_wal))
        log_notice(
            "this server does not tell where its WAL ends (pg_current_wal_insert_lsn, "
            "pg_current_wal_flush_lsn): the relay commits a small change before each batch instead, so that "
            "the server cannot lose what is published");
    return r;
}

static uint64_t stand_by(struct relay *relay)
{
    backoff_reset(&relay->session.backoff);
    relay->stats.trouble = RELAY_FINE;
    relay->stats.kafka_up = true; /* a relay that stands by does not need it */
    return STANDBY_USEC;
}

static void lead(struct relay *relay, const struct store_relay_start *start)
{
    struct relay_session *s = &relay->session;
    const struct gaps *gaps = &relay->position.gaps;

    s->leading = true;
    s->lead = start->lead;
    relay->kafka.tail.compared_at = start->compared_at;
    relay->kafka.tail.mixed = start->was_ahead || start->missed > 0;
    /* Behind what was not noted before, others may have published since. */
    if (relay->kafka.producer)
        kafka_producer_forget_first(relay->kafka.producer);
    relay_works(relay, false);
    backoff_reset(&s->backoff);
    relay->stats.leader = true;
    relay->stats.high = gaps->high;
    relay->stats.gaps = gaps->count;
    relay->stats.trouble = RELAY_FINE;
    relay->sending.stopped_on = 0;
    event_builder_free(&relay->sending.builder);
    event_builder_init(&relay->sending.builder, start->name_space, 0);
    if (start->was_ahead)
        log_line(LOG_WARNING, MSG_RELAY_LEADER,
                 "somebody has set the relay's position ahead (relay_state, up to ledger id %" PRId64
                 "): it goes on where it was, so that no event is left out",
                 start->found_at);
    if (start->missed > 0)
        log_line(LOG_WARNING, MSG_LEDGER_REFILLED,
                 "events up to ledger id %" PRId64
                 " were written after the relay had saved a position beyond them, as when single tables are "
                 "restored or the sequence of the ledger is set back: it turns back to them",
                 start->missed);
    log_line(LOG_NOTICE, MSG_RELAY_LEADER,
             "the relay leads: it publishes events from ledger id %" PRId64 " on", gaps->high + 1);
}

/* Events go to the topics of whoever leads: other names part them, or leave what reads them without any. */
static void compare_prefix(struct relay *relay, const char *leader, const char *prefix)
{
    const char *own = relay->config->kafka.topic_prefix;
    struct trouble *unlike = &relay->session.other.unlike;
    uint64_t now = now_monotonic_usec();

    if (!prefix || strcmp(prefix, own) == 0) {
        (void) trouble_ends(unlike);
        return;
    }
    if (trouble_lasts(unlike, now, now, UNLIKE_USEC))
        log_warning(
            "the daemon \"%s\" publishes this database's events in topics that begin with \"%s\", and "
            "this one would in topics that begin with \"%s\": set kafka.topic_prefix alike",
            leader, prefix, own);
}

static void note_hidden(struct trouble *hidden, const char *leader, bool is_hidden)
{
    if (!is_hidden)
        (void) trouble_ends(hidden);
    else if (trouble_begins(hidden))
        log_warning(
            "the daemon \"%s\" leads, and this one's role cannot see its session at work, or not end it: were "
            "its process frozen, no other would publish or alert. Let all daemons log in as one role, or grant "
            "theirs pg_read_all_stats and pg_signal_backend; track_activities has to be on",
            leader);
}

/* Another program uses the number of the lock, or a person asked for it by hand. */
static void note_stranger(struct trouble *trouble, const char *stranger)
{
    uint64_t now = now_monotonic_usec();

    if (!*stranger)
        (void) trouble_ends(trouble);
    else if (trouble_lasts(trouble, now, now, UNLIKE_USEC))
        log_warning("no daemon can lead, and no event is published: the lock for it is held by %s", stranger);
}

static void say_ended(const char *leader, const char *stranger, int64_t pid)
{
    if (*stranger)
        log_line(
            LOG_WARNING, MSG_RELAY_LEADER,
            "the leader's lock was held by a session that is no daemon's and did nothing for a minute: session "
            "%" PRId64 " was ended, so that a daemon leads",
            pid);
    else
        log_line(
            LOG_WARNING, MSG_RELAY_LEADER,
            "the leading relay, of the daemon \"%s\", has been silent for a minute: its process hangs or is "
            "frozen. Its session (%" PRId64 ") was ended, so that another one leads",
            leader, pid);
}

static int try_lead(struct relay *relay, bool *ret_leads, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    int r = pg_query(relay->session.pg, &sql_relay_try_lead, NULL, &result, err);

    if (r < 0)
        return r;
    struct pg_row row = {.result = result};
    *ret_leads = pg_next_bool(&row);
    int64_t ended = pg_next_i64(&row);
    const char *leader = pg_next_text(&row);
    bool known = !pg_next_is_null(&row);
    const char *prefix = pg_next_text(&row);
    compare_prefix(relay, leader, known && !*ret_leads ? prefix : NULL);
    note_hidden(&relay->session.other.hidden, leader, pg_next_bool(&row));
    const char *stranger = pg_next_text(&row);
    note_stranger(&relay->session.other.stranger, stranger);
    if (ended > 0)
        say_ended(leader, stranger, ended);
    free(TAKE_PTR(relay->session.former_prefix));
    if (*ret_leads && known && strcmp(prefix, relay->config->kafka.topic_prefix) != 0)
        relay->session.former_prefix = xstrdup(prefix);
    return 0;
}

int relay_note_compared(struct relay *relay, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *before = NULL;
    const char *own = relay->config->kafka.topic_prefix;
    int r = store_relay_compared(relay->session.pg, &relay->session.lead, own, &before, err);

    relay->session.compare_at = now_monotonic_usec() + COMPARE_USEC;
    if (r != 0)
        return r;
    struct pg_row row = {.result = before, .column = 1};
    bool known = !pg_next_is_null(&row);
    const char *former = pg_next_text(&row);
    if (pg_next_bool(&row) && known)
        log_notice(
            "events go to topics that begin with \"%s\" from now on, and no longer to those with \"%s\" "
            "(kafka.topic_prefix): what reads them has to follow. What anubisd's own groups had not read of the "
            "former ones is published again after \"anubisctl replay --group NAME\"; \"anubisctl verify\" tells "
            "whether there is any",
            own, former);
    return 0;
}

uint64_t relay_take_lead(struct relay *relay)
{
    struct relay_session *s = &relay->session;
    struct store_relay_start start;
    struct error err;
    bool leader = false;

    if (now_monotonic_usec() < s->cut_off.stand_back_until)
        return stand_by(relay);
    int r = try_lead(relay, &leader, &err);

    if (r == 0 && !leader)
        return stand_by(relay);
    if (r == 0)
        r = store_relay_begin(s->pg, relay->config->instance, &relay->position.gaps, &start, &err);
    if (r == 0)
        r = adapt(relay, &start.saved, &err);
    if (r == 0)
        r = note_wal(relay, &err);
    if (r == 0)
        r = relay_topics_load(&relay->kafka.topics, s->pg, &err);
    if (r < 0)
        return relay_lose_session(relay, r, &err);
    lead(relay, &start);
    return NOW;
}

uint64_t relay_check_session(struct relay *relay)
{
    struct error err;
    int r = schema_check_for_work(relay->session.pg, &err);

    relay->session.check_at = now_monotonic_usec() + CHECK_USEC;
    r = r == PG_SCHEMA_MISFIT ? -ECONNRESET : r;
    if (r == 0)
        r = store_relay_leads(relay->session.pg, &relay->session.lead, &err);
    if (r == 0 && relay->kafka.tail.known && now_monotonic_usec() >= relay->session.compare_at)
        r = relay_note_compared(relay, &err);
    return r == 0 ? NOW : relay_lose_session(relay, r, &err);
}

void relay_show_trouble(struct relay *relay)
{
    /* At most 20 characters, since Postgres cuts the session's name. */
    static const char *const words[] = {
        [RELAY_NO_DATABASE] = "statements fail",   [RELAY_NO_KAFKA] = "Kafka is away",
        [RELAY_NO_LEADER] = "no partition leader", [RELAY_LOOKS] = "a look into Kafka",
        [RELAY_NO_TOPIC] = "topics are missing",   [RELAY_FORBIDDEN] = "a topic is forbidden"};
    CLEANUP(strbuf_free) struct strbuf shown = STRBUF_INIT(256);
    struct relay_session *s = &relay->session;
    /* Until a leader's work is done, it may fail at the same again. */
    enum relay_trouble trouble = s->refused.said ? RELAY_NO_DATABASE : relay->stats.trouble;
    struct error err;

    if (!s->leading || s->lost || trouble == s->shown)
        return;
    s->shown = trouble;
    if (trouble < ARRAY_SIZE(words) && words[trouble]) {
        strbuf_addf(&shown, "%s since ", words[trouble]);
        strbuf_add_timestamp_sec(&shown, s->refused.said ? s->refused_at : now_realtime_usec());
    }
    int r = store_relay_show_trouble(s->pg, strbuf_str(&shown), &err);
    if (r < 0)
        relay_lose_session(relay, r, &err);
}

/* Kafka is away, or the look at its newest events gets no further. */
static bool is_cut_off(const struct relay *relay, uint64_t now)
{
    const struct relay_tail *tail = &relay->kafka.tail;

    return relay->stats.trouble == RELAY_NO_KAFKA || (tail->begun_at && now - tail->came_at > SILENCE_USEC);
}

void relay_consider_others(struct relay *relay)
{
    struct relay_session *s = &relay->session;
    uint64_t now = now_monotonic_usec();
    bool others = false;
    struct error err;

    if (!s->leading || s->lost || !is_cut_off(relay, now)) {
        /* A new leader that has not asked yet cannot know. */
        if (s->leading && relay->kafka.tail.known && relay->stats.trouble == RELAY_FINE)
            s->cut_off.patience_usec = PATIENCE_USEC;
        s->cut_off.since = 0;
        return;
    }
    s->cut_off.since = s->cut_off.since ? s->cut_off.since : now;
    s->cut_off.patience_usec = MAX(s->cut_off.patience_usec, PATIENCE_USEC);
    if (now - s->cut_off.since < s->cut_off.patience_usec || now < s->cut_off.look_at)
        return;
    s->cut_off.look_at = now + OTHERS_USEC;
    int r = store_relay_others(s->pg, &others, &err);
    if (r < 0) {
        relay_lose_session(relay, r, &err);
        return;
    }
    if (!others)
        return;
    log_line(LOG_NOTICE, MSG_RELAY_LEADER,
             "the relay lets another daemon lead: it could not reach Kafka for %" PRIu64 " s",
             (now - s->cut_off.since) / USEC_PER_SEC);
    s->lost = true;
    s->cut_off.stand_back_until = now + STAND_BACK_USEC;
    /* When nobody reaches Kafka, the lead goes round ever more slowly. */
    s->cut_off.patience_usec = MIN(2 * s->cut_off.patience_usec, PATIENCE_MAX_USEC);
}
