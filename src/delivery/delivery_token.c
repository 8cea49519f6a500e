/* Rows of integrations whose tokens come from an OAuth 2 server: they wait for one, all for the same, and one
 * that is refused is replaced once. See delivery_internal.h, oauth.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/timeutil.h"
#include "delivery/delivery_internal.h"

/* Of a request's time, for which it may wait for a token. */
#define SHARE 4

static void ask(struct deliveries *all, struct integration *i);
static void proceed(struct delivery *d);

/* --- those that wait -------------------------------------------------------------------------- */

static void go(struct delivery *d)
{
    struct authorized *a = d->authorized;
    const struct oauth_client *c = d->integration->settings.auth.client;

    a->waits = false;
    a->client = c ? c->number : 0;
    a->serial = c ? c->token.serial : 0;
    if (a->repeats)
        a->callbacks->post(d, a->key, a->trace);
    else
        a->callbacks->start(d, a->order_id, a->key, a->trace);
}

/* The token's server is to blame, or this machine, as the institution would be. */
static void end(struct delivery *d, enum http_cause cause, const char *words)
{
    bool is_ours = cause == HTTP_CANCELLED || cause == HTTP_INTERNAL ||
                   network_is_down(d->all->network, now_monotonic_usec());
    const struct http_result result = {.cause = cause == HTTP_CANCELLED ? cause
                                                : is_ours               ? HTTP_INTERNAL
                                                                        : HTTP_UNAUTHENTICATED,
                                       .body = "",
                                       .detail = words};

    d->authorized->waits = false;
    d->authorized->callbacks->end(d, &result);
}

/* Each starts anew: what it ends with may begin other requests, so the list is taken before. */
static void each_waiting(struct integration *i, bool has_token, enum http_cause cause, const char *words)
{
    for (struct delivery *d = TAKE_PTR(i->asking.waiting), *next; d; d = next) {
        next = d->authorized->next;
        if (has_token)
            proceed(d);
        else
            end(d, cause, words);
    }
}

/* --- the token -------------------------------------------------------------------------------- */

/* Whether a token came; else *words are why not, and nothing of the answer. */
static bool take_answer(struct integration *i, const struct http_result *result, struct error *words)
{
    struct oauth_client *c = i->settings.auth.client;
    struct error why;

    if (result->cause != HTTP_ANSWERED)
        error_set(words, "its token endpoint: %s%s%s", http_cause_word(result->cause),
                  result->detail[0] ? ": " : "", result->detail);
    else if (result->status != 200)
        error_set(words, "its token endpoint answered HTTP %d", result->status);
    else if (oauth_take_token(c, (struct bytes){result->body, result->body_len}, i->asking.asked_at, &why) <
             0)
        error_set(words, "its token endpoint %s", why.text);
    else
        return true;
    return false;
}

static void on_token(const struct http_result *result, void *userdata)
{
    struct integration *i = userdata;
    struct oauth_client *c = i->settings.auth.client;
    struct error words;

    i->asking.transfer = NULL;
    free_secret(TAKE_PTR(i->asking.body));
    /* The settings have changed meanwhile. */
    if (!c || c->number != i->asking.client) {
        each_waiting(i, true, 0, NULL);
        return;
    }
    if (take_answer(i, result, &words)) {
        each_waiting(i, true, 0, NULL);
        return;
    }
    /* Some servers know but the other form (RFC 6749, 2.3.1). */
    bool is_refused = result->cause == HTTP_ANSWERED && (result->status == 400 || result->status == 401);
    if (is_refused && !c->is_known && !i->asking.again) {
        c->in_body = !c->in_body;
        i->asking.again = true;
        ask(i->asking.all, i);
        return;
    }
    i->asking.again = false;
    if (result->cause != HTTP_CANCELLED)
        oauth_failed(c, now_boottime_usec(), erand48(i->asking.all->jitter));
    each_waiting(i, false, result->cause, words.text);
}

static void ask(struct deliveries *all, struct integration *i)
{
    struct oauth_client *c = i->settings.auth.client;
    char *authorization = oauth_authorization(c);
    const char *headers[] = {"Content-Type: application/x-www-form-urlencoded", "Accept: application/json",
                             authorization, NULL};

    i->asking.all = all;
    i->asking.client = c->number;
    i->asking.asked_at = now_boottime_usec();
    i->asking.body = oauth_body(c);
    i->asking.transfer = http_post(all->http,
                                   &(struct http_request){
                                       .url = c->token_url,
                                       .headers = headers,
                                       .body = i->asking.body,
                                       .body_len = strlen(i->asking.body),
                                       .timeout_usec = i->request.timeout_usec / SHARE,
                                       .way = i->settings.way.http,
                                   },
                                   on_token, i);
    free_secret(authorization);
}

/* With the token that there is, as soon as there is one, or not at all. */
static void proceed(struct delivery *d)
{
    struct integration *i = d->integration;
    const struct oauth_client *c = i->settings.auth.client;
    uint64_t now = now_boottime_usec();
    bool may_ask = c && (now >= c->failures.ask_at || d->is_probe);

    if (c && oauth_wants_token(c, now) && !i->asking.transfer && may_ask) {
        i->asking.again = false;
        ask(d->all, i);
    }
    if (!c || oauth_line(c, now)) {
        go(d);
    } else if (i->asking.transfer) {
        d->authorized->waits = true;
        d->authorized->next = i->asking.waiting;
        i->asking.waiting = d;
    } else {
        end(d, HTTP_UNAUTHENTICATED, "its token endpoint gave none a moment ago");
    }
}

/* --- the interface ---------------------------------------------------------------------------- */

void delivery_with_token(struct delivery *d, const char *order_id, const char *key, const char *trace,
                         const struct token_callbacks *callbacks)
{
    struct authorized *a = d->authorized = xcalloc(1, sizeof(*a));

    a->callbacks = callbacks;
    a->order_id = xstrdup(order_id);
    snprintf(a->key, sizeof(a->key), "%s", key);
    snprintf(a->trace, sizeof(a->trace), "%s", trace);
    proceed(d);
}

bool delivery_renews_token(struct delivery *d, const struct http_result *result)
{
    struct authorized *a = d->authorized;
    struct oauth_client *c = d->integration->settings.auth.client;
    enum answer_means means;

    if (!a || !c || a->repeats || result->cause != HTTP_ANSWERED || result->status != 401)
        return false;
    bool is_lookup = d->question && !d->question->is_absent;
    if (!is_lookup && answer_rules_decide(&d->integration->settings.outcomes, result, &means) > 0)
        return false;
    if (a->client == c->number && a->serial == c->token.serial)
        oauth_drop_token(c);
    /* What is left must do for the token and for the request. */
    if (now_monotonic_usec() - d->started_usec > d->integration->request.timeout_usec / 2 ||
        (d->turn && !delivery_has_next_turn(d)))
        return false;
    if (is_lookup)
        free(TAKE_PTR(d->question));
    a->asks = is_lookup;
    a->repeats = true;
    d->transfer = NULL;
    proceed(d);
    return true;
}

bool delivery_token_cancel(struct delivery *d)
{
    if (!d->authorized || !d->authorized->waits)
        return false;
    http_cancel(d->all->http, d->integration->asking.transfer);
    return true;
}

void delivery_token_free(struct authorized *a)
{
    if (!a)
        return;
    free(a->order_id);
    free(a);
}
