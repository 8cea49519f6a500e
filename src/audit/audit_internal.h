/* What the files of the proof share among themselves.
 *
 * Trees and parts of the ledger are proven by several threads, each with a session and a `struct audit` of
 * its own. They read the `struct proof_of_audit`, and each job writes its own report. */
#pragma once

#include "audit/audit_proof.h"
#include "crypto/multiset.h"

#define TILE_LEVELS 8 /* a tile has 2^8 leaves, or tiles of the level below */
#define NAMED_MAX 20  /* differences of a tree */

/* A root that a checkpoint tells. */
struct promise {
    char name[48]; /* of the checkpoint: the words for a sentence */
    int64_t checkpoint;
    bool verified;
    bool anchored; /* somebody outside the database vouches for it */
    struct audit_tree_state tree;
};

/* What a job has found. */
struct report {
    struct sentences differences;
    unsigned kinds; /* of the differences */
    size_t named;   /* differences, those beyond NAMED_MAX too */
    int64_t leaves;
    struct multiset events; /* of the log, or of the ledger */
    bool is_strange;        /* an event that cannot be in the multiset */
    bool has_old;           /* leaves of events that have left the ledger */
};

struct proof_of_audit {
    struct audit *audit;
    const struct audit_order *order;
    struct audit_result *result;
    struct promise *promises; /* sorted by tree and size */
    size_t promise_count;
    struct multiset_key key;
    /* The ledger in parts: from which id on, ascending; the last one has no end. Empty = it is not read. */
    int64_t *parts;
    size_t part_count;
    int64_t first_id;       /* of the ledger */
    struct report *reports; /* one for each tree, then one for each part */
};

/* One more difference of a tree. */
void report_add(struct report *report, enum audit_kind kind, const struct audit_tree_state *tree,
                const char *fmt, ...) PRINTF(4, 5);
/* One more difference, in whole words. */
void audit_differs(struct audit_result *result, enum audit_kind kind, const char *fmt, ...) PRINTF(3, 4);

/* An event for the multisets. The type is a text; no integration is not integration 0. False: it is none. */
struct audit_event {
    int64_t sequence, subscription_id, integration_id, created_at;
    bool has_integration;
    struct bytes event_id, type;
};
bool audit_event_count(const struct audit_event *e, const struct multiset_key *key, struct multiset *m);

/* Reads the checkpoints since then, and the anchors, into promises, and judges signatures. PG_DONE or an
 * error of pg_query(). */
int audit_read_checkpoints(struct proof_of_audit *p);

/* Each proves a tree, by its leaves and checkpoints. PG_DONE or an error of pg_query() in a->err. */
int audit_prove_tree(const struct proof_of_audit *p, struct audit *a, struct audit_tree *tree,
                     struct report *report);

/* Where the parts of the ledger begin. */
int audit_ledger_parts(struct proof_of_audit *p);
/* The events of a part that the group has handled. */
int audit_count_part(const struct proof_of_audit *p, struct audit *a, size_t part, struct report *report);
/* Names what is in the log and not in the ledger, or otherwise; from where each tree was not verified. With
 * `only_left` only events that have left the ledger. */
int audit_compare_ledger(struct proof_of_audit *p, bool only_left);

/* How many differences a statement has found beside those that it names; the column has how many in all. */
int64_t audit_count_unnamed(const struct pg_result *rows, int column);
/* Names rows that belong to no tree, and so change none. PG_DONE or an error of pg_query(). */
int audit_find_strays(struct proof_of_audit *p);
/* Names salts that are gone without an erasure. */
int audit_check_salts(struct proof_of_audit *p);

/* Runs `job` for each number below `count`, on the caller's thread with `a`, and on those of some helpers,
 * which take what is not taken yet. The first error ends all. */
typedef int audit_job(void *userdata, struct audit *a, size_t number);
int audit_share(struct audit *a, const struct pg_params *helpers, size_t count, audit_job *job,
                void *userdata);
