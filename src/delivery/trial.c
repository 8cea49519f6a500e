/* Connections without a subscription. See trial.h. */
#include "delivery/trial.h"

#include <stdlib.h>

#include "base/timeutil.h"
#include "delivery/delivery_internal.h"
#include "delivery/queue_session.h"

#define PERIOD_MIN_USEC (60 * USEC_PER_SEC)
#define PERIOD_MAX_USEC (3600 * USEC_PER_SEC)

struct trial {
    struct deliveries *all;
    struct integration *integration;
    struct http_transfer *transfer; /* under way; NULL = it waits */
    sd_event_source *timer;
    uint64_t ends; /* monotonic: a subscription is tried then, whatever the trials say */
    int failures;
};

uint64_t trial_period(uint64_t lasted_usec)
{
    return MIN(MAX(lasted_usec, PERIOD_MIN_USEC), PERIOD_MAX_USEC);
}

static void trial_free(struct trial *t)
{
    if (!t)
        return;
    t->all->trials.count--;
    sd_event_source_disable_unref(t->timer);
    free(t);
}

static void set_timer(struct trial *t, uint64_t at)
{
    sd_event_source_set_time(t->timer, at);
    sd_event_source_set_enabled(t->timer, SD_EVENT_ONESHOT);
}

static void end(struct trial *t, uint64_t now)
{
    struct deliveries *all = t->all;
    struct pace *pace = &t->integration->pace;

    t->integration->reach.trial = NULL;
    trial_free(t);
    pace_hand_over(pace, now);
    pace_recover(pace, now);
    all->callbacks.reachable(all->userdata);
}

static void on_tried(const struct http_result *result, void *userdata)
{
    struct trial *t = userdata;
    struct integration *i = t->integration;
    uint64_t now = now_monotonic_usec();
    bool lost = network_is_lost(t->all->network, &i->reach, result);

    t->transfer = NULL;
    if (result->cause != HTTP_INTERNAL && !lost) {
        i->reach.short_since = 0;
        end(t, now);
        return;
    }
    delivery_note_shortage(t->all, i, lost ? NULL : result);
    if (now >= t->ends)
        end(t, now);
    else
        set_timer(t, now + outcome_own_backoff(++t->failures, erand48(t->all->jitter)));
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
    static const char *const none[] = {NULL};
    struct trial *t = userdata;

    (void) s, (void) usec;
    t->integration->reach.tried_at = now_monotonic_usec();
    t->transfer = http_post(t->all->http,
                            &(struct http_request){
                                .url = t->integration->endpoint_url,
                                .headers = none,
                                .body = "",
                                .timeout_usec = t->integration->request.timeout_usec,
                                .connects_only = true,
                                .way = t->integration->settings.way.http,
                            },
                            on_tried, t);
    return 0;
}

void trial_begin(struct deliveries *all, struct integration *i)
{
    uint64_t now = now_monotonic_usec();

    if (i->reach.trial)
        return;
    struct trial *t = xcalloc(1, sizeof(*t));
    all->trials.count++;
    t->all = all;
    t->integration = i;
    if (i->reach.short_since == 0)
        i->reach.short_since = now;
    t->ends = now + trial_period(now - i->reach.short_since);
    t->failures = i->pace.backoffs;
    if (sd_event_add_time(all->event, &t->timer, CLOCK_MONOTONIC, i->pace.until, USEC_PER_MSEC, on_timer, t) <
        0) {
        trial_free(t); /* its subscriptions are tried instead */
        return;
    }
    i->reach.trial = t;
}

/* --- what only a claim brings ----------------------------------------------------------------- */

/* What it knows of the shortage is no longer true. */
static void give_up(struct integration *i, void *unused)
{
    struct trial *t = i->reach.trial;

    (void) unused;
    if (!t)
        return;
    i->reach.short_since = 0;
    t->ends = 0;
    if (t->transfer)
        http_cancel(t->all->http, t->transfer);
    else
        end(t, now_monotonic_usec());
}

void trials_end(struct deliveries *all)
{
    integrations_each(all->integrations, give_up, NULL);
}

static void on_changed(struct pg_answer *answer, void *userdata)
{
    struct deliveries *all = userdata;
    int rows = answer->r == 0 ? pg_rows(answer->result) : 0;
    uint64_t now = now_monotonic_usec();

    all->trials.look.again_at = now + MAX(all->config->delivery.poll_interval_usec,
                                          look_pause(&all->trials.look, now - all->trials.asked_at));
    for (int n = 0; n < rows; n++) {
        struct integration *i = integrations_find(all->integrations, pg_get_i64(answer->result, n, 0));
        if (i)
            give_up(i, NULL);
    }
    all->callbacks.reachable(all->userdata);
}

static void add_id(struct integration *i, void *args)
{
    if (i->reach.trial)
        pg_array_i64(args, i->id);
}

static void add_fingerprint(struct integration *i, void *args)
{
    if (i->reach.trial)
        pg_array_i64(args, i->fingerprint);
}

bool trials_ask(struct deliveries *all, struct queue_session *session)
{
    uint64_t now = now_monotonic_usec();
    struct pg_args *args = queue_session_args(session);

    if (all->trials.count == 0 || now < all->trials.look.again_at)
        return false;
    pg_args_clear(args);
    pg_array_begin(args, PG_INT8);
    integrations_each(all->integrations, add_id, args);
    pg_array_begin(args, PG_INT8);
    integrations_each(all->integrations, add_fingerprint, args);
    all->trials.asked_at = now;
    return queue_session_ask(session, &sql_changed_integrations, on_changed, all) == 0;
}

static void free_one(struct integration *i, void *unused)
{
    (void) unused;
    trial_free(TAKE_PTR(i->reach.trial));
}

void trials_free(struct deliveries *all)
{
    integrations_each(all->integrations, free_one, NULL);
}
