/* Dead letters that are tried again. See letter.h. */
#include "consumers/letter.h"

#include <string.h>

#include "consumers/store_consumer.h"
#include "crypto/sha256.h"

static const char *parse(const struct kafka_message *m, const char *installation, struct message_event *ret)
{
    const char *fault = NULL, *word = strrchr(m->topic, '.');
    enum event_type type;

    /* Also of a topic_prefix that was in force before. */
    if (!word || !event_type_find((struct bytes){word + 1, strlen(word + 1)}, &type))
        return "its topic is not one of events";
    if (message_parse(m, type, installation, ret, &fault) == MESSAGE_FOREIGN)
        return "it is another installation's";
    ret->topic = m->topic;
    ret->partition = m->partition;
    ret->offset = m->offset;
    return fault;
}

/* When the database blames the data: PG_DONE, and why. */
static int refused(struct pg *pg, int r, const char **ret_fault, struct error *err)
{
    if (r >= 0 || !pg_blames_value(pg_error_sqlstate(pg)))
        return r;
    error_set(err, "the database refuses it (SQLSTATE %s)", pg_error_sqlstate(pg));
    *ret_fault = err->text;
    return PG_DONE;
}

/* Also what the database would refuse at the commit. */
static int check_all(struct pg *pg, int r, const char **ret_fault, struct error *err)
{
    if (r == PG_DONE && !*ret_fault)
        r = pg_execute(pg, "set constraints all immediate", err);
    return refused(pg, r, ret_fault, err);
}

static int run_handlers(struct pg *pg, const struct consumer_group *group, const struct message_event *e,
                        const char **ret_fault, struct error *err)
{
    int r = PG_DONE;

    for (size_t i = 0; r == PG_DONE && !*ret_fault && group->handlers[i]; i++)
        if (group->handlers[i]->types >> e->type & 1)
            r = group->handlers[i]->apply(pg, &e, 1, ret_fault, err);
    return check_all(pg, r, ret_fault, err);
}

/* Where a consumer marks the event, in whatever partition this message stands: published again, it comes by
 * its home. Where no relay has led, that is not known, and the event may still be to be published. */
static int find_place(struct pg *pg, const struct message_event *e, int32_t *ret, struct error *err)
{
    struct homes homes = {0};
    int r = store_read_homes(pg, e->topic, &homes, err);

    if (r == PG_DONE)
        *ret = homes_find(&homes, e);
    homes_free(&homes);
    return r;
}

/* The chunk of its mark; the handlers' effects come with the mark. */
static int mark_and_run(struct pg *pg, const struct consumer_group *group, const struct message_event *e,
                        struct bitmap_chunk *chunk, const char **ret_fault, struct error *err)
{
    struct store_chunk place = {.type = event_type_word(e->type), .chunk = chunk};
    bool moved = false, elsewhere = false;

    int r = find_place(pg, e, &place.partition, err);
    if (r == PG_DONE && place.partition < 0) {
        *ret_fault = "its event has no place yet: no relay has led with its topic; start a daemon";
        return LETTER_FAILED;
    }
    if (r == PG_DONE)
        r = store_read_chunks(pg, group->model, &place, 1, err);
    /* Also by a partition of another time, or under another prefix. */
    if (r == PG_DONE)
        r = store_find_marked(pg, group->model, place.type, place.partition, &e->sequence, 1, &elsewhere,
                              err);
    if (r != PG_DONE)
        return r;
    if (elsewhere || !bitmap_set(chunk, e->sequence))
        return LETTER_BEFORE;
    r = store_write_chunks(pg, group->model, &place, 1, &moved, err);
    if (r != PG_DONE || moved)
        return r == PG_DONE ? LETTER_MOVED : r;
    r = run_handlers(pg, group, e, ret_fault, err);
    if (r != PG_DONE)
        return r;
    return *ret_fault ? LETTER_FAILED : LETTER_HANDLED;
}

/* A message of the group's inbox: it has no mark, and what is done twice comes to the same. */
static int handle_entry(struct pg *pg, const struct inbox *inbox, const struct kafka_message *message,
                        const char **ret_fault, struct error *err)
{
    CLEANUP(freep) void *entry = inbox->read(message, ret_fault);
    bool is_news = false;
    int r = entry && !*ret_fault ? inbox->apply(pg, &entry, 1, ret_fault, &is_news, err) : PG_DONE;

    r = check_all(pg, r, ret_fault, err);
    if (r != PG_DONE)
        return r;
    return *ret_fault ? LETTER_FAILED : LETTER_HANDLED;
}

/* Also of a topic_prefix that was in force before. */
static bool is_inbox(const struct inbox *inbox, const char *topic)
{
    size_t len = strlen(topic), end = inbox ? strlen(inbox->topic) : 0;

    return inbox && len >= end && strcmp(topic + len - end, inbox->topic) == 0;
}

int letter_handle(struct pg *pg, const struct consumer_group *group, const char *installation,
                  const struct kafka_message *message, const char **ret_fault, struct error *err)
{
    struct message_event event = {0};
    const struct message_event *e = &event;
    bool unknown = false;
    int64_t topics;

    if (is_inbox(group->inbox, message->topic)) {
        *ret_fault = NULL;
        return handle_entry(pg, group->inbox, message, ret_fault, err);
    }
    *ret_fault = parse(message, installation, &event);
    if (*ret_fault)
        return LETTER_FAILED;
    CLEANUP(sha256_freep) struct sha256 *sha256 = sha256_new();
    sha256_digest(sha256, &message->value, 1, event.value_hash);
    int r = store_lock_marks(pg, group->model, err);
    if (r == PG_DONE)
        r = store_find_unknown(pg, &e, 1, &unknown, &topics, err);
    if (r != PG_DONE)
        return r;
    if (unknown) {
        *ret_fault = "the ledger does not have this event";
        return LETTER_FAILED;
    }
    CLEANUP(freep) struct bitmap_chunk *chunk = xcalloc(1, sizeof(*chunk));
    chunk->number = bitmap_chunk_of(e->sequence);
    return mark_and_run(pg, group, e, chunk, ret_fault, err);
}
