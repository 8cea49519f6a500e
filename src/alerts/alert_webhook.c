/* The signed webhook. See alerts_internal.h. One request at a time, of each alert in order: a receiver that
 * was away learns all of it, and of each notice under the same webhook-id, so that it knows one that comes
 * twice. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "alerts/alert_sink.h"
#include "base/log.h"
#include "crypto/sha256.h"
#include "crypto/signature.h"

#define SINK "webhook"
#define TIMEOUT_USEC (10 * USEC_PER_SEC)
/* A receiver that asks for time gets no more of it: alerts are urgent. */
#define REST_MAX_USEC (5 * 60 * USEC_PER_SEC)

struct alert_webhook {
    struct alerts *alerts;
    int64_t under_way; /* the row of the outbox, 0 = none */
    int64_t taken, refused;
    int64_t said; /* the notice of which it was said that it alone is refused */
    int64_t attempts;
    uint64_t rest_until; /* monotonic: it has asked for time (Retry-After) */
    char *url, *body;
    struct error why;
    struct trouble away;
};

struct alert_webhook *alert_webhook_new(void)
{
    return xcalloc(1, sizeof(struct alert_webhook));
}

void alert_webhook_free(struct alert_webhook *w)
{
    if (!w)
        return;
    free(w->url);
    free(w->body);
    free(w);
}

/* The answer concerns this notice, and not the receiver: others may be taken. */
static bool is_refused_alone(const struct http_result *result)
{
    static const int statuses[] = {400, 409, 413, 422};

    for (size_t i = 0; i < ARRAY_SIZE(statuses); i++)
        if (result->cause == HTTP_ANSWERED && result->status == statuses[i])
            return true;
    return false;
}

static void on_answer(const struct http_result *result, void *userdata)
{
    struct alert_webhook *w = userdata;
    bool good = alert_sink_took(result, &w->why);

    if (!good && result->has_retry_after) {
        uint64_t seconds = (uint64_t) result->retry_after_sec;
        w->rest_until = now_monotonic_usec() + MIN(seconds * USEC_PER_SEC, REST_MAX_USEC);
    }

    int64_t id = w->under_way;

    *(good ? &w->taken : &w->refused) = id;
    w->under_way = 0;
    w->alerts->hurry = true;
    if (good && trouble_ends(&w->away)) {
        log_notice("the webhook takes alerts again");
    } else if (!good && is_refused_alone(result)) {
        if (w->said != id)
            log_warning("the webhook refuses the notice alert_%" PRId64
                        ": %s; trying it again, beside others",
                        id, w->why.text);
        w->said = id;
    } else if (!good && trouble_begins(&w->away)) {
        log_warning("the webhook does not take alerts: %s; trying again", w->why.text);
    }
}

/* What became of the last request. */
static int report(struct alerts *a, struct alert_webhook *w, struct error *err)
{
    int64_t id = w->taken ? w->taken : w->refused;
    int r = PG_DONE;

    if (w->taken)
        r = alerts_outbox_sent(a->pg, &id, 1, err);
    else if (w->refused)
        r = alerts_outbox_postponed(a->pg, SINK, &id, 1, w->attempts + 1, w->why.text, err);
    if (r == PG_DONE)
        w->taken = w->refused = 0;
    return r;
}

/* False with a word in the journal when the secret is none. */
static bool sign(struct alerts *a, const char *id, int64_t now, const char *body, char *ret, size_t size)
{
    struct signer *signer = NULL;
    struct error err;
    char signature[SIGNATURE_TEXT];

    if (signer_new(&signer, a->rules->alerts.webhook_secret, &err) < 0) {
        log_warning("alerts.webhook_secret %s", err.text);
        return false;
    }
    signer_sign(signer, id, now, (struct bytes){body, strlen(body)}, signature);
    signer_free(signer);
    snprintf(ret, size, "webhook-signature: %s", signature);
    return true;
}

/* The notice's, also after a restore, which gives out the ids of its table once more, and beside another
 * installation: a receiver drops what comes under an id that it knows. */
static void name_notice(const struct alert_notice *n, char *ret, size_t size)
{
    CLEANUP(sha256_freep) struct sha256 *sha = sha256_new();
    const struct bytes parts[] = {{n->event, strlen(n->event)}, {n->body, strlen(n->body)}};
    unsigned char digest[SHA256_BYTES];
    char hex[16 + 1];

    sha256_digest(sha, parts, ARRAY_SIZE(parts), digest);
    *put_hex(hex, digest, sizeof(hex) / 2) = '\0';
    snprintf(ret, size, "alert_%" PRId64 "_%s", n->id, hex);
}

static void post(struct alerts *a, struct alert_webhook *w, const struct alert_notice *n)
{
    char id[64], id_header[96], time_header[64], signature[SIGNATURE_TEXT + 32];
    int64_t now = now_realtime_usec() / (int64_t) USEC_PER_SEC;
    const char *headers[6] = {"Content-Type: application/json", id_header, time_header};
    size_t count = 3;
    CLEANUP(freep) char *authorization = NULL;
    CLEANUP(strbuf_free) struct strbuf body = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    name_notice(n, id, sizeof(id));
    strbuf_addf(&body, "{\"type\":\"alert.%s\",\"timestamp\":\"", n->event);
    strbuf_add_timestamp(&body, now_realtime_usec());
    strbuf_addf(&body, "\",\"data\":%s}", n->body);
    free(w->body);
    w->body = strbuf_take(&body);
    snprintf(id_header, sizeof(id_header), "webhook-id: %s", id);
    snprintf(time_header, sizeof(time_header), "webhook-timestamp: %" PRId64, now);
    if (*a->rules->alerts.webhook_secret && sign(a, id, now, w->body, signature, sizeof(signature)))
        headers[count++] = signature;
    free(w->url);
    alert_sink_read_url(a->rules->alerts.webhook_url, &w->url, &authorization);
    headers[count] = authorization;
    w->under_way = n->id;
    w->alerts = a;
    w->attempts = n->attempts;
    const struct http_request request = {.url = w->url,
                                         .headers = headers,
                                         .body = w->body,
                                         .body_len = strlen(w->body),
                                         .timeout_usec = TIMEOUT_USEC};
    http_post(a->http, &request, on_answer, w);
}

int alert_webhook_turn(struct alerts *a, struct alert_webhook *w, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    CLEANUP(freep) struct alert_notice *notices = NULL;
    size_t count = 0;

    if (w->under_way)
        return PG_DONE;
    int r = report(a, w, err);
    if (r == PG_DONE && *a->rules->alerts.webhook_url && now_monotonic_usec() >= w->rest_until)
        r = alerts_outbox_read(a->pg, SINK, 1, &result, &notices, &count, err);
    if (r == PG_DONE && count > 0)
        post(a, w, &notices[0]);
    return r;
}
