/* What ctl_explain.c and explain_next.c share. Main thread. */
#pragma once

#include "ctl/ctl.h"
#include "ctl/store_ctl.h"

struct explanation {
    struct ctl *ctl;
    struct pg *pg;
    struct sheet *sheet;
    int64_t id;
    struct store_subscription s;
    struct pg_result *events;
    struct sentences reasons; /* what holds it back */
    uint64_t began;           /* the search; 0 = there is none under way */
    struct error err;
};

/* The daemon's own configuration decides, which may be another one than ours. */
int64_t explain_max_attempts(const struct explanation *e);
/* Adds what happens next and when, and what holds it back. */
void explain_next(struct explanation *e);
