/* A few rows that go to one topic: messages out, and which of them Kafka has taken, in order. The relay
 * creates the topics; what goes there is rare, so a producer lives only as long as there is something to
 * send. Alerts' thread only; nothing here waits. */
#pragma once

#include "config/config.h"
#include "kafka/kafka_producer.h"

#define TOPIC_SENDER_MAX 500

struct topic_sender;

/* Both are constants: the topic's name behind kafka.topic_prefix, and what the journal calls its rows. */
struct topic_sender *topic_sender_new(const char *topic, const char *rows);
void topic_sender_free(struct topic_sender *t); /* NULL is legal */

/* A round of up to TOPIC_SENDER_MAX rows: begin, add, flush. What cannot be sent is not taken. */
void topic_sender_begin(struct topic_sender *t, const struct config *config);
void topic_sender_add(struct topic_sender *t, int64_t id, struct bytes key, struct bytes value,
                      const struct kafka_header *headers, size_t header_count);
void topic_sender_flush(struct topic_sender *t);

/* True while a round's reports are still to come. What Kafka has not taken within a minute is not taken. */
bool topic_sender_waits(struct topic_sender *t);
/* Ends the round: the ids, how many of them the first *ret_taken were taken, and whether the next one was
 * refused for what it is. 0 = there was no round. */
size_t topic_sender_end(struct topic_sender *t, const int64_t **ret_ids, size_t *ret_taken,
                        bool *ret_refused);
const char *topic_sender_why(const struct topic_sender *t); /* the last that was not taken was not */
/* Says once that Kafka does not take the rows, and once that it takes all of a round again. */
void topic_sender_say(struct topic_sender *t, bool took_all);
void topic_sender_rest(struct topic_sender *t); /* there is nothing to be sent */
