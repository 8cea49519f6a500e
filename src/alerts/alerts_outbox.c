/* What the sinks are to be told. See alerts_internal.h. */
#include <inttypes.h>
#include <string.h>

#include "alerts/alert_sink.h"
#include "base/log.h"
#include "crypto/base64.h"
#include "sql/statements.h"

#define AGAIN_USEC USEC_PER_SEC
#define AGAIN_MAX_USEC (5 * 60 * USEC_PER_SEC)
#define JITTER 0.25

int alerts_outbox_read(struct pg *pg, const char *sink, int64_t max, struct pg_result **ret_result,
                       struct alert_notice **ret, size_t *ret_count, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_text(&args, sink);
    pg_arg_i64(&args, max);
    int r = pg_query(pg, &sql_alerts_waiting, &args, &result, err);
    if (r != PG_DONE)
        return r;
    *ret_count = (size_t) pg_rows(result);
    *ret = xcalloc(*ret_count + 1, sizeof(**ret));
    for (size_t i = 0; i < *ret_count; i++) {
        struct pg_row row = {result, (int) i, 0};
        struct alert_notice *n = &(*ret)[i];
        n->id = pg_next_i64(&row);
        n->alert_id = pg_next_i64(&row);
        n->event = pg_next_text(&row);
        n->kind = pg_next_text(&row);
        n->integration_id = pg_next_i64(&row);
        n->name = pg_next_text(&row);
        n->message = pg_next_text(&row);
        n->body = pg_next_text(&row);
        n->attempts = pg_next_i64(&row);
    }
    *ret_result = TAKE_PTR(result);
    return PG_DONE;
}

int alerts_outbox_sent(struct pg *pg, const int64_t *ids, size_t count, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64s(&args, ids, sizeof(*ids), count);
    return pg_query(pg, &sql_alerts_sent, &args, NULL, err);
}

int alerts_outbox_postponed(struct pg *pg, const char *sink, const int64_t *ids, size_t count,
                            int64_t attempts, const char *why, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    uint64_t delay = backoff_exponential_usec(AGAIN_USEC, AGAIN_MAX_USEC, (int) MIN(attempts, INT64_C(30)),
                                              JITTER, random_unit());
    int64_t given_up = 0;

    pg_arg_i64s(&args, ids, sizeof(*ids), count);
    pg_arg_i64(&args, (int64_t) (delay / USEC_PER_MSEC));
    pg_arg_text(&args, why);
    int r = pg_query_i64(pg, &sql_alerts_postponed, &args, &given_up, err);
    if (r == PG_DONE && given_up > 0)
        log_warning("%" PRId64 " notice%s of alerts could not be told for a day (%s), and %s given up",
                    given_up, plural(given_up), sink, given_up == 1 ? "is" : "are");
    return r;
}

bool alert_sink_took(const struct http_result *result, struct error *why)
{
    if (result->cause == HTTP_ANSWERED && result->status >= 200 && result->status <= 299)
        return true;
    if (result->cause == HTTP_ANSWERED)
        error_set(why, "HTTP %d", result->status);
    else
        error_set(why, "%s%s%s", http_cause_word(result->cause), *result->detail ? ": " : "", result->detail);
    return false;
}

/* Percent-encoded (RFC 3986, 2.1); a percent sign without two such digits stands for itself. */
static void add_decoded(struct strbuf *out, const char *p, const char *end)
{
    unsigned char byte;

    for (; p < end; p++) {
        bool encoded = *p == '%' && end - p > 2 && get_hex(p + 1, &byte, 1);
        strbuf_addc(out, encoded ? (char) byte : *p);
        p += encoded ? 2 : 0;
    }
}

void alert_sink_read_url(const char *url, char **ret_url, char **ret_header)
{
    CLEANUP(strbuf_free) struct strbuf words = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    const char *scheme_end = strstr(url, "://"), *authority = scheme_end ? scheme_end + 3 : url;
    const char *at = memrchr(authority, '@', strcspn(authority, "/?#"));

    if (!at) {
        *ret_url = xstrdup(url);
        *ret_header = NULL;
        return;
    }
    const char *colon = memchr(authority, ':', (size_t) (at - authority));
    add_decoded(&words, authority, colon ? colon : at);
    strbuf_addc(&words, ':');
    if (colon)
        add_decoded(&words, colon + 1, at);
    CLEANUP(freep) char *text = base64_encode((struct bytes){strbuf_str(&words), words.len});
    *ret_header = xasprintf("Authorization: Basic %s", text);
    *ret_url = xasprintf("%.*s%s", (int) (authority - url), url, at + 1);
}
