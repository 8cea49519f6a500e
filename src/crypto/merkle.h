/* Merkle trees as RFC 9162, section 2.1, defines them: SHA-256, a leaf begins with 0x00, a node with 0x01.
 *
 * Pure. A tree only grows. Its range is what a writer must remember of it: the roots of its full subtrees. */
#pragma once

#include "crypto/sha256.h"

#define MERKLE_LEVELS 63
/* An inclusion path has at most so many hashes, a consistency path one more. */
#define MERKLE_PATH_MAX (MERKLE_LEVELS + 1)

struct merkle_hash {
    unsigned char bytes[SHA256_BYTES];
};

/* The full subtrees from left to right, the largest first: one for each bit of the size. */
struct merkle_range {
    uint64_t size; /* leaves */
    size_t count;
    struct merkle_hash roots[MERKLE_LEVELS];
};

/* What was written of a range: its size, and the roots one after the other. False when these are not the
 * roots of so many leaves; they are zero then. */
bool merkle_range_read(struct merkle_range *ret, int64_t size, struct bytes roots);

struct merkle_hash merkle_leaf(struct sha256 *sha256, struct bytes entry);
struct merkle_hash merkle_node(struct sha256 *sha256, const struct merkle_hash *left,
                               const struct merkle_hash *right);
/* Appends a leaf. `full` is told of each subtree that it fills, the small ones first: of 2^level leaves, the
 * index-th of that size. NULL = nobody wants to know. */
typedef void merkle_full(void *userdata, unsigned level, uint64_t index, const struct merkle_hash *root);
void merkle_append(struct sha256 *sha256, struct merkle_range *range, const struct merkle_hash *leaf,
                   merkle_full *full, void *userdata);
/* Of an empty tree: SHA-256 of nothing. */
struct merkle_hash merkle_root(struct sha256 *sha256, const struct merkle_range *range);

/* The root of the index-th full subtree of 2^level leaves; 0 or a negative error, which is passed up. */
typedef int merkle_subtree(void *userdata, unsigned level, uint64_t index, struct merkle_hash *ret);
/* The inclusion path of a leaf (2.1.3.1), and the consistency path between two sizes of a tree (2.1.4.1).
 * `leaf` < `size`; 0 < `from` <= `size`. The number of hashes, or `subtree`'s error. */
int merkle_inclusion(struct sha256 *sha256, uint64_t leaf, uint64_t size, merkle_subtree *subtree,
                     void *userdata, struct merkle_hash ret[MERKLE_PATH_MAX]);
int merkle_consistency(struct sha256 *sha256, uint64_t from, uint64_t size, merkle_subtree *subtree,
                       void *userdata, struct merkle_hash ret[MERKLE_PATH_MAX]);
/* Do they prove it (2.1.3.2, 2.1.4.2)? */
bool merkle_proves_inclusion(struct sha256 *sha256, const struct merkle_hash *leaf, uint64_t index,
                             uint64_t size, const struct merkle_hash *path, size_t count,
                             const struct merkle_hash *root);
bool merkle_proves_consistency(struct sha256 *sha256, uint64_t from, const struct merkle_hash *from_root,
                               uint64_t size, const struct merkle_hash *root, const struct merkle_hash *path,
                               size_t count);
