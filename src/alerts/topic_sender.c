/* See topic_sender.h. */
#include "alerts/topic_sender.h"

#include "base/log.h"
#include "base/timeutil.h"
#include "base/trouble.h"

#define ALONE 1 /* one that Kafka refuses takes no neighbours with it */
#define IDLE_USEC (60 * USEC_PER_SEC)
/* What Kafka has not taken by then is sent anew, with a new producer. */
#define PATIENCE_USEC (60 * USEC_PER_SEC)
/* The reports of what was refused come behind the fatal error. */
#define BROKEN_USEC (5 * USEC_PER_SEC)

struct topic_sender {
    const char *topic, *rows;
    char *name; /* of the topic, with its prefix, as the last round had it */
    struct kafka_producer *producer;
    int64_t ids[TOPIC_SENDER_MAX];
    enum { WAITING, TAKEN, REFUSED, LOST } fates[TOPIC_SENDER_MAX];
    size_t count, reported;
    uint64_t used_at, until; /* monotonic */
    struct error why;
    struct trouble away;
};

struct topic_sender *topic_sender_new(const char *topic, const char *rows)
{
    struct topic_sender *t = xcalloc(1, sizeof(*t));

    t->topic = topic;
    t->rows = rows;
    return t;
}

void topic_sender_free(struct topic_sender *t)
{
    if (!t)
        return;
    kafka_producer_free(t->producer);
    free(t->name);
    free(t);
}

static void give_producer_up(struct topic_sender *t)
{
    kafka_producer_free(TAKE_PTR(t->producer));
}

static void on_report(size_t number, enum kafka_fate fate, const char *reason, void *userdata)
{
    struct topic_sender *t = userdata;

    if (number >= t->count || t->fates[number] != WAITING)
        return;
    t->fates[number] = fate == KAFKA_DELIVERED ? TAKEN : fate == KAFKA_REFUSED ? REFUSED : LOST;
    t->reported++;
    if (reason)
        error_set(&t->why, "%s", reason);
}

void topic_sender_begin(struct topic_sender *t, const struct config *config)
{
    free(t->name);
    t->name = xasprintf("%s%s", config->kafka.topic_prefix, t->topic);
    const char *const names[] = {t->name};

    t->count = t->reported = 0;
    t->used_at = now_monotonic_usec();
    t->until = t->used_at + PATIENCE_USEC;
    if (!t->producer)
        (void) kafka_producer_new(&t->producer, config, names, 1, ALONE, &t->why);
}

void topic_sender_add(struct topic_sender *t, int64_t id, struct bytes key, struct bytes value,
                      const struct kafka_header *headers, size_t header_count)
{
    const struct kafka_outgoing m = {
        .key = key, .value = value, .headers = headers, .header_count = header_count, .number = t->count};
    enum kafka_fate fate = KAFKA_UNKNOWN;

    t->ids[t->count] = id;
    t->fates[t->count++] = WAITING;
    if (!t->producer || kafka_producer_send(t->producer, &m, &fate, &t->why) != KAFKA_QUEUED)
        on_report(t->count - 1, fate, NULL, t);
}

void topic_sender_flush(struct topic_sender *t)
{
    if (t->producer)
        kafka_producer_flush(t->producer);
}

static void give_up_waiting(struct topic_sender *t)
{
    give_producer_up(t);
    error_set(&t->why, "no broker has answered");
    for (size_t i = 0; i < t->count; i++)
        on_report(i, KAFKA_UNKNOWN, NULL, t);
}

bool topic_sender_waits(struct topic_sender *t)
{
    uint64_t now = now_monotonic_usec();
    struct error why;

    if (t->count == t->reported || !t->producer)
        return false;
    if (kafka_producer_poll(t->producer, 0, on_report, t, &why) == KAFKA_BROKEN)
        t->until = MIN(t->until, now + BROKEN_USEC);
    if (t->reported < t->count && now > t->until)
        give_up_waiting(t);
    return t->count > t->reported;
}

size_t topic_sender_end(struct topic_sender *t, const int64_t **ret_ids, size_t *ret_taken, bool *ret_refused)
{
    size_t count = t->count;

    *ret_ids = t->ids;
    *ret_taken = 0;
    while (*ret_taken < count && t->fates[*ret_taken] == TAKEN)
        ++*ret_taken;
    *ret_refused = *ret_taken < count && t->fates[*ret_taken] == REFUSED;
    if (*ret_taken < count)
        give_producer_up(t);
    t->count = t->reported = 0;
    return count;
}

const char *topic_sender_why(const struct topic_sender *t)
{
    return t->why.text;
}

void topic_sender_say(struct topic_sender *t, bool took_all)
{
    if (took_all && trouble_ends(&t->away))
        log_notice("Kafka takes %s again", t->rows);
    else if (!took_all && trouble_begins(&t->away))
        log_warning("Kafka does not take %s (topic \"%s\"): %s; trying again", t->rows, t->name, t->why.text);
}

void topic_sender_rest(struct topic_sender *t)
{
    if (t->producer && now_monotonic_usec() - t->used_at > IDLE_USEC)
        give_producer_up(t);
}
