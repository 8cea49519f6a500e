/* The requests of a delivery. See delivery_internal.h. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/timeutil.h"
#include "crypto/idempotency_key.h"
#include "crypto/traceparent.h"
#include "delivery/delivery_internal.h"

void delivery_write_ids(const struct delivery *d, const struct store_claimed *row, char key[64],
                        char trace[80])
{
    size_t at = (size_t) snprintf(key, 64, "Idempotency-Key: ");
    idempotency_key_derive(d->all->ids,
                           &(struct idempotency_message){
                               .name_space = row->namespace,
                               .subscription_id = row->id,
                               .seed = row->seed,
                               .payload = {d->payload, d->payload_len},
                           },
                           key + at);
    at = (size_t) snprintf(trace, 80, "traceparent: ");
    if (traceparent_is_valid(row->traceparent, strlen(row->traceparent)))
        snprintf(trace + at, 80 - at, "%s", row->traceparent);
    else
        traceparent_derive(d->all->ids, row->namespace, row->id, (uint64_t) d->token ^ (uint64_t) d->id,
                           trace + at);
}

#define LINES_MAX (8 + AUTH_HEADERS_MAX)

/* The header lines of a request; those of a signature stand here. */
struct request_lines {
    const char *all[LINES_MAX]; /* NULL-terminated */
    size_t count;
    char id[64], timestamp[64], signature[SIGNATURE_TEXT + 32];
};

static void add_line(struct request_lines *to, const char *line)
{
    if (line && to->count < LINES_MAX - 1)
        to->all[to->count++] = line;
}

/* What the integration's settings give to each of its requests. */
static void add_own_lines(struct request_lines *to, const struct integration *i)
{
    add_line(to, integration_authorization(i));
    for (size_t n = 0; n < i->settings.auth.header_count; n++)
        add_line(to, i->settings.auth.headers[n]);
}

/* By Standard Webhooks: the id is that of all attempts, the time that of this one, the bytes are those that
 * are sent. */
static void sign(struct signer *signer, const char *id, struct bytes payload, struct request_lines *to)
{
    int64_t now = (int64_t) (now_realtime_usec() / USEC_PER_SEC);
    size_t at = (size_t) snprintf(to->signature, sizeof(to->signature), "webhook-signature: ");

    signer_sign(signer, id, now, payload, to->signature + at);
    snprintf(to->id, sizeof(to->id), "webhook-id: %s", id);
    snprintf(to->timestamp, sizeof(to->timestamp), "webhook-timestamp: %" PRId64, now);
    add_line(to, to->id);
    add_line(to, to->timestamp);
    add_line(to, to->signature);
}

void delivery_post(struct delivery *d, const char *key, const char *trace, http_callback callback)
{
    uint64_t spent = d->question || d->authorized ? now_monotonic_usec() - d->started_usec : 0;
    const struct settings *s = &d->integration->settings;
    struct request_lines lines = {0};

    add_line(&lines, s->auth.has_content_type ? NULL : "Content-Type: application/json");
    add_line(&lines, key);
    add_line(&lines, trace);
    add_own_lines(&lines, d->integration);
    if (s->auth.signer)
        sign(s->auth.signer, strchr(key, ' ') + 1, (struct bytes){d->payload, d->payload_len}, &lines);
    uint64_t timeout = d->integration->request.timeout_usec;
    d->transfer = http_post(d->all->http,
                            &(struct http_request){
                                .url = d->integration->endpoint_url,
                                .headers = lines.all,
                                .body = d->payload,
                                .body_len = d->payload_len,
                                .timeout_usec = timeout - MIN(spent, timeout),
                                .way = s->way.http,
                            },
                            callback, d);
}

/* It has half of the time, so that the lease outlasts the POST, too. */
bool delivery_ask(struct delivery *d, const char *order_id, const char *key, const char *trace,
                  http_callback callback)
{
    const struct ambiguity_row row = {order_id, d->id, strchr(key, ' ') + 1};
    CLEANUP(strbuf_free) struct strbuf url = STRBUF_INIT(16384);

    if (!ambiguity_add_url(&d->integration->settings.ambiguity, &row, &url))
        return false;
    d->question = xcalloc(1, sizeof(*d->question));
    snprintf(d->question->key, sizeof(d->question->key), "%s", key);
    snprintf(d->question->trace, sizeof(d->question->trace), "%s", trace);
    struct request_lines lines = {0};
    add_line(&lines, trace);
    add_own_lines(&lines, d->integration);
    d->transfer = http_post(d->all->http,
                            &(struct http_request){
                                .url = strbuf_str(&url),
                                .headers = lines.all,
                                .timeout_usec = d->integration->request.timeout_usec / 2,
                                .way = d->integration->settings.way.http,
                            },
                            callback, d);
    return true;
}
