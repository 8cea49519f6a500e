/* Checks of strings that have a form of their own. Each refusal says in `why` which form is right.
 *
 * Main thread, at load only. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "config/config_internal.h"

/* Names such as "anubis.subscriptions.retried" must fit into the 249 bytes of a Kafka topic. */
#define TOPIC_PREFIX_MAX 200

#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

static bool only(const char *value, const char *allowed)
{
    return value[strspn(value, allowed)] == '\0';
}

static bool starts_with(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

static bool is_port(const char *s, size_t len)
{
    int64_t port;
    CLEANUP(freep) char *text = xstrndup(s, len);

    return only(text, DIGITS) && parse_i64(text, 1, 65535, &port) == 0;
}

/* host, host:port, [v6] or [v6]:port. */
static bool is_host_port(const char *s, size_t len, bool needs_port)
{
    const char *colon = memchr(s, ':', len), *host_end = colon;

    if (len > 0 && *s == '[') {
        size_t digits = strspn(s + 1, DIGITS "abcdefABCDEF:.");
        host_end = memchr(s, ']', len);
        /* A zone may follow: [fe80::1%eth0]. */
        if (!host_end++ || !strchr("]%", s[1 + digits]) || !memchr(s, ':', 1 + digits))
            return false;
        colon = host_end < s + len ? host_end : NULL;
        if (colon && *colon != ':')
            return false;
    }
    if (!colon)
        return len > 0 && !needs_port && !memchr(s, ' ', len);
    return host_end > s && !memchr(s, ' ', len) && is_port(colon + 1, (size_t) (s + len - colon - 1));
}

/* Adds the form that is right when the value has another. */
static bool expect(bool good, const char *form, struct strbuf *why)
{
    if (!good)
        strbuf_adds(why, form);
    return good;
}

bool config_check_not_empty(const char *value, struct strbuf *why)
{
    return expect(*value, "must not be empty", why);
}

bool config_check_instance(const char *value, struct strbuf *why)
{
    return expect(only(value, LOWER UPPER DIGITS "._-") && strlen(value) <= 200,
                  "must be at most 200 letters, digits, \".\", \"_\" and \"-\", as names of hosts are", why);
}

/* Only names that need no quotes: an application and a psql session then find the same schema. */
bool config_check_schema(const char *value, struct strbuf *why)
{
    bool ours = !starts_with(value, "pg_") && strcmp(value, "information_schema") != 0;
    bool good = *value && only(value, LOWER DIGITS "_") && !strchr(DIGITS, *value) && strlen(value) <= 63;

    return expect(ours, "must not name one of Postgres's own schemas", why) &&
           expect(good,
                  "must be 1 to 63 lower-case letters, digits and underscores, not starting with a digit",
                  why);
}

/* scheme://[userinfo@]host[:port][/…] */
static bool is_url(const char *value, const char *const *schemes)
{
    for (; *schemes; schemes++) {
        const char *authority = value + strlen(*schemes), *at;
        size_t len;

        if (!starts_with(value, *schemes))
            continue;
        len = strcspn(authority, "/?#");
        at = memrchr(authority, '@', len);
        if (at) {
            len -= (size_t) (at + 1 - authority);
            authority = at + 1;
        }
        return !strpbrk(value, " \"<>\\^`{|}") && is_host_port(authority, len, false);
    }
    return false;
}

/* As http_route.c takes it: a name that is not in ASCII is to be in its xn-- form. */
static bool is_http_url(const char *value)
{
    static const char *const schemes[] = {"https://", "http://", NULL};

    if (!is_url(value, schemes))
        return false;
    value = strstr(value, "://") + 3;
    for (size_t i = strcspn(value, "/?#"); i-- > 0;)
        if ((unsigned char) value[i] >= 0x80)
            return false;
    return true;
}

bool config_check_http_url(const char *value, struct strbuf *why)
{
    return expect(!*value || is_http_url(value),
                  "must be a URL such as \"https://host/path\", or \"\" for none", why);
}

/* A path is added to each. */
bool config_check_http_urls(const char *value, struct strbuf *why)
{
    CLEANUP(freep) char *copy = xstrdup(value);
    char *rest = copy, *url;
    bool right = true;

    while (*value && right && (url = strsep(&rest, " ")))
        right = is_http_url(url) && !strpbrk(url, "?#");
    return expect(right, "must be a list of URLs such as ( \"http://host:9093\" ), without ? and #", why);
}

bool config_check_proxy(const char *value, struct strbuf *why)
{
    static const char *const schemes[] = {"http://", "socks5://", "socks5h://", NULL};

    return expect(!*value || is_url(value, schemes),
                  "must be a URL such as \"http://proxy:3128\" (or socks5, socks5h), or \"\" for none", why);
}

bool config_check_ca_file(const char *value, struct strbuf *why)
{
    if (!*value)
        return true;
    if (!expect(*value == '/', "must be an absolute path, or \"\" for the system's certificates", why))
        return false;
    if (access(value, R_OK) < 0) {
        strbuf_addf(why, "must name a file that can be read: %s", strerror(errno));
        return false;
    }
    return true;
}

/* The word before "://" must be a protocol of Kafka: librdkafka ignores items with another one. */
static bool is_kafka_protocol(const char *s, size_t len)
{
    static const char *const protocols[] = {"plaintext", "ssl", "sasl_plaintext", "sasl_ssl"};

    for (size_t i = 0; i < ARRAY_SIZE(protocols); i++)
        if (strlen(protocols[i]) == len && strncasecmp(s, protocols[i], len) == 0)
            return true;
    return false;
}

/* A comma-separated list of host:port, each perhaps with a protocol in front (librdkafka: bootstrap.servers).
 */
bool config_check_brokers(const char *value, struct strbuf *why)
{
    const char *p = value;

    for (;;) {
        size_t len = strcspn(p, ",");
        const char *item = p + strspn(p, " "), *item_end = p + len, *scheme;

        while (item_end > item && item_end[-1] == ' ')
            item_end--;
        scheme = item < item_end ? memmem(item, (size_t) (item_end - item), "://", 3) : NULL;
        bool protocol = !scheme || is_kafka_protocol(item, (size_t) (scheme - item));
        if (scheme)
            item = scheme + 3;
        bool good = protocol && item < item_end && is_host_port(item, (size_t) (item_end - item), false);
        if (!expect(good, "must be a list such as \"kafka1:9092,kafka2:9092\"", why))
            return false;
        if (p[len] == '\0')
            return true;
        p += len + 1;
    }
}

bool config_check_topic_prefix(const char *value, struct strbuf *why)
{
    if (only(value, LOWER UPPER DIGITS "._-") && strlen(value) <= TOPIC_PREFIX_MAX)
        return true;
    strbuf_addf(why, "must be at most %d letters, digits, \".\", \"_\" and \"-\", as Kafka's topic names are",
                TOPIC_PREFIX_MAX);
    return false;
}

bool config_check_address(const char *value, struct strbuf *why)
{
    return expect(!*value || is_host_port(value, strlen(value), true),
                  "must be \"host:port\" or \"[address]:port\", or \"\" for none", why);
}

bool config_check_metric_prefix(const char *value, struct strbuf *why)
{
    return expect(*value && only(value, LOWER UPPER DIGITS "._-"),
                  "must be letters, digits, \".\", \"_\" and \"-\"", why);
}
