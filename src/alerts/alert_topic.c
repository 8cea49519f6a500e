/* The topic <kafka.topic_prefix>alerts. See alerts_internal.h. The relay creates the topic; alerts are rare,
 * so their producer lives only as long as there is something to tell. Kafka's report acknowledges. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "alerts/alert_sink.h"
#include "base/log.h"
#include "kafka/kafka_producer.h"

#define SINK "topic"
#define NOTICES_MAX 100
#define IDLE_USEC (60 * USEC_PER_SEC)
/* A notice that Kafka has not taken by then is sent anew, with a new producer. */
#define PATIENCE_USEC (60 * USEC_PER_SEC)

struct alert_topic {
    struct kafka_producer *producer;
    int64_t ids[NOTICES_MAX];
    int64_t attempts;
    enum { WAITING, TAKEN, REFUSED } fates[NOTICES_MAX];
    size_t count, reported;
    uint64_t used_at; /* monotonic */
    struct error why;
    struct trouble away;
};

struct alert_topic *alert_topic_new(void)
{
    return xcalloc(1, sizeof(struct alert_topic));
}

void alert_topic_free(struct alert_topic *t)
{
    if (!t)
        return;
    kafka_producer_free(t->producer);
    free(t);
}

static void give_producer_up(struct alert_topic *t)
{
    kafka_producer_free(TAKE_PTR(t->producer));
}

static void on_report(size_t number, enum kafka_fate fate, const char *reason, void *userdata)
{
    struct alert_topic *t = userdata;

    if (number >= t->count || t->fates[number] != WAITING)
        return;
    t->fates[number] = fate == KAFKA_DELIVERED ? TAKEN : REFUSED;
    t->reported++;
    if (reason)
        error_set(&t->why, "%s", reason);
}

static bool open_producer(struct alerts *a, struct alert_topic *t)
{
    CLEANUP(freep) char *name = xasprintf("%salerts", a->config->kafka.topic_prefix);
    const char *const names[] = {name};

    return t->producer || kafka_producer_new(&t->producer, a->config, names, 1, 0, &t->why) == 0;
}

static void send(struct alert_topic *t, size_t number, const struct alert_notice *n)
{
    char key[24];
    enum kafka_fate fate;

    snprintf(key, sizeof(key), "%" PRId64, n->alert_id);
    const struct kafka_header type = {"content_type", {"application/json", strlen("application/json")}};
    const struct kafka_outgoing m = {.key = {key, strlen(key)},
                                     .value = {n->body, strlen(n->body)},
                                     .headers = &type,
                                     .header_count = 1,
                                     .number = number};
    int r = kafka_producer_send(t->producer, &m, &fate, &t->why);
    if (r == KAFKA_QUEUED)
        return;
    t->fates[number] = REFUSED;
    t->reported++;
}

static void send_all(struct alerts *a, struct alert_topic *t, const struct alert_notice *notices,
                     size_t count)
{
    t->count = count;
    t->reported = 0;
    t->attempts = notices[0].attempts;
    t->used_at = now_monotonic_usec();
    memset(t->fates, 0, sizeof(t->fates));
    bool open = open_producer(a, t);
    for (size_t i = 0; i < count; i++) {
        t->ids[i] = notices[i].id;
        if (open)
            send(t, i, &notices[i]);
        else
            on_report(i, KAFKA_REFUSED, NULL, t);
    }
    if (open)
        kafka_producer_flush(t->producer);
}

/* All that Kafka has taken; the first that it has not, and all behind it, are sent again. */
static int report(struct alerts *a, struct alert_topic *t, struct error *err)
{
    size_t taken = 0;
    int r = PG_DONE;

    while (taken < t->count && t->fates[taken] == TAKEN)
        taken++;
    if (taken > 0)
        r = alerts_outbox_sent(a->pg, t->ids, taken, err);
    if (r == PG_DONE && taken < t->count)
        r = alerts_outbox_postponed(a->pg, SINK, &t->ids[taken], t->count - taken, t->attempts + 1,
                                    t->why.text, err);
    if (r != PG_DONE)
        return r;
    if (taken == t->count && trouble_ends(&t->away))
        log_notice("Kafka takes alerts again");
    else if (taken < t->count && trouble_begins(&t->away))
        log_warning("Kafka does not take alerts: %s; trying again", t->why.text);
    if (taken < t->count)
        give_producer_up(t);
    t->count = 0;
    return PG_DONE;
}

static void give_up_waiting(struct alert_topic *t)
{
    give_producer_up(t);
    error_set(&t->why, "no broker has answered");
    for (size_t i = 0; i < t->count; i++)
        on_report(i, KAFKA_UNKNOWN, NULL, t);
}

static void wait_for_reports(struct alert_topic *t)
{
    bool late = now_monotonic_usec() - t->used_at > PATIENCE_USEC;
    struct error why;

    if (kafka_producer_poll(t->producer, 0, on_report, t, &why) == KAFKA_BROKEN ||
        (late && t->reported < t->count))
        give_up_waiting(t);
}

int alert_topic_turn(struct alerts *a, struct alert_topic *t, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    CLEANUP(freep) struct alert_notice *notices = NULL;
    size_t count = 0;

    if (t->count > t->reported && t->producer)
        wait_for_reports(t);
    if (t->count > t->reported)
        return PG_DONE;
    int r = t->count > 0 ? report(a, t, err) : PG_DONE;
    if (r == PG_DONE)
        r = alerts_outbox_read(a->pg, SINK, NOTICES_MAX, &result, &notices, &count, err);
    if (r == PG_DONE && count > 0)
        send_all(a, t, notices, count);
    else if (t->producer && now_monotonic_usec() - t->used_at > IDLE_USEC)
        give_producer_up(t);
    return r;
}
