/* Ids that are derived, not stored: the same input gives the same id on every daemon, for ever.
 *
 * `name_space` is the 16 bytes of the installation's UUID. */
#pragma once

#include "base/util.h"

#define IDS_UUID_TEXT 37        /* bytes of a UUID in text, with its NUL */
#define IDS_TRACEPARENT_TEXT 56 /* bytes of a W3C traceparent, with its NUL */

struct ids; /* of one thread at a time */

struct ids *ids_new(void);
void ids_free(struct ids *ids); /* NULL is legal */

/* A UUID in text, lower case. */
void ids_print_uuid(const unsigned char uuid[16], char ret[IDS_UUID_TEXT]);

/* RFC 9562, version 8 as in its appendix B.2: SHA-256 of name space, name and the rest, which may be empty.
 * Lower case. */
void ids_uuid(struct ids *ids, const unsigned char name_space[16], struct bytes name, struct bytes rest,
              char ret[IDS_UUID_TEXT]);

/* What makes a message another one. An id alone does not: after a restore, the promotion of a standby that
 * lacks the end, or in a copy, it is given out again. */
struct ids_message {
    const unsigned char *name_space;
    int64_t subscription_id;
    const char *seed; /* the row's idempotency_seed in decimal; "" = none */
    struct bytes payload;
};
/* The UUID of "<subscription>:<seed>:<payload>". */
void ids_idempotency_key(struct ids *ids, const struct ids_message *message, char ret[IDS_UUID_TEXT]);

/* W3C Trace Context: "00-<trace id>-<span>-01", the trace id being the beginning of SHA-256 of name space and
 * "trace:<subscription>". All events and attempts of a subscription share one trace. */
void ids_traceparent(struct ids *ids, const unsigned char name_space[16], int64_t subscription_id,
                     uint64_t span, char ret[IDS_TRACEPARENT_TEXT]);
/* True for the shape of version 00, whatever the version, with ids that are not zero (W3C Trace Context,
 * section 3.2). */
bool ids_is_traceparent(const char *text, size_t len);
