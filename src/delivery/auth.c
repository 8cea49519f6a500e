/* How requests say that they are ours. See auth.h. */
#include "delivery/auth.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "config/config.h"
#include "crypto/base64.h"
#include "delivery/header_line.h"
#include "delivery/settings_read.h"

#define TOKEN_LETTERS                                                                                        \
    "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" /* RFC 9110, 5.6.2 */

/* Names that are the connection's, or that say what anubisd itself has to say. The database refuses the same
 * (delivery_settings_header_fault). */
static const char *const reserved[] = {
    "Host",
    "Content-Length",
    "Transfer-Encoding",
    "Connection",
    "Keep-Alive",
    "TE",
    "Trailer",
    "Upgrade",
    "Expect",
    "Accept-Encoding",
    "Proxy-Connection",
    "Proxy-Authorization",
    "Idempotency-Key",
    "traceparent",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
};

void auth_free(struct auth *a)
{
    free_secret(a->line);
    for (size_t i = 0; i < a->header_count; i++)
        free_secret(a->headers[i]);
    signer_free(a->signer);
    oauth_client_free(a->client);
    *a = (struct auth){0};
}

/* --- names ------------------------------------------------------------------------------------ */

static int check_name(const char *name, bool is_auth, struct error *why)
{
    const char *fault = NULL;

    if (!*name || strspn(name, TOKEN_LETTERS) != strlen(name))
        fault = "is no name of a header";
    for (size_t i = 0; i < ARRAY_SIZE(reserved); i++)
        if (strcasecmp(name, reserved[i]) == 0)
            fault = "is a header that anubisd sets itself";
    if (!is_auth && strcasecmp(name, "Authorization") == 0)
        fault = "is a header for delivery_settings.auth";
    if (fault)
        error_set(why, "%s", fault);
    return fault ? -EINVAL : 0;
}

static bool is_named(const char *line, const char *name)
{
    size_t len = strlen(name);

    return strncasecmp(line, name, len) == 0 && line[len] == ':';
}

/* --- the key "auth" --------------------------------------------------------------------------- */

static void secret_freep(char **s)
{
    free_secret(*s);
}

static int read_nothing(struct settings *s, const struct json_value *value, struct error *why)
{
    (void) s; /* a row of the table has this form */
    return settings_read_members(value, "type", NULL, 0, why);
}

static int read_basic(struct settings *s, const struct json_value *value, struct error *why)
{
    CLEANUP(secret_freep) char *user = NULL;
    CLEANUP(secret_freep) char *password = NULL;
    const struct settings_member members[] = {{"username", SETTINGS_SECRET, true, &user},
                                              {"password", SETTINGS_SECRET, true, &password}};
    int r = settings_read_members(value, "type", members, ARRAY_SIZE(members), why);

    if (r < 0)
        return r;
    if (strchr(user, ':')) {
        error_set(why, "has a \"username\" that holds a colon");
        return -EINVAL;
    }
    CLEANUP(secret_freep) char *pair = xmalloc(strlen(user) + strlen(password) + 2);
    size_t len = (size_t) (stpcpy(stpcpy(stpcpy(pair, user), ":"), password) - pair);
    CLEANUP(secret_freep) char *text = base64_encode((struct bytes){pair, len});
    s->auth.line = header_line("Authorization", "Basic ", text);
    return 0;
}

static int read_header(struct settings *s, const struct json_value *value, struct error *why)
{
    CLEANUP(secret_freep) char *name = NULL;
    CLEANUP(secret_freep) char *secret = NULL;
    const struct settings_member members[] = {{"name", SETTINGS_TEXT, true, &name},
                                              {"value", SETTINGS_SECRET, true, &secret}};
    struct error err;
    int r = settings_read_members(value, "type", members, ARRAY_SIZE(members), why);

    if (r < 0)
        return r;
    r = check_name(name, true, &err);
    if (r < 0)
        error_set(why, "has a \"name\" that %s", err.text);
    else if ((r = settings_check_header_value(secret, &err)) < 0)
        error_set(why, "has a \"value\" that %s", err.text);
    else
        s->auth.line = header_line(name, "", secret);
    return r;
}

static int read_oauth2(struct settings *s, const struct json_value *value, struct error *why)
{
    oauth_client_free(s->auth.client);
    struct oauth_client *c = s->auth.client = oauth_client_new();
    const struct settings_member members[] = {{"token_url", SETTINGS_TEXT, true, &c->token_url},
                                              {"client_id", SETTINGS_SECRET, true, &c->id},
                                              {"client_secret", SETTINGS_SECRET, true, &c->secret},
                                              {"scope", SETTINGS_TEXT, false, &c->scope}};

    return settings_read_members(value, "type", members, ARRAY_SIZE(members), why);
}

static int read_mtls(struct settings *s, const struct json_value *value, struct error *why)
{
    const struct settings_member members[] = {{"certificate", SETTINGS_PEM, true, &s->way.certificate},
                                              {"key", SETTINGS_PEM, true, &s->way.key}};

    return settings_read_members(value, "type", members, ARRAY_SIZE(members), why);
}

static const struct {
    const char *name;
    settings_parser *read;
} types[] = {
    [AUTH_BEARER] = {"bearer", read_nothing}, [AUTH_BASIC] = {"basic", read_basic},
    [AUTH_HEADER] = {"header", read_header},  [AUTH_OAUTH2] = {"oauth2", read_oauth2},
    [AUTH_MTLS] = {"mtls", read_mtls},        [AUTH_NONE] = {"none", read_nothing},
};

int settings_read_auth(struct settings *s, const struct json_value *value, struct error *why)
{
    struct json_value type;

    if (value->type == JSON_OBJECT && json_find(value, "/type", &type) && type.type == JSON_STRING)
        for (size_t i = 0; i < ARRAY_SIZE(types); i++)
            if (json_is_text(&type, types[i].name)) {
                s->auth.type = (enum auth_type) i;
                return types[i].read(s, value, why);
            }
    error_set(why, "has no \"type\" that this version knows");
    return -EINVAL;
}

/* --- the key "headers" ------------------------------------------------------------------------ */

static int add_header(struct settings *s, const char *name, const char *value, struct error *why)
{
    struct auth *a = &s->auth;
    if (a->line && is_named(a->line, name))
        return 0; /* that of the authentication counts, which Postgres puts first */
    const char *fault = a->header_count == AUTH_HEADERS_MAX ? "are too many" : NULL;

    for (size_t i = 0; i < a->header_count; i++)
        if (is_named(a->headers[i], name))
            fault = "hold one name twice";
    if (fault) {
        error_set(why, "%s", fault);
        return -EINVAL;
    }
    a->has_content_type |= strcasecmp(name, "Content-Type") == 0;
    a->headers[a->header_count++] = header_line(name, "", value);
    return 0;
}

static int read_one_header(struct settings *s, const struct json_value *name, const struct json_value *value,
                           struct error *why)
{
    CLEANUP(strbuf_free) struct strbuf plain = STRBUF_INIT(CONFIG_SECRET_MAX);
    CLEANUP(secret_freep) char *text = NULL;
    struct error err;

    json_add_text(&plain, name);
    int r = check_name(strbuf_str(&plain), false, &err);
    if (r == 0)
        r = settings_read_text(value, SETTINGS_SECRET, &text, &err);
    if (r == 0)
        r = settings_check_header_value(text, &err);
    if (r == 0)
        return add_header(s, plain.data, text, why);
    CLEANUP(strbuf_free) struct strbuf shown = STRBUF_INIT(512);
    strbuf_add_harmless(&shown, strbuf_str(&plain), utf8_cut(strbuf_str(&plain), plain.len, 40));
    error_set(why, "hold \"%s\", which %s", strbuf_str(&shown), err.text);
    return r;
}

int settings_read_headers(struct settings *s, const struct json_value *value, struct error *why)
{
    struct json_value name, member;
    int r = 0;

    if (value->type != JSON_OBJECT) {
        error_set(why, "are no JSON object");
        return -EINVAL;
    }
    for (struct json_walk w = json_walk(value); r == 0 && json_next(&w, &name, &member);)
        r = read_one_header(s, &name, &member, why);
    return r;
}

/* --- the key "signing_secret" ----------------------------------------------------------------- */

int settings_read_signing_secret(struct settings *s, const struct json_value *value, struct error *why)
{
    CLEANUP(secret_freep) char *text = NULL;
    int r = settings_read_text(value, SETTINGS_SECRET, &text, why);
    struct signer *signer = NULL;

    if (r == 0)
        r = signer_new(&signer, text, why);
    if (r < 0)
        return r;
    signer_free(s->auth.signer);
    s->auth.signer = signer;
    return 0;
}
