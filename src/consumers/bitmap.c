/* Bitmaps of handled sequences. See bitmap.h.
 *
 * Runs on the consumers' threads, each with bitmaps of its own; never touches the database. */
#include "consumers/bitmap.h"

#include <assert.h>
#include <string.h>

int64_t bitmap_chunk_of(int64_t sequence)
{
    return sequence / BITMAP_CHUNK_BITS;
}

/* Where the chunk stands, or where it would have to be inserted. */
static size_t position_of(const struct bitmap *b, int64_t number)
{
    size_t low = 0, high = b->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (b->chunks[middle]->number < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct bitmap_chunk *bitmap_find(struct bitmap *b, int64_t number)
{
    if (!b->last || b->last->number != number) {
        size_t at = position_of(b, number);
        if (at == b->count || b->chunks[at]->number != number)
            return NULL;
        b->last = b->chunks[at];
    }
    b->last->used = ++b->clock;
    return b->last;
}

struct bitmap_chunk *bitmap_add(struct bitmap *b, int64_t number)
{
    size_t at = position_of(b, number);
    struct bitmap_chunk *chunk = xcalloc(1, sizeof(*chunk));

    assert(at == b->count || b->chunks[at]->number != number);
    if (b->count == b->capacity) {
        b->capacity = MAX(b->capacity * 2, (size_t) 8);
        b->chunks = xreallocarray(b->chunks, b->capacity, sizeof(struct bitmap_chunk *));
    }
    memmove(b->chunks + at + 1, b->chunks + at, (b->count - at) * sizeof(struct bitmap_chunk *));
    b->chunks[at] = chunk;
    b->count++;
    chunk->number = number;
    chunk->used = ++b->clock;
    b->last = chunk;
    return chunk;
}

static unsigned char mask_of(int64_t sequence)
{
    return (unsigned char) (1U << (sequence % 8));
}

bool bitmap_has(const struct bitmap_chunk *chunk, int64_t sequence)
{
    assert(bitmap_chunk_of(sequence) == chunk->number);
    return chunk->bits[sequence % BITMAP_CHUNK_BITS / 8] & mask_of(sequence);
}

bool bitmap_set(struct bitmap_chunk *chunk, int64_t sequence)
{
    if (bitmap_has(chunk, sequence))
        return false;
    chunk->bits[sequence % BITMAP_CHUNK_BITS / 8] |= mask_of(sequence);
    chunk->dirty = true;
    return true;
}

/* Index of the clean chunk that was asked for longest ago, b->count when all are dirty. */
static size_t oldest_clean(const struct bitmap *b)
{
    size_t oldest = b->count;

    for (size_t i = 0; i < b->count; i++)
        if (!b->chunks[i]->dirty && (oldest == b->count || b->chunks[i]->used < b->chunks[oldest]->used))
            oldest = i;
    return oldest;
}

void bitmap_trim(struct bitmap *b, size_t keep)
{
    while (b->count > keep) {
        size_t at = oldest_clean(b);
        if (at == b->count)
            return;
        free(b->chunks[at]);
        b->count--;
        memmove(b->chunks + at, b->chunks + at + 1, (b->count - at) * sizeof(struct bitmap_chunk *));
        b->last = NULL;
    }
}

void bitmap_clear(struct bitmap *b)
{
    for (size_t i = 0; i < b->count; i++)
        free(b->chunks[i]);
    free(b->chunks);
    *b = (struct bitmap){0};
}
