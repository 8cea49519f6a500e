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
    const char *pause_reason;
} rules_by_status[] = {
    {.status = 400, .state = OUTCOME_FAILED},
    {.status = 401, .state = OUTCOME_RETRY, .integration = WAITS},
    {.status = 409, .state = OUTCOME_RETRY, .ambiguous = true},
    {.status = 410,
     .state = OUTCOME_RETRY,
     .free = true,
     .pause_reason = "the institution answered 410 Gone: its endpoint is no more"},
    {.status = 413, .state = OUTCOME_FAILED},
    {.status = 415, .state = OUTCOME_FAILED},
    {.status = 422, .state = OUTCOME_FAILED},
    {.status = 429, .state = OUTCOME_RETRY, .integration = WAITS},
    {.status = 503, .state = OUTCOME_RETRY, .integration = WAITS_IF_ASKED},
};

static struct rule rule_for_status(int status)
{
    if (status >= 200 && status <= 299)
        return (struct rule){.state = OUTCOME_SENT};
    for (size_t i = 0; i < ARRAY_SIZE(rules_by_status); i++)
        if (rules_by_status[i].status == status)
            return rules_by_status[i];
    return (struct rule){.state = OUTCOME_RETRY};
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
                             .pause_reason = "its endpoint_url leads to an address in a private network "
                                             "(delivery.allow_private_networks)"};
    case HTTP_CANCELLED:
    case HTTP_INTERNAL:
        if (!r->body_handed_over)
            return (struct rule){.state = OUTCOME_RELEASE, .free = true};
        return (struct rule){.state = OUTCOME_RETRY, .ambiguous = true};
    default:
        return (struct rule){.state = OUTCOME_RETRY, .ambiguous = r->body_handed_over};
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

/* This machine's shortage costs nobody an attempt; the integration waits a little, or it would be met again
 * at once. */
static void set_own_backoff(struct outcome *o, const struct outcome_attempt *a)
{
    o->our_fault = true;
    o->backoff_usec = backoff_exponential_usec(OWN_BASE_USEC, OWN_MAX_USEC, a->backoffs, JITTER, a->unit);
}

struct outcome outcome_decide(const struct outcome_rules *rules, const struct outcome_attempt *a)
{
    struct rule rule = rule_for(a->result);
    enum http_cause cause = a->result->cause;
    bool integration_waits =
        rule.integration == WAITS || (rule.integration == WAITS_IF_ASKED && a->result->has_retry_after);
    struct outcome o = {.state = rule.state,
                        .ambiguous = rule.ambiguous,
                        .costs_attempt = !rule.free && !integration_waits,
                        .turned_away = rule.state == OUTCOME_RETRY && !rule.pause_reason &&
                                       cause != HTTP_CANCELLED && cause != HTTP_INTERNAL,
                        .pause_reason = rule.pause_reason};

    if (o.state == OUTCOME_RETRY)
        set_delays(&o, rules, a, integration_waits);
    if (cause == HTTP_INTERNAL)
        set_own_backoff(&o, a);
    if (o.state == OUTCOME_RETRY &&
        ((o.costs_attempt && a->attempts >= rules->max_attempts) || a->age_usec >= rules->max_age_usec))
        o.state = OUTCOME_FAILED;
    /* Whatever refuses it now, or that it is given up, does not take back what was received before. */
    if (o.state == OUTCOME_FAILED)
        o.ambiguous |= a->ambiguous_before;
    return o;
}

const char *outcome_word(enum outcome_state state)
{
    static const char *const words[] = {[OUTCOME_SENT] = "sent",
                                        [OUTCOME_FAILED] = "failed",
                                        [OUTCOME_RETRY] = "retry",
                                        [OUTCOME_RELEASE] = "release"};
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
