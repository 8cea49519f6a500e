/* The proof of the audit log: what audit_*.c and the commands share. All of it in the caller's snapshot. */
#pragma once

#include "base/sentences.h"
#include "crypto/audit_leaf.h"
#include "crypto/audit_note.h"
#include "pg/pg.h"

/* A tree as the database has it. */
struct audit_tree {
    int32_t id;
    struct audit_tree_state state; /* the root of its range */
    struct merkle_range range;     /* as stored */
    bool is_broken;                /* what is stored is no range of this size */
    uint64_t from;                 /* leaves below it were verified before */
};

struct audit {
    struct pg *pg;
    struct sha256 *sha256;
    char installation[37];
    struct audit_tree *trees;
    size_t count;
    struct error err;
};

/* The columns of audit_read_leaves behind the number of the leaf, up to the hash. What it refers to lives as
 * long as the row and the tree. */
void audit_entry_read(const struct audit *a, const struct audit_tree *tree, struct pg_row *row,
                      struct audit_entry *ret);

/* Reads the trees. PG_DONE or an error of pg_query(); *a can be freed either way. */
int audit_open(struct audit *a, struct pg *pg);
void audit_close(struct audit *a);
struct audit_tree *audit_find(const struct audit *a, const char *topic, int32_t partition);

/* The root of the first `size` leaves, by the hashes that are stored; a hash that is missing is zero. */
int audit_root_at(struct audit *a, const struct audit_tree *tree, uint64_t size, struct merkle_range *ret);

/* The inclusion path of a leaf in the first `size` leaves, by the hashes that are stored. The number of
 * hashes, or an error of pg_query(). */
int audit_path(struct audit *a, const struct audit_tree *tree, uint64_t leaf, uint64_t size,
               struct merkle_hash ret[MERKLE_PATH_MAX]);

struct audit_result {
    struct sentences differences;
    int64_t unnamed; /* differences beside those */
    int64_t leaves;  /* verified */
    int64_t checkpoints, unsigned_checkpoints;
    int64_t last_checkpoint; /* the last one that holds; 0 = none */
};
/* Proves the leaves since a checkpoint up to which they were found to be right before (0 = all) against their
 * hashes, the trees, the checkpoints since then and the ledger. PG_DONE or an error of pg_query(). */
int audit_prove(struct audit *a, int64_t since, struct audit_result *ret);
