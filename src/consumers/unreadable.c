/* What the client library cannot unpack, or finds damaged: a few bytes that unpack to more than it takes,
 * say, which whoever may write to a topic can put there. It would stand still there for ever. See
 * consumer_internal.h. On the consumer's thread.
 *
 * Only messages of ours count, and those are small. Should one of them be passed over with the rest of its
 * batch, it is published again: see monitor_unread.sql. */
#include <inttypes.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"
#include "consumers/consumer_internal.h"

#define PATIENCE_USEC (10 * USEC_PER_SEC) /* it may have been damaged on its way */

static void say(const struct consumer *c, const struct consumer_partition *p, const struct error *why)
{
    const struct log_about about = {.kafka_topic = p->topic,
                                    .kafka_partition = (int) p->number,
                                    .kafka_offset = p->next,
                                    .kafka_at = true,
                                    .error = why->text};

    log_about(LOG_ERR, MSG_CONSUMER_GAP, &about,
              "%s: partition %d of \"%s\" cannot be read on at offset %" PRId64 ": %s. After %" PRIu64
              " s what stands there is passed over",
              c->name, (int) p->number, p->topic, p->next, why->text, PATIENCE_USEC / USEC_PER_SEC);
}

static void pass_over(struct consumer *c, struct consumer_partition *p)
{
    struct consumer_item *item = consumer_append(&c->batch);

    item->partition = p;
    item->offset = p->next;
    item->foreign = true;
    p->unreadable.passed = true;
    p->unreadable.since = now_monotonic_usec(); /* again, should the batch be given up */
}

void consumer_pass_unreadable(struct consumer *c, const struct kafka_poll *poll)
{
    struct consumer_partition *p =
        consumer_started(c, poll->partitions[0].topic, poll->partitions[0].partition);
    uint64_t now = now_monotonic_usec();

    if (!p)
        return;
    struct unreadable *u = &p->unreadable;
    if (u->since > 0 && u->passed && p->next == u->at + 1) {
        /* The library does not know yet that it is. What comes next may be the rest of the same batch. */
        *u = (struct unreadable){.at = p->next, .since = now - PATIENCE_USEC};
        consumer_read_on(c, p);
    } else if (u->since == 0 || p->next != u->at) {
        *u = (struct unreadable){.at = p->next, .since = now};
        say(c, p, &poll->error);
    } else if (now - u->since >= PATIENCE_USEC) {
        pass_over(c, p);
    }
}
