/* Claims that no daemon works on. See leases.h. */
#include "delivery/leases.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"
#include "delivery/delivery.h"
#include "delivery/look.h"
#include "delivery/refused_row.h"
#include "delivery/store_delivery.h"

#define ROWS 500
#define PERIOD_MIN_USEC (250 * USEC_PER_MSEC)
#define PERIOD_MAX_USEC (5 * USEC_PER_SEC)
/* A slow look, over entries of claims of long ago that no VACUUM may remove, finds the least of all: it rests
 * for so many times the pause of a look, up to the longest one. */
#define REST_FACTOR 10
#define REST_MAX_USEC (60 * USEC_PER_SEC)
#define GRACE_USEC (15 * USEC_PER_SEC)
/* What kept our statements kept those of others, too: so long they have to store what they hold. */
#define PATIENCE_USEC (60 * USEC_PER_SEC)

struct leases {
    struct queue_session *session;
    struct leases_callbacks callbacks;
    void *userdata;
    struct tokens lost; /* of claims whose answers got lost */
    struct tokens live; /* scratch: tokens that are ours */
    struct refusals refusals;
    int limit;   /* of the statement under way */
    uint64_t at; /* monotonic: when leases are looked at next */
    struct look look;
    uint64_t sent_at;       /* boot time: the look under way */
    uint64_t patient_until; /* monotonic: leases of daemons that are there are left to them */
};

static void log_expired(const struct pg_result *result, int rows)
{
    int failed = 0, held = 0, unseen = 0;

    for (int i = 0; i < rows; i++) {
        int64_t id = pg_get_i64(result, i, 0);
        const char *status = pg_get_text(result, i, 2);
        failed += strcmp(status, "failed") == 0;
        held += strcmp(status, "held") == 0;
        unseen += strcmp(status, "unseen") == 0;
        log_about(LOG_DEBUG, MSG_LEASE_LOST, &(struct log_about){.subscription_id = id},
                  "lease of subscription %" PRId64 " is over: %s", id, status);
    }
    if (rows > unseen)
        log_line(
            LOG_NOTICE, MSG_LEASE_LOST,
            "%d lease%s ran out without a result, what was sent may have been received: %d to be tried again, %d failed, %d held for a person",
            rows - unseen, plural(rows - unseen), rows - failed - held - unseen, failed, held);
    if (unseen > 0)
        log_line(
            LOG_WARNING, MSG_LEASE_LOST,
            "%d subscription%s held: in \"processing\" since before a daemon had them, and older than "
            "retry.max_age; the application may have sent them. Set them to sent or failed, or held_at to "
            "NULL to have them sent",
            unseen, plural(unseen));
}

static void on_refused_row(struct pg_answer *answer, void *userdata)
{
    struct leases *s = userdata;

    s->at = now_monotonic_usec() + refused_row_pass_over(&s->refusals, answer, "end the claim of");
    s->callbacks.done(0, s->userdata);
}

/* True when the row that was refused is being looked for. */
static bool find_refused_row(struct leases *s, const struct pg_answer *answer)
{
    s->at = 0;
    if (!refusals_narrow(&s->refusals, s->limit))
        return false;
    refused_row_note(&s->refusals, answer);
    return queue_session_ask(s->session, &sql_expire_head, on_refused_row, s) == 0;
}

static uint64_t rest_usec(struct leases *s)
{
    return MIN(REST_FACTOR * look_pause(&s->look, now_boottime_usec() - s->sent_at), REST_MAX_USEC);
}

static void on_expired(struct pg_answer *answer, void *userdata)
{
    struct leases *s = userdata;
    bool locked = queue_session_gave_up_for_lock(s->session, answer);
    int rows = answer->r == 0 ? pg_rows(answer->result) : 0;

    if (answer->r == -EBADMSG && pg_blames_row(answer->sqlstate)) {
        if (find_refused_row(s, answer))
            return;
    } else if (answer->r == -EBADMSG && !locked) {
        queue_session_refused(s->session, STANDSTILL_LEASES, "end leases that are over", answer);
    }
    if (answer->r == 0)
        queue_session_done(s->session, STANDSTILL_LEASES);
    else
        s->patient_until = now_monotonic_usec() + PATIENCE_USEC;
    if (answer->r == 0)
        refusals_widen(&s->refusals, s->limit, rows);
    if (rows > 0 && rows == s->limit)
        s->at = 0; /* there may be more */
    else if (answer->r == 0 && rows == 0)
        s->at = MAX(s->at, now_monotonic_usec() + rest_usec(s));
    if (rows > 0)
        log_expired(answer->result, rows);
    s->callbacks.done(rows, s->userdata);
}

static void on_released(struct pg_answer *answer, void *userdata)
{
    struct leases *s = userdata;
    bool locked = queue_session_gave_up_for_lock(s->session, answer);
    int64_t rows = answer->r == 0 ? pg_affected(answer->result) : 0;

    if (answer->r == -EBADMSG && !locked)
        queue_session_refused(s->session, STANDSTILL_LEASES, "release claims whose answer got lost", answer);
    if (rows > 0)
        log_notice("%" PRId64
                   " subscription%s put back into the queue: the answer to a claim got lost or came too late",
                   rows, plural(rows));
    if (answer->r != -ECONNRESET && !locked)
        s->lost.count = 0;
    s->callbacks.done(0, s->userdata);
}

static bool expire_leases(struct leases *s, const struct config *config, uint64_t now)
{
    const struct outcome_rules rules = deliveries_rules(config);
    const int64_t *passed_over;
    size_t passed_over_count = refusals_ids(&s->refusals, now, &passed_over);

    s->at = now + MIN(MAX(config->delivery.lease_usec / 8, PERIOD_MIN_USEC), PERIOD_MAX_USEC);
    s->live.count = 0;
    s->callbacks.live_tokens(&s->live, s->userdata);
    s->limit = refusals_limit(&s->refusals, ROWS);
    s->sent_at = now_boottime_usec();
    store_expire_leases_args(queue_session_args(s->session), &rules, s->live.count, s->live.data,
                             passed_over_count, passed_over, s->limit, config->instance,
                             now < s->patient_until);
    return queue_session_ask(s->session, &sql_expire_leases, on_expired, s) == 0;
}

bool leases_run(struct leases *s, const struct config *config, bool lost_claims_only)
{
    uint64_t now = now_monotonic_usec();

    if (s->lost.count > 0) {
        store_release_tokens_args(queue_session_args(s->session), s->lost.count, s->lost.data);
        return queue_session_ask(s->session, &sql_release_tokens, on_released, s) == 0;
    }
    return !lost_claims_only && now >= s->at && expire_leases(s, config, now);
}

void leases_claim_lost(struct leases *s, int64_t token)
{
    tokens_add(&s->lost, token);
}

bool leases_have_more(const struct leases *s)
{
    return s->at == 0;
}

bool leases_has_lost_claims(const struct leases *s)
{
    return s->lost.count > 0;
}

void leases_wait_after_outage(struct leases *s)
{
    s->at = now_monotonic_usec() + GRACE_USEC;
    s->patient_until = now_monotonic_usec() + PATIENCE_USEC;
}

struct leases *leases_new(struct queue_session *session, const struct leases_callbacks *callbacks,
                          void *userdata)
{
    struct leases *s = xcalloc(1, sizeof(*s));

    s->session = session;
    s->callbacks = *callbacks;
    s->userdata = userdata;
    return s;
}

void leases_free(struct leases *s)
{
    if (!s)
        return;
    tokens_free(&s->lost);
    tokens_free(&s->live);
    refusals_free(&s->refusals);
    free(s);
}
