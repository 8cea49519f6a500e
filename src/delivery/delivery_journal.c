/* What the journal says about deliveries. See delivery_internal.h.
 *
 * Single attempts are debug. What is said is that a subscription has failed for good, the first few of an
 * integration one by one; that an institution takes nothing, refuses everything or asks for time, and that it
 * takes subscriptions again; and what this machine lacks. No word of an institution's. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"
#include "delivery/delivery_internal.h"

#define SHORTAGE_OVER_SEC 60
#define SHORTAGE_OVER_USEC (SHORTAGE_OVER_SEC * USEC_PER_SEC)
/* An institution that asks for so much time is said to, at once. */
#define LONG_WAIT_USEC (300 * USEC_PER_SEC)
/* As many refusals may be the subscriptions' own fault, however much time lies between them. */
#define REFUSALS_ENOUGH 5

/* What the lines about a delivery are about. `class` lives as long as the line. */
static struct log_about about(const struct delivery *d, const struct http_result *result, const char *class)
{
    return (struct log_about){.subscription_id = d->id,
                              .integration_id = d->integration->id,
                              .integration_name = d->integration->name,
                              .attempt = d->attempts,
                              .http_status = result->status,
                              .error = class};
}

static struct log_about about_integration(const struct integration *i)
{
    return (struct log_about){.integration_id = i->id, .integration_name = i->name};
}

/* --- failures --------------------------------------------------------------------------------- */

static int on_failures_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct deliveries *all = userdata;

    (void) source, (void) usec;
    all->failures_at = 0;
    delivery_say_failures(all, false);
    return 0;
}

static void tell_failures_at(struct deliveries *all, uint64_t at)
{
    if (at == USEC_INFINITY || (all->failures_at && all->failures_at <= at))
        return;
    all->failures_at = at;
    if (!all->failures_timer) {
        if (sd_event_add_time(all->event, &all->failures_timer, CLOCK_MONOTONIC, at, 0, on_failures_timer,
                              all) < 0)
            abort();
        return;
    }
    sd_event_source_set_time(all->failures_timer, at);
    sd_event_source_set_enabled(all->failures_timer, SD_EVENT_ONESHOT);
}

struct telling {
    struct deliveries *all;
    uint64_t now;
};

/* What is held has not failed, and "anubisctl status" counts it apart, too. */
static void add_counted(struct strbuf *words, uint64_t count, const char *singular, const char *many)
{
    if (count > 0)
        strbuf_addf(words, "%s%" PRIu64 " more subscription%s", words->len ? ", " : "", count,
                    count == 1 ? singular : many);
}

static void tell_failures(struct integration *i, void *userdata)
{
    const struct telling *t = userdata;
    CLEANUP(strbuf_free) struct strbuf lasted = STRBUF_INIT(128), words = STRBUF_INIT(256);
    const struct log_about on = about_integration(i);
    struct failures were;

    if (failures_take(&i->failures, t->now, &were)) {
        strbuf_add_duration_human(&lasted, were.last - were.since);
        add_counted(&words, were.counted - were.held, " failed", "s failed");
        add_counted(&words, were.held, " is held for a person", "s are held for a person");
        log_about(LOG_WARNING, MSG_DELIVERIES_FAILED, &on, "integration %" PRId64 " \"%s\": %s within %s",
                  i->id, i->name, strbuf_str(&words), strbuf_str(&lasted));
    }
    tell_failures_at(t->all, failures_until(&i->failures));
}

void delivery_say_failures(struct deliveries *all, bool all_of_them)
{
    struct telling t = {all, all_of_them ? USEC_INFINITY - 1 : now_monotonic_usec()};

    if (all->integrations)
        integrations_each(all->integrations, tell_failures, &t);
}

static void log_held(const struct delivery *d, const struct outcome *o, const struct log_about *on)
{
    log_about(LOG_WARNING, MSG_DELIVERY_HELD, on,
              "subscription %" PRId64 ", integration %" PRId64
              " \"%s\", is held for a person (%s): the institution may have it",
              d->id, d->integration->id, d->integration->name, o->decided_by);
}

void delivery_say(const struct delivery *d, const struct outcome *o, const struct http_result *result)
{
    struct failures *failures = &d->integration->failures;
    bool held = o->state == OUTCOME_HOLD, failed = o->state == OUTCOME_FAILED || held;
    bool alone = failed && failures_add(failures, held, now_monotonic_usec());
    char class[64];

    if (failed && !alone)
        tell_failures_at(d->all, failures_until(failures));
    if (!alone && !log_enabled(LOG_DEBUG))
        return;
    outcome_error_class(result, class, sizeof(class));
    const struct log_about on = about(d, result, o->state == OUTCOME_SENT ? NULL : class);
    if (alone && held) {
        log_held(d, o, &on);
        return;
    }
    log_about(alone ? LOG_WARNING : LOG_DEBUG, failed ? MSG_DELIVERY_FAILED : NULL, &on,
              "subscription %" PRId64 ", integration %" PRId64 " \"%s\", attempt %d: %s, %s%s", d->id,
              d->integration->id, d->integration->name, d->attempts, class, outcome_word(o->state),
              o->ambiguous ? ", ambiguous" : "");
}

/* --- outages ---------------------------------------------------------------------------------- */

/* What becomes of its subscriptions. */
static void add_meanwhile(struct strbuf *words, const struct outcome *o)
{
    if (o->state == OUTCOME_HOLD) {
        strbuf_adds(words, "its subscriptions are held: somebody is to find out what became of them");
    } else if (o->backoff_usec > 0) {
        strbuf_adds(words, "nothing is sent to it for ");
        strbuf_add_duration_human(words, o->backoff_usec);
    } else {
        strbuf_adds(words, "its subscriptions are tried again");
    }
}

static void log_outage(const struct delivery *d, const struct outcome *o, const struct http_result *result)
{
    CLEANUP(strbuf_free) struct strbuf lasted = STRBUF_INIT(128), meanwhile = STRBUF_INIT(256);
    const struct integration *i = d->integration;
    char class[64];

    outcome_error_class(result, class, sizeof(class));
    strbuf_add_duration_human(&lasted, now_monotonic_usec() - i->outage.since);
    add_meanwhile(&meanwhile, o);
    const struct log_about on = about(d, result, class);
    const char *colon = *result->detail ? ": " : "";
    if (o->refused)
        log_about(LOG_WARNING, MSG_INSTITUTION_REFUSES, &on,
                  "integration %" PRId64 " \"%s\" refuses everything: %d attempts in a row failed within %s, "
                  "the last one: %s; its subscriptions fail (anubisctl explain %" PRId64 ")",
                  i->id, i->name, i->outage.attempts, strbuf_str(&lasted), class, d->id);
    else
        log_about(LOG_WARNING, MSG_INSTITUTION_LOST, &on,
                  "integration %" PRId64
                  " \"%s\": %d attempts in a row failed within %s, the last one: %s%s%s; %s "
                  "(anubisctl explain %" PRId64 ")",
                  i->id, i->name, i->outage.attempts, strbuf_str(&lasted), class, colon, result->detail,
                  strbuf_str(&meanwhile), d->id);
}

static void log_wait(const struct delivery *d, const struct outcome *o, const struct http_result *result)
{
    CLEANUP(strbuf_free) struct strbuf wait = STRBUF_INIT(128);
    char class[64];

    outcome_error_class(result, class, sizeof(class));
    strbuf_add_duration_human(&wait, o->backoff_usec);
    const struct log_about on = about(d, result, class);
    log_about(LOG_WARNING, MSG_INSTITUTION_WAITS, &on,
              "integration %" PRId64 " \"%s\" asks for time (%s): nothing is sent to it for %s",
              d->integration->id, d->integration->name, class, strbuf_str(&wait));
}

static void log_outage_over(const struct delivery *d, const struct outage *was)
{
    CLEANUP(strbuf_free) struct strbuf lasted = STRBUF_INIT(128);
    const struct log_about on = about_integration(d->integration);

    strbuf_add_duration_human(&lasted, now_monotonic_usec() - was->since);
    log_about(
        LOG_NOTICE, MSG_INSTITUTION_BACK, &on,
        "integration %" PRId64 " \"%s\" takes subscriptions again, after %s in which %d attempt%s failed",
        d->integration->id, d->integration->name, strbuf_str(&lasted), was->attempts, plural(was->attempts));
}

void delivery_say_outage(const struct delivery *d, const struct outcome *o, const struct http_result *result)
{
    struct outage *outage = &d->integration->outage, was;

    if (o->state == OUTCOME_SENT) {
        if (outage_over(outage, &was))
            log_outage_over(d, &was);
        return;
    }
    /* An integration that is paused for refusals says that instead. */
    bool says_nothing = o->refused && burst_holds(&d->integration->burst, now_monotonic_usec());
    if ((!o->turned_away && !o->refused) || says_nothing)
        return;
    bool waits = o->backoff_usec >= LONG_WAIT_USEC;
    bool enough = outage_goes_on(outage, now_monotonic_usec(),
                                 waits        ? OUTAGE_NOW
                                 : o->refused ? REFUSALS_ENOUGH
                                              : 1);
    if (enough && waits)
        log_wait(d, o, result);
    else if (enough)
        log_outage(d, o, result);
}

void delivery_say_weak_tls(struct integration *i)
{
    struct settings_way *way = &i->settings.way;
    const struct log_about on = about_integration(i);

    if (way->said || !settings_way_is_weak(way))
        return;
    way->said = true;
    log_about(LOG_WARNING, MSG_WEAK_TLS, &on,
              "integration %" PRId64 " \"%s\" is sent to over weak TLS, as its delivery_settings ask for: "
              "%s%s%s%s",
              i->id, i->name, way->min_tls ? "version " : "", way->min_tls ? way->min_tls : "",
              way->min_tls ? " or later" : "",
              way->legacy_renegotiation ? ", with legacy renegotiation" : "");
}

/* --- this machine ----------------------------------------------------------------------------- */

/* One shortage that lasts, a route that is missing say, must not hide the others. */
static bool shortage_is_news(struct deliveries *all, const char *words)
{
    (void) trouble_begins(&all->shortage);
    for (size_t i = 0; i < SHORTAGES_SAID; i++) {
        if (all->shortages[i] && strcmp(all->shortages[i], words) == 0)
            return false;
        if (all->shortages[i])
            continue;
        all->shortages[i] = xstrdup(words);
        return true;
    }
    return false;
}

void delivery_forget_shortages(struct deliveries *all)
{
    for (size_t i = 0; i < SHORTAGES_SAID; i++)
        free(TAKE_PTR(all->shortages[i]));
}

void delivery_note_shortage(struct deliveries *all, const struct integration *i,
                            const struct http_result *result)
{
    all->shortage_at = now_monotonic_usec();
    if (!result || !shortage_is_news(all, result->detail))
        return;
    struct log_about on = about_integration(i);
    on.error = http_cause_word(result->cause);
    log_about(LOG_ERR, MSG_SHORTAGE, &on,
              "this machine, not an institution, keeps requests from being sent, to integration %" PRId64
              " \"%s\" for one: %s; they are tried again and cost no attempts",
              i->id, i->name, result->detail);
}

/* Each kind said once, and once when none has been met for a while. */
void delivery_say_shortage(const struct delivery *d, const struct outcome *o,
                           const struct http_result *result)
{
    struct deliveries *all = d->all;
    uint64_t now = now_monotonic_usec();

    if (o->our_fault) {
        delivery_note_shortage(all, d->integration, result);
    } else if (all->shortage.said && now - all->shortage_at >= SHORTAGE_OVER_USEC &&
               trouble_ends(&all->shortage)) {
        delivery_forget_shortages(all);
        log_about(LOG_NOTICE, MSG_SHORTAGE, &(struct log_about){0},
                  "this machine has kept no request from being sent for %d s", SHORTAGE_OVER_SEC);
    }
}
