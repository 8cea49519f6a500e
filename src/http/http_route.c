/* Routes and origins. See http_route.h. */
#include "http/http_route.h"

#include <curl/curl.h>
#include <string.h>
#include <strings.h>

#include "base/timeutil.h"

#define URL_MAX 8000
#define BUCKETS 1024
#define ROUTES_MAX 16384
#define HEAD_MAX ((size_t) 64 * 1024)
#define HOST_LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

struct http_routes {
    struct http_route *buckets[BUCKETS];
    size_t count;
    struct http_origin_list origins;
};

/* --- reading a URL ---------------------------------------------------------------------------- */

static void url_handle_freep(CURLU **u)
{
    curl_url_cleanup(*u);
}

static void curl_string_freep(char **s)
{
    curl_free(*s);
}

static const char *set_problem(CURLU *u, const char *url)
{
    size_t len = url ? strnlen(url, URL_MAX + 1) : 0;

    if (len == 0)
        return "the URL is empty";
    if (len > URL_MAX)
        return "the URL is longer than 8000 bytes";
    for (size_t i = 0; i < len; i++)
        if ((unsigned char) url[i] <= ' ' || url[i] == 0x7f)
            return "the URL holds a space or a control character";
    CURLUcode code = curl_url_set(u, CURLUPART_URL, url, CURLU_DISALLOW_USER | CURLU_NON_SUPPORT_SCHEME);
    if (code == CURLUE_USER_NOT_ALLOWED)
        return "the URL holds a user name or password";
    return code == CURLUE_OK ? NULL : curl_url_strerror(code);
}

static const char *scheme_problem(CURLU *u, bool allow_http, bool *ret_tls)
{
    CLEANUP(curl_string_freep) char *scheme = NULL;

    if (curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK)
        return "the URL has no scheme";
    *ret_tls = strcasecmp(scheme, "https") == 0;
    if (!*ret_tls && strcasecmp(scheme, "http") != 0)
        return "the URL's scheme is neither https nor http";
    return *ret_tls || allow_http ? NULL : "plain http is not allowed (delivery.allow_http)";
}

/* A name of labels (RFC 1123, and the underscore of everyday use), with or without the root's dot; or
 * numeric. The trigger on integrations refuses the same when it is written. */
static const char *host_problem(const char *host)
{
    size_t len = strlen(host), label = 0;

    if (host[0] == '[')
        return NULL; /* libcurl has read the address */
    for (const char *p = host; *p; p++) {
        if ((unsigned char) *p >= 0x80)
            return "the host's name is not in ASCII: it is to be written in its xn-- form";
        if (*p != '.' && !strchr(HOST_LETTERS, *p))
            return "the host's name holds a character that no name has";
        label = *p == '.' ? 0 : label + 1;
        if (label > 63 || (*p == '.' && (p == host || p[-1] == '.')))
            return "a part of the host's name is empty or longer than 63 characters";
    }
    return len - (host[len - 1] == '.') > 253 ? "the host's name is longer than 253 characters" : NULL;
}

/* Bytes beyond ASCII are sent percent-encoded (RFC 3986, 2.5). */
static void add_encoded(struct strbuf *sb, const char *text)
{
    for (; *text; text++)
        if ((unsigned char) *text >= 0x80)
            strbuf_addf(sb, "%%%02X", (unsigned char) *text);
        else
            strbuf_addc(sb, *text);
}

/* --- origins ---------------------------------------------------------------------------------- */

/* The root's dot is for the resolver; neither servers nor certificates know it. */
static size_t len_without_dot(const char *host)
{
    size_t len = strlen(host);

    return len > 1 && host[len - 1] == '.' ? len - 1 : len;
}

static struct http_origin *origin_use(struct http_routes *all, bool tls, const char *host, uint16_t port)
{
    struct http_origin *o;

    LIST_FOREACH(o, &all->origins, link)
    if (o->tls == tls && o->port == port && strcasecmp(o->host, host) == 0) {
        o->users++;
        return o;
    }
    size_t len = len_without_dot(host);
    o = xcalloc(1, sizeof(*o));
    o->tls = tls;
    o->host = xstrdup(host);
    o->peer = host[0] == '[' && len > 2 ? xstrndup(host + 1, len - 2) : xstrndup(host, len);
    o->port = port;
    o->users = 1;
    o->kept_usec = HTTP_IDLE_MAX_USEC;
    o->proven_usec = HTTP_IDLE_FREE_USEC;
    TAILQ_INIT(&o->idle);
    LIST_INSERT_HEAD(&all->origins, o, link);
    return o;
}

void http_origin_done(struct http_origin *o)
{
    if (--o->users > 0)
        return;
    if (!o->forgotten)
        LIST_REMOVE(o, link);
    http_tls_session_free(&o->session);
    free(o->host);
    free(o->peer);
    free(o);
}

/* --- the head of a request -------------------------------------------------------------------- */

/* False for what could smuggle in another header or end them. */
static bool header_is_clean(const char *text, size_t len)
{
    bool clean = true;

    for (size_t i = 0; i < len; i++)
        clean &= (unsigned char) text[i] >= ' ' || text[i] == '\t';
    return clean;
}

const char *http_route_write_head(const struct http_route *route, const struct http_request *request,
                                  struct strbuf *out)
{
    size_t begin = 0;

    strbuf_clear(out);
    bool has_agent = false, has_accept = false;
    if (!request->body) {
        strbuf_adds(out, "GET");
        begin = strlen("POST");
    }
    strbuf_add(out, route->head.data + begin, route->head.len - begin);
    for (const char *const *headers = request->headers; headers && *headers; headers++) {
        size_t len = strlen(*headers);
        if (!header_is_clean(*headers, len))
            return "a request header holds a control character";
        has_agent |= strncasecmp(*headers, "User-Agent:", 11) == 0;
        has_accept |= strncasecmp(*headers, "Accept:", 7) == 0;
        strbuf_add(out, *headers, len);
        strbuf_add(out, "\r\n", 2);
    }
    if (!has_agent)
        strbuf_adds(out, route->user_agent);
    if (!has_accept)
        strbuf_adds(out, "Accept: */*\r\n");
    if (request->body) {
        strbuf_adds(out, "Content-Length: ");
        strbuf_add_i64(out, (int64_t) request->body_len);
        strbuf_adds(out, "\r\n");
    }
    strbuf_adds(out, "\r\n");
    return out->overflowed ? "the request's headers are too long" : NULL;
}

/* --- routes ----------------------------------------------------------------------------------- */

static size_t bucket_of(const char *url)
{
    uint32_t hash = 2166136261U; /* FNV-1a */

    for (; *url; url++)
        hash = (hash ^ (unsigned char) *url) * 16777619U;
    return hash % BUCKETS;
}

void http_route_done(struct http_route *route)
{
    if (--route->users > 0)
        return;
    http_origin_done(route->origin);
    strbuf_free(&route->head);
    free(route->user_agent);
    free(route->url);
    free(route);
}

void http_routes_forget(struct http_routes *all)
{
    for (size_t i = 0; i < BUCKETS; i++)
        while (all->buckets[i]) {
            struct http_route *route = all->buckets[i];
            all->buckets[i] = route->next;
            http_route_done(route);
        }
    all->count = 0;
    while (!LIST_EMPTY(&all->origins)) {
        struct http_origin *o = LIST_FIRST(&all->origins);
        LIST_REMOVE(o, link);
        o->forgotten = true;
    }
}

static void add_head(struct strbuf *sb, CURLU *u, const char *host)
{
    CLEANUP(curl_string_freep) char *path = NULL;
    CLEANUP(curl_string_freep) char *query = NULL;
    CLEANUP(curl_string_freep) char *port = NULL;

    curl_url_get(u, CURLUPART_PATH, &path, 0);
    curl_url_get(u, CURLUPART_QUERY, &query, 0);
    curl_url_get(u, CURLUPART_PORT, &port, CURLU_NO_DEFAULT_PORT);
    strbuf_adds(sb, "POST ");
    add_encoded(sb, path ? path : "/");
    if (query) {
        strbuf_addc(sb, '?');
        add_encoded(sb, query);
    }
    strbuf_addf(sb,
                " HTTP/1.1\r\nHost: %.*s%s%s\r\n"
                "Accept-Encoding: identity\r\n", /* without it servers may pack what they like */
                (int) len_without_dot(host), host, port ? ":" : "", port ? port : "");
}

static struct http_route *route_new(struct http_routes *all, const struct http_params *params,
                                    const char *url, const char **ret_problem)
{
    CLEANUP(url_handle_freep) CURLU *u = curl_url();
    CLEANUP(curl_string_freep) char *host = NULL;
    CLEANUP(curl_string_freep) char *port = NULL;
    int64_t number = 0;
    bool tls = false;

    if (!u)
        abort(); /* out of memory */
    *ret_problem = set_problem(u, url);
    if (!*ret_problem)
        *ret_problem = scheme_problem(u, params->allow_http, &tls);
    if (*ret_problem)
        return NULL;
    if (curl_url_get(u, CURLUPART_HOST, &host, 0) != CURLUE_OK || !*host ||
        curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) != CURLUE_OK ||
        parse_i64(port, 1, 65535, &number) < 0) {
        *ret_problem = "the URL has no host, or no valid port";
        return NULL;
    }
    *ret_problem = host_problem(host);
    if (*ret_problem)
        return NULL;
    struct http_route *route = xcalloc(1, sizeof(*route));
    route->url = xstrdup(url);
    route->head = STRBUF_INIT(HEAD_MAX);
    add_head(&route->head, u, host);
    route->user_agent = xasprintf("User-Agent: %s\r\n", params->user_agent);
    route->origin = origin_use(all, tls, host, (uint16_t) number);
    return route;
}

struct http_route *http_routes_find(const struct http_routes *all, const char *url)
{
    struct http_route *route = url ? all->buckets[bucket_of(url)] : NULL;

    while (route && strcmp(route->url, url) != 0)
        route = route->next;
    return route;
}

struct http_route *http_routes_use(struct http_routes *all, const struct http_params *params, const char *url,
                                   const char **ret_problem)
{
    struct http_route *route = http_routes_find(all, url);

    if (!route) {
        if (all->count >= ROUTES_MAX)
            http_routes_forget(all);
        route = route_new(all, params, url, ret_problem);
        if (!route)
            return NULL;
        size_t bucket = bucket_of(url);
        route->next = all->buckets[bucket];
        route->users = 1;
        all->buckets[bucket] = route;
        all->count++;
    }
    route->users++;
    return route;
}

struct http_routes *http_routes_new(void)
{
    return xcalloc(1, sizeof(struct http_routes));
}

void http_routes_free(struct http_routes *all)
{
    if (!all)
        return;
    http_routes_forget(all);
    free(all);
}
