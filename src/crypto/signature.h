/* Signatures of Standard Webhooks 1.0: HMAC-SHA256 of "id.timestamp.body", by which a receiver knows the
 * sender and refuses what is old.
 *
 * Pure; a `struct signer` belongs to one thread at a time. */
#pragma once

#include "base/util.h"

#define SIGNATURE_TEXT 96 /* bytes of two signatures, with their NUL */

struct signer; /* one secret, or two while they are exchanged */

/* `secrets` is "whsec_" with 24 to 64 bytes in base64 (RFC 4648, section 4, padded), or two such separated by
 * a blank, the newer first. 0, or -EINVAL with *err, which continues a sentence that begins with the name of
 * the setting, says what would be right, and holds nothing of the secret. */
int signer_new(struct signer **ret, const char *secrets, struct error *err);
void signer_free(struct signer *s); /* wipes the secrets; NULL is legal */

/* The value of webhook-signature: "v1,…", for two secrets "v1,… v1,…" in their order. `id` is that of
 * webhook-id and has no dot; `timestamp` that of webhook-timestamp: seconds since 1970. */
void signer_sign(struct signer *s, const char *id, int64_t timestamp, struct bytes body,
                 char ret[SIGNATURE_TEXT]);
