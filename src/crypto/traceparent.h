/* W3C Trace Context: the header traceparent. */
#pragma once

#include "crypto/ids.h"

#define TRACEPARENT_TEXT 56 /* bytes, with its NUL */

/* "00-<trace id>-<span>-01", the trace id being the beginning of SHA-256 of name space (see ids.h) and
 * "trace:<subscription>". All events and attempts of a subscription share one trace. */
void traceparent_derive(struct ids *ids, const unsigned char name_space[16], int64_t subscription_id,
                        uint64_t span, char ret[TRACEPARENT_TEXT]);
/* True for the shape of version 00, whatever the version, with ids that are not zero (section 3.2). */
bool traceparent_is_valid(const char *text, size_t len);
