/* New messages where others had been read: a broker lost the end of its log, which has grown again since. See
 * consumer_internal.h and offset_decision.h. On the consumer's thread. */
#include <inttypes.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "consumers/consumer_internal.h"

/* A broker loses in a power cut what it had not yet written to its disk, of half a minute perhaps. What is
 * read twice costs a look into the marks. */
#define DOUBTED_MESSAGES 20000
/* Where the first of them are new too, the log was cut before: so many times as far is read next. */
#define FARTHER 8

int64_t consumer_read_again_from(struct consumer_partition *p, int64_t first, int64_t next)
{
    int64_t reach = p->again.farther ? FARTHER * (p->again.to - p->again.from) : DOUBTED_MESSAGES;
    int64_t from = MAX(first, next - reach);

    p->again.from = from;
    p->again.to = next;
    p->again.whole = from == first;
    p->again.farther = false;
    return from;
}

/* What was lost of events the ledger has, and the relay notices it where it publishes; of what others write,
 * nobody here. */
static void say(const struct consumer *c, const struct consumer_partition *p, int64_t offset)
{
    bool events = p->type < EVENT_TYPES;
    const char *lost = events ? "What Kafka has lost before it was read is published again; should "
                                "\"anubisctl verify\" go on naming events that are not handled, run "
                                "\"anubisctl replay --group "
                              : "What was lost before it was read can only be written again by who wrote it";

    log_about(
        LOG_WARNING, MSG_CONSUMER_GAP,
        &(const struct log_about){.kafka_topic = p->topic,
                                  .kafka_partition = (int) p->number,
                                  .kafka_offset = offset,
                                  .kafka_at = true},
        "%s: partition %d of \"%s\" was read up to offset %" PRId64 ", but has new %s from offset %" PRId64
        " on (a broker lost the end of its log, the topic was made anew, or marks are gone); they are handled now. "
        "%s%s%s",
        c->name, (int) p->number, p->topic, p->known_until, events ? "events" : "messages", offset, lost,
        events ? c->group->model : "", events ? "\"" : "");
}

void consumer_note_late(const struct consumer *c, const struct consumer_item *items, size_t item_count)
{
    for (size_t i = 0; i < item_count; i++) {
        struct consumer_partition *p = items[i].partition;
        if (!items[i].late || items[i].fault)
            continue;
        /* One in the first half: before it there may be others. */
        p->again.farther |=
            !p->again.whole && items[i].offset < p->again.from + (p->again.to - p->again.from) / 2;
        if (!p->again.said)
            say(c, p, items[i].offset);
        p->again.said = true;
    }
}
