/* Compares the clock of this machine with the database server's. Each decides something: see CAVEATS of
 * anubisd(8).
 *
 * On the monitor's thread and session, whose name tells "anubisctl status" how far they are apart. */
#pragma once

#include "base/trouble.h"
#include "pg/pg.h"

struct clocks {
    struct trouble differ;
};

/* Says once when they are far apart, and once when they are not any more. `instance`: this daemon's name.
 * Returns when to call it again, in microseconds from now. */
uint64_t clocks_run(struct clocks *c, struct pg *pg, const char *instance);
