/* Tokens by OAuth 2 client credentials. See oauth.h. */
#include "delivery/oauth.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/backoff.h"
#include "base/json.h"
#include "base/strbuf.h"
#include "base/timeutil.h"
#include "crypto/base64.h"
#include "delivery/header_line.h"

/* Of a token that does not say it in a way that can be believed. */
#define LIFE_UNKNOWN (300 * USEC_PER_SEC)
#define LIFE_MAX_SEC (366.0 * 86400)
#define REFRESH_BEFORE (60 * USEC_PER_SEC)
/* A request takes a while, and clocks differ. */
#define MARGIN (10 * USEC_PER_SEC)

#define WAIT_BASE USEC_PER_SEC
#define WAIT_MAX (30 * USEC_PER_SEC)
#define JITTER 0.25

struct oauth_client *oauth_client_new(void)
{
    static uint64_t numbers;
    struct oauth_client *c = xcalloc(1, sizeof(*c));

    c->number = ++numbers;
    return c;
}

void oauth_client_free(struct oauth_client *c)
{
    if (!c)
        return;
    free(c->token_url);
    free_secret(c->id);
    free_secret(c->secret);
    free(c->scope);
    free_secret(c->token.line);
    free(c);
}

/* --- the request ------------------------------------------------------------------------------ */

/* As application/x-www-form-urlencoded has it. `to` has three bytes for each of `text`. Returns the end. */
static char *put_encoded(char *to, const char *text)
{
    static const char digits[] = "0123456789ABCDEF";

    for (; *text; text++) {
        unsigned char c = (unsigned char) *text;
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     strchr("-._~", c) != NULL;
        if (plain) {
            *to++ = (char) c;
        } else {
            *to++ = '%';
            *to++ = digits[c >> 4];
            *to++ = digits[c & 15];
        }
    }
    *to = '\0';
    return to;
}

char *oauth_authorization(const struct oauth_client *c)
{
    if (c->in_body)
        return NULL;
    /* RFC 6749, section 2.3.1: encoded, then as in RFC 7617. */
    char *pair = xmalloc(3 * (strlen(c->id) + strlen(c->secret)) + 2), *end = put_encoded(pair, c->id);
    *end++ = ':';
    end = put_encoded(end, c->secret);
    char *text = base64_encode((struct bytes){pair, (size_t) (end - pair)});
    char *line = header_line("Authorization", "Basic ", text);
    free_secret(pair);
    free_secret(text);
    return line;
}

char *oauth_body(const struct oauth_client *c)
{
    static const char grant[] = "grant_type=client_credentials",
                      scope[] = "&scope=", id[] = "&client_id=", secret[] = "&client_secret=";
    size_t texts = (c->scope ? strlen(c->scope) : 0) + strlen(c->id) + strlen(c->secret);
    char *body = xmalloc(sizeof(grant) + sizeof(scope) + sizeof(id) + sizeof(secret) + 3 * texts);
    char *end = stpcpy(body, grant);

    if (c->scope)
        end = put_encoded(stpcpy(end, scope), c->scope);
    if (c->in_body) {
        end = put_encoded(stpcpy(end, id), c->id);
        put_encoded(stpcpy(end, secret), c->secret);
    }
    return body;
}

/* --- the answer ------------------------------------------------------------------------------- */

static int fault(struct error *why, const char *words)
{
    error_set(why, "%s", words);
    return -EINVAL;
}

static uint64_t read_life(const struct json_value *root)
{
    struct json_value value;
    CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(64);

    if (!json_find(root, "/expires_in", &value) || value.type != JSON_NUMBER)
        return LIFE_UNKNOWN;
    json_add_text(&text, &value);
    double seconds = strtod(strbuf_str(&text), NULL);
    return seconds >= 1 && seconds <= LIFE_MAX_SEC ? (uint64_t) (seconds * USEC_PER_SEC) : LIFE_UNKNOWN;
}

/* Visible ASCII; not an empty one. */
static bool is_header_value(const char *text)
{
    for (const char *p = text; *p; p++)
        if (*p <= ' ' || *p > '~')
            return false;
    return *text;
}

int oauth_take_token(struct oauth_client *c, struct bytes answer, uint64_t asked_at, struct error *why)
{
    CLEANUP(strbuf_wipe) struct strbuf token = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    CLEANUP(strbuf_free) struct strbuf type = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    struct json_value root, value;

    (void) strbuf_reserve(&token, answer.len + 1); /* no copy is left behind where it grew */
    if (!json_read(answer.p, answer.len, &root) || root.type != JSON_OBJECT)
        return fault(why, "answered with something else than a JSON object");
    if (!json_find(&root, "/access_token", &value) || value.type != JSON_STRING)
        return fault(why, "gave no access_token");
    json_add_text(&token, &value);
    if (strlen(strbuf_str(&token)) != token.len || !is_header_value(token.data))
        return fault(why, "gave an access_token that cannot stand in a header");
    if (json_find(&root, "/token_type", &value) && value.type == JSON_STRING) {
        json_add_text(&type, &value);
        if (strcasecmp(strbuf_str(&type), "bearer") != 0)
            return fault(why, "gave a token of another type than Bearer");
    }
    uint64_t life = read_life(&root);
    oauth_drop_token(c);
    c->token.line = header_line("Authorization", "Bearer ", token.data);
    c->token.serial++;
    c->token.ends_at = asked_at + life - MIN(life / 10, MARGIN);
    c->token.refresh_at =
        asked_at + MIN(life / 5 * 4, life > 2 * REFRESH_BEFORE ? life - REFRESH_BEFORE : life / 2);
    c->failures.count = 0;
    c->failures.ask_at = 0;
    c->is_known = true;
    return 0;
}

void oauth_failed(struct oauth_client *c, uint64_t now, double unit)
{
    c->failures.count++;
    c->failures.ask_at = now + backoff_exponential_usec(WAIT_BASE, WAIT_MAX, c->failures.count, JITTER, unit);
}

void oauth_drop_token(struct oauth_client *c)
{
    free_secret(TAKE_PTR(c->token.line));
}

const char *oauth_line(const struct oauth_client *c, uint64_t now)
{
    return now < c->token.ends_at ? c->token.line : NULL;
}

bool oauth_wants_token(const struct oauth_client *c, uint64_t now)
{
    return !oauth_line(c, now) || now >= c->token.refresh_at;
}
