/* How the dispatcher stops. See drain.h. */
#include "delivery/drain.h"

#include "base/log.h"
#include "base/timeutil.h"

static int on_timeout(sd_event_source *s, uint64_t usec, void *userdata)
{
    struct drain *d = userdata;
    int cut = deliveries_count(d->parts.deliveries);

    (void) s, (void) usec;
    if (cut > 0)
        log_warning("drain_timeout is over: cutting %d request%s still under way", cut, plural(cut));
    verdicts_release(notes_verdicts(d->parts.notes));
    deliveries_cancel_all(d->parts.deliveries);
    return 0;
}

void drain_begin(struct drain *d, sd_event *event, uint64_t timeout_usec, const struct drain_parts *parts)
{
    d->phase = DRAIN_SENDING;
    d->parts = *parts;
    d->instance = xstrdup(parts->instance);
    settler_hurry(parts->settler);
    if (sd_event_add_time_relative(event, &d->timer, CLOCK_MONOTONIC, timeout_usec, 1000, on_timeout, d) < 0)
        abort();
}

static void end(struct drain *d)
{
    d->phase = DRAIN_DONE;
    queue_session_silence(d->parts.session);
    d->parts.done(d->parts.userdata);
}

/* When it could not be done, the others wait until the time is over. */
static void on_left(struct pg_answer *answer, void *userdata)
{
    (void) answer;
    end(userdata);
}

static bool leave(struct drain *d)
{
    struct pg_args *args = queue_session_args(d->parts.session);

    pg_args_clear(args);
    pg_arg_text(args, d->instance);
    d->phase = DRAIN_LEAVING;
    return queue_session_ask(d->parts.session, &sql_leave_integrations, on_left, d) == 0;
}

void drain_advance(struct drain *d)
{
    const struct drain_parts *p = &d->parts;

    if (d->phase == DRAIN_SENDING && deliveries_count(p->deliveries) == 0)
        d->phase = DRAIN_SETTLING;
    if (d->phase != DRAIN_SETTLING || settler_pending(p->settler) > 0)
        return;
    if (queue_session_up(p->session) &&
        (!queue_session_idle(p->session) || leases_has_lost_claims(p->leases) ||
         notes_due(p->notes) != USEC_INFINITY))
        return;
    if (!queue_session_idle(p->session) || !leave(d))
        end(d);
}

void drain_free(struct drain *d)
{
    sd_event_source_disable_unref(d->timer);
    free(d->instance);
}
