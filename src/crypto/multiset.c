/* Multisets of records, compared. See multiset.h. */
#include "crypto/multiset.h"

#define PRIME ((UINT64_C(1) << 61) - 1)

__extension__ typedef unsigned __int128 u128;

/* `value` < 2^125. */
static uint64_t reduce(u128 value)
{
    uint64_t low = (uint64_t) (value & PRIME), high = (uint64_t) (value >> 61);

    low += (high & PRIME) + (high >> 61);
    low = (low & PRIME) + (low >> 61);
    return low >= PRIME ? low - PRIME : low;
}

static uint64_t draw(void)
{
    uint64_t value;

    do
        value = random_u64() >> 3;
    while (value >= PRIME);
    return value;
}

void multiset_draw(struct multiset_key *ret)
{
    for (size_t d = 0; d < MULTISET_DRAWS; d++) {
        for (size_t i = 0; i < ARRAY_SIZE(ret->factors[d]); i++)
            ret->factors[d][i] = draw();
        ret->points[d] = draw();
    }
}

void multiset_add(struct multiset *m, const struct multiset_key *key, const uint64_t words[MULTISET_WORDS])
{
    for (size_t d = 0; d < MULTISET_DRAWS; d++) {
        const uint64_t *factor = key->factors[d];
        u128 sum = 0; /* 14 summands of 93 bits */
        for (size_t i = 0; i < MULTISET_WORDS; i++) {
            sum += (u128) factor[2 * i] * (uint32_t) words[i];
            sum += (u128) factor[2 * i + 1] * (words[i] >> 32);
        }
        uint64_t difference = key->points[d] + PRIME - reduce(sum);
        m->products[d] = reduce((u128) m->products[d] * difference);
    }
    m->count++;
}

void multiset_join(struct multiset *m, const struct multiset *other)
{
    for (size_t d = 0; d < MULTISET_DRAWS; d++)
        m->products[d] = reduce((u128) m->products[d] * other->products[d]);
    m->count += other->count;
}

bool multiset_is_same(const struct multiset *a, const struct multiset *b)
{
    bool is_same = a->count == b->count;

    for (size_t d = 0; d < MULTISET_DRAWS; d++)
        is_same = is_same && a->products[d] == b->products[d];
    return is_same;
}
