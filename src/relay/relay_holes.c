/* Ids that the relay has passed without an event. See relay_internal.h. On the relay's thread.
 *
 * A gap is given up when nobody can fill it any more (gaps.h). That holds as long as ids are drawn once: when
 * the sequence is set back, or somebody brings rows with ids of their own, events may come with ids that were
 * passed, and no read would ever show them. So what was passed is kept (the table relay_holes), the newest
 * holes are looked into every few seconds, and all others one after the other.
 *
 * Events that were published, and that Kafka let go before a group had read them, stand there, too. */
#include <inttypes.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "relay/relay_internal.h"

#define LOOK_USEC (5 * USEC_PER_SEC)
/* In one look: of the newest, and as many of the others. */
#define HOLES 500
/* A look that takes long is followed by a rest of so many times its length. */
#define REST 50

/* Reads the next ones below *below, which becomes where to go on: 0 = there are no more. */
static int look(struct relay *relay, int64_t *below, int *ret_reopened, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *holes = NULL;
    struct gaps *gaps = &relay->position.gaps;
    int r = store_relay_holes(relay->session.pg, *below, HOLES, &holes, err);

    if (r < 0)
        return r;
    for (int i = 0; i < pg_rows(holes); i++) {
        int64_t first = pg_get_i64(holes, i, 0), last = pg_get_i64(holes, i, 1);
        *below = first;
        if (!pg_get_bool(holes, i, 2) || !gaps_reopen(gaps, first, last))
            continue;
        if (trouble_begins(&relay->position.refilled))
            log_line(LOG_WARNING, MSG_LEDGER_REFILLED,
                     "events have ledger ids that the relay had passed because nobody had them (%" PRId64
                     " to %" PRId64
                     "): the sequence of the ledger was set back, or rows were brought in. They "
                     "are published now, late",
                     first, last);
        (*ret_reopened)++;
    }
    if (pg_rows(holes) < HOLES)
        *below = 0;
    return 0;
}

/* In their order, as far as that can be kept. */
static int reopen_unread(struct relay *relay, bool *ret_any, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *ids = NULL;
    int r = store_relay_unread(relay->session.pg, HOLES, &ids, err);

    for (int i = 0; r == 0 && i < pg_rows(ids); i++)
        *ret_any |= gaps_reopen(&relay->position.gaps, pg_get_i64(ids, i, 0), pg_get_i64(ids, i, 0));
    return r;
}

int relay_look_into_holes(struct relay *relay, struct error *err)
{
    struct relay_position *position = &relay->position;
    uint64_t start = now_monotonic_usec();
    int64_t below = INT64_MAX;
    int reopened = 0;
    bool unread = false;

    if (start < position->holes_at)
        return 0;
    int r = reopen_unread(relay, &unread, err);

    if (r == 0)
        r = look(relay, &below, &reopened, err);
    if (r == 0 && position->holes_below > 0 && position->holes_below < below)
        below = position->holes_below;
    if (r == 0 && below > 0)
        r = look(relay, &below, &reopened, err);
    if (r < 0)
        return r;
    position->holes_below = below;
    if (reopened == 0)
        (void) trouble_ends(&position->refilled);
    uint64_t now = now_monotonic_usec();
    /* Of events that are published again there may be many more. */
    position->holes_at = unread ? now : now + MAX(LOOK_USEC, REST * (now - start));
    return 0;
}
