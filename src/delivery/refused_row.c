/* A row that a statement was refused for. See refused_row.h. */
#include "delivery/refused_row.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"

#define NO_ROW_PAUSE_USEC USEC_PER_SEC

bool refused_row_is_changed(const char *sqlstate)
{
    return strcmp(sqlstate, PG_SQLSTATE_UNLIKE) == 0 || strcmp(sqlstate, PG_SQLSTATE_BEING_SENT) == 0;
}

void refused_row_words(char *ret, size_t size, const char *sqlstate, const struct error *err)
{
    /* What names a constraint quotes no value. */
    if (strcmp(sqlstate, PG_SQLSTATE_UNLIKE) == 0 || strncmp(sqlstate, "23", 2) == 0)
        (void) snprintf(ret, size, "%s", err->text);
    else if (refused_row_is_changed(sqlstate))
        (void) snprintf(ret, size,
                        "a trigger on subscriptions changes what is written there: \\d subscriptions");
    else
        (void) snprintf(ret, size, "SQLSTATE %s, see the server's log", sqlstate);
}

void refused_row_note(struct refusals *r, const struct pg_answer *answer)
{
    refused_row_words(r->words, sizeof(r->words), answer->sqlstate, answer->err);
}

uint64_t refused_row_pass_over(struct refusals *r, const struct pg_answer *head, const char *what)
{
    if (head->r != 0 || pg_rows(head->result) == 0)
        return NO_ROW_PAUSE_USEC;
    int64_t id = pg_get_i64(head->result, 0, 0);
    uint64_t pause_usec = refusals_add(r, id, now_monotonic_usec());

    log_about(r->count <= REFUSED_NAMED_MAX ? LOG_ERR : LOG_DEBUG, MSG_CHANGE_REFUSED,
              &(struct log_about){.subscription_id = id},
              "could not %s subscription %" PRId64 " (%s): passing it over for %" PRIu64 " s", what, id,
              r->words, pause_usec / USEC_PER_SEC);
    if (r->count <= REFUSED_NAMED_MAX)
        (void) trouble_ends(&r->many);
    else if (trouble_begins(&r->many))
        log_line(
            LOG_ERR, MSG_CHANGE_REFUSED,
            "could not %s more than %d subscriptions, one by one, the last one for: %s; further ones are "
            "passed over without a word",
            what, REFUSED_NAMED_MAX, r->words);
    return refusals_pause_usec(r);
}
