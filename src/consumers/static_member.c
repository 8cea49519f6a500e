/* The name under which Kafka knows this member (static membership, KIP-345), and what the name must not hide.
 * See consumer_internal.h. On the consumer's thread. */
#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"
#include "consumers/consumer_internal.h"
#include "consumers/store_consumer.h"

#define ASK_MS 1000 /* of Kafka, for a topic */
#define MARGIN_USEC (10 * USEC_PER_SEC)
/* After a crash our former session may hold the member's name until the server has noticed. */
#define MEMBER_WAIT_USEC (2 * USEC_PER_SEC)
#define STRANGERS_USEC (10 * USEC_PER_SEC)
#define HIDDEN_USEC (30 * USEC_PER_SEC)
#define ELSEWHERE_USEC (20 * USEC_PER_SEC)
#define WAITS_USEC (20 * USEC_PER_SEC)   /* to be taken in as a member, before it is said */
#define OUTSIDE_USEC (60 * USEC_PER_SEC) /* others may keep the group from giving out its partitions */
#define PAUSE_MAX_USEC (10 * 60 * USEC_PER_SEC)
#define PARTITIONS_MAX 100000 /* of a topic */

static uint32_t fnv1a(uint32_t hash, const char *text)
{
    for (const char *p = text; *p; p++)
        hash = (hash ^ (unsigned char) *p) * 16777619U;
    return hash;
}

/* A static member that comes back is given what it had, whatever it subscribes to now: so another set of
 * topics (another prefix, a release with more handlers) is another member. And so is a host of the same name
 * that works on another database: the two would throw each other out of the group for ever. */
void consumer_name_member(struct consumer *c)
{
    uint32_t hash = fnv1a(2166136261U, c->session.installation) + c->kafka.unassigned.names;

    for (size_t i = 0; c->topics[i]; i++)
        hash = fnv1a(hash, c->topics[i]);
    free(c->kafka.name);
    c->kafka.name = xasprintf("%s-%08x", c->instance, hash);
}

/* Two processes with one instance name would throw each other out of the group for ever: a lock says which of
 * them has the name. One of the above, or an error of the database. */
int consumer_choose_name(struct consumer *c, struct error *err)
{
    uint64_t now = now_monotonic_usec();
    int r = store_take_member(c->session.pg, c->group_id, c->kafka.name, &c->kafka.name_taken, err);

    if (r != PG_DONE)
        return r;
    if (!c->kafka.name_taken && !c->kafka.name_wanted_at)
        c->kafka.name_wanted_at = now;
    if (!c->kafka.name_taken && now < c->kafka.name_wanted_at + MEMBER_WAIT_USEC)
        return MEMBER_LATER;
    c->kafka.name_wanted_at = 0;
    if (c->kafka.name_taken)
        return MEMBER_NAMED;
    log_notice("%s: another process is \"%s\", so this one joins without a fixed name (see instance)",
               c->name, c->kafka.name);
    return MEMBER_NAMELESS;
}

/* --- partitions without a reader -------------------------------------------------------------- */

static bool is_ours(const struct consumer *c, const char *topic, int32_t number)
{
    for (size_t i = 0; i < c->partition_count; i++)
        if (c->partitions[i]->number == number && strcmp(c->partitions[i]->topic, topic) == 0)
            return true;
    return false;
}

/* Those that we have not; *ret is the caller's to free. */
static int list_others(struct consumer *c, struct store_offset **ret, size_t *ret_count, struct error *err)
{
    size_t count = 0;

    *ret = NULL;
    for (size_t i = 0; c->topics[i]; i++) {
        int partitions = 0;
        int r = kafka_consumer_partitions(c->kafka.client, c->topics[i], ASK_MS, &partitions, err);
        if (r < 0)
            return r;
        partitions = MIN(partitions, PARTITIONS_MAX);
        *ret = xreallocarray(*ret, count + (size_t) partitions + 1, sizeof(**ret));
        for (int32_t p = 0; p < partitions; p++)
            if (!is_ours(c, c->topics[i], p))
                (*ret)[count++] = (struct store_offset){.topic = c->topics[i], .partition = p};
    }
    *ret_count = count;
    return 0;
}

/* Topics of another prefix are another installation's, or another program's that is no anubisd. */
static void say_stranger(const struct consumer *c, const struct kafka_strangers *found)
{
    CLEANUP(freep) char *reads = *found->topic ? xasprintf(", which reads \"%s\"", found->topic) : NULL;

    log_line(
        LOG_ERR, MSG_GROUP_SHARED,
        "%s: another program is a member of this consumer group: client.id \"%s\" at %s%s%s. It takes "
        "partitions, or keeps us from joining, and what it reads is handled by nobody here: end it, or "
        "give it a group of its own; if it is anubisd for another database, a consumers.group_prefix of its "
        "own (this one: \"%s\"). Nothing is lost meanwhile",
        c->name, found->client, found->host, reads ? reads : "", found->count > 1 ? ", and others" : "",
        c->config->consumers.group_prefix);
}

/* A group of the newer protocol (KIP-848) shows no members to ours, and lets none of ours in. */
static void find_hidden(struct consumer *c, const struct kafka_strangers *found, uint64_t now)
{
    if (!found->unlisted) {
        if (trouble_ends(&c->kafka.strangers.hidden))
            log_line(LOG_NOTICE, MSG_GROUP_SHARED, "%s: the consumer group is ours again", c->name);
    } else if (trouble_lasts(&c->kafka.strangers.hidden, now, now, HIDDEN_USEC)) {
        log_line(
            LOG_ERR, MSG_GROUP_SHARED,
            "%s: this consumer group lets nobody in: another program has its name with another protocol "
            "(group.protocol=consumer). Nothing is read until it ends, or consumers.group_prefix is another",
            c->name);
    }
}

static bool has_others_alike(const struct consumer *c, const struct kafka_strangers *found)
{
    for (size_t i = 0; i < found->alike_count; i++)
        if (strcmp(found->alike[i], c->kafka.name) != 0)
            return true;
    return false;
}

/* Two databases with the same prefixes on one Kafka: what the other one's daemon is given it passes over, and
 * while that one writes no events, nothing else tells. A daemon of ours has no session when it has just
 * ended, or while it cannot reach the database. */
static void find_elsewhere(struct consumer *c, const struct kafka_strangers *found, uint64_t now)
{
    CLEANUP(freep) char *name = NULL;
    uint64_t patience = c->config->consumers.session_timeout_usec + ELSEWHERE_USEC;
    struct error ignored;

    if (!c->session.pg)
        return;
    if (has_others_alike(c, found) &&
        store_find_elsewhere(c->session.pg, c->group_id, found, &name, &ignored) != PG_DONE)
        return;
    if (!name) {
        if (trouble_ends(&c->kafka.strangers.elsewhere))
            log_line(LOG_NOTICE, MSG_GROUP_SHARED,
                     "%s: each member of this group is a daemon of this database again", c->name);
    } else if (trouble_lasts(&c->kafka.strangers.elsewhere, now, now, patience)) {
        log_line(
            LOG_ERR, MSG_GROUP_SHARED,
            "%s: member \"%s\" of this consumer group has no session with this database: it is anubisd for "
            "another one, or cannot reach this one. The events that it is given are not counted here. Give "
            "each database a kafka.topic_prefix and a consumers.group_prefix of its own (this one: \"%s\")",
            c->name, name, c->config->consumers.group_prefix);
    }
}

static void find_strangers(struct consumer *c)
{
    struct kafka_strangers found;
    struct error err;
    uint64_t now = now_monotonic_usec();

    if (now < c->kafka.strangers.look_at || c->kafka.away.said)
        return;
    int r = kafka_consumer_strangers(c->kafka.client, (const char *const *) c->topics, &found, &err);
    if (r == KAFKA_NO_ANSWER_YET)
        return;
    c->kafka.strangers.look_at = now + STRANGERS_USEC;
    if (r == 0) {
        find_hidden(c, &found, now);
        find_elsewhere(c, &found, now);
    }
    if (r < 0) {
        log_debug("%s: %s", c->name, err.text);
    } else if (found.count == 0) {
        if (trouble_ends(&c->kafka.strangers.trouble))
            log_line(LOG_NOTICE, MSG_GROUP_SHARED, "%s: no other program is a member of this group any more",
                     c->name);
    } else if (trouble_begins(&c->kafka.strangers.trouble)) {
        say_stranger(c, &found);
    }
}

static void say_open(const struct consumer *c, const struct store_offset *one, size_t count)
{
    log_about(LOG_NOTICE, NULL,
              &(const struct log_about){.kafka_topic = one->topic, .kafka_partition = (int) one->partition},
              "%s: %zu partition%s of its topics %s no reader, such as partition %d of \"%s\", which came "
              "while this member was away: joins the group under another name, so that it gives all of them "
              "out anew",
              c->name, count, plural((int64_t) count), count == 1 ? "has" : "have", (int) one->partition,
              one->topic);
}

/* A partition that a member takes over has a row in consumer_offsets; a row of before, of another Kafka, say,
 * tells nothing, nor does a missing one when another database's daemon has the partition: where brokers tell
 * what each member has, that does. */
static bool has_no_reader(const struct consumer *c, const struct store_offset *partition)
{
    int given = kafka_consumer_given(c->kafka.client, partition->topic, partition->partition);

    return given == KAFKA_NOT_KNOWN ? partition->next < 0 : given == 0;
}

/* A static member that comes back is given its former partitions by the broker, without a word to the group:
 * those that a topic got meanwhile would have no reader as long as its members stay. One of a member that is
 * gone is given to another when its session ends, so the looks are further apart than that; and tries get
 * rarer, since who has a partition may be kept from it. */
int consumer_find_unassigned(struct consumer *c, bool *ret, struct error *err)
{
    struct consumer_unassigned *u = &c->kafka.unassigned;
    CLEANUP(freep) struct store_offset *others = NULL;
    uint64_t now = now_monotonic_usec(), apart = c->config->consumers.session_timeout_usec + MARGIN_USEC;
    size_t count, open = 0, first = 0;
    struct error unasked;

    *ret = false;
    find_strangers(c);
    if (now < u->look_at || !c->session.pg || c->partition_count == 0 || c->stop.is_stopped ||
        c->kafka.away.said)
        return PG_DONE;
    u->look_at = now + apart;
    if (list_others(c, &others, &count, &unasked) < 0 || count == 0)
        return PG_DONE;
    int r = store_read_offsets(c->session.pg, c->group_id, others, count, err);
    for (size_t i = 0; r == PG_DONE && i < count; i++)
        if (has_no_reader(c, &others[i]) && open++ == 0)
            first = i;
    if (r != PG_DONE)
        return r;
    *ret = open > 0 && u->seen;
    u->seen = open > 0 && !*ret;
    if (*ret) {
        say_open(c, &others[first], open);
        u->pause = MIN(MAX(2 * u->pause, apart), PAUSE_MAX_USEC);
        u->look_at = now + u->pause;
    } else if (open == 0) {
        u->pause = 0;
    }
    return r;
}

/* A client that begins anew waits on: that is said by the one before. */
static void note_waiting(struct consumer *c, bool waits)
{
    uint64_t now = now_monotonic_usec();

    if (!waits) {
        if (trouble_ends(&c->kafka.waits))
            log_notice("%s: is a member of its consumer group now, and reads on", c->name);
    } else if (trouble_lasts(&c->kafka.waits, now, now, WAITS_USEC)) {
        log_warning(
            "%s: has not been taken into its consumer group for %" PRIu64
            " s, though Kafka answers: the group's coordinator is away (it is the broker that leads the "
            "group's partition of __consumer_offsets), or other members do not answer it. Nothing is read "
            "meanwhile, and nothing is lost; trying again",
            c->name, WAITS_USEC / USEC_PER_SEC);
    }
}

bool consumer_is_outside(struct consumer *c)
{
    uint64_t now = now_monotonic_usec();
    const char *said = c->kafka.last_said.text;
    bool is_member = kafka_consumer_is_member(c->kafka.client);

    if (is_member || c->kafka.away.said || c->kafka.topics_missing || c->kafka.denied.said) {
        if (is_member)
            note_waiting(c, false);
        (void) trouble_ends(&c->kafka.outside);
        return false;
    }
    note_waiting(c, true);
    if (!trouble_lasts(&c->kafka.outside, now, now, OUTSIDE_USEC))
        return false;
    log_warning("%s: has been no member of its group for %" PRIu64
                " s, though Kafka answers%s%s%s: joins again "
                "with a new client, should the address of the group's coordinator have changed",
                c->name, OUTSIDE_USEC / USEC_PER_SEC, *said ? " (it said: " : "", said, *said ? ")" : "");
    (void) trouble_ends(&c->kafka.outside);
    return true;
}
