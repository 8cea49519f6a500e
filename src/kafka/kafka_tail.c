/* The newest messages of topics. See kafka_tail.h.
 *
 * By the library's simple interface: no group is joined, and no offset is asked for or committed. */
#include "kafka/kafka_tail.h"

#include <errno.h>
#include <librdkafka/rdkafka.h>

#include "base/timeutil.h"
#include "kafka/kafka_conf.h"
#include "kafka/kafka_fault.h"
#include "kafka/kafka_times.h"

#define MESSAGES 100 /* of each partition at first */
#define ASK_MS 1000
#define UNREADABLE_USEC (10 * USEC_PER_SEC) /* it may have been damaged on its way */

/* A partition, and the stretch of it that is being read: from `first` on, below `until`. */
struct part {
    rd_kafka_topic_t *topic;
    int number;
    int64_t known_until;  /* nothing before is wanted, -1 = not known */
    int64_t first;        /* of the last messages it is the lowest offset that came */
    int64_t until;        /* INT64_MAX = the end of the partition, which nobody has told yet */
    int64_t newest_ms;    /* of the messages that came, -1 = none */
    int64_t start;        /* where the partition begins, -1 = not asked yet */
    int64_t next;         /* what is read next, -1 = not known */
    uint64_t stuck_since; /* monotonic: what stands there cannot be unpacked, 0 = it can */
    bool vouched; /* a known message stands before known_until: it is of this topic, not of a former one */
    bool enough, done;
    bool ended; /* the stretch has come, and what follows is not begun */
};

struct kafka_tail {
    rd_kafka_t *rk;
    rd_kafka_queue_t *queue, *events;
    struct tail_topic {
        rd_kafka_topic_t *handle;
        struct part *parts;
        int partitions;
    } * topics;
    struct part *parts; /* of all topics */
    size_t count, part_count;
    size_t next; /* the part whose turn it is to go on */
    int64_t since_usec;
    size_t open;  /* partitions that are not done */
    size_t ended; /* those with a stretch that has ended */
    rd_kafka_message_t *message;
    struct part *part; /* of the message */
};

static void start_topic(struct kafka_tail *t, struct tail_topic *topic, const struct kafka_tail_topic *from)
{
    rd_kafka_topic_conf_t *conf = rd_kafka_default_topic_conf_dup(t->rk);

    rd_kafka_topic_conf_set_opaque(conf, topic);
    topic->handle = rd_kafka_topic_new(t->rk, from->name, conf);
    topic->partitions = from->partitions;
    topic->parts = t->parts + t->part_count;
    t->part_count += (size_t) from->partitions;
    for (int p = 0; p < from->partitions; p++) {
        struct part *part = &topic->parts[p];
        *part = (struct part){.topic = topic->handle,
                              .number = p,
                              .known_until = from->known_until ? from->known_until[p] : -1,
                              .first = INT64_MAX,
                              .until = INT64_MAX,
                              .newest_ms = -1,
                              .start = -1,
                              .next = -1};
        part->done =
            rd_kafka_consume_start_queue(topic->handle, p, RD_KAFKA_OFFSET_TAIL(MESSAGES), t->queue) != 0;
        t->open += !part->done;
    }
}

int kafka_tail_new(struct kafka_tail **ret, const struct config *config,
                   const struct kafka_tail_topic *topics, size_t count, int64_t since_usec, struct error *err)
{
    /* Where retention has left fewer messages than are wanted, all that are there. */
    static const struct kafka_setting own[] = {{"enable.partition.eof", "true"},
                                               {"fetch.wait.max.ms", "10"},
                                               {"auto.offset.reset", "earliest"},
                                               {"isolation.level", "read_uncommitted"},
                                               {NULL, NULL}};
    rd_kafka_t *rk;
    int r = kafka_client_new(&rk, config, KAFKA_CONSUMER, own, err);

    if (r < 0)
        return r;
    struct kafka_tail *t = xcalloc(1, sizeof(*t));
    t->rk = rk;
    t->queue = rd_kafka_queue_new(rk);
    t->events = rd_kafka_queue_get_main(rk);
    t->topics = xcalloc(count + 1, sizeof(*t->topics));
    t->count = count;
    t->since_usec = since_usec;
    size_t parts = 0;
    for (size_t i = 0; i < count; i++)
        parts += (size_t) topics[i].partitions;
    t->parts = xcalloc(parts + 1, sizeof(*t->parts));
    for (size_t i = 0; i < count; i++)
        start_topic(t, &t->topics[i], &topics[i]);
    *ret = t;
    return 0;
}

static void drop_message(struct kafka_tail *t)
{
    t->part = NULL;
    if (t->message)
        rd_kafka_message_destroy(TAKE_PTR(t->message));
}

void kafka_tail_free(struct kafka_tail *t)
{
    if (!t)
        return;
    drop_message(t);
    for (size_t i = 0; i < t->part_count; i++)
        if (!t->parts[i].done)
            rd_kafka_consume_stop(t->parts[i].topic, t->parts[i].number);
    for (size_t i = 0; i < t->count; i++)
        rd_kafka_topic_destroy(t->topics[i].handle);
    rd_kafka_queue_destroy(t->queue);
    rd_kafka_queue_destroy(t->events);
    kafka_client_free(t->rk, 0);
    free(t->parts);
    free(t->topics);
    free(t);
}

/* --- stretches -------------------------------------------------------------------------------- */

static void finish(struct kafka_tail *t, struct part *part)
{
    if (part->done)
        return;
    rd_kafka_consume_stop(part->topic, part->number);
    part->done = true;
    t->ended -= part->ended;
    t->open--;
}

/* What is written while the look goes on is not waited for: it may not end. An end before what was known is
 * that of a topic which was made anew, or has lost its end. */
static void set_end(struct part *part, int64_t end)
{
    part->until = end;
    if (part->known_until > end)
        part->known_until = -1;
}

static void end_stretch(struct kafka_tail *t, struct part *part)
{
    part->ended = true;
    part->first = MIN(part->first, part->until);
    t->ended++;
}

static bool is_old(const struct kafka_tail *t, const struct part *part)
{
    return part->newest_ms >= 0 && part->newest_ms < t->since_usec / (int64_t) USEC_PER_MSEC;
}

static bool has_enough(const struct kafka_tail *t, const struct part *part)
{
    bool before = part->first <= part->known_until && part->vouched;
    bool well_before = (part->known_until < 0 || part->first <= part->known_until) && is_old(t, part);

    return part->enough || before || well_before || part->first <= MAX(part->start, 0);
}

static int ask_start(struct kafka_tail *t, struct part *part, struct error *err)
{
    const char *topic = rd_kafka_topic_name(part->topic);
    int64_t start, end;
    int code = kafka_ends_ask(t->rk, topic, part->number, ASK_MS, &start, &end);

    if (code) {
        error_set(err, "could not ask where partition %d of \"%s\" begins: %s", part->number, topic,
                  rd_kafka_err2str(code));
        return -EIO;
    }
    part->start = start;
    return 0;
}

/* What the library has of the former stretch it drops; without a time it does not wait. */
static void go_back(struct kafka_tail *t, struct part *part)
{
    int64_t known = part->first > part->known_until ? part->known_until : 0;
    int64_t least = MAX(part->start, known), length = 2 * (part->until - part->first);

    part->until = part->first;
    part->first -= MIN(MAX(length, MESSAGES), part->first - least);
    part->newest_ms = -1;
    part->ended = false;
    t->ended--;
    part->next = part->first;
    rd_kafka_seek(part->topic, part->number, part->first, 0);
}

/* Each stretch that has come is followed by the one before it; one question at a time. A partition that does
 * not answer has to wait for the others. */
static enum kafka_tail_result go_on(struct kafka_tail *t, struct error *err)
{
    for (size_t i = 0; i < t->part_count && t->ended > 0; i++) {
        struct part *part = &t->parts[t->next];
        t->next = (t->next + 1) % t->part_count;
        if (!part->ended || part->done)
            continue;
        if (has_enough(t, part)) {
            finish(t, part);
            continue;
        }
        if (part->start < 0)
            return ask_start(t, part, err) < 0 ? KAFKA_TAIL_REFUSED : KAFKA_TAIL_NOTHING;
        go_back(t, part);
    }
    return KAFKA_TAIL_NOTHING;
}

/* --- messages --------------------------------------------------------------------------------- */

/* A broker that cannot be reached, say. */
static enum kafka_tail_result read_events(struct kafka_tail *t, enum kafka_tail_result result,
                                          struct error *err)
{
    rd_kafka_event_t *event;

    while ((event = rd_kafka_queue_poll(t->events, 0))) {
        if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_ERROR) {
            kafka_fault_words(t->rk, rd_kafka_event_error_string(event), err);
            if (result != KAFKA_TAIL_NO_BROKER)
                result = rd_kafka_event_error(event) == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN
                             ? KAFKA_TAIL_NO_BROKER
                             : KAFKA_TAIL_REFUSED;
        }
        rd_kafka_event_destroy(event);
    }
    return result;
}

static enum kafka_tail_result take_message(struct kafka_tail *t, struct part *part)
{
    const rd_kafka_message_t *m = t->message;
    rd_kafka_timestamp_type_t type;
    int64_t low, end;

    if (part->until == INT64_MAX &&
        !rd_kafka_get_watermark_offsets(t->rk, rd_kafka_topic_name(part->topic), part->number, &low, &end) &&
        end > m->offset)
        set_end(part, end);
    if (m->offset >= part->until) {
        end_stretch(t, part);
        return KAFKA_TAIL_NOTHING;
    }
    t->part = part;
    part->next = m->offset + 1;
    part->stuck_since = 0;
    part->first = MIN(part->first, m->offset);
    part->newest_ms = MAX(part->newest_ms, rd_kafka_message_timestamp(m, &type));
    if (m->offset + 1 == part->until)
        end_stretch(t, part);
    return KAFKA_TAIL_MESSAGE;
}

/* What the library cannot unpack, which whoever may write to the topic can put there. The offset that it
 * tells is where the batch begins. Ours are small; one that was damaged is not known here either. */
static void pass_over(struct kafka_tail *t, struct part *part, int64_t batch)
{
    uint64_t now = now_monotonic_usec();
    int64_t low, end = INT64_MAX;

    part->stuck_since = part->stuck_since ? part->stuck_since : now;
    if (now - part->stuck_since < UNREADABLE_USEC)
        return;
    part->first = MIN(part->first, MAX(batch, part->next));
    part->next = MAX(batch, part->next) + 1;
    if (part->until == INT64_MAX &&
        !rd_kafka_get_watermark_offsets(t->rk, rd_kafka_topic_name(part->topic), part->number, &low, &end) &&
        end >= part->next)
        set_end(part, end);
    if (part->next >= part->until)
        end_stretch(t, part);
    else
        rd_kafka_seek(part->topic, part->number, part->next, 0);
}

static enum kafka_tail_result take_refusal(struct kafka_tail *t, struct part *part, struct error *err)
{
    const rd_kafka_message_t *m = t->message;
    const char *topic = m->rkt ? rd_kafka_topic_name(m->rkt) : "";

    switch (m->err) {
    case RD_KAFKA_RESP_ERR__PARTITION_EOF:
        if (part->until == INT64_MAX)
            set_end(part, m->offset);
        end_stretch(t, part);
        return KAFKA_TAIL_NOTHING;
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
        t->part = part;
        error_set(err, "the brokers know no partition %d of \"%s\"", part->number, topic);
        return KAFKA_TAIL_GONE;
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
        error_set(err, "Kafka forbids to read topic \"%s\" to this client: let its user Read the topic",
                  topic);
        return KAFKA_TAIL_REFUSED;
    case RD_KAFKA_RESP_ERR__BAD_COMPRESSION:
    case RD_KAFKA_RESP_ERR__BAD_MSG:
        pass_over(t, part, m->offset);
        /* fall through */
    default:
        error_set(err, "could not read the end of partition %d of \"%s\": %s", part->number, topic,
                  rd_kafka_message_errstr(m));
        return KAFKA_TAIL_REFUSED;
    }
}

enum kafka_tail_result kafka_tail_next(struct kafka_tail *t, int timeout_ms, struct error *err)
{
    drop_message(t);
    enum kafka_tail_result result = go_on(t, err);
    if (t->open == 0)
        return KAFKA_TAIL_END;
    t->message = rd_kafka_consume_queue(t->queue, timeout_ms);
    if (!t->message)
        return read_events(t, result, err);
    struct tail_topic *topic = t->message->rkt ? rd_kafka_topic_opaque(t->message->rkt) : NULL;
    if (!topic || t->message->partition < 0 || t->message->partition >= topic->partitions)
        return KAFKA_TAIL_NOTHING;
    struct part *part = &topic->parts[t->message->partition];
    if (part->done || part->ended)
        return KAFKA_TAIL_NOTHING;
    return t->message->err ? take_refusal(t, part, err) : take_message(t, part);
}

void kafka_tail_at(const struct kafka_tail *t, struct kafka_tail_place *ret)
{
    rd_kafka_timestamp_type_t type;
    int64_t ms = rd_kafka_message_timestamp(t->message, &type);

    *ret = (struct kafka_tail_place){rd_kafka_topic_name(t->part->topic), t->part->number, t->message->offset,
                                     ms > 0 ? ms * (int64_t) USEC_PER_MSEC : -1, t->part->known_until >= 0};
}

struct bytes kafka_tail_header(const struct kafka_tail *t, const char *name)
{
    rd_kafka_headers_t *headers;
    const void *value = NULL;
    size_t len = 0;

    if (!t->message || rd_kafka_message_headers(t->message, &headers) ||
        rd_kafka_header_get_last(headers, name, &value, &len))
        return (struct bytes){0};
    return (struct bytes){value, len};
}

void kafka_tail_distrust(struct kafka_tail *t)
{
    t->part->newest_ms = INT64_MAX;
}

void kafka_tail_vouch(struct kafka_tail *t)
{
    t->part->vouched |= t->message->offset < t->part->known_until;
}

void kafka_tail_enough(struct kafka_tail *t)
{
    t->part->enough = true;
    if (t->message->err)
        finish(t, t->part);
}

size_t kafka_tail_awaits(const struct kafka_tail *t, struct kafka_tail_place *ret)
{
    for (size_t i = 0; i < t->part_count; i++)
        if (!t->parts[i].done) {
            *ret = (struct kafka_tail_place){rd_kafka_topic_name(t->parts[i].topic), t->parts[i].number, -1,
                                             -1, false};
            break;
        }
    return t->open;
}
