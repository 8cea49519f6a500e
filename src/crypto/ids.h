/* Ids that are derived, not stored: the same input gives the same id on every daemon, for ever.
 *
 * Pure. `name_space` is the 16 bytes of the installation's UUID. */
#pragma once

#include "base/util.h"

#define IDS_UUID_TEXT 37        /* bytes of a UUID in text, with its NUL */
#define IDS_TRACEPARENT_TEXT 56 /* bytes of a W3C traceparent, with its NUL */

/* RFC 9562, version 5: SHA-1 of name space and name. */
void ids_uuid_v5(const unsigned char name_space[16], const void *name, size_t len, unsigned char ret[16]);
/* Lower case, with hyphens. */
void ids_uuid_text(const unsigned char uuid[16], char ret[IDS_UUID_TEXT]);

/* Version 5 of "<subscription>:<payload version>". */
void ids_idempotency_key(const unsigned char name_space[16], int64_t subscription_id, int payload_version,
                         char ret[IDS_UUID_TEXT]);

/* W3C Trace Context: "00-<trace id>-<span>-01", the trace id being the beginning of SHA-256 of name space and
 * "trace:<subscription>". All events and attempts of a subscription share one trace. */
void ids_traceparent(const unsigned char name_space[16], int64_t subscription_id, uint64_t span,
                     char ret[IDS_TRACEPARENT_TEXT]);
/* True for the shape of version 00, whatever the version, with ids that are not zero (W3C Trace Context,
 * section 3.2). */
bool ids_is_traceparent(const char *text, size_t len);
