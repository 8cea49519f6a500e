/* Deliveries under way. See delivery.h. */
#include "delivery/delivery.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"
#include "base/trouble.h"
#include "base/version.h"
#include "crypto/ids.h"
#include "delivery/integration.h"
#include "http/http.h"

#define SHORTAGE_OVER_SEC 60
#define SHORTAGES_SAID 8
#define SHORTAGE_OVER_USEC (SHORTAGE_OVER_SEC * USEC_PER_SEC)

struct delivery {
    struct delivery *next, *previous;
    struct deliveries *all;
    struct integration *integration;
    struct http_transfer *transfer;
    int64_t id, token;
    int attempts;
    bool ambiguous_before;
    int64_t fingerprint; /* of the integration, when it was sent */
    uint64_t started_usec;
    uint64_t age_usec; /* when it was claimed */
    size_t payload_len;
    char payload[]; /* as Postgres wrote it */
};

struct deliveries {
    struct config *config;
    struct deliveries_callbacks callbacks;
    void *userdata;
    struct http *http;
    struct integrations *integrations;
    struct ids *ids;
    struct delivery *first;
    int count;
    size_t bytes;
    unsigned short jitter[3];        /* erand48(3)'s: a system call for each outcome would buy nothing */
    struct trouble shortage;         /* of this machine's own */
    char *shortages[SHORTAGES_SAID]; /* what was said of it since it began */
    uint64_t shortage_at;            /* monotonic: met for the last time */
    uint64_t wait_until;             /* monotonic: the end of a backoff */
};

/* --- the list --------------------------------------------------------------------------------- */

static void link_delivery(struct deliveries *all, struct delivery *d)
{
    d->all = all;
    d->next = all->first;
    if (all->first)
        all->first->previous = d;
    all->first = d;
    all->count++;
    all->bytes += d->payload_len;
    d->integration->in_flight++;
}

static void unlink_delivery(struct delivery *d)
{
    struct deliveries *all = d->all;
    if (d->previous)
        d->previous->next = d->next;
    else
        all->first = d->next;
    if (d->next)
        d->next->previous = d->previous;
    all->count--;
    all->bytes -= d->payload_len;
    d->integration->in_flight--;
    d->integration->slot_freed = true;
}

/* --- the end of one --------------------------------------------------------------------------- */

struct outcome_rules deliveries_rules(const struct config *config)
{
    return (struct outcome_rules){
        .max_attempts = config->retry.max_attempts,
        .max_age_usec = config->retry.max_age_usec,
        .base_delay_usec = config->retry.base_delay_usec,
        .max_delay_usec = config->retry.max_delay_usec,
    };
}

/* What the lines about a delivery are about. `class` lives as long as the line. */
static struct log_about about(const struct delivery *d, const struct http_result *result, const char *class)
{
    return (struct log_about){.subscription_id = d->id,
                              .integration_id = d->integration->id,
                              .attempt = d->attempts,
                              .http_status = result->status,
                              .error = class};
}

static void log_outcome(const struct delivery *d, const struct outcome *o, const struct http_result *result)
{
    bool failed = o->state == OUTCOME_FAILED;
    char class[64];

    if (!failed && !log_enabled(LOG_DEBUG))
        return;
    outcome_error_class(result, class, sizeof(class));
    const struct log_about on = about(d, result, o->state == OUTCOME_SENT ? NULL : class);
    log_about(failed ? LOG_WARNING : LOG_DEBUG, failed ? MSG_DELIVERY_FAILED : NULL, &on,
              "subscription %" PRId64 ", integration %" PRId64 ", attempt %d: %s, %s%s", d->id,
              d->integration->id, d->attempts, class, outcome_word(o->state),
              o->ambiguous ? ", ambiguous" : "");
}

static void log_outage(const struct delivery *d, const struct http_result *result)
{
    char class[64];

    outcome_error_class(result, class, sizeof(class));
    const struct log_about on = about(d, result, class);
    log_about(LOG_WARNING, MSG_INSTITUTION_LOST, &on,
              "integration %" PRId64 ": %d attempts in a row failed, the last one: %s; its subscriptions are "
              "tried again (anubisctl explain %" PRId64 ")",
              d->integration->id, d->integration->outage.attempts, class, d->id);
}

static void log_outage_over(const struct delivery *d, const struct outage *was)
{
    CLEANUP(strbuf_free) struct strbuf lasted = STRBUF_INIT(128);

    strbuf_add_duration_human(&lasted, now_monotonic_usec() - was->since);
    log_about(LOG_NOTICE, MSG_INSTITUTION_BACK, &(struct log_about){.integration_id = d->integration->id},
              "integration %" PRId64 " takes subscriptions again, after %s in which %d attempts failed",
              d->integration->id, strbuf_str(&lasted), was->attempts);
}

/* Attempts are debug; that an institution takes none, or takes some again, is not. */
static void note_outage(const struct delivery *d, const struct outcome *o, const struct http_result *result)
{
    struct outage *outage = &d->integration->outage, was;
    if (o->state == OUTCOME_SENT && outage_over(outage, &was))
        log_outage_over(d, &was);
    else if (o->turned_away && outage_goes_on(outage, now_monotonic_usec()))
        log_outage(d, result);
}

static struct store_settlement *settlement_new(const struct delivery *d, const struct outcome *o,
                                               const struct http_result *result)
{
    struct store_settlement *s = xcalloc(1, sizeof(*s));
    s->id = d->id;
    s->token = d->token;
    s->outcome = *o;
    s->http_status = result->status;
    s->duration_ms = (int) MIN(result->duration_usec / USEC_PER_MSEC, (uint64_t) INT32_MAX);
    s->truncated = result->truncated;
    if (result->cause == HTTP_ANSWERED) {
        struct strbuf body = STRBUF_INIT(STRBUF_MAX_DEFAULT);
        strbuf_add_utf8(&body, result->body, result->body_len);
        s->response_len = body.len;
        s->response = body.data ? strbuf_take(&body) : xstrdup("");
    }
    if (o->state == OUTCOME_RELEASE) {
        s->error = o->our_fault ? xasprintf("not sent: %s", result->detail)
                                : xstrdup("not sent: the daemon stopped");
    } else if (o->state != OUTCOME_SENT) {
        struct strbuf error = STRBUF_INIT(8192);
        outcome_error_message(result, &error);
        s->error = strbuf_take(&error);
    }
    return s;
}

static void want_wait(const struct delivery *d, uint64_t usec, const char *reason)
{
    const struct store_wait wait = {d->integration->id, d->fingerprint, usec, reason};
    d->all->callbacks.wait_wanted(&wait, d->all->userdata);
}

/* Until the database has it, for all daemons. Our own shortage is nobody's business there. */
static void back_off(const struct delivery *d, const struct outcome *o, const struct http_result *result)
{
    uint64_t now = now_monotonic_usec(), until = now + o->backoff_usec;
    struct deliveries *all = d->all;
    char class[64];

    pace_back_off(&d->integration->pace, d->started_usec, until, now);
    if (all->wait_until <= now || until < all->wait_until)
        all->wait_until = until;
    if (o->our_fault)
        return;
    outcome_error_class(result, class, sizeof(class));
    want_wait(d, o->backoff_usec, class);
}

static void note_pace(const struct delivery *d, const struct outcome *o, const struct http_result *result)
{
    struct pace *pace = &d->integration->pace;

    if (o->backoff_usec > 0)
        back_off(d, o, result);
    if (result->cause == HTTP_ANSWERED)
        pace_answered(pace, o->backoff_usec == 0, now_monotonic_usec());
    else if (o->turned_away)
        pace_unanswered(pace, now_monotonic_usec());
}

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

static void forget_shortages(struct deliveries *all)
{
    for (size_t i = 0; i < SHORTAGES_SAID; i++)
        free(TAKE_PTR(all->shortages[i]));
}

/* Each kind said once, and once when none has been met for a while. */
static void note_shortage(const struct delivery *d, const struct outcome *o, const struct http_result *result)
{
    struct deliveries *all = d->all;
    uint64_t now = now_monotonic_usec();

    if (o->our_fault) {
        all->shortage_at = now;
        if (shortage_is_news(all, result->detail))
            log_about(
                LOG_ERR, MSG_SHORTAGE,
                &(struct log_about){.integration_id = d->integration->id,
                                    .error = http_cause_word(result->cause)},
                "this machine, not an institution, keeps requests from being sent, to integration %" PRId64
                " for one: %s; they are tried again and cost no attempts",
                d->integration->id, result->detail);
    } else if (all->shortage.said && now - all->shortage_at >= SHORTAGE_OVER_USEC &&
               trouble_ends(&all->shortage)) {
        forget_shortages(all);
        log_about(LOG_NOTICE, MSG_SHORTAGE, &(struct log_about){0},
                  "this machine has kept no request from being sent for %d s", SHORTAGE_OVER_SEC);
    }
}

/* What the end of a delivery says about its integration; nothing when its endpoint or token has changed. */
static void note_integration(const struct delivery *d, const struct outcome *o,
                             const struct http_result *result, const char *pause_reason)
{
    note_shortage(d, o, result);
    if (d->fingerprint != d->integration->fingerprint)
        return;
    note_outage(d, o, result);
    note_pace(d, o, result);
    if (pause_reason) {
        CLEANUP(freep)
        char *why = result->cause == HTTP_URL_INVALID && result->detail[0]
                        ? xasprintf("%s: %s", pause_reason, result->detail)
                        : xstrdup(pause_reason);
        want_wait(d, USEC_INFINITY, why);
    }
}

static void finish(struct delivery *d, const struct http_result *result, const char *pause_reason)
{
    struct deliveries *all = d->all;
    struct outcome_rules rules = deliveries_rules(all->config);
    if (d->integration->max_attempts > 0)
        rules.max_attempts = d->integration->max_attempts;
    const struct outcome_attempt attempt = {
        .result = result,
        .attempts = d->attempts,
        .backoffs = pace_backoffs(&d->integration->pace, d->started_usec),
        .age_usec = d->age_usec + result->duration_usec,
        .ambiguous_before = d->ambiguous_before,
        .unit = erand48(all->jitter),
    };
    struct outcome outcome = outcome_decide(&rules, &attempt);
    log_outcome(d, &outcome, result);
    note_integration(d, &outcome, result, pause_reason ? pause_reason : outcome.pause_reason);
    struct store_settlement *settlement = settlement_new(d, &outcome, result);
    bool has_more = d->integration->may_have_more;
    unlink_delivery(d);
    free(d);
    all->callbacks.delivered(settlement, has_more, all->userdata);
}

static void on_result(const struct http_result *result, void *userdata)
{
    finish(userdata, result, NULL);
}

/* --- the start of one ------------------------------------------------------------------------- */

static void send_request(struct delivery *d, const struct store_claimed *row)
{
    char key[64], trace[80];
    size_t at = (size_t) snprintf(key, sizeof(key), "Idempotency-Key: ");
    ids_idempotency_key(d->all->ids,
                        &(struct ids_message){
                            .name_space = row->namespace,
                            .subscription_id = row->id,
                            .seed = row->seed,
                            .payload = {d->payload, d->payload_len},
                        },
                        key + at);
    at = (size_t) snprintf(trace, sizeof(trace), "traceparent: ");
    if (ids_is_traceparent(row->traceparent, strlen(row->traceparent)))
        snprintf(trace + at, sizeof(trace) - at, "%s", row->traceparent);
    else
        ids_traceparent(d->all->ids, row->namespace, row->id, (uint64_t) d->token ^ (uint64_t) d->id,
                        trace + at);
    const char *headers[] = {"Content-Type: application/json", key, trace, d->integration->authorization,
                             NULL};

    d->transfer = http_post(d->all->http,
                            &(struct http_request){
                                .url = d->integration->endpoint_url,
                                .headers = headers,
                                .body = d->payload,
                                .body_len = d->payload_len,
                                .timeout_usec = d->integration->timeout_usec,
                            },
                            on_result, d);
}

void deliveries_start(struct deliveries *all, const struct store_claimed *row, int64_t token)
{
    struct delivery *d = xmalloc(sizeof(*d) + row->payload_len + 1);
    *d = (struct delivery){
        .integration = integrations_note(all->integrations, row),
        .id = row->id,
        .token = token,
        .attempts = row->attempts,
        .ambiguous_before = row->ambiguous,
        .started_usec = now_monotonic_usec(),
        .age_usec = row->age_usec,
        .payload_len = row->payload_len,
    };
    memcpy(d->payload, row->payload, row->payload_len + 1);
    link_delivery(all, d);
    d->fingerprint = d->integration->fingerprint;
    if (d->integration->problem) {
        const struct http_result refused = {.cause = HTTP_URL_INVALID, .body = "", .detail = "auth_token"};
        finish(d, &refused, d->integration->problem);
        return;
    }
    send_request(d, row);
}

void deliveries_cancel_all(struct deliveries *all)
{
    for (struct delivery *d = all->first; d; d = d->next)
        http_cancel(all->http, d->transfer);
}

/* --- the interface ---------------------------------------------------------------------------- */

static struct http_params http_params(const struct config *c)
{
    static const char default_user_agent[] = "anubisd/" ANUBIS_VERSION;
    return (struct http_params){
        .connect_timeout_usec = c->delivery.connect_timeout_usec,
        .response_limit = (size_t) c->delivery.response_limit,
        .max_connections = c->delivery.max_in_flight,
        .allow_http = c->delivery.allow_http,
        .allow_private_networks = c->delivery.allow_private_networks,
        .ca_file = c->delivery.ca_file,
        .proxy = c->delivery.proxy,
        .user_agent = c->delivery.user_agent[0] ? c->delivery.user_agent : default_user_agent,
    };
}

int deliveries_new(struct deliveries **ret, sd_event *event, struct config *config,
                   const struct deliveries_callbacks *callbacks, void *userdata, struct error *err)
{
    struct deliveries *d = xcalloc(1, sizeof(*d));
    d->config = config_ref(config);
    d->callbacks = *callbacks;
    d->userdata = userdata;
    d->integrations = integrations_new();
    d->ids = ids_new();
    const uint64_t seed = random_u64();
    memcpy(d->jitter, &seed, sizeof(d->jitter));
    const struct http_params params = http_params(config);
    int r = http_new(&d->http, event, &params, err);
    if (r < 0) {
        deliveries_free(d);
        return r;
    }
    *ret = d;
    return 0;
}

void deliveries_free(struct deliveries *d)
{
    if (!d)
        return;
    http_free(d->http);
    while (d->first) {
        struct delivery *next = d->first->next;
        free(d->first);
        d->first = next;
    }
    integrations_free(d->integrations);
    ids_free(d->ids);
    forget_shortages(d);
    config_unref(d->config);
    free(d);
}

void deliveries_reload(struct deliveries *d, struct config *config)
{
    config_unref(d->config);
    d->config = config_ref(config);
    const struct http_params params = http_params(config);
    http_set_params(d->http, &params);
    integrations_forget_credentials(d->integrations);
}

int deliveries_count(const struct deliveries *d)
{
    return d->count;
}

size_t deliveries_bytes(const struct deliveries *d)
{
    return d->bytes;
}

size_t deliveries_loads(struct deliveries *d, bool last_slots, const struct store_load **ret)
{
    return integrations_loads(d->integrations, now_monotonic_usec(), last_slots, ret);
}

uint64_t deliveries_wait_until(const struct deliveries *d)
{
    uint64_t next = integrations_next_end(d->integrations);

    return d->wait_until > now_monotonic_usec() ? MIN(d->wait_until, next) : next;
}

void deliveries_wait_stored(struct deliveries *d, int64_t integration_id)
{
    struct integration *i = integrations_find(d->integrations, integration_id);

    if (i)
        pace_hand_over(&i->pace, now_monotonic_usec());
}

size_t deliveries_take_places(struct deliveries *d, const struct store_place **ret)
{
    return integrations_take_places(d->integrations, ret);
}

size_t deliveries_near_places(struct deliveries *d, const struct store_place **ret)
{
    return integrations_near_places(d->integrations, ret);
}

void deliveries_forget_places(struct deliveries *d)
{
    integrations_forget_places(d->integrations);
}

void deliveries_tokens(const struct deliveries *all, void (*note)(int64_t token, void *userdata),
                       void *userdata)
{
    for (const struct delivery *d = all->first; d; d = d->next)
        note(d->token, userdata);
}
