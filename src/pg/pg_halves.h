/* Statements over many rows, one of which the database may refuse for its data: a rule or a trigger of the
 * application. That one keeps no other back. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "pg/pg.h"

/* Works on these rows in one statement; an outcome of pg_query(). */
typedef int (*pg_rows_work)(const int64_t *ids, size_t count, void *userdata);
/* This row alone is refused; pg_error_sqlstate() says why. */
typedef void (*pg_row_refused)(int64_t id, void *userdata);

/* Calls `work` with all of them; where a row is to blame, halves find it. PG_DONE, or the first outcome that
 * blames no row. */
int pg_in_halves(struct pg *pg, const int64_t *ids, size_t count, pg_rows_work work, pg_row_refused refused,
                 void *userdata);
