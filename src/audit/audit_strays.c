/* What no tree tells. See audit_internal.h.
 *
 * Rows of trees that do not exist, tiles that no leaves fill, checkpoints that are gone and salts change no
 * hash, so each is looked for by itself. */
#include <inttypes.h>
#include <stdio.h>

#include "audit/audit_internal.h"
#include "sql/statements.h"

/* "audit log, topic/partition", by the row's next two columns, or the number of a tree that is not there. */
static const char *tree_words(struct pg_row *row, int64_t tree, char *buffer, size_t size)
{
    if (pg_next_is_null(row)) {
        snprintf(buffer, size, "audit log, tree %" PRId64 ", which does not exist", tree);
    } else {
        const char *topic = pg_next_text(row);
        snprintf(buffer, size, "audit log, %s/%" PRId64, topic, pg_next_i64(row));
    }
    return buffer;
}

static int find_leaves(struct proof_of_audit *p)
{
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    char words[AUDIT_TOPIC_MAX + 64];

    int r = pg_query(p->audit->pg, &sql_audit_stray_leaves, NULL, &rows, &p->audit->err);
    for (int i = 0; r == PG_DONE && i < pg_rows(rows); i++) {
        struct pg_row row = {rows, i, 0};
        int64_t tree = pg_next_i64(&row), first = pg_next_i64(&row), last = pg_next_i64(&row);
        int64_t count = pg_next_i64(&row);
        tree_words(&row, tree, words, sizeof(words));
        if (count == 1)
            audit_differs(p->result, AUDIT_STRAYS, "%s: leaf %" PRId64 " was put in", words, first);
        else
            audit_differs(p->result, AUDIT_STRAYS,
                          "%s: %" PRId64 " leaves, %" PRId64 " to %" PRId64 ", were put in", words, count,
                          first, last);
    }
    return r;
}

static int find_tiles(struct proof_of_audit *p)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    char words[AUDIT_TOPIC_MAX + 64];

    pg_arg_i64(&args, NAMED_MAX);
    int r = pg_query(p->audit->pg, &sql_audit_stray_tiles, &args, &rows, &p->audit->err);
    for (int i = 0; r == PG_DONE && i < pg_rows(rows); i++) {
        struct pg_row row = {rows, i, 0};
        int64_t tree = pg_next_i64(&row), level = pg_next_i64(&row), tile = pg_next_i64(&row);
        (void) pg_next_i64(&row);
        audit_differs(p->result, AUDIT_TILES,
                      "%s: tile %" PRId64 " of level %" PRId64 " was put in: no leaves fill it",
                      tree_words(&row, tree, words, sizeof(words)), tile, level);
    }
    if (r == PG_DONE)
        p->result->unnamed += audit_count_unnamed(rows, 3);
    return r;
}

static int find_checkpoints(struct proof_of_audit *p)
{
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    int r = pg_query(p->audit->pg, &sql_audit_lost_checkpoints, NULL, &rows, &p->audit->err);
    for (int i = 0; r == PG_DONE && i < pg_rows(rows); i++)
        audit_differs(p->result, AUDIT_CHECKPOINTS, "audit log: checkpoint %" PRId64 " was taken out%s",
                      pg_get_i64(rows, i, 0),
                      pg_get_bool(rows, i, 1) ? ": it has the leaves of before this database was made a copy"
                                              : "");
    return r;
}

int audit_find_strays(struct proof_of_audit *p)
{
    int r = find_leaves(p);

    if (r == PG_DONE)
        r = find_tiles(p);
    return r == PG_DONE ? find_checkpoints(p) : r;
}

int audit_check_salts(struct proof_of_audit *p)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    int64_t all[2] = {0}; /* rows, single ones */

    pg_arg_i64(&args, NAMED_MAX);
    int r = pg_query(p->audit->pg, &sql_audit_salts_gone, &args, &rows, &p->audit->err);
    if (r != PG_DONE)
        return r;
    for (int i = 0; i < pg_rows(rows); i++) {
        int64_t chunk = pg_get_i64(rows, i, 0);
        bool is_one = !pg_is_null(rows, i, 1);
        all[is_one] = pg_get_i64(rows, i, 2);
        if (is_one)
            audit_differs(p->result, AUDIT_SALTS,
                          "audit log: the salt of subscription %" PRId64 " is gone, but it was not erased",
                          pg_get_i64(rows, i, 1));
        else
            audit_differs(p->result, AUDIT_SALTS,
                          "audit log: the salts of the subscriptions %" PRId64 " to %" PRId64 " are gone",
                          chunk * 32, chunk * 32 + 31);
    }
    p->result->unnamed += all[0] + all[1] - pg_rows(rows);
    return PG_DONE;
}
