/* Messages that cannot be handled: kept whole in the table dead_letters, and named in the journal. See
 * consumer_internal.h. On the consumer's thread. */
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "consumers/consumer_internal.h"
#include "consumers/store_consumer.h"

#define DEAD_LETTERS_LOGGED 10

/* The fault itself, not its words. */
static bool is_lasting(const struct inbox *inbox, const char *fault)
{
    return inbox && fault == inbox->lasting_fault;
}

/* `headers` owns the bytes of the letter's headers. */
static void fill_dead_letter(struct store_dead_letter *letter, const struct consumer_item *item,
                             const struct inbox *inbox, struct strbuf *headers)
{
    struct kafka_message message;

    *headers = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    *letter = (struct store_dead_letter){.topic = item->partition->topic,
                                         .partition = item->partition->number,
                                         .offset = item->offset,
                                         .written_ms = item->written_ms,
                                         .error = item->fault,
                                         .discard_only = is_lasting(inbox, item->fault)};
    if (item->extent == LETTER_PLACE_ONLY) {
        strbuf_adds(headers, "{}");
    } else {
        kafka_kept_view(item->kept, &message);
        message_headers_json(&message, item->extent == LETTER_ASCII_HEADERS, headers);
        letter->key = message.key;
        letter->value = message.value;
    }
    letter->headers = (struct bytes){headers->data, headers->len};
}

int consumer_put_aside(struct consumer *c, const struct consumer_item *items, size_t item_count,
                       struct error *err)
{
    CLEANUP(freep) struct store_dead_letter *letters = NULL;
    CLEANUP(freep) struct strbuf *headers = NULL;
    size_t count = 0;

    for (size_t i = 0; i < item_count; i++)
        count += items[i].fault != NULL;
    if (count == 0)
        return PG_DONE;
    letters = xcalloc(count, sizeof(*letters));
    headers = xcalloc(count, sizeof(*headers));
    count = 0;
    for (size_t i = 0; i < item_count; i++)
        if (items[i].fault) {
            fill_dead_letter(&letters[count], &items[i], c->group->inbox, &headers[count]);
            count++;
        }
    int r = store_dead_letters(c->session.pg, c->group_id, c->group->model, letters, count, err);
    for (size_t i = 0; i < count; i++)
        strbuf_free(&headers[i]);
    return r;
}

static void say_dead_letter(const struct consumer *c, const struct consumer_item *item)
{
    const struct log_about about = {.integration_id = item->event.integration_id,
                                    .kafka_topic = item->partition->topic,
                                    .kafka_partition = (int) item->partition->number,
                                    .kafka_offset = item->offset,
                                    .kafka_at = true,
                                    .error = item->fault};
    char integration[48] = "";

    if (about.integration_id)
        snprintf(integration, sizeof(integration), ", of integration %" PRId64, about.integration_id);
    log_about(LOG_ERR, MSG_DEAD_LETTER, &about,
              "%s: cannot handle the message at offset %" PRId64
              " of \"%s\", partition %d%s: %s; it is in dead_letters",
              c->name, item->offset, about.kafka_topic, about.kafka_partition, integration, item->fault);
}

void consumer_say_dead_letters(const struct consumer *c, const struct consumer_item *items, size_t item_count)
{
    size_t count = 0;

    for (size_t i = 0; i < item_count; i++)
        if (items[i].fault && count++ < DEAD_LETTERS_LOGGED)
            say_dead_letter(c, &items[i]);
    if (count > DEAD_LETTERS_LOGGED)
        log_line(LOG_ERR, MSG_DEAD_LETTER,
                 "%s: cannot handle %zu more messages of this batch; they are in dead_letters", c->name,
                 count - DEAD_LETTERS_LOGGED);
}
