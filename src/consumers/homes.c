/* Where an event belongs: the relay computes its partition, and computes it alike when it publishes the event
 * again. Marks are kept by partition, so a copy that somebody has written into another one would count once
 * more: it is passed over. See consumer_internal.h. On the consumer's thread. */
#include "consumers/consumer_internal.h"
#include "kafka/kafka_producer.h"

void homes_free(struct homes *h)
{
    free(h->counts);
    *h = (struct homes){0};
}

/* As relay_topics_partition(). */
int32_t homes_find(const struct homes *h, const struct message_event *e)
{
    char key[I64_TEXT];

    if (h->len == 0)
        return -1;
    int32_t actual = h->counts[h->len - 1].count, count = actual;
    for (size_t i = 0; i < h->len && h->counts[i].from_sequence <= e->sequence; i++)
        count = h->counts[i].count;
    size_t len = (size_t) (put_i64(key, e->subscription_id) - key);
    return kafka_partition((struct bytes){key, len}, MIN(count, actual));
}

/* Where no relay has led yet, nobody knows. */
static bool is_at_home(const struct consumer_partition *p, const struct message_event *e)
{
    int32_t home = homes_find(&p->homes, e);

    return home < 0 || home == p->number;
}

static int load(struct consumer *c, struct consumer_partition *p, struct error *err)
{
    homes_free(&p->homes);
    p->homes.asked = true;
    p->homes.topics = c->session.marks.topics;
    return store_read_homes(c->session.pg, p->topic, &p->homes, err);
}

/* Where events of before, published again, may be marked in another partition: the topic came back with fewer
 * once, and they were marked in one that it no longer has, or, when it has grown since, in one that they had
 * meanwhile; or they came by the topic of another prefix. */
static bool may_be_elsewhere(const struct homes *h)
{
    if (h->moved)
        return true;
    for (size_t i = 0; i + 1 < h->len; i++)
        if (h->counts[i].count > h->counts[i + 1].count)
            return true;
    return false;
}

static int find_repeated(struct consumer *c, const struct consumer_partition *p, struct consumer_item *items,
                         const size_t *at, size_t count, struct error *err)
{
    CLEANUP(freep) int64_t *ids = xcalloc(count + 1, sizeof(*ids));
    CLEANUP(freep) size_t *of = xcalloc(count + 1, sizeof(*of));
    CLEANUP(freep) bool *marked = xcalloc(count + 1, sizeof(*marked));
    size_t found = 0;

    for (size_t i = 0; i < count; i++) {
        if (items[at[i]].partition != p)
            continue;
        of[found] = at[i];
        ids[found++] = items[at[i]].event.sequence;
    }
    if (found == 0)
        return PG_DONE;
    int r = store_find_marked(c->session.pg, c->group->model, event_type_word(p->type), p->number, ids, found,
                              marked, err);
    for (size_t i = 0; i < found; i++)
        items[of[i]].repeated = marked[i];
    return r;
}

/* The topics of another prefix may have their consumers at this moment, and an event that was published in
 * both is marked in two chunks, whose versions guard nothing together. */
static bool is_beside(const struct consumer *c)
{
    for (size_t i = 0; i < c->partition_count && !c->session.marks.alone; i++)
        if (c->partitions[i]->homes.moved)
            return true;
    return false;
}

int consumer_find_strays(struct consumer *c, struct consumer_item *items, const size_t *at, size_t count,
                         bool *strays, struct error *err)
{
    for (size_t i = 0; i < c->partition_count; i++)
        c->partitions[i]->homes.asked = false;
    for (size_t i = 0; i < count; i++) {
        struct consumer_partition *p = items[at[i]].partition;
        const struct message_event *e = &items[at[i]].event;
        bool is_news = p->homes.len == 0 || p->homes.topics != c->session.marks.topics;
        if (!p->homes.asked && (is_news || !is_at_home(p, e))) {
            int r = load(c, p, err);
            if (r != PG_DONE)
                return r;
        }
        strays[i] |= !is_at_home(p, e);
    }
    if (is_beside(c)) {
        c->session.marks.alone = true;
        return STRAYS_BESIDE;
    }
    int r = PG_DONE;
    for (size_t i = 0; r == PG_DONE && i < c->partition_count; i++)
        if (may_be_elsewhere(&c->partitions[i]->homes))
            r = find_repeated(c, c->partitions[i], items, at, count, err);
    return r;
}
