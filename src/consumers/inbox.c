/* Messages that are no events of ours: what the group's inbox does with them. See consumer_internal.h. On the
 * consumer's thread. */
#include "consumers/consumer_internal.h"

void consumer_read_inbox(struct consumer *c, struct consumer_item *item, const struct kafka_message *message)
{
    item->entry = c->group->inbox->read(message, &item->fault);
    item->kept = kafka_consumer_keep(c->kafka.client);
}

static bool is_entry(const struct consumer_item *item)
{
    return item->entry && !item->fault;
}

int consumer_apply_inbox(struct consumer *c, struct consumer_item *items, size_t item_count,
                         bool *ret_rejected, struct error *err)
{
    CLEANUP(freep) void **entries = NULL;
    CLEANUP(freep) const char **faults = NULL;
    CLEANUP(freep) bool *news = NULL;
    size_t count = 0;

    for (size_t i = 0; i < item_count; i++)
        count += is_entry(&items[i]);
    if (count == 0)
        return PG_DONE;
    entries = xcalloc(count, sizeof(*entries));
    faults = xcalloc(count, sizeof(*faults));
    news = xcalloc(count, sizeof(*news));
    count = 0;
    for (size_t i = 0; i < item_count; i++)
        if (is_entry(&items[i]))
            entries[count++] = items[i].entry;
    int r = c->group->inbox->apply(c->session.pg, entries, count, faults, news, err);
    if (r != PG_DONE)
        return r;
    count = 0;
    for (size_t i = 0; i < item_count; i++) {
        if (!is_entry(&items[i]))
            continue;
        items[i].late = news[count] && items[i].offset < items[i].partition->known_until;
        items[i].fault = faults[count++];
        *ret_rejected |= items[i].fault != NULL;
    }
    return PG_DONE;
}
