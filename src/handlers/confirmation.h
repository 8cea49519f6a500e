/* What a message of the topic "confirmations" says: an institution has a subscription, or has rejected it.
 * Pure.
 *
 * The message is described in anubisd(8). Whoever may write to the topic wrote it: nothing in it is trusted,
 * and no fault quotes it. */
#pragma once

#include "kafka/kafka_consumer.h"

struct confirmation {
    int64_t subscription_id; /* > 0 */
    int64_t written_at; /* of the message, which confirmation_read() leaves to its caller; 0 = not told */
    bool rejected;
    bool has_time;
    int64_t confirmed_at;     /* by the sender's clock, in microseconds since 1970 */
    struct bytes external_id; /* p NULL = none; behind the struct, in the same allocation */
};

#define CONFIRMATION_MAX 65536 /* bytes of a message's value */
#define EXTERNAL_ID_MAX 255    /* bytes */

/* The caller frees it. NULL: *ret_fault says why, a constant. */
struct confirmation *confirmation_read(struct bytes key, struct bytes value, const char **ret_fault);
