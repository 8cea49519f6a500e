/* Which sequences (ledger ids) a consumer has handled in one partition: bitmaps in chunks.
 *
 * A chunk holds 8,192 sequences in 1 KiB and is one row of consumer_bitmaps. Bit n of a chunk is bit n % 8,
 * the lowest first, of byte n / 8, as PostgreSQL's get_bit() counts, so that SQL can read what C wrote.
 *
 * Pure: one thread at a time, no database; what a chunk holds is true only as far as its reader made it so.
 */
#pragma once

#include "base/util.h"

#define BITMAP_CHUNK_BITS 8192
#define BITMAP_CHUNK_BYTES (BITMAP_CHUNK_BITS / 8)

struct bitmap_chunk {
    int64_t number;  /* sequence / BITMAP_CHUNK_BITS */
    int64_t version; /* of the row it was read from, 0 = no row yet */
    bool dirty;      /* bits were set that the row lacks */
    uint64_t used;   /* when it was last asked for, in bitmap_find()'s own count */
    unsigned char bits[BITMAP_CHUNK_BYTES];
};

/* The chunks of one partition that are in memory, by ascending number. Zeroed = empty. */
struct bitmap {
    struct bitmap_chunk **chunks;
    size_t count, capacity;
    uint64_t clock;
    struct bitmap_chunk *last; /* most questions are about the chunk of the last answer */
};

/* Sequences are > 0. */
int64_t bitmap_chunk_of(int64_t sequence);
/* NULL when that chunk is not in memory. The pointer lives until it is trimmed or cleared away. */
struct bitmap_chunk *bitmap_find(struct bitmap *b, int64_t number);
/* Adds a chunk that is not there yet, without a bit set. */
struct bitmap_chunk *bitmap_add(struct bitmap *b, int64_t number);
bool bitmap_has(const struct bitmap_chunk *chunk, int64_t sequence);
/* False when the bit was set before: a duplicate. `sequence` belongs to the chunk. */
bool bitmap_set(struct bitmap_chunk *chunk, int64_t sequence);
/* Drops the clean chunks that were asked for longest ago until `keep` are left. */
void bitmap_trim(struct bitmap *b, size_t keep);
void bitmap_clear(struct bitmap *b); /* drops all of them, and the memory */
