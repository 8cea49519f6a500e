/* Where an event belongs: the relay computes its partition, and computes it alike when it publishes the event
 * again. Marks are kept by partition, so a copy that somebody has written into another one would count once
 * more: it is passed over. See consumer_internal.h. On the consumer's thread. */
#include <inttypes.h>
#include <stdio.h>

#include "consumers/consumer_internal.h"
#include "kafka/kafka_producer.h"

void homes_free(struct homes *h)
{
    free(h->counts);
    *h = (struct homes){0};
}

/* As relay_topics_partition(). Where no relay has led yet, nobody knows. */
static bool is_at_home(const struct consumer_partition *p, const struct message_event *e)
{
    const struct homes *h = &p->homes;
    char key[32];

    if (h->len == 0)
        return true;
    int32_t actual = h->counts[h->len - 1].count, count = actual;
    for (size_t i = 0; i < h->len && h->counts[i].from_sequence <= e->sequence; i++)
        count = h->counts[i].count;
    int len = snprintf(key, sizeof(key), "%" PRId64, e->subscription_id);
    return kafka_partition((struct bytes){key, (size_t) len}, MIN(count, actual)) == p->number;
}

static int load(struct consumer *c, struct consumer_partition *p, struct error *err)
{
    homes_free(&p->homes);
    p->homes.asked = true;
    return store_read_homes(c->session.pg, p->topic, &p->homes, err);
}

int consumer_find_strays(struct consumer *c, const struct consumer_item *items, const size_t *at,
                         size_t count, bool *strays, struct error *err)
{
    for (size_t i = 0; i < c->partition_count; i++)
        c->partitions[i]->homes.asked = false;
    for (size_t i = 0; i < count; i++) {
        struct consumer_partition *p = items[at[i]].partition;
        const struct message_event *e = &items[at[i]].event;
        if (!p->homes.asked && (p->homes.len == 0 || !is_at_home(p, e))) {
            int r = load(c, p, err);
            if (r != PG_DONE)
                return r;
        }
        strays[i] |= !is_at_home(p, e);
    }
    return PG_DONE;
}
