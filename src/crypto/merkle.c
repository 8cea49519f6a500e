/* Merkle trees. See merkle.h. */
#include "crypto/merkle.h"

#include <string.h>

static const char leaf_kind = 0x00, node_kind = 0x01;

struct merkle_hash merkle_leaf(struct sha256 *sha256, struct bytes entry)
{
    struct bytes parts[] = {{&leaf_kind, 1}, entry};
    struct merkle_hash ret = {0};

    sha256_digest(sha256, parts, ARRAY_SIZE(parts), ret.bytes);
    return ret;
}

struct merkle_hash merkle_node(struct sha256 *sha256, const struct merkle_hash *left,
                               const struct merkle_hash *right)
{
    struct bytes parts[] = {{&node_kind, 1},
                            {(const char *) left->bytes, SHA256_BYTES},
                            {(const char *) right->bytes, SHA256_BYTES}};
    struct merkle_hash ret = {0};

    sha256_digest(sha256, parts, ARRAY_SIZE(parts), ret.bytes);
    return ret;
}

static bool is_equal(const struct merkle_hash *a, const struct merkle_hash *b)
{
    return memcmp(a->bytes, b->bytes, SHA256_BYTES) == 0;
}

bool merkle_range_read(struct merkle_range *ret, int64_t size, struct bytes roots)
{
    *ret = (struct merkle_range){.size = (uint64_t) MAX(size, 0)};
    ret->count = (size_t) __builtin_popcountll(ret->size);
    if (size < 0 || roots.len != ret->count * SHA256_BYTES)
        return false;
    memcpy(ret->roots, roots.p, roots.len);
    return true;
}

/* --- growing ---------------------------------------------------------------------------------- */

void merkle_append(struct sha256 *sha256, struct merkle_range *range, const struct merkle_hash *leaf,
                   merkle_full *full, void *userdata)
{
    struct merkle_hash root = *leaf;
    uint64_t index = range->size;

    if (full)
        full(userdata, 0, index, &root);
    for (unsigned level = 1; index & 1; level++) {
        root = merkle_node(sha256, &range->roots[--range->count], &root);
        index >>= 1;
        if (full)
            full(userdata, level, index, &root);
    }
    range->roots[range->count++] = root;
    range->size++;
}

struct merkle_hash merkle_root(struct sha256 *sha256, const struct merkle_range *range)
{
    struct merkle_hash root = {0};

    if (range->count == 0) {
        sha256_digest(sha256, NULL, 0, root.bytes);
        return root;
    }
    root = range->roots[range->count - 1];
    for (size_t i = range->count - 1; i-- > 0;)
        root = merkle_node(sha256, &range->roots[i], &root);
    return root;
}

/* --- proving ---------------------------------------------------------------------------------- */

struct walk {
    struct sha256 *sha256;
    merkle_subtree *subtree;
    void *userdata;
    struct merkle_hash *path;
    int count;
};

/* The largest power of two below `size`, as an exponent; size > 1. */
static unsigned split_level(uint64_t size)
{
    return 63 - (unsigned) __builtin_clzll(size - 1);
}

/* The root of the leaves from `first` on. `first` is a multiple of the largest power of two within `size`. */
static int root_of(struct walk *w, uint64_t first, uint64_t size, struct merkle_hash *ret)
{
    struct merkle_range range = {0};

    for (uint64_t rest = size; rest > 0;) {
        unsigned level = 63 - (unsigned) __builtin_clzll(rest);
        int r = w->subtree(w->userdata, level, first >> level, &range.roots[range.count]);
        if (r < 0)
            return r;
        range.count++;
        first += UINT64_C(1) << level;
        rest -= UINT64_C(1) << level;
    }
    *ret = merkle_root(w->sha256, &range);
    return 0;
}

static int step(struct walk *w, uint64_t first, uint64_t size)
{
    int r = root_of(w, first, size, &w->path[w->count]);

    w->count += r == 0;
    return r;
}

/* From the leaves up: the deepest hash comes first. */
static int reverse(struct walk *w, int r)
{
    for (int i = 0, j = w->count - 1; r == 0 && i < j; i++, j--) {
        struct merkle_hash hash = w->path[i];
        w->path[i] = w->path[j];
        w->path[j] = hash;
    }
    return r < 0 ? r : w->count;
}

int merkle_inclusion(struct sha256 *sha256, uint64_t leaf, uint64_t size, merkle_subtree *subtree,
                     void *userdata, struct merkle_hash ret[MERKLE_PATH_MAX])
{
    struct walk w = {sha256, subtree, userdata, ret, 0};
    uint64_t first = 0;
    int r = 0;

    while (size > 1 && r == 0) {
        uint64_t left = UINT64_C(1) << split_level(size);
        if (leaf - first < left) {
            r = step(&w, first + left, size - left);
            size = left;
        } else {
            r = step(&w, first, left);
            first += left;
            size -= left;
        }
    }
    return reverse(&w, r);
}

int merkle_consistency(struct sha256 *sha256, uint64_t from, uint64_t size, merkle_subtree *subtree,
                       void *userdata, struct merkle_hash ret[MERKLE_PATH_MAX])
{
    struct walk w = {sha256, subtree, userdata, ret, 0};
    bool is_known = true; /* the subtree that `from` ends: its root is the one that is given */
    uint64_t first = 0;
    int r = 0;

    while (from < size && r == 0) {
        uint64_t left = UINT64_C(1) << split_level(size);
        if (from <= left) {
            r = step(&w, first + left, size - left);
            size = left;
        } else {
            r = step(&w, first, left);
            first += left;
            from -= left;
            size -= left;
            is_known = false;
        }
    }
    if (r == 0 && !is_known)
        r = step(&w, first, size);
    return reverse(&w, r);
}

bool merkle_proves_inclusion(struct sha256 *sha256, const struct merkle_hash *leaf, uint64_t index,
                             uint64_t size, const struct merkle_hash *path, size_t count,
                             const struct merkle_hash *root)
{
    struct merkle_hash hash = *leaf;

    if (index >= size)
        return false;
    uint64_t last = size - 1;
    for (size_t i = 0; i < count; i++) {
        if (last == 0)
            return false;
        if (index & 1 || index == last) {
            hash = merkle_node(sha256, &path[i], &hash);
            for (; !(index & 1) && index != 0; index >>= 1)
                last >>= 1;
        } else {
            hash = merkle_node(sha256, &hash, &path[i]);
        }
        index >>= 1;
        last >>= 1;
    }
    return last == 0 && is_equal(&hash, root);
}

bool merkle_proves_consistency(struct sha256 *sha256, uint64_t from, const struct merkle_hash *from_root,
                               uint64_t size, const struct merkle_hash *root, const struct merkle_hash *path,
                               size_t count)
{
    uint64_t index = from - 1, last = size - 1;
    size_t next = 0;

    if (from == 0 || from > size)
        return false;
    if (from == size)
        return count == 0 && is_equal(from_root, root);
    for (; index & 1; index >>= 1)
        last >>= 1;
    bool is_power = (from & (from - 1)) == 0;
    if (!is_power && count == 0)
        return false;
    struct merkle_hash old = is_power ? *from_root : path[next++], new = old;
    for (; next < count; next++) {
        if (last == 0)
            return false;
        if (index & 1 || index == last) {
            old = merkle_node(sha256, &path[next], &old);
            new = merkle_node(sha256, &path[next], &new);
            for (; !(index & 1) && index != 0; index >>= 1)
                last >>= 1;
        } else {
            new = merkle_node(sha256, &new, &path[next]);
        }
        index >>= 1;
        last >>= 1;
    }
    return last == 0 && is_equal(&old, from_root) && is_equal(&new, root);
}
