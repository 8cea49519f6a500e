/* Deliveries under way. See delivery.h. */
#include "delivery/delivery.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/timeutil.h"
#include "base/version.h"
#include "crypto/ids.h"
#include "delivery/delivery_internal.h"
#include "delivery/trial.h"

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
    d->integration->retries += d->is_retry;
}

/* One for which more rows may wait. */
static bool frees_slot(const struct delivery *d)
{
    enum store_used used = d->integration->used;

    return used == STORE_USED_ALL || (used == STORE_USED_RETRIES && d->is_retry);
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
    d->integration->retries -= d->is_retry;
    d->integration->places.slot_freed |= frees_slot(d);
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

static struct store_settlement *settlement_new(const struct delivery *d, const struct outcome *o,
                                               const struct http_result *result)
{
    struct store_settlement *s = xcalloc(1, sizeof(*s));
    s->id = d->id;
    s->token = d->token;
    s->integration_id = d->integration->id;
    s->outcome = *o;
    s->attempts = o->costs_attempt || o->state == OUTCOME_SENT ? d->attempts : MAX(d->attempts - 1, 0);
    s->http_status = result->status;
    s->duration_ms = (int) MIN(result->duration_usec / USEC_PER_MSEC, (uint64_t) INT32_MAX);
    s->truncated = result->truncated;
    s->absent = d->question && d->question->is_absent;
    if (result->cause == HTTP_ANSWERED) {
        struct strbuf body = STRBUF_INIT(STRBUF_MAX_DEFAULT);
        strbuf_add_utf8(&body, result->body, result->body_len);
        s->response_len = body.len;
        s->response = body.data ? strbuf_take(&body) : xstrdup("");
    }
    if (o->state == OUTCOME_RELEASE) {
        s->error = xasprintf("not sent: %s", result->detail[0] ? result->detail : "the daemon stopped");
    } else if (o->state != OUTCOME_SENT) {
        struct strbuf error = STRBUF_INIT(8192);
        outcome_error_message(result, &error);
        s->error = strbuf_take(&error);
    }
    return s;
}

/* What the row tells of a lookup that told nothing. */
static char *lookup_words(const struct http_result *result)
{
    struct strbuf words = STRBUF_INIT(8192);

    strbuf_adds(&words, "lookup: ");
    outcome_error_message(result, &words);
    return strbuf_take(&words);
}

/* Writes it back, with another text than the result's for the row when `words` are given. */
static void settle(struct delivery *d, const struct outcome *o, const struct http_result *result,
                   const char *words)
{
    struct deliveries *all = d->all;
    struct store_settlement *settlement = settlement_new(d, o, result);

    if (words && settlement->error) {
        free(settlement->error);
        settlement->error = xstrdup(words);
    }
    bool has_more = frees_slot(d) && rate_claim_at(&d->integration->rate, now_monotonic_usec()) == 0;
    unlink_delivery(d);
    free(d->question);
    delivery_turn_free(d->turn);
    delivery_token_free(d->authorized);
    delivery_refused_free(d->refused);
    free(d);
    all->callbacks.delivered(settlement, has_more, all->userdata);
}

static struct outcome decide(struct delivery *d, const struct http_result *result)
{
    const struct settings *settings = &d->integration->settings;
    struct outcome_rules rules = deliveries_rules(d->all->config);
    if (d->integration->request.max_attempts > 0)
        rules.max_attempts = d->integration->request.max_attempts;
    const struct outcome_attempt attempt = {
        .result = result,
        .answer_rules = &settings->outcomes,
        .ambiguity = &settings->ambiguity,
        .attempts = d->attempts,
        .backoffs = pace_backoffs(&d->integration->pace, d->started_usec),
        .age_usec = d->age_usec + result->duration_usec,
        .ambiguous_before = d->ambiguous.before,
        .ambiguous_usec = d->ambiguous.usec,
        .can_ask = d->ambiguous.can_ask,
        .is_lookup = d->question && !d->question->is_absent,
        .unit = erand48(d->all->jitter),
    };
    return outcome_decide(&rules, &attempt);
}

static void on_result(const struct http_result *result, void *userdata);

static void start_authorized(struct delivery *d, const char *order_id, const char *key, const char *trace);

static void post(struct delivery *d, const char *key, const char *trace)
{
    struct authorized *a = d->authorized;

    if (a && a->asks) {
        a->asks = false;
        start_authorized(d, a->order_id, key, trace);
    } else {
        delivery_post(d, key, trace, on_result);
    }
}

static void post_again(struct delivery *d, const char *key, const char *trace)
{
    if (d->turn)
        delivery_take_next_turn(d);
    else
        post(d, key, trace);
}

static void conclude(struct delivery *d, const struct outcome *o, const struct http_result *result,
                     const char *pause_reason, const char *words)
{
    if (o->state == OUTCOME_SENT)
        delivery_note_taken(d);
    delivery_say(d, o, result);
    delivery_note_integration(d, o, result, pause_reason ? pause_reason : o->pause_reason);
    settle(d, o, result, pause_reason ? pause_reason : words);
}

void deliveries_decided(struct delivery *d, bool fails)
{
    const struct refused *r = d->refused;
    const struct outcome spared = {
        .state = OUTCOME_RETRY, .ambiguous = r->outcome.ambiguous, .circuit = r->outcome.circuit};

    conclude(d, fails ? &r->outcome : &spared, &r->result, NULL, NULL);
}

static void finish(struct delivery *d, const struct http_result *result, const char *pause_reason)
{
    CLEANUP(freep) char *words = NULL;
    if (delivery_renews_token(d, result))
        return;
    struct outcome outcome = decide(d, result);

    if (d->question && !d->question->is_absent) {
        switch (ambiguity_looked_up(result)) {
        case LOOKUP_ABSENT:
            d->question->is_absent = true;
            d->ambiguous.before = false;
            post_again(d, d->question->key, d->question->trace);
            return;
        case LOOKUP_FOUND:
            outcome = outcome_found();
            break;
        default:
            words = lookup_words(result);
        }
    }
    if (!outcome.refused || !delivery_waits_for_verdict(d, &outcome, result))
        conclude(d, &outcome, result, pause_reason, words);
}

static void on_decided(const struct http_result *result, void *held, void *userdata)
{
    (void) userdata;
    finish(held, result, NULL);
}

static void on_result(const struct http_result *result, void *userdata)
{
    struct delivery *d = userdata;

    if (!network_holds(d->all->network, &d->integration->reach, result, d))
        finish(d, result, NULL);
}

static void count_reach_of_all(struct reach_count *ret, uint64_t now, void *userdata)
{
    const struct deliveries *all = userdata;

    integrations_count_reach(all->integrations, now, ret);
}

/* --- the start of one ------------------------------------------------------------------------- */

/* Left to a person, unsent. */
static void hold(struct delivery *d, const char *why)
{
    const struct http_result none = {.cause = HTTP_CANCELLED, .body = "", .detail = ""};
    const struct outcome o = outcome_held(why);

    delivery_say(d, &o, &none);
    delivery_note_integration(d, &o, &none, NULL);
    settle(d, &o, &none, "not sent again: the institution may have it");
}

static void start_authorized(struct delivery *d, const char *order_id, const char *key, const char *trace)
{
    d->integration->reach.tried_at = now_monotonic_usec();
    if (d->ambiguous.before && delivery_ask(d, order_id, key, trace, on_result))
        return;
    const char *why =
        d->ambiguous.before ? ambiguity_holds(&d->integration->settings.ambiguity, d->ambiguous.usec) : NULL;
    if (why)
        hold(d, why);
    else
        delivery_post(d, key, trace, on_result);
}

static void end_unauthorized(struct delivery *d, const struct http_result *result)
{
    finish(d, result, NULL);
}

static void start(struct delivery *d, const char *order_id, const char *key, const char *trace)
{
    static const struct token_callbacks callbacks = {start_authorized, post_again, end_unauthorized};

    d->started_usec = now_monotonic_usec();
    if (d->integration->settings.auth.client)
        delivery_with_token(d, order_id, key, trace, &callbacks);
    else
        start_authorized(d, order_id, key, trace);
}

static void give_back(struct delivery *d, const char *why)
{
    const struct http_result unsent = {.cause = HTTP_CANCELLED, .body = "", .detail = why};

    finish(d, &unsent, NULL);
}

static void take(struct delivery *d, const struct store_claimed *row)
{
    static const struct turn_callbacks callbacks = {start, post, give_back};
    char key[64], trace[80];

    if (row->interval_nsec > 0) {
        delivery_take_turn(d, row, &callbacks);
        return;
    }
    rate_claimed(&d->integration->rate, 0, 0, d->started_usec);
    delivery_write_ids(d, row, key, trace);
    start(d, row->order_id, key, trace);
}

void deliveries_start(struct deliveries *all, const struct store_claimed *row, int64_t token, bool is_probe)
{
    struct delivery *d = xmalloc(sizeof(*d) + row->payload_len + 1);
    *d = (struct delivery){
        .integration = integrations_note(all->integrations, row),
        .id = row->id,
        .token = token,
        .attempts = row->attempts,
        .ambiguous.before = row->ambiguous,
        .ambiguous.usec = row->ambiguous_usec,
        .is_probe = is_probe,
        .is_retry = row->due != INT64_MIN,
        .started_usec = now_monotonic_usec(),
        .age_usec = row->age_usec,
        .payload_len = row->payload_len,
    };
    memcpy(d->payload, row->payload, row->payload_len + 1);
    link_delivery(all, d);
    d->sent_with.fingerprint = d->integration->fingerprint;
    d->sent_with.generation = d->integration->circuit.generation;
    d->sent_with.turn = d->integration->burst.turn;
    delivery_say_weak_tls(d->integration);
    bool lacks_credential;
    const char *problem = integration_problem(d->integration, &lacks_credential);
    if (problem) {
        const struct http_result invalid = {.cause = HTTP_URL_INVALID, .body = "", .detail = ""},
                                 unauthenticated = {
                                     .cause = HTTP_UNAUTHENTICATED, .body = "", .detail = problem};
        finish(d, lacks_credential ? &unauthenticated : &invalid, lacks_credential ? NULL : problem);
        return;
    }
    d->ambiguous.can_ask = ambiguity_can_ask(&d->integration->settings.ambiguity, row->order_id);
    take(d, row);
}

void deliveries_cancel_all(struct deliveries *all)
{
    network_release(all->network);
    for (struct delivery *d = all->first; d; d = d->next)
        if (d->transfer)
            http_cancel(all->http, d->transfer);
        else if (!delivery_token_cancel(d) && d->turn)
            delivery_turn_cancel(d);
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
    static const struct network_callbacks network = {count_reach_of_all, on_decided};
    struct deliveries *d = xcalloc(1, sizeof(*d));
    d->config = config_ref(config);
    d->callbacks = *callbacks;
    d->userdata = userdata;
    d->integrations = integrations_new();
    d->network = network_new(event, &network, d);
    d->ids = ids_new();
    d->event = sd_event_ref(event);
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
    network_free(d->network);
    delivery_say_failures(d, true);
    while (d->first) {
        struct delivery *next = d->first->next;
        free(d->first->question);
        delivery_turn_free(d->first->turn);
        delivery_token_free(d->first->authorized);
        delivery_refused_free(d->first->refused);
        free(d->first);
        d->first = next;
    }
    trials_free(d);
    integrations_free(d->integrations);
    ids_free(d->ids);
    delivery_forget_shortages(d);
    sd_event_source_disable_unref(d->failures_timer);
    sd_event_unref(d->event);
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
    trials_end(d);
}

int deliveries_count(const struct deliveries *d)
{
    return d->count;
}

bool deliveries_network_lost(const struct deliveries *d)
{
    return network_is_down(d->network, now_monotonic_usec());
}

size_t deliveries_bytes(const struct deliveries *d)
{
    return d->bytes;
}

struct integrations *deliveries_integrations(struct deliveries *d)
{
    return d->integrations;
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

void deliveries_tokens(const struct deliveries *all, void (*note)(int64_t token, void *userdata),
                       void *userdata)
{
    for (const struct delivery *d = all->first; d; d = d->next)
        note(d->token, userdata);
}
