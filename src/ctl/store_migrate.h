/* The statements of "anubisctl migrate": one transaction, from store_migrate_begin() to its commit.
 *
 * Outcomes and errors are pg_query()'s where nothing else is said. `schema` is the bare name. */
#pragma once

#include "pg/pg.h"

/* Begins the transaction and waits, as long as it takes, until no other migration of this schema runs. */
int store_migrate_begin(struct pg *pg, const char *schema, struct error *err);

struct store_place {
    struct strbuf quoted, database; /* the schema's name as SQL wants it; the database's as it is */
    bool exists;                    /* the schema */
    bool beside;         /* it does not, but "public" has tables of an application that look like ours */
    struct strbuf lacks; /* a line for each permission that our role lacks, with the command that gives it */
};
int store_migrate_place(struct pg *pg, const char *schema, struct store_place *place, struct error *err);
int store_migrate_create_schema(struct pg *pg, const char *quoted, struct error *err);

struct store_applied {
    int version;
    char *name, *checksum, *applied_by;
};
/* What anubis_migrations says, by version; nothing when there is no such table. The caller frees by
 * store_applied_free(). */
int store_migrate_read(struct pg *pg, const char *schema, struct store_applied **ret, size_t *ret_count,
                       struct error *err);
void store_applied_free(struct store_applied *items, size_t count);

/* The checksum of a text, as anubis_migrations holds it; the caller frees. */
int store_migrate_checksum(struct pg *pg, const char *text, char **ret, struct error *err);

/* Locks those of `tables` (separated by spaces) that exist, in this order or `reversed`, against everybody.
 * *ret_busy: others hold them; nothing is locked then, and the transaction goes on. */
int store_migrate_lock(struct pg *pg, const char *schema, const char *tables, bool reversed, bool *ret_busy,
                       struct error *err);

int store_migrate_record(struct pg *pg, const struct store_applied *item, int oldest_daemon,
                         struct error *err);

/* How many ids a session draws from the ledger's sequence at once; the relay depends on 1. */
int store_migrate_sequence_cache(struct pg *pg, int64_t *ret, struct error *err);

/* Of the session itself. */
int store_backend(struct pg *pg, int *ret_pid, struct error *err);
/* Who keeps that backend waiting, in words ("session 4711 (role …, …)"); nothing when nobody does. Any other
 * session may ask. */
int store_blockers(struct pg *pg, int pid, struct strbuf *out, struct error *err);
