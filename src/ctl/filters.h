/* What the filters of integrations say to a payload: the first enabled one that takes it decides, as
 * subscriptions_route() does. Main thread. */
#pragma once

#include "ctl/sheet.h"
#include "pg/pg.h"

/* In the statement filters_judge, too. */
enum filter_verdict {
    FILTER_TAKES,
    FILTER_DISABLED,
    FILTER_NO_CRITERIA,
    FILTER_ORIGIN,
    FILTER_CRITERIA,
    FILTER_NO_INTEGRATION,
};

/* One row for each filter, in their order. Outcomes and errors are pg_query()'s. `origin` NULL = none. */
int filters_judge(struct pg *pg, const char *payload, const char *origin, struct pg_result **ret,
                  struct error *err);
/* The row of the filter that decides; -1 = none takes it. */
int filters_deciding(const struct pg_result *filters);
/* Why no filter takes it, a sentence for each; at most a dozen. */
void filters_explain(const struct pg_result *filters, struct sentences *ret);
/* All of them, each with its reason. */
void filters_show(const struct pg_result *filters, struct sheet *sheet);
