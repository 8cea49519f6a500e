/* A growing byte buffer with a hard maximum, NUL-terminated after its last byte.
 *
 * An append that would pass the maximum appends nothing and sets `overflowed`, which stays set until
 * strbuf_clear(): check it once, when all is written.
 *
 * No function here may be called strbuf_append or strbuf_release: libconfig 1.5 exports these names, and
 * would then call ours. */
#pragma once

#include "base/util.h"

struct strbuf {
    char *data; /* NULL or NUL-terminated; use strbuf_str() where NULL would hurt */
    size_t len;
    size_t capacity;
    size_t max; /* bytes that len may reach */
    bool overflowed;
};

#define STRBUF_MAX_DEFAULT ((size_t) 1 << 30)
#define STRBUF_INIT(max_bytes) ((struct strbuf){.max = (max_bytes)})

void strbuf_free(struct strbuf *sb);  /* legal on a zeroed one; also for CLEANUP */
void strbuf_wipe(struct strbuf *sb);  /* for CLEANUP too: zeroes what may be a secret, then frees */
void strbuf_clear(struct strbuf *sb); /* keeps the memory */
const char *strbuf_str(const struct strbuf *sb);
char *strbuf_take(struct strbuf *sb); /* the caller frees; sb is empty afterwards */

void strbuf_add(struct strbuf *sb, const void *bytes, size_t len);
void strbuf_adds(struct strbuf *sb, const char *s);
void strbuf_addc(struct strbuf *sb, char c);
void strbuf_addf(struct strbuf *sb, const char *fmt, ...) PRINTF(2, 3);
void strbuf_addv(struct strbuf *sb, const char *fmt, va_list args) PRINTF(2, 0);
void strbuf_add_hex(struct strbuf *sb, const unsigned char *bytes, size_t len); /* lower case */
void strbuf_add_i64(struct strbuf *sb, int64_t value); /* decimal, without printf's cost */
/* Makes room for `len` more bytes and returns where they go, or NULL when that passes the maximum
 * (overflowed is set); the caller writes and then adds to sb->len. */
char *strbuf_reserve(struct strbuf *sb, size_t len);
