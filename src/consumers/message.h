/* From a Kafka message to the event it carries, or to the reason why it cannot be handled.
 *
 * Pure. Whoever may write to the topic wrote the message: nothing in it is trusted, and no reason quotes it.
 *
 * What handlers need stands in the headers, so the value is checked strictly (json.h) but not built into a
 * tree: that costs a sixth of cJSON's time. Looked at are subscription.id, which must be the key, how
 * error_message begins, whether next_attempt_at is there, and how the value ends. */
#pragma once

#include "kafka/event_types.h"
#include "kafka/kafka_consumer.h"

#define INSTALLATION_TEXT 37 /* bytes of an installation's UUID in text, with its NUL */

struct message_event {
    enum event_type type;
    int64_t sequence;        /* > 0, the ledger's id */
    int64_t subscription_id; /* > 0 */
    int64_t integration_id;  /* 0 = none: not routed (yet) */
    int64_t created_at;      /* of the event, in microseconds since 1970 */
    int64_t attempt;         /* 0 = none */
    /* failed and retried: it says nothing about how the institution treats subscriptions, because it asked
     * for time (429), because nobody saw an answer or asked for one, or because a person decides (held). */
    bool apart;
    bool may_cost_nothing; /* retried: the next attempt may have the same number */
    bool unanswered;      /* sent: it says no answer. Somebody said that it was sent, or the answer is null */
    unsigned char id[16]; /* the header event_id */
    /* Where it lies; the topic lives as long as the batch. message_parse() leaves these to its caller. */
    const char *topic;
    int32_t partition;
    int64_t offset;
    unsigned char value_hash[32]; /* SHA-256, for groups that want it */
};

enum message_verdict {
    MESSAGE_EVENT,   /* *ret is set */
    MESSAGE_FOREIGN, /* has no sequence, or names another installation: to be counted and passed over */
    MESSAGE_FAULTY,  /* *ret_fault says why, a constant: "the value is not JSON" */
};

/* `type` is the topic's, `installation` ours. */
enum message_verdict message_parse(const struct kafka_message *message, enum event_type type,
                                   const char *installation, struct message_event *ret,
                                   const char **ret_fault);
/* The other installation that a foreign message names, when that is a UUID; false = it names none. */
bool message_installation(const struct kafka_message *message, const char *installation,
                          char ret[INSTALLATION_TEXT]);

/* The headers as a JSON object that jsonb takes: names and values repaired to UTF-8 without NULs; of equal
 * names the last counts, as everywhere. `ascii`: for a database whose encoding lacks signs that are there;
 * each one beyond ASCII becomes a question mark. */
void message_headers_json(const struct kafka_message *message, bool ascii, struct strbuf *out);
