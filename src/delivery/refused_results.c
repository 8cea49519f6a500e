/* Results that the database refuses. See refused_results.h. */
#include "delivery/refused_results.h"

#include <inttypes.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"
#include "delivery/refused_row.h"

#define PAUSE_USEC (5 * USEC_PER_SEC)
#define LOST_MAX 3

static void say_many(struct refused_results *r, const char *words)
{
    CLEANUP(freep) char *kept = xasprintf("%zu results are refused one by one: %s", r->count, words);

    standstill_kept(r->standstill, STANDSTILL_RESULTS, kept);
    if (trouble_begins(&r->many))
        log_line(
            LOG_ERR, MSG_DATABASE_REFUSES,
            "the database refuses the results of more than %d subscriptions, one by one, the last one for: "
            "%s; they stay \"processing\", and are tried again until it takes them. Further ones are not "
            "named",
            REFUSED_NAMED_MAX, words);
}

void refused_results_note(struct refused_results *r, struct store_settlement *item, const char *sqlstate,
                          const struct error *err)
{
    char words[REFUSED_WORDS_MAX];
    bool is_first = item->refusals < 2;

    item->refusals = 2;
    item->not_before = now_monotonic_usec() + PAUSE_USEC;
    if (is_first) {
        r->count++;
        r->held(item->integration_id, 1, r->userdata);
    }
    refused_row_words(words, sizeof(words), sqlstate, err);
    log_about(is_first && r->count <= REFUSED_NAMED_MAX ? LOG_ERR : LOG_DEBUG, MSG_CHANGE_REFUSED,
              &(struct log_about){.subscription_id = item->id},
              "could not settle subscription %" PRId64 " (%s): trying again until it can be", item->id,
              words);
    if (r->count > REFUSED_NAMED_MAX)
        say_many(r, words);
}

void refused_results_lost(struct refused_results *r, const struct settlements *batch, size_t *limit,
                          const struct error *err)
{
    if (++r->lost < LOST_MAX)
        return;
    *limit = MAX(batch->count / 2, 1);
    if (batch->count == 1)
        refused_results_note(r, batch->data[0], "08006", err);
}

void refused_results_gone(struct refused_results *r, const struct store_settlement *item)
{
    if (item->refusals < 2)
        return;
    r->count--;
    r->held(item->integration_id, -1, r->userdata);
    log_about(r->count < REFUSED_NAMED_MAX ? LOG_NOTICE : LOG_DEBUG, NULL,
              &(struct log_about){.subscription_id = item->id},
              "the result of subscription %" PRId64 " is no longer refused", item->id);
    if (r->count > 0 || !trouble_ends(&r->many))
        return;
    standstill_over(r->standstill, STANDSTILL_RESULTS);
    log_line(LOG_NOTICE, MSG_DATABASE_REFUSES, "the database takes all results again");
}
