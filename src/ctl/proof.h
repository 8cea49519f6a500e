/* What the files of "anubisctl verify" share. */
#pragma once

#include "ctl/ctl.h"

/* How many differences one statement names. */
#define NAMED_MAX 20

struct integration_count {
    int64_t id, sent, failed;
    int64_t behind; /* published, not handled */
};

/* Work that is not done yet. */
struct backlog {
    int64_t unpublished; /* events of the ledger */
    int64_t passed;      /* of those: with ids that the relay has passed because nobody had them */
    int64_t passed_first, passed_last;
    int64_t behind, dead;         /* published, but not handled */
    int64_t behind_at, behind_id; /* the oldest of them */
    int64_t unlogged;             /* published, but not in the audit log */
    int64_t foreign;              /* messages of others that lay between */
    int64_t unknown;              /* and events in our name that the ledger does not have */
};

struct proof {
    struct ctl *ctl;
    struct pg *pg;
    struct sheet *sheet;
    int64_t adopted;                             /* ledger ids up to this one are of before the adoption */
    int64_t middle;                              /* a subscription */
    struct pg_result *handled, *stops, *refused; /* refused: why daemons wait */
    /* The events of each integration; sorted by id before they are searched. */
    struct integration_count *counts;
    size_t count;
    size_t step;         /* the one under way */
    uint64_t step_began; /* 0 = none is under way */
    struct sentences differences;
    unsigned kinds;  /* of the differences */
    int64_t unnamed; /* differences beside those */
    struct backlog backlog;
    struct error err;
};

/* Kinds of differences. */
enum kind {
    KIND_TABLES,
    KIND_UNTRACED,
    KIND_GONE,
    KIND_STRAY,
    KIND_POSITION,
    KIND_COUNTER,
    KIND_MARKS,
    KIND_MARKS_LOST,
    KIND_STATS,
    KIND_CONFIRMATIONS,
    KINDS,
};

static inline void proof_note_kind(struct proof *p, enum kind kind)
{
    p->kinds |= 1U << kind;
}

/* The steps on Kafka's side. PG_DONE or an error of pg_query(). */
int proof_read_published(struct proof *p);
int proof_read_handled(struct proof *p);
int proof_verify_counters(struct proof *p);
int proof_verify_bits(struct proof *p);
int proof_verify_stats(struct proof *p);
int proof_verify_confirmations(struct proof *p);
int proof_read_logged(struct proof *p);
