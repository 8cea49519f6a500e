/* The proof of the audit log: what audit_*.c and the commands share. All of it in one snapshot. */
#pragma once

#include "base/sentences.h"
#include "crypto/audit_leaf.h"
#include "crypto/audit_note.h"
#include "crypto/note_key.h"
#include "pg/pg.h"

/* A tree as the database has it. */
struct audit_tree {
    int32_t id;
    struct audit_tree_state state; /* the root of its range */
    struct merkle_range range;     /* as stored */
    bool is_broken;                /* what is stored is no range of this size */
    uint64_t from;                 /* leaves below it were verified before */
};

/* Leaves that carry the name of an installation that this one is a copy of. */
struct audit_past {
    int32_t tree;
    uint64_t leaves;    /* those below, which are in none before */
    int64_t checkpoint; /* the last one in that name, which has them */
    char installation[37];
};

struct audit {
    struct pg *pg;
    struct sha256 *sha256;
    char installation[37];
    struct audit_tree *trees;
    size_t count;
    struct audit_past *past; /* the earliest first */
    size_t past_count;
    struct error err;
};

/* What the leaf is part of that was made before this was a copy; NULL = it is this installation's own. */
const struct audit_past *audit_past_of(const struct audit *a, const struct audit_tree *tree, uint64_t leaf);
/* Reads a checkpoint as audit_note_read(). Returns whose it is: this installation's, or that of one that this
 * is a copy of, of no more leaves than were copied; NULL = neither, and there is nothing to be freed. */
const char *audit_note_owner(const struct audit *a, const char *note, struct audit_tree_state **ret,
                             size_t *ret_count);

/* The columns of audit_read_leaves behind the number of the leaf, up to the hash. What it refers to lives as
 * long as the row and the tree. */
void audit_entry_read(const struct audit *a, const struct audit_tree *tree, uint64_t leaf, struct pg_row *row,
                      struct audit_entry *ret);

/* Begins the snapshot and reads the trees in it. No partition leaves the ledger until its end. PG_DONE or an
 * error of pg_query(); *a can be freed either way. */
int audit_open(struct audit *a, struct pg *pg);
/* Ends the snapshot; the session goes on. */
int audit_end(struct audit *a);
void audit_close(struct audit *a);
struct audit_tree *audit_find(const struct audit *a, const char *topic, int32_t partition);

/* The root of the first `size` leaves, by the hashes that are stored; a hash that is missing is zero. */
int audit_root_at(struct audit *a, const struct audit_tree *tree, uint64_t size, struct merkle_range *ret);

/* The inclusion path of a leaf in the first `size` leaves, by the hashes that are stored. The number of
 * hashes, or an error of pg_query(). */
int audit_path(struct audit *a, const struct audit_tree *tree, uint64_t leaf, uint64_t size,
               struct merkle_hash ret[MERKLE_PATH_MAX]);

/* A checkpoint that was kept elsewhere: the whole note, or its SHA-256 and how many leaves it has in all. */
struct audit_anchor {
    char *note; /* NULL = only its digest is known */
    unsigned char digest[SHA256_BYTES];
    int64_t leaves;
    size_t line; /* where it stands */
};

/* How a proof is to be made. */
struct audit_order {
    /* Leaves up to this checkpoint were found to be right before; 0 = all are proven. */
    int64_t since;
    /* NULL = on the caller's session and thread alone; else some more sessions are opened in the same
     * snapshot, each on a thread of its own, as many of them as can be had. */
    const struct pg_params *helpers;
    /* With one of these two all is to be proven. Keys: by one of them the last checkpoint must be signed, and
     * each anchor that is a note. */
    const struct audit_anchor *anchors;
    size_t anchor_count;
    const struct note_public *keys;
    size_t key_count;
};

/* Kinds of differences, each with what helps; in the order in which they are worth a look. */
enum audit_kind {
    AUDIT_LEAVES,       /* a leaf was changed, moved, taken out or put in, or a tree cut off */
    AUDIT_STRAYS,       /* rows that belong to no tree */
    AUDIT_TILES,        /* stored hashes, which follow from the leaves */
    AUDIT_ROOTS,        /* of a tree: they follow from the leaves, too */
    AUDIT_CHECKPOINTS,  /* of the database */
    AUDIT_ANCHORS,      /* what was kept elsewhere tells of another log */
    AUDIT_LEDGER,       /* a leaf is not as the ledger has its event */
    AUDIT_WITHOUT_LEAF, /* an event was handled and has no leaf */
    AUDIT_TWICE,        /* an event has two */
    AUDIT_UNMARKED,     /* an event has a leaf and was not handled, as the marks tell */
    AUDIT_SALTS,
    AUDIT_KINDS,
};

struct audit_result {
    struct sentences differences;
    unsigned kinds;  /* of these: 1 << enum audit_kind */
    int64_t unnamed; /* differences beside those */
    int64_t leaves;  /* verified */
    int64_t checkpoints, unsigned_checkpoints;
    int64_t last_checkpoint; /* the last one that holds; 0 = none */
    int64_t lost_anchors;    /* digests whose checkpoints the database has not */
    int64_t anchored;        /* leaves that anchors, or checkpoints with a signature by a key, vouch for */
};
/* Proves the leaves against their hashes, the trees, the checkpoints, the ledger and what was handled.
 * PG_DONE or an error of pg_query(). */
int audit_prove(struct audit *a, const struct audit_order *order, struct audit_result *ret);
