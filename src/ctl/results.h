/* Results that the database refuses, as the daemons that keep them tell by the names of their sessions: for
 * "status" and "explain". Main thread. */
#pragma once

#include "ctl/ctl.h"

/* Why a statement is refused for a row, by its SQLSTATE: a clause. */
const char *results_refusal_words(const char *sqlstate);
/* Rows of sql_results_refused as a table; nothing when there is none. */
void results_add(struct sheet *sheet, const struct pg_result *rows);
