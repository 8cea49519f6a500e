/* Messages that are passed over, and what is said of them: another installation's, and events in our name
 * that the ledger does not have, or not there; and others that handle ours. See consumer_internal.h. On the
 * consumer's thread. */
#include <inttypes.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"
#include "consumers/consumer_internal.h"

#define QUIET_USEC (60 * USEC_PER_SEC)
#define RIVALS_USEC (10 * USEC_PER_SEC) /* between looks */
#define RIVAL_PATIENCE_USEC (30 * USEC_PER_SEC)

/* Once: both installations go on writing there, and nothing else tells why counters stand still while the
 * other one's consumers have the partitions. */
void consumer_say_shared(struct consumer *c, const struct kafka_message *message)
{
    const struct log_about about = {.kafka_topic = message->topic,
                                    .kafka_partition = (int) message->partition,
                                    .kafka_offset = message->offset,
                                    .kafka_at = true};
    char other[INSTALLATION_TEXT];

    if (c->kafka.shared_said || !message_installation(message, c->session.installation, other))
        return;
    c->kafka.shared_said = true;
    log_about(
        LOG_WARNING, MSG_SHARED_TOPICS, &about,
        "%s: \"%s\" has events of another installation (%s; this one is %s), which are passed over: give each "
        "database a kafka.topic_prefix and a consumers.group_prefix of its own",
        c->name, message->topic, other, c->session.installation);
}

bool consumer_is_counted(const struct consumer_item *item)
{
    return item->offset >= item->partition->known_until;
}

int consumer_count_unknown(struct consumer *c, const struct consumer_item *items, size_t item_count,
                           struct error *err)
{
    CLEANUP(freep) struct store_offset *offsets = xcalloc(c->partition_count, sizeof(*offsets));
    size_t count = 0;

    for (size_t i = 0; i < item_count; i++)
        items[i].partition->window_unknown += items[i].unknown && consumer_is_counted(&items[i]);
    for (size_t i = 0; i < c->partition_count; i++) {
        const struct consumer_partition *p = c->partitions[i];
        if (p->window_unknown > 0)
            offsets[count++] = (struct store_offset){
                .topic = p->topic, .partition = p->number, .unknown = p->window_unknown};
    }
    return count > 0 ? store_count_unknown(c->session.pg, c->group_id, offsets, count, err) : PG_DONE;
}

void consumer_recall_unknown(struct consumer *c)
{
    if (c->unknown.count == 0 || now_monotonic_usec() < c->unknown.quiet_until)
        return;
    log_line(LOG_WARNING, MSG_UNKNOWN_EVENTS,
             "%s: has passed over %" PRIu64
             " more events that are not in the ledger, or not in their partition",
             c->name, c->unknown.count);
    c->unknown = (struct consumer_unknown){.quiet_until = now_monotonic_usec() + QUIET_USEC};
}

static void say_first(struct consumer *c, const struct consumer_item *item)
{
    const struct log_about about = {.subscription_id = item->event.subscription_id,
                                    .integration_id = item->event.integration_id,
                                    .kafka_topic = item->partition->topic,
                                    .kafka_partition = (int) item->partition->number,
                                    .kafka_offset = item->offset,
                                    .kafka_at = true};

    log_about(
        LOG_WARNING, MSG_UNKNOWN_EVENTS, &about,
        "%s: passes over %" PRIu64
        " event%s in the name of this installation that are not in its ledger, or not in their partition, "
        "the first with sequence %" PRId64 " at offset %" PRId64 " of \"%s\", partition %d: the "
        "database was set back to an earlier time, a copy of it publishes under its name (for which \"anubisctl "
        "installation --same\" was run), the topic has had another number of partitions, or somebody else wrote "
        "to it",
        c->name, c->unknown.count, plural((int64_t) c->unknown.count), item->event.sequence, item->offset,
        item->partition->topic, (int) item->partition->number);
    c->unknown = (struct consumer_unknown){.quiet_until = now_monotonic_usec() + QUIET_USEC};
}

void consumer_say_unknown(struct consumer *c, const struct consumer_item *items, size_t item_count)
{
    const struct consumer_item *first = NULL;

    for (size_t i = 0; i < item_count; i++) {
        if (!items[i].unknown)
            continue;
        first = first ? first : &items[i];
        c->unknown.count++;
    }
    if (first && now_monotonic_usec() >= c->unknown.quiet_until)
        say_first(c, first);
}

/* Two groups that handle one read model fence each other off whenever they meet in one chunk of its marks.
 * That of a former prefix goes on for a moment. */
void consumer_find_rival(struct consumer *c)
{
    CLEANUP(freep) char *rival = NULL;
    struct error ignored;
    uint64_t now = now_monotonic_usec();

    if (!c->session.pg || now < c->kafka.rival.look_at)
        return;
    c->kafka.rival.look_at = now + RIVALS_USEC;
    if (store_find_rival(c->session.pg, c->group_id, c->group->model, &rival, &ignored) != PG_DONE)
        return;
    if (!rival)
        (void) trouble_ends(&c->kafka.rival.trouble);
    else if (trouble_lasts(&c->kafka.rival.trouble, now, now, RIVAL_PATIENCE_USEC))
        log_warning(
            "%s: another daemon of this database handles the same events in the group \"%s\": each reads "
            "all of them, and nothing counts twice; set consumers.group_prefix alike",
            c->name, rival);
}

void consumer_say_fenced(struct consumer *c)
{
    uint64_t now = now_monotonic_usec();
    bool is_news = now >= c->kafka.rival.quiet_until;

    if (is_news)
        c->kafka.rival.quiet_until = now + QUIET_USEC;
    if (is_news && c->kafka.rival.trouble.since == 0)
        log_notice(
            "%s: somebody else has moved the offset of a partition, or stopped the group; starting over",
            c->name);
}
