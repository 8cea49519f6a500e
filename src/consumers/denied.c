/* What Kafka's rules of access forbid to a group, and that they do no longer. See consumer_internal.h. On the
 * consumer's thread. */
#include <string.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"
#include "consumers/consumer_internal.h"

#define ASK_MS 1000
#define ASK_USEC (5 * USEC_PER_SEC)

void consumer_say_denied(struct consumer *c, const struct kafka_poll *poll)
{
    if (!trouble_begins(&c->kafka.denied))
        return;
    c->kafka.denied_topic = NULL;
    for (size_t i = 0; poll->count > 0 && c->topics[i]; i++)
        if (strcmp(c->topics[i], poll->partitions[0].topic) == 0)
            c->kafka.denied_topic = c->topics[i];
    if (c->kafka.denied_topic)
        log_line(
            LOG_ALERT, MSG_KAFKA_TOPIC,
            "%s: cannot read: Kafka forbids topic \"%s\" to this client: let its user Describe and Read the "
            "topic, or correct kafka.topic_prefix. What is in it is read later; trying again",
            c->name, c->kafka.denied_topic);
    else
        log_line(
            LOG_ALERT, MSG_KAFKA_TOPIC,
            "%s: cannot read: Kafka forbids group \"%s\" to this client: let its user Read the group, or "
            "correct consumers.group_prefix. What is in the topics is read later; trying again",
            c->name, c->group_id);
}

void consumer_say_allowed(struct consumer *c, const char *topic)
{
    const char *denied = c->kafka.denied_topic;

    if (!c->kafka.denied.said || (denied && (!topic || strcmp(denied, topic) != 0)))
        return;
    (void) trouble_ends(&c->kafka.denied);
    log_line(LOG_NOTICE, MSG_KAFKA_TOPIC, "%s: Kafka lets this client read %s \"%s\" again", c->name,
             denied ? "topic" : "by group", denied ? denied : c->group_id);
}

/* Where nothing comes, the broker's answers to a reader are silent. Whoever may read a topic may commit an
 * offset of it, and nobody else. */
void consumer_ask_whether_allowed(struct consumer *c)
{
    const char *denied = c->kafka.denied_topic;
    uint64_t now = now_monotonic_usec();

    if (!c->kafka.denied.said || !denied || now < c->kafka.denied_ask_at)
        return;
    c->kafka.denied_ask_at = now + ASK_USEC;
    for (size_t i = 0; i < c->partition_count; i++) {
        const struct consumer_partition *p = c->partitions[i];
        if (!p->started || strcmp(p->topic, denied) != 0)
            continue;
        const struct kafka_partition at = {.topic = p->topic, .partition = p->number, .offset = p->next};
        if (kafka_consumer_may_commit(c->kafka.client, &at, ASK_MS))
            consumer_say_allowed(c, denied);
        return;
    }
}
