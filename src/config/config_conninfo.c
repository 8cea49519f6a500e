/* Connection strings without their passwords, and the parameters in them that only Rails knows.
 *
 * Whether libpq can read a string is for the pg room to judge; strings that libpq refuses are shown here too.
 * Pure; any thread. */
#include <string.h>

#include "config/config_internal.h"

#define HIDDEN "***"
#define SPACE " \t\n\r\f\v"

/* ActiveRecord's own parameters: it removes them from the URL before it calls libpq. */
static const char rails_parameters[] =
    "adapter advisory_locks checkout_timeout collation database_tasks encoding idle_timeout "
    "insert_returning keepalive max_age max_connections max_threads migrations_paths min_connections "
    "min_messages min_threads pool pool_jitter prepared_statements query_cache reaping_frequency reconnect "
    "replica schema_cache_path schema_dump schema_format schema_search_path seeds statement_limit "
    "strict_loading template timeout url use_metadata_table variables";

static bool is_rails_parameter(const char *name, size_t len)
{
    for (const char *p = rails_parameters; *p; p += strspn(p, " ")) {
        size_t word = strcspn(p, " ");
        if (word == len && memcmp(p, name, len) == 0)
            return true;
        p += word;
    }
    return false;
}

bool config_is_secret_name(const char *name, size_t len)
{
    static const char *const parts[] = {"password", "passphrase", "secret", "token", "api_key", "apikey"};
    CLEANUP(freep) char *copy = xstrndup(name, len);

    for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
        if (strcasestr(copy, parts[i]))
            return true;
    return false;
}

static bool is_postgres_url(const char *s)
{
    return strncmp(s, "postgres://", 11) == 0 || strncmp(s, "postgresql://", 13) == 0;
}

/* Where a URL's parameters start (behind the '?'), or NULL. As libpq does, a '?' before the '@' is taken for
 * a part of the password. */
static const char *url_query(const char *url)
{
    const char *scheme = strstr(url, "://"), *authority = scheme ? scheme + 3 : url;
    const char *end = strpbrk(authority, "@/");
    const char *mark = strchr(end && *end == '@' ? end : authority, '?');

    return mark ? mark + 1 : NULL;
}

/* One "name=value" of a URL's query; ends at the string's end or at '&'. */
struct parameter {
    const char *name, *value, *end;
    size_t name_len;
};

static struct parameter parameter_at(const char *p)
{
    struct parameter q = {.name = p, .end = p + strcspn(p, "&#")};
    const char *equals = memchr(p, '=', (size_t) (q.end - p));

    q.name_len = (size_t) ((equals ? equals : q.end) - p);
    q.value = equals ? equals + 1 : q.end;
    return q;
}

/* Some servers take ';' for '&', and a fragment may look like a query, too: what follows a secret there is
 * hidden with it, up to the next '&'. */
static void scrub_query(const char *query, struct strbuf *out)
{
    for (const char *p = query; *p;) {
        size_t len = strcspn(p, "&;#"), equals = strcspn(p, "=&;#");
        bool secret = equals < len && equals + 1 < len && config_is_secret_name(p, equals);

        strbuf_add(out, p, secret ? equals + 1 : len);
        if (secret)
            strbuf_adds(out, HIDDEN);
        p += secret ? strcspn(p, "&") : len;
        if (*p)
            strbuf_addc(out, *p++);
    }
}

void config_url_scrub(const char *text, struct strbuf *out)
{
    const char *scheme = strstr(text, "://"), *authority = scheme ? scheme + 3 : text;
    /* The last '@' of all, since people forget to encode the '@', '/' or '?' of a password: better too much
     * hidden than too little. */
    const char *at = scheme ? strrchr(authority, '@') : NULL;
    const char *colon = at ? memchr(authority, ':', (size_t) (at - authority)) : NULL;
    /* A user name alone is a token, but for a database. */
    const char *hidden = colon ? colon + 1 : at && !is_postgres_url(text) ? authority : NULL;
    const char *rest = hidden ? at : text, *query = scheme ? url_query(hidden ? at : authority) : NULL;

    if (hidden) {
        strbuf_add(out, text, (size_t) (hidden - text));
        strbuf_adds(out, HIDDEN);
    }
    const char *fragment = scheme && !query ? strchr(rest, '#') : NULL;
    if (fragment)
        query = fragment + 1;
    if (!query) {
        strbuf_adds(out, rest);
        return;
    }
    strbuf_add(out, rest, (size_t) (query - rest));
    scrub_query(query, out);
}

/* No more than the host is left of a webhook's URL: its path is often the token. */
static void scrub_webhook(const char *text, struct strbuf *out)
{
    const char *scheme = strstr(text, "://"), *authority = scheme ? scheme + 3 : text;
    const char *at = strrchr(authority, '@'), *host = at ? at + 1 : authority;
    size_t len = strcspn(host, "/?#");

    strbuf_add(out, text, (size_t) (authority - text));
    strbuf_adds(out, at ? HIDDEN "@" : "");
    strbuf_add(out, host, len);
    if (host[len] && strcmp(host + len, "/") != 0)
        strbuf_adds(out, "/" HIDDEN);
}

/* One "name = value" of the other form; `p` behind white space. Returns what follows it, or NULL for a
 * mistake. */
static const char *next_pair(const char *p, struct parameter *ret)
{
    bool quoted;

    ret->name = p;
    ret->name_len = strcspn(p, "=" SPACE);
    if (ret->name_len == 0)
        return NULL;
    p += ret->name_len;
    p += strspn(p, SPACE);
    if (*p != '=')
        return NULL;
    p++;
    p += strspn(p, SPACE);
    quoted = *p == '\'';
    ret->value = p;
    p += quoted;
    while (*p && (quoted ? *p != '\'' : !strchr(SPACE, *p)))
        p += *p == '\\' && p[1] ? 2 : 1;
    if (quoted && *p != '\'')
        return NULL;
    p += quoted;
    ret->end = p;
    return p + strspn(p, SPACE);
}

static void scrub_pairs(const char *conninfo, struct strbuf *out)
{
    const char *p = conninfo + strspn(conninfo, SPACE);

    while (*p) {
        struct parameter pair;
        const char *next = next_pair(p, &pair);

        if (!next) {
            strbuf_adds(out, HIDDEN); /* a text that cannot be parsed may hold a password */
            return;
        }
        strbuf_add(out, pair.name, pair.name_len);
        strbuf_addc(out, '=');
        size_t value_len = (size_t) (pair.end - pair.value);
        /* "Server=x;Password=y" is another program's form. */
        bool foreign = memchr(pair.value, ';', value_len) && config_is_secret_name(pair.value, value_len);
        if (foreign || config_is_secret_name(pair.name, pair.name_len))
            strbuf_adds(out, HIDDEN);
        else
            strbuf_add(out, pair.value, value_len);
        if (*next)
            strbuf_addc(out, ' ');
        p = next;
    }
}

static void scrub_conninfo(const char *conninfo, struct strbuf *out)
{
    if (is_postgres_url(conninfo))
        config_url_scrub(conninfo, out);
    else
        scrub_pairs(conninfo, out);
}

void config_value_scrub(const struct config_key *key, const char *text, struct strbuf *out)
{
    if (key->flags & KEY_WEBHOOK)
        scrub_webhook(text, out);
    else if (key->flags & KEY_CONNINFO)
        scrub_conninfo(text, out);
    else
        config_url_scrub(text, out);
}

void config_conninfo_drop_rails(const char *url, struct strbuf *out, struct strbuf *ret_dropped)
{
    const char *p = is_postgres_url(url) ? url_query(url) : NULL;
    char separator = '?';

    if (!p) {
        strbuf_adds(out, url);
        return;
    }
    strbuf_add(out, url, (size_t) (p - 1 - url));
    while (*p) {
        struct parameter q = parameter_at(p);

        if (is_rails_parameter(q.name, q.name_len)) {
            strbuf_adds(ret_dropped, ret_dropped->len > 0 ? ", " : "");
            strbuf_add(ret_dropped, q.name, q.name_len);
        } else {
            strbuf_addc(out, separator);
            strbuf_add(out, p, (size_t) (q.end - p));
            separator = '&';
        }
        p = *q.end == '&' ? q.end + 1 : q.end + strlen(q.end);
    }
}
