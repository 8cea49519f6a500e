/* libpq's connection strings, in both forms (libpq, "Connection Strings"): checked without libpq, which
 * belongs to the database adapter, and shown without their passwords. Pure; any thread. */
#include <errno.h>
#include <string.h>

#include "config/config_internal.h"

#define HIDDEN "***"
#define SPACE " \t\n\r\f\v"

/* All that any supported libpq knows; one that the installed libpq does not know it refuses by name itself.
 */
static const char *const libpq_parameters[] = {
    "application_name",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "max_protocol_version",
    "min_protocol_version",
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_issuer",
    "oauth_scope",
    "options",
    "passfile",
    "password",
    "port",
    "require_auth",
    "requirepeer",
    "service",
    "servicefile",
    "ssl",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslkeylogfile",
    "sslmode",
    "sslnegotiation",
    "sslpassword",
    "sslrootcert",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
    NULL,
};

/* ActiveRecord's own, which it takes out of the URL before it asks libpq. */
static const char *const rails_parameters[] = {
    "adapter",
    "advisory_locks",
    "checkout_timeout",
    "collation",
    "database_tasks",
    "encoding",
    "idle_timeout",
    "insert_returning",
    "max_age",
    "max_connections",
    "migrations_paths",
    "min_connections",
    "min_messages",
    "pool",
    "prepared_statements",
    "query_cache",
    "reaping_frequency",
    "reconnect",
    "replica",
    "schema_cache_path",
    "schema_dump",
    "schema_search_path",
    "seeds",
    "statement_limit",
    "strict_loading",
    "template",
    "timeout",
    "url",
    "use_metadata_table",
    "variables",
    NULL,
};

static bool is_listed(const char *const *list, const char *name, size_t len)
{
    for (; *list; list++)
        if (strlen(*list) == len && memcmp(*list, name, len) == 0)
            return true;
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

static void scrub_query(const char *query, struct strbuf *out)
{
    for (const char *p = query;; p++) {
        struct parameter q = parameter_at(p);

        strbuf_add(out, p, (size_t) (q.value - p));
        if (config_is_secret_name(q.name, q.name_len) && q.value < q.end)
            strbuf_adds(out, HIDDEN);
        else
            strbuf_add(out, q.value, (size_t) (q.end - q.value));
        p = q.end;
        if (*p != '&') {
            strbuf_adds(out, p);
            return;
        }
        strbuf_addc(out, '&');
    }
}

void config_url_scrub(const char *text, struct strbuf *out)
{
    const char *scheme = strstr(text, "://"), *authority = scheme ? scheme + 3 : text;
    /* The last '@' of all, since people forget to encode the '@', '/' or '?' of a password: better too much
     * hidden than too little. */
    const char *at = scheme ? strrchr(authority, '@') : NULL;
    const char *colon = at ? memchr(authority, ':', (size_t) (at - authority)) : NULL;
    const char *rest = colon ? at : text, *query = scheme ? url_query(colon ? at : authority) : NULL;

    if (colon) {
        strbuf_add(out, text, (size_t) (colon + 1 - text));
        strbuf_adds(out, HIDDEN);
    }
    if (!query) {
        strbuf_adds(out, rest);
        return;
    }
    strbuf_add(out, rest, (size_t) (query - rest));
    scrub_query(query, out);
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
            strbuf_adds(out, HIDDEN); /* what cannot be read may hold anything */
            return;
        }
        strbuf_add(out, pair.name, pair.name_len);
        strbuf_addc(out, '=');
        if (config_is_secret_name(pair.name, pair.name_len))
            strbuf_adds(out, HIDDEN);
        else
            strbuf_add(out, pair.value, (size_t) (pair.end - pair.value));
        if (*next)
            strbuf_addc(out, ' ');
        p = next;
    }
}

void config_conninfo_scrub(const char *conninfo, struct strbuf *out)
{
    if (is_postgres_url(conninfo))
        config_url_scrub(conninfo, out);
    else
        scrub_pairs(conninfo, out);
}

/* What an unquoted password spills over into must not be quoted. */
static bool is_quotable(const struct parameter *q)
{
    for (size_t i = 0; i < q->name_len; i++) {
        char c = q->name[i];

        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') && c != '_' &&
            c != '-')
            return false;
    }
    return true;
}

static bool check_name(const struct parameter *q, bool quotable, struct strbuf *why)
{
    CLEANUP(freep) char *name = NULL;

    if (is_listed(libpq_parameters, q->name, q->name_len))
        return true;
    if (!quotable || !is_quotable(q)) {
        strbuf_adds(why, "must not have a parameter that libpq does not know");
        return false;
    }
    name = xstrndup(q->name, q->name_len);
    strbuf_adds(why, "must not have the parameter ");
    config_add_quoted(why, name);
    strbuf_adds(why, is_listed(rails_parameters, q->name, q->name_len) ? ", which is Rails' own, not libpq's"
                                                                       : ", which libpq does not know");
    return false;
}

/* One port for all hosts or one for each, between commas; an empty one is the default. */
static bool check_ports(const char *s, size_t len, struct strbuf *why)
{
    const char *end = s + len;

    for (;; s++) {
        size_t n = strcspn(s, ",");

        n = MIN(n, (size_t) (end - s));
        if (n > 0 && !memchr(s, '%', n) && !config_is_port(s, n)) {
            strbuf_adds(why, "must have ports from 1 to 65535");
            return false;
        }
        s += n;
        if (s >= end)
            return true;
    }
}

/* user:password@host:port,[v6]:port/… */
static bool check_url_ports(const char *url, struct strbuf *why)
{
    const char *p = strstr(url, "://") + 3, *at = strpbrk(p, "@/");

    p = at && *at == '@' ? at + 1 : p;
    for (;; p++) {
        size_t bracket = *p == '[' ? strcspn(p, "]") : 0;
        const char *end;

        p += bracket + strcspn(p + bracket, ":,/?");
        end = p + strcspn(p, ",/?");
        if (*p == ':' && !check_ports(p + 1, (size_t) (end - p - 1), why)) {
            strbuf_adds(why, "; a password with \"/\" in a URL has %2F in its place");
            return false;
        }
        p = end;
        if (*p != ',')
            return true;
    }
}

static bool is_port_parameter(const struct parameter *q)
{
    return q->name_len == 4 && memcmp(q->name, "port", 4) == 0;
}

static bool check_url(const char *url, struct strbuf *why)
{
    const char *p = url_query(url);

    while (p && *p) {
        struct parameter q = parameter_at(p);

        if (q.end > p && !check_name(&q, true, why))
            return false;
        if (is_port_parameter(&q) && !check_ports(q.value, (size_t) (q.end - q.value), why))
            return false;
        p = *q.end == '&' ? q.end + 1 : NULL;
    }
    return check_url_ports(url, why);
}

static bool check_pairs(const char *conninfo, struct strbuf *why)
{
    const char *p = conninfo + strspn(conninfo, SPACE);
    bool after_secret = false;

    while (*p) {
        struct parameter pair;
        const char *next = next_pair(p, &pair);

        if (!next) {
            strbuf_adds(why,
                        "must be \"name=value\" pairs such as \"host=db dbname=anubis\", or a URL such as "
                        "\"postgres://user@host/anubis\"");
            return false;
        }
        if (!check_name(&pair, !after_secret, why))
            return false;
        bool quoted = *pair.value == '\'';
        if (is_port_parameter(&pair) &&
            !check_ports(pair.value + quoted, (size_t) (pair.end - pair.value) - 2 * quoted, why))
            return false;
        after_secret = config_is_secret_name(pair.name, pair.name_len);
        p = next;
    }
    return true;
}

bool config_check_conninfo(const char *value, struct strbuf *why)
{
    return is_postgres_url(value) ? check_url(value, why) : check_pairs(value, why);
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

        if (is_listed(rails_parameters, q.name, q.name_len)) {
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
