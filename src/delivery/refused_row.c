/* A row that a statement was refused for. See refused_row.h. */
#include "delivery/refused_row.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"

#define NO_ROW_PAUSE_USEC USEC_PER_SEC

void refused_row_note(struct refusals *r, const char *sqlstate)
{
    snprintf(r->sqlstate, sizeof(r->sqlstate), "%s", sqlstate);
}

uint64_t refused_row_pass_over(struct refusals *r, const struct pg_answer *head, const char *what)
{
    if (head->r != 0 || pg_rows(head->result) == 0)
        return NO_ROW_PAUSE_USEC;
    int64_t id = pg_get_i64(head->result, 0, 0);
    uint64_t pause_usec = refusals_add(r, id, now_monotonic_usec());

    log_about(LOG_ERR, MSG_CHANGE_REFUSED, &(struct log_about){.subscription_id = id},
              "could not %s subscription %" PRId64
              " (SQLSTATE %s, see the server's log): passing it over for %" PRIu64 " s",
              what, id, r->sqlstate, pause_usec / USEC_PER_SEC);
    return refusals_pause_usec(r);
}
