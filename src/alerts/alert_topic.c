/* The topic <kafka.topic_prefix>alerts. See alerts_internal.h. Kafka's report acknowledges. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "alerts/alert_sink.h"
#include "alerts/topic_sender.h"

#define SINK "topic"

struct alert_topic {
    struct topic_sender *sender;
    int64_t attempts;
};

struct alert_topic *alert_topic_new(void)
{
    struct alert_topic *t = xcalloc(1, sizeof(*t));

    t->sender = topic_sender_new("alerts", "alerts");
    return t;
}

void alert_topic_free(struct alert_topic *t)
{
    if (!t)
        return;
    topic_sender_free(t->sender);
    free(t);
}

static void send_all(struct alerts *a, struct alert_topic *t, const struct alert_notice *notices,
                     size_t count)
{
    const struct kafka_header type = {"content_type", {"application/json", strlen("application/json")}};
    char key[24];

    t->attempts = notices[0].attempts;
    topic_sender_begin(t->sender, a->config);
    for (size_t i = 0; i < count; i++) {
        const struct alert_notice *n = &notices[i];
        snprintf(key, sizeof(key), "%" PRId64, n->alert_id);
        topic_sender_add(t->sender, n->id, (struct bytes){key, strlen(key)},
                         (struct bytes){n->body, strlen(n->body)}, &type, 1);
    }
    topic_sender_flush(t->sender);
}

/* All that Kafka has taken; the first that it has not, and all behind it, are sent again. */
static int report(struct alerts *a, struct alert_topic *t, struct error *err)
{
    const int64_t *ids;
    size_t taken;
    bool refused;
    size_t count = topic_sender_end(t->sender, &ids, &taken, &refused);
    int r = PG_DONE;

    if (taken > 0)
        r = alerts_outbox_sent(a->pg, ids, taken, err);
    if (r == PG_DONE && taken < count)
        r = alerts_outbox_postponed(a->pg, SINK, &ids[taken], count - taken, t->attempts + 1,
                                    topic_sender_why(t->sender), err);
    if (r == PG_DONE && count > 0)
        topic_sender_say(t->sender, taken == count);
    return r;
}

int alert_topic_turn(struct alerts *a, struct alert_topic *t, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    CLEANUP(freep) struct alert_notice *notices = NULL;
    size_t count = 0;

    if (topic_sender_waits(t->sender))
        return PG_DONE;
    int r = report(a, t, err);
    if (r == PG_DONE)
        r = alerts_outbox_read(a->pg, SINK, TOPIC_SENDER_MAX, &result, &notices, &count, err);
    if (r == PG_DONE && count > 0)
        send_all(a, t, notices, count);
    else
        topic_sender_rest(t->sender);
    return r;
}
