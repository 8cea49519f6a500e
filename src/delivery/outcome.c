/* The outcome table. Pure; any thread. See outcome.h. */
#include "delivery/outcome.h"

#include <stdio.h>

#include "base/backoff.h"
#include "base/timeutil.h"
#include "base/utf8.h"

#define JITTER 0.25
#define SPREAD 0.1 /* of what Retry-After asks for */
#define OWN_BASE_USEC USEC_PER_SEC
#define OWN_MAX_USEC (30 * USEC_PER_SEC)
#define ERROR_MESSAGE_MAX 1000

/* Statuses that are more than "try again later". */
static const struct rule {
    int status;
    enum outcome_state state;
    bool ambiguous;
    bool free;                                             /* costs no attempt */
    enum { WAITS_NOT, WAITS, WAITS_IF_ASKED } integration; /* with Retry-After, if it asks */
    enum circuit_event circuit;
    const char *pause_reason;
} rules_by_status[] = {
    {.status = 400, .state = OUTCOME_FAILED, .circuit = CIRCUIT_ALIVE},
    {.status = 401, .state = OUTCOME_RETRY, .free = true, .circuit = CIRCUIT_REFUSED},
    {.status = 403, .state = OUTCOME_RETRY, .circuit = CIRCUIT_FORBIDDEN},
    {.status = 409, .state = OUTCOME_RETRY, .ambiguous = true},
    {.status = 410,
     .state = OUTCOME_RETRY,
     .free = true,
     .pause_reason = "the institution answered 410 Gone: its endpoint is no more"},
    {.status = 413, .state = OUTCOME_FAILED, .circuit = CIRCUIT_ALIVE},
    {.status = 415, .state = OUTCOME_FAILED, .circuit = CIRCUIT_ALIVE},
    {.status = 422, .state = OUTCOME_FAILED, .circuit = CIRCUIT_ALIVE},
    {.status = 429, .state = OUTCOME_RETRY, .integration = WAITS},
    {.status = 503, .state = OUTCOME_RETRY, .integration = WAITS_IF_ASKED, .circuit = CIRCUIT_FAILED},
};

static struct rule rule_for_status(int status)
{
    if (status >= 200 && status <= 299)
        return (struct rule){.state = OUTCOME_SENT, .circuit = CIRCUIT_ALIVE};
    for (size_t i = 0; i < ARRAY_SIZE(rules_by_status); i++)
        if (rules_by_status[i].status == status)
            return rules_by_status[i];
    bool refuses = status >= 400 && status <= 499;
    return (struct rule){.state = OUTCOME_RETRY, .circuit = refuses ? CIRCUIT_ALIVE : CIRCUIT_FAILED};
}

static struct rule rule_for(const struct http_result *r)
{
    switch (r->cause) {
    case HTTP_ANSWERED:
        return rule_for_status(r->status);
    case HTTP_URL_INVALID:
        return (struct rule){.state = OUTCOME_RETRY,
                             .free = true,
                             .pause_reason = "no request can be made of its endpoint_url and headers"};
    case HTTP_ADDRESS_REFUSED:
        return (struct rule){.state = OUTCOME_RETRY,
                             .free = true,
                             .pause_reason =
                                 "its endpoint_url, or its proxy, leads to an address in a private network "
                                 "(delivery.allow_private_networks)"};
    case HTTP_UNAUTHENTICATED:
    case HTTP_CLIENT_REFUSED:
        return (struct rule){.state = OUTCOME_RETRY, .free = true, .circuit = CIRCUIT_REFUSED};
    case HTTP_CANCELLED:
    case HTTP_INTERNAL:
        if (!r->body_handed_over)
            return (struct rule){.state = OUTCOME_RELEASE, .free = true};
        return (struct rule){.state = OUTCOME_RETRY, .ambiguous = true};
    default:
        return (struct rule){
            .state = OUTCOME_RETRY, .ambiguous = r->body_handed_over, .circuit = CIRCUIT_FAILED};
    }
}

static void set_delays(struct outcome *o, const struct outcome_rules *rules, const struct outcome_attempt *a,
                       bool integration_waits)
{
    /* What costs no attempt is counted for the integration. */
    int attempts = integration_waits ? a->backoffs : a->attempts;

    o->delay_usec =
        backoff_exponential_usec(rules->base_delay_usec, rules->max_delay_usec, attempts, JITTER, a->unit);
    if (!integration_waits)
        return;
    /* A zero, or a date that is past, must not be asked again at once: the backoff is the least. Spread, or
     * all rows that were turned away come back in the same moment. */
    uint64_t asked = 0;
    if (a->result->has_retry_after)
        asked =
            MIN((uint64_t) a->result->retry_after_sec, rules->max_delay_usec / USEC_PER_SEC) * USEC_PER_SEC;
    uint64_t spread = (uint64_t) ((double) asked * (1 + SPREAD * a->unit));
    o->backoff_usec = MAX(o->delay_usec, asked);
    o->delay_usec = MAX(o->delay_usec, MIN(spread, rules->max_delay_usec));
}

uint64_t outcome_own_backoff(int backoffs, double unit)
{
    return backoff_exponential_usec(OWN_BASE_USEC, OWN_MAX_USEC, backoffs, JITTER, unit);
}

/* This machine's shortage costs nobody an attempt; the integration waits a little, or it would be met again
 * at once. */
static void set_own_backoff(struct outcome *o, const struct outcome_attempt *a)
{
    o->our_fault = true;
    o->backoff_usec = outcome_own_backoff(a->backoffs, a->unit);
}

/* What an integration's own rule says. The circuit is the institution's, whatever the answer means for the
 * row: 5xx, and what is tried again though it looks like success, are no sign of life. */
static struct rule rule_of_integration(enum answer_means means, int status)
{
    bool is_well = status >= 200 && status <= 299 ? means != ANSWER_RETRY : status >= 400 && status <= 499;
    struct rule rule = {.circuit = is_well ? CIRCUIT_ALIVE : CIRCUIT_FAILED};

    switch (means) {
    case ANSWER_SENT:
        return (struct rule){.state = OUTCOME_SENT, .circuit = CIRCUIT_ALIVE};
    case ANSWER_FAILED:
        rule.state = OUTCOME_FAILED;
        return rule;
    case ANSWER_HELD:
        return (struct rule){.state = OUTCOME_HOLD, .ambiguous = true};
    default:
        rule.state = OUTCOME_RETRY;
        rule.integration = rule_for_status(status).integration;
        return rule;
    }
}

/* A lookup that tells nothing: the row waits, as after a failed attempt, and loses none. The request was no
 * attempt to send it, so nothing in the answer is about the row. */
static struct rule rule_of_lookup(const struct http_result *result)
{
    struct rule rule = rule_for(result);
    bool cut = result->cause == HTTP_CANCELLED || result->cause == HTTP_INTERNAL;

    return (struct rule){.state = cut ? OUTCOME_RELEASE : OUTCOME_RETRY,
                         .free = true,
                         .integration = rule.integration,
                         .circuit = rule.circuit};
}

/* What the institution may have is asked for, or left to a person, where the integration's settings say so;
 * this comes last. */
static void judge_ambiguity(struct outcome *o, const struct outcome_rules *rules,
                            const struct outcome_attempt *a)
{
    bool is_final = o->state == OUTCOME_FAILED;
    const char *why = "lookup";

    if (!a->ambiguity || !o->ambiguous || (o->state != OUTCOME_RETRY && !is_final))
        return;
    if (a->can_ask && a->age_usec < rules->max_age_usec) {
        if (!is_final)
            return;
        *o = (struct outcome){
            .state = OUTCOME_RETRY, .costs_attempt = o->costs_attempt, .circuit = o->circuit};
        set_delays(o, rules, a, false);
    } else {
        why = ambiguity_holds(a->ambiguity, a->ambiguous_before ? a->ambiguous_usec : 0);
        if (!why)
            return;
        o->state = OUTCOME_HOLD;
        o->refused = false;
    }
    snprintf(o->decided_by, sizeof(o->decided_by), "%s", why);
}

struct outcome outcome_found(void)
{
    return (struct outcome){
        .state = OUTCOME_SENT, .costs_attempt = true, .circuit = CIRCUIT_ALIVE, .decided_by = "lookup"};
}

struct outcome outcome_held(const char *why)
{
    struct outcome o = {.state = OUTCOME_HOLD, .ambiguous = true};

    snprintf(o.decided_by, sizeof(o.decided_by), "%s", why);
    return o;
}

struct outcome outcome_decide(const struct outcome_rules *rules, const struct outcome_attempt *a)
{
    struct rule rule = a->is_lookup ? rule_of_lookup(a->result) : rule_for(a->result);
    enum answer_means means = 0;
    int number =
        a->answer_rules && !a->is_lookup ? answer_rules_decide(a->answer_rules, a->result, &means) : 0;
    if (number > 0)
        rule = rule_of_integration(means, a->result->status);
    enum http_cause cause = a->result->cause;
    bool integration_waits =
        rule.integration == WAITS || (rule.integration == WAITS_IF_ASKED && a->result->has_retry_after);
    struct outcome o = {.state = rule.state,
                        .ambiguous = rule.ambiguous,
                        .costs_attempt = number > 0 || (!rule.free && !integration_waits),
                        .turned_away = rule.state == OUTCOME_RETRY && !rule.pause_reason &&
                                       cause != HTTP_CANCELLED && cause != HTTP_INTERNAL,
                        .refused = rule.state == OUTCOME_FAILED,
                        .circuit = integration_waits ? CIRCUIT_NEUTRAL : rule.circuit,
                        .pause_reason = rule.pause_reason};

    if (number > 0)
        snprintf(o.decided_by, sizeof(o.decided_by), "rule %d", number);
    if (o.state == OUTCOME_RETRY)
        set_delays(&o, rules, a, integration_waits);
    if (cause == HTTP_INTERNAL)
        set_own_backoff(&o, a);
    if (o.state == OUTCOME_RETRY &&
        ((o.costs_attempt && a->attempts >= rules->max_attempts) || a->age_usec >= rules->max_age_usec)) {
        o.state = OUTCOME_FAILED;
        o.decided_by[0] = '\0';
    }
    /* Whatever refuses it now, or that it is given up, does not take back what was received before. */
    if (o.state == OUTCOME_FAILED)
        o.ambiguous |= a->ambiguous_before;
    o.new_key = a->ambiguity && a->ambiguity->new_key && cause == HTTP_ANSWERED && o.costs_attempt &&
                o.state == OUTCOME_RETRY && !o.ambiguous && !integration_waits;
    judge_ambiguity(&o, rules, a);
    return o;
}

const char *outcome_word(enum outcome_state state)
{
    static const char *const words[] = {[OUTCOME_SENT] = "sent",
                                        [OUTCOME_FAILED] = "failed",
                                        [OUTCOME_RETRY] = "retry",
                                        [OUTCOME_RELEASE] = "release",
                                        [OUTCOME_HOLD] = "hold"};
    return words[state];
}

void outcome_error_message(const struct http_result *result, struct strbuf *out)
{
    if (result->cause != HTTP_ANSWERED) {
        strbuf_adds(out, http_cause_word(result->cause));
        if (result->detail[0])
            strbuf_addf(out, ": %s", result->detail);
        return;
    }
    strbuf_addf(out, "HTTP %d", result->status);
    if (!result->body_len)
        return;
    strbuf_adds(out, ": ");
    size_t len = utf8_cut(result->body, result->body_len, ERROR_MESSAGE_MAX);
    strbuf_add_utf8(out, result->body, len);
    if (len < result->body_len)
        strbuf_adds(out, "…");
}

void outcome_error_class(const struct http_result *result, char *out, size_t size)
{
    if (result->cause == HTTP_ANSWERED)
        snprintf(out, size, "HTTP %d", result->status);
    else
        snprintf(out, size, "%s", http_cause_word(result->cause));
}
