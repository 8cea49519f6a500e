/* SHA-256 of a text in parts (FIPS 180-4). */
#pragma once

#include "base/util.h"

#define SHA256_BYTES 32

struct sha256; /* of one thread at a time */

/* Aborts without memory, or where OpenSSL's configuration has no SHA-256: no digest is better than a wrong
 * one. */
struct sha256 *sha256_new(void);
void sha256_free(struct sha256 *s); /* NULL is legal; also for CLEANUP */
void sha256_freep(struct sha256 **s);
void sha256_digest(struct sha256 *s, const struct bytes *parts, size_t count,
                   unsigned char ret[SHA256_BYTES]);
