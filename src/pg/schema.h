/* Which versions of the schema and of this program fit each other.
 *
 * A version is the number of a step of sql/; a repeatable file (sql/repeatable/) has none. A program knows
 * the versions it was built with; it needs at least SCHEMA_NEEDED of them, and it may work on a schema that
 * later programs have migrated further, unless one of those migrations names a newer program as the oldest
 * that may use it ("-- oldest daemon: N", where N is the version that program was built with). So daemons can
 * be upgraded one after the other, and rolled back.
 *
 * An adapter beside pg.c: any thread, one session at a time. */
#pragma once

#include "pg/pg.h"

/* The version below which this program cannot work: to be raised when a statement needs a later one. */
#define SCHEMA_NEEDED 3

/* The latest version this program was built with. */
int schema_known(void);

/* The number that a file of sql/ begins with; -EINVAL when it begins with none. */
int schema_file_version(const char *name);
/* What "-- NAME: words" among the comments at the beginning of a file says; the caller frees; NULL when there
 * is no such line. */
char *schema_file_header(const char *text, const char *name);
/* The header "oldest daemon"; 0 when there is none: every program may use it. */
int schema_file_oldest_daemon(const char *text);

/* Does the session's schema fit this program, and may a daemon work on it? Not on a copy: see work_refused()
 * in sql/repeatable/09_guard.sql. 0 = yes. PG_SCHEMA_MISFIT: *err says what there is, what is needed and
 * which command repairs it. Else an error of pg_query(). */
int schema_check_for_work(struct pg *pg, struct error *err);
/* For pg_params.admit, with the same outcomes. A daemon's sessions also show others that it is there; those
 * that open within a second, on the same server, share one look. A migration's only ask whether the schema
 * has the name that its functions know. */
int schema_admit_daemon(struct pg *pg, const struct pg_params *params, int64_t server, struct error *err);
int schema_admit_ctl(struct pg *pg, const struct pg_params *params, int64_t server, struct error *err);
int schema_admit_migration(struct pg *pg, const struct pg_params *params, int64_t server, struct error *err);
/* What a look has found holds no longer: the next session looks for itself. On any thread. */
void schema_doubt(void);
