/* A partition that goes on, but in which nothing can be read: a transaction that another program has left
 * open holds back whatever comes after it. See consumer_internal.h. On the consumer's thread. */
#include <inttypes.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"
#include "consumers/consumer_internal.h"

#define ASK_MS 1000
/* Looks come every ten seconds. */
#define HELD_USEC (5 * USEC_PER_SEC)

static void go_on(const struct consumer *c, struct consumer_partition *p)
{
    if (p->held.said)
        log_about(LOG_NOTICE, MSG_HELD_BACK,
                  &(const struct log_about){.kafka_topic = p->topic, .kafka_partition = (int) p->number},
                  "%s: partition %d of \"%s\" goes on: the transaction in it is over", c->name,
                  (int) p->number, p->topic);
    p->held.end = -1;
    p->held.said = false;
}

static void say_held(const struct consumer *c, struct consumer_partition *p, int64_t high)
{
    p->held.said = true;
    log_about(LOG_WARNING, MSG_HELD_BACK,
              &(const struct log_about){.kafka_topic = p->topic,
                                        .kafka_partition = (int) p->number,
                                        .kafka_offset = p->held.end,
                                        .kafka_at = true},
              "%s: nothing behind offset %" PRId64
              " of \"%s\", partition %d, can be read, though it goes on to %" PRId64
              ": another program has left a transaction open there. It is read when that ends; Kafka's "
              "kafka-transactions.sh finds and aborts it",
              c->name, p->held.end, p->topic, (int) p->number, high);
}

/* The broker gives the end of what can be read; its answers to a reader tell of all that is there. Behind a
 * transaction that was ended there is a mark, which is no message: so the first alone says nothing. */
static void look_at(const struct consumer *c, struct consumer_partition *p)
{
    int64_t high = kafka_consumer_seen_end(c->kafka.client, p->topic, p->number), first, end;
    uint64_t now = now_monotonic_usec();
    bool rests = p->next == p->held.next;
    struct error err;

    p->held.next = p->next;
    if (!rests || high <= p->next) {
        go_on(c, p);
        return;
    }
    if (kafka_consumer_range(c->kafka.client, p->topic, p->number, ASK_MS, &first, &end, &err) < 0)
        return;
    if (end >= high) {
        go_on(c, p);
    } else if (end != p->held.end) {
        go_on(c, p);
        p->held.end = end;
        p->held.since = now;
    } else if (!p->held.said && now - p->held.since >= HELD_USEC) {
        say_held(c, p, high);
    }
}

void consumer_look_behind(struct consumer *c)
{
    for (size_t i = 0; i < c->partition_count && !c->kafka.away.said; i++)
        if (c->partitions[i]->started)
            look_at(c, c->partitions[i]);
}
