/* Connection strings. See pg_conninfo.h. */
#include "pg/pg_conninfo.h"

#include <ctype.h>
#include <libpq-fe.h>
#include <string.h>

static bool has_secret_before(const char *from, const char *to)
{
    static const char *const parts[] = {"pass", "secret", "token"};
    CLEANUP(freep) char *before = xstrndup(from, (size_t) (to - from));

    for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
        if (strcasestr(before, parts[i]))
            return true;
    return false;
}

/* A word may be the rest of a password that lacks its quotes or its %-encoding. Only a word in the place of a
 * parameter's name is shown, and only when no password may have spilt over into that place. */
static bool is_parameter(const char *conninfo, const char *word)
{
    const char *at = strstr(conninfo, "://") ? strrchr(conninfo, '@') : NULL, *from = at ? at : conninfo;
    size_t len = strlen(word);

    for (const char *p = from; len > 0 && (p = strstr(p, word)); p += len) {
        const char *end = p + len + strspn(p + len, " \t\n\r\f\v");
        bool begins = p == conninfo || isspace((unsigned char) p[-1]) || strchr("?&", p[-1]);

        if (begins && *end == '=')
            return !has_secret_before(from, p);
    }
    return false;
}

/* libpq's messages quote what is wrong, which may be the whole string. The words before the first quote are
 * libpq's own; a quoted "=" is too. */
static void add_message(const char *conninfo, const char *message, struct strbuf *out)
{
    static const char word_letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    const char *quote = message + strcspn(message, "\"\n");
    CLEANUP(freep) char *word = NULL;

    if (strncmp(quote, "\"=\"", 3) == 0)
        quote += 3 + strcspn(quote + 3, "\"\n");
    strbuf_add(out, message, (size_t) (quote - message));
    if (*quote != '"')
        return;
    word = xstrndup(quote + 1, strspn(quote + 1, word_letters));
    strbuf_addf(out, "\"%s\"", is_parameter(conninfo, word) ? word : "***");
}

/* One port for all hosts, or one for each between commas; an empty one is the default. */
static bool are_ports(const char *ports)
{
    for (const char *p = ports;; p++) {
        size_t len = strcspn(p, ",");
        CLEANUP(freep) char *text = xstrndup(p, len);
        int64_t port;

        if (len > 0 && (strspn(text, "0123456789") != len || parse_i64(text, 1, 65535, &port) < 0))
            return false;
        p += len;
        if (*p == '\0')
            return true;
    }
}

static bool check_ports(const char *conninfo, const PQconninfoOption *options, struct strbuf *why)
{
    for (const PQconninfoOption *o = options; o->keyword; o++) {
        if (strcmp(o->keyword, "port") != 0 || !o->val || are_ports(o->val))
            continue;
        strbuf_adds(why, "must have ports from 1 to 65535");
        if (strstr(conninfo, "://") && !strstr(conninfo, "port="))
            strbuf_adds(why, "; a password with \"/\" in a URL has %2F in its place");
        return false;
    }
    return true;
}

/* libpq takes all behind the first "@" for the host. */
static bool check_hosts(const char *conninfo, const PQconninfoOption *options, struct strbuf *why)
{
    for (const PQconninfoOption *o = options; o->keyword; o++) {
        if (strcmp(o->keyword, "host") != 0 || !o->val || !strstr(conninfo, "://") || !strchr(o->val, '@'))
            continue;
        strbuf_adds(why,
                    "must have hosts without \"@\"; a password with \"@\" in a URL has %40 in its place");
        return false;
    }
    return true;
}

bool pg_conninfo_check(const char *conninfo, struct strbuf *why)
{
    char *message = NULL;
    PQconninfoOption *options = PQconninfoParse(conninfo, &message);
    bool good = options && check_ports(conninfo, options, why) && check_hosts(conninfo, options, why);

    if (!options) {
        strbuf_adds(why, "must be \"name=value\" pairs such as \"host=db dbname=anubis\", or a URL such as "
                         "\"postgres://user@host/anubis\"; libpq reports: ");
        add_message(conninfo, message ? message : "out of memory", why);
    }
    PQfreemem(message);
    PQconninfoFree(options);
    return good;
}

char *pg_conninfo_printable(const char *conninfo)
{
    CLEANUP(strbuf_free) struct strbuf sb = STRBUF_INIT(4096);
    PQconninfoOption *options = PQconninfoParse(conninfo, NULL);

    for (PQconninfoOption *o = options; o && o->keyword; o++)
        if (o->val && *o->val && !strchr(o->dispchar, '*'))
            strbuf_addf(&sb, "%s%s=%s", sb.len ? " " : "", o->keyword, o->val);
    PQconninfoFree(options);
    return xstrdup(strbuf_str(&sb));
}

bool pg_conninfo_has_hosts(const char *conninfo)
{
    PQconninfoOption *options = PQconninfoParse(conninfo, NULL);
    bool found = false;

    for (PQconninfoOption *o = options; o && o->keyword && !found; o++)
        found = o->val && strncmp(o->keyword, "host", 4) == 0 && strchr(o->val, ',');
    PQconninfoFree(options);
    return found;
}
