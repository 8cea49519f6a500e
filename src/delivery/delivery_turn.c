/* Requests of integrations with a rate_limit: each is sent at its time. See delivery_internal.h, rate.h. */
#include <stdlib.h>

#include "base/timeutil.h"
#include "delivery/delivery_internal.h"

#define ACCURACY_USEC 200

static int on_send_time(sd_event_source *s, uint64_t usec, void *userdata);

static void wait_until(struct delivery *d, uint64_t at)
{
    sd_event_source **timer = &d->turn->timer;

    if (!*timer &&
        sd_event_add_time(d->all->event, timer, CLOCK_MONOTONIC, at, ACCURACY_USEC, on_send_time, d) < 0)
        abort();
    sd_event_source_set_time(*timer, at);
    sd_event_source_set_enabled(*timer, SD_EVENT_ONESHOT);
}

/* One that cannot be sent in time goes back. */
static void start_in_turn(struct delivery *d)
{
    struct rate *rate = &d->integration->rate;
    const struct turn *t = d->turn;
    uint64_t now = now_monotonic_usec(), at = rate_send_at(rate, t->send_at);
    bool held = integration_is_held(d->integration, now) && !d->is_probe;

    if (held || rate_is_late(t->send_at, now)) {
        t->callbacks->give_back(d, "rate_limit, and its time was over");
    } else if (now < at) {
        wait_until(d, at);
    } else {
        rate_sent(rate, now);
        if (t->repeats)
            t->callbacks->post(d, t->key, t->trace);
        else
            t->callbacks->start(d, t->order_id, t->key, t->trace);
    }
}

static int on_send_time(sd_event_source *s, uint64_t usec, void *userdata)
{
    (void) s, (void) usec;
    start_in_turn(userdata);
    return 0;
}

void delivery_take_turn(struct delivery *d, const struct store_claimed *row,
                        const struct turn_callbacks *callbacks)
{
    d->turn = xcalloc(1, sizeof(*d->turn));
    d->turn->callbacks = callbacks;
    d->turn->send_at = d->started_usec + (uint64_t) row->send_usec;
    d->turn->order_id = xstrdup(row->order_id);
    rate_claimed(&d->integration->rate, row->interval_nsec, d->turn->send_at, d->started_usec);
    delivery_write_ids(d, row, d->turn->key, d->turn->trace);
    start_in_turn(d);
}

static uint64_t next_turn(const struct delivery *d)
{
    return rate_send_at(&d->integration->rate, now_monotonic_usec());
}

bool delivery_has_next_turn(const struct delivery *d)
{
    return next_turn(d) < d->started_usec + d->integration->request.timeout_usec / 2;
}

void delivery_take_next_turn(struct delivery *d)
{
    bool in_time = delivery_has_next_turn(d);

    d->transfer = NULL;
    d->turn->repeats = true;
    d->turn->send_at = in_time ? next_turn(d) : 1;
    wait_until(d, in_time ? d->turn->send_at : 0);
}

void delivery_turn_cancel(struct delivery *d)
{
    d->turn->send_at = 1;
    wait_until(d, 0);
}

void delivery_turn_free(struct turn *t)
{
    if (!t)
        return;
    sd_event_source_disable_unref(t->timer);
    free(t->order_id);
    free(t);
}
