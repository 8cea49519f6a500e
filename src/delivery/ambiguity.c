/* What becomes of ambiguous subscriptions. See ambiguity.h. */
#include "delivery/ambiguity.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/timeutil.h"

/* Stripe, Check, Checkout.com and others forget keys after a day. */
#define WINDOW_USEC (86400 * USEC_PER_SEC)
#define WINDOW_MAX_USEC (3650 * 86400 * USEC_PER_SEC)
#define URL_MAX 8000

static int wrong(struct error *why, const char *words)
{
    error_set(why, "%s", words);
    return -EINVAL;
}

static bool is_word(const struct json_value *value, const char *word)
{
    return value->type == JSON_STRING && json_is_text(value, word);
}

int ambiguity_read_on_ambiguous(struct ambiguity *a, const struct json_value *value, struct error *why)
{
    a->holds = is_word(value, "hold");
    return a->holds || is_word(value, "retry") ? 0 : wrong(why, "is \"retry\" or \"hold\"");
}

static int read_window(struct ambiguity *a, const struct json_value *value, struct error *why)
{
    CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(64);

    json_add_text(&text, value);
    a->knows_no_keys = is_word(value, "none");
    if (a->knows_no_keys)
        return 0;
    if (value->type != JSON_STRING || parse_duration(strbuf_str(&text), &a->window_usec) < 0 ||
        a->window_usec == 0 || a->window_usec > WINDOW_MAX_USEC)
        return wrong(why, "window is a duration such as \"24h\", of at most 3650 days, or \"none\"");
    return 0;
}

int ambiguity_read_idempotency(struct ambiguity *a, const struct json_value *value, struct error *why)
{
    struct json_value name, member;
    int r = value->type == JSON_OBJECT
                ? 0
                : wrong(why, "is an object such as {\"window\": \"24h\", \"stored_errors\": \"new_key\"}");

    for (struct json_walk w = json_walk(value); r == 0 && json_next(&w, &name, &member);) {
        if (json_is_text(&name, "window")) {
            r = read_window(a, &member, why);
        } else if (json_is_text(&name, "stored_errors")) {
            a->new_key = is_word(&member, "new_key");
            if (!a->new_key && !is_word(&member, "retry_same"))
                r = wrong(why, "stored_errors is \"retry_same\" or \"new_key\"");
        } else {
            r = wrong(why, "has window and stored_errors");
        }
    }
    return r;
}

/* --- lookup ----------------------------------------------------------------------------------- */

static const char *const places[] = {"{order_id}", "{id}", "{idempotency_key}"};

/* The place that a text begins with, or -1. */
static int place_at(const char *text)
{
    for (size_t i = 0; i < ARRAY_SIZE(places); i++)
        if (strncmp(text, places[i], strlen(places[i])) == 0)
            return (int) i;
    return -1;
}

/* Braces stand for nothing but places, and there is one. */
static bool has_places(const char *url)
{
    bool any = false;

    for (const char *p = url; *p; p++) {
        int place = *p == '{' ? place_at(p) : -1;
        if ((*p == '{' && place < 0) || *p == '}')
            return false;
        if (place >= 0) {
            any = true;
            p += strlen(places[place]) - 1;
        }
    }
    return any;
}

static bool is_url(const char *url)
{
    size_t len = strlen(url);
    bool http = strncmp(url, "http://", 7) == 0 || strncmp(url, "https://", 8) == 0;

    for (size_t i = 0; i < len; i++)
        http = http && (unsigned char) url[i] > ' ' && url[i] != 0x7f;
    return http && len <= URL_MAX && has_places(url);
}

int ambiguity_read_lookup(struct ambiguity *a, const struct json_value *value, struct error *why)
{
    static const char words[] =
        "is {\"url\": \"...\"}, a URL that names {order_id}, {id} or {idempotency_key}";
    struct json_value name, url;
    struct strbuf text = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    if (value->type != JSON_OBJECT)
        return wrong(why, words);
    for (struct json_walk w = json_walk(value); json_next(&w, &name, &url);)
        if (!json_is_text(&name, "url") || url.type != JSON_STRING)
            return wrong(why, words);
    if (!json_find(value, "/url", &url))
        return wrong(why, words);
    json_add_text(&text, &url);
    a->lookup_url = text.data ? strbuf_take(&text) : xstrdup("");
    return is_url(a->lookup_url) ? 0 : wrong(why, words);
}

bool ambiguity_can_ask(const struct ambiguity *a, const char *order_id)
{
    return a->lookup_url && (*order_id || !strstr(a->lookup_url, places[0]));
}

bool ambiguity_add_url(const struct ambiguity *a, const struct ambiguity_row *row, struct strbuf *url)
{
    if (!ambiguity_can_ask(a, row->order_id))
        return false;
    for (const char *p = a->lookup_url; *p; p++) {
        int place = *p == '{' ? place_at(p) : -1;
        if (place == 0)
            strbuf_adds(url, row->order_id);
        else if (place == 1)
            strbuf_add_i64(url, row->id);
        else if (place == 2)
            strbuf_adds(url, row->key);
        else
            strbuf_addc(url, *p);
        p += place >= 0 ? strlen(places[place]) - 1 : 0;
    }
    return !url->overflowed;
}

enum lookup_answer ambiguity_looked_up(const struct http_result *result)
{
    if (result->cause != HTTP_ANSWERED)
        return LOOKUP_UNDECIDED;
    if (result->status >= 200 && result->status <= 299)
        return LOOKUP_FOUND;
    return result->status == 404 ? LOOKUP_ABSENT : LOOKUP_UNDECIDED;
}

/* --- the rest --------------------------------------------------------------------------------- */

const char *ambiguity_holds(const struct ambiguity *a, uint64_t age_usec)
{
    if (a->holds)
        return "on_ambiguous";
    if (a->knows_no_keys)
        return "idempotency.window = none";
    if (age_usec >= (a->window_usec ? a->window_usec : WINDOW_USEC))
        return "idempotency.window";
    return NULL;
}

void ambiguity_free(struct ambiguity *a)
{
    free(a->lookup_url);
    *a = (struct ambiguity){0};
}
