/* Whether two multisets of records are the same: each is read once, in any order, and in parts by several
 * threads.
 *
 * A record becomes a number modulo 2^61 - 1: the sum of its half words, each times a factor of its own. A
 * multiset becomes the product of (point - number) over its records. Factors and points are drawn for each
 * comparison, so nobody can choose records that deceive it. Two different multisets of at most n records come
 * to the same product in at most n / 2^60 of all draws; two draws must both come to the same.
 *
 * Pure, but for the draw. */
#pragma once

#include "base/util.h"

#define MULTISET_WORDS 7 /* of a record */
#define MULTISET_DRAWS 2

struct multiset_key {
    uint64_t factors[MULTISET_DRAWS][2 * MULTISET_WORDS];
    uint64_t points[MULTISET_DRAWS];
};

struct multiset {
    uint64_t products[MULTISET_DRAWS];
    int64_t count;
};
#define MULTISET_EMPTY ((struct multiset){.products = {1, 1}})

void multiset_draw(struct multiset_key *ret);
void multiset_add(struct multiset *m, const struct multiset_key *key, const uint64_t words[MULTISET_WORDS]);
void multiset_join(struct multiset *m, const struct multiset *other);
bool multiset_is_same(const struct multiset *a, const struct multiset *b);
