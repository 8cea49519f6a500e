/* One POST on one libcurl easy handle.
 *
 * Owns the handle, the request's headers and the answer; main thread only. libcurl's callbacks run in here:
 * they must not block, nor call a function of the multi handle.
 *
 * A POST must not be sent twice unseen, but libcurl repeats one by itself when a reused connection was closed
 * without an answer, even if the server had read it all. The pre-request callback comes before every sending,
 * so it lets the first pass and refuses the next. That also makes it the moment from which an attempt without
 * an answer is ambiguous; libcurl sends headers and body in the same breath (for a small body in the same
 * system call, which giving the body through a read callback would cost). */
#include "http/http_transfer.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/timeutil.h"
#include "http/http_address.h"
#include "http/http_retry_after.h"

#define URL_MAX 8000
#define REQUEST_HEADERS_MAX ((size_t) 256 * 1024)
/* All header lines of an answer together, interim answers included. */
#define RESPONSE_HEADERS_MAX ((size_t) 256 * 1024)
/* Read beyond the limit for the sake of the connection, which is lost when a body is broken off. */
#define BODY_EXCESS_MAX ((size_t) 64 * 1024)
/* Kept between requests; what a single large answer took is given back. */
#define BODY_KEPT_MAX ((size_t) 8 * 1024)

/* What never changes. No Accept-Encoding: an answer that was not asked to be compressed is kept as it comes,
 * so there is no bomb to unpack. */
static const struct {
    CURLoption option;
    long value;
} fixed_options[] = {
    {CURLOPT_NOSIGNAL, 1},
    {CURLOPT_POST, 1},
    {CURLOPT_FOLLOWLOCATION, 0},
    {CURLOPT_HTTP09_ALLOWED, 0},
    {CURLOPT_DISALLOW_USERNAME_IN_URL, 1},
    {CURLOPT_SUPPRESS_CONNECT_HEADERS, 1},
    {CURLOPT_SSL_VERIFYPEER, 1},
    {CURLOPT_SSL_VERIFYHOST, 2},
    {CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2},
    {CURLOPT_TCP_NODELAY, 1},
    {CURLOPT_TCP_KEEPALIVE, 1}, /* a peer that vanished is noticed while the connection is idle */
    {CURLOPT_TCP_KEEPIDLE, 30},
    {CURLOPT_TCP_KEEPINTVL, 10},
    {CURLOPT_MAXLIFETIME_CONN, 300}, /* so that changes in the DNS are followed */
    {CURLOPT_UPLOAD_BUFFERSIZE, 16384},
};

/* Not in every libcurl: what they give is wished for, not relied on. Without QUICK_EXIT (before 7.87) the end
 * of a transfer waits for the resolver, at worst for as long as resolv.conf(5) lets it try. */
static const struct {
    CURLoption option;
    long value;
} optional_options[] = {
    {CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_2TLS},
#if LIBCURL_VERSION_NUM >= 0x075700
    {CURLOPT_QUICK_EXIT, 1},
#endif
};

static bool address_check_wanted(const struct http_context *context)
{
    /* Through a proxy the address is the proxy's, which guards the targets itself. */
    return !context->params.allow_private_networks && !context->params.proxy[0];
}

static curl_socket_t on_open_socket(void *userdata, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct http_transfer *t = userdata;
    int fd;

    (void) purpose;
    if (t->handed_over) { /* a connection for sending it again */
        t->repeat_refused = true;
        return CURL_SOCKET_BAD;
    }
    if (address_check_wanted(t->context) && !http_address_is_public(&address->addr, address->addrlen)) {
        t->address_refused = true;
        return CURL_SOCKET_BAD;
    }
    fd = socket(address->family, address->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, address->protocol);
    if (fd < 0) {
        if (errno != EAFNOSUPPORT) /* no IPv6 here: the next address may do */
            t->local_errno = errno;
        return CURL_SOCKET_BAD;
    }
    t->socket_opened = true;
    http_sockets_opened(t->context->sockets, fd);
    return fd;
}

static int on_close_socket(void *userdata, curl_socket_t fd)
{
    struct http_context *context = userdata;

    http_sockets_closed(context->sockets, fd);
    return close(fd);
}

/* The address is looked at again because the connection may be an older one, of a time with other rules. */
static int on_request(void *userdata, char *address, char *local_address, int port, int local_port)
{
    struct http_transfer *t = userdata;

    (void) local_address, (void) port, (void) local_port;
    if (t->handed_over) {
        t->repeat_refused = true;
        return CURL_PREREQFUNC_ABORT;
    }
    if (address_check_wanted(t->context) && !http_address_text_is_public(address)) {
        t->address_refused = true;
        return CURL_PREREQFUNC_ABORT;
    }
    t->handed_over = true;
    return CURL_PREREQFUNC_OK;
}

static bool starts_with(const char *line, size_t len, const char *prefix)
{
    size_t prefix_len = strlen(prefix);

    return len >= prefix_len && strncasecmp(line, prefix, prefix_len) == 0;
}

static size_t on_header(char *line, size_t size, size_t count, void *userdata)
{
    static const char retry_after[] = "Retry-After:";
    struct http_transfer *t = userdata;
    size_t len = size * count, name_len = sizeof(retry_after) - 1;

    t->header_bytes += len;
    if (t->header_bytes > RESPONSE_HEADERS_MAX)
        return 0;
    if (t->body_started) /* trailers say nothing to us */
        return len;
    t->headers_ended = len <= 2;         /* the empty line */
    if (starts_with(line, len, "HTTP/")) /* another answer after an interim one */
        t->has_retry_after = false;
    else if (starts_with(line, len, retry_after))
        t->has_retry_after = http_parse_retry_after(line + name_len, len - name_len, now_realtime_usec(),
                                                    &t->retry_after_sec) == 0;
    return len;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *userdata)
{
    struct http_transfer *t = userdata;
    size_t len = size * count, kept = MIN(len, t->body.max - t->body.len);

    t->body_started = true;
    strbuf_add(&t->body, bytes, kept);
    t->body_excess += len - kept;
    return t->body_excess > BODY_EXCESS_MAX ? 0 : len;
}

#define SET(easy, code, option, value)                                                                       \
    ((code) = (code) != CURLE_OK ? (code) : curl_easy_setopt((easy), (option), (value)))

static CURLcode set_callbacks(struct http_transfer *t)
{
    CURLcode code = CURLE_OK;

    SET(t->easy, code, CURLOPT_PRIVATE, t);
    SET(t->easy, code, CURLOPT_ERRORBUFFER, t->curl_error);
    SET(t->easy, code, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    SET(t->easy, code, CURLOPT_OPENSOCKETDATA, t);
    SET(t->easy, code, CURLOPT_CLOSESOCKETFUNCTION, on_close_socket);
    SET(t->easy, code, CURLOPT_CLOSESOCKETDATA, t->context); /* a connection outlives its transfers */
    SET(t->easy, code, CURLOPT_PREREQFUNCTION, on_request);
    SET(t->easy, code, CURLOPT_PREREQDATA, t);
    SET(t->easy, code, CURLOPT_HEADERFUNCTION, on_header);
    SET(t->easy, code, CURLOPT_HEADERDATA, t);
    SET(t->easy, code, CURLOPT_WRITEFUNCTION, on_body);
    SET(t->easy, code, CURLOPT_WRITEDATA, t);
    return code;
}

static CURLcode set_params(struct http_transfer *t, const struct http_params *params)
{
    CURLcode code = CURLE_OK;

    SET(t->easy, code, CURLOPT_CONNECTTIMEOUT_MS,
        (long) MAX(params->connect_timeout_usec / USEC_PER_MSEC, 1));
    SET(t->easy, code, CURLOPT_PROXY, params->proxy); /* always, or the environment's is used */
    SET(t->easy, code, CURLOPT_NOPROXY, "");
    SET(t->easy, code, CURLOPT_USERAGENT, params->user_agent);
    if (params->ca_file[0])
        SET(t->easy, code, CURLOPT_CAINFO, params->ca_file);
#if LIBCURL_VERSION_NUM >= 0x075500
    SET(t->easy, code, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    SET(t->easy, code, CURLOPT_PROTOCOLS, (long) (CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
    return code;
}

/* Sets the handle up from nothing; its connections and caches are the multi handle's and stay. */
static CURLcode configure(struct http_transfer *t)
{
    CURLcode code = CURLE_OK;

    curl_easy_reset(t->easy);
    free(t->url);
    t->url = NULL;
    t->timeout_ms = 0;
    for (size_t i = 0; i < ARRAY_SIZE(fixed_options); i++)
        SET(t->easy, code, fixed_options[i].option, fixed_options[i].value);
    for (size_t i = 0; i < ARRAY_SIZE(optional_options); i++)
        curl_easy_setopt(t->easy, optional_options[i].option, optional_options[i].value);
    if (code == CURLE_OK)
        code = set_callbacks(t);
    if (code == CURLE_OK)
        code = set_params(t, &t->context->params);
    t->configured = code == CURLE_OK;
    t->generation = t->context->generation;
    return code;
}

static void url_handle_freep(CURLU **u)
{
    curl_url_cleanup(*u);
}

static void curl_string_freep(char **s)
{
    curl_free(*s);
}

/* NULL, or what is wrong with the URL, without a word of the URL itself. */
static const char *url_problem(const char *url, bool allow_http)
{
    CLEANUP(url_handle_freep) CURLU *u = NULL;
    CLEANUP(curl_string_freep) char *scheme = NULL;
    size_t len = url ? strnlen(url, URL_MAX + 1) : 0;
    CURLUcode code;

    if (len == 0)
        return "the URL is empty";
    if (len > URL_MAX)
        return "the URL is longer than 8000 bytes";
    for (size_t i = 0; i < len; i++)
        if ((unsigned char) url[i] <= ' ' || url[i] == 0x7f)
            return "the URL holds a space or a control character";
    u = curl_url();
    if (!u)
        return "out of memory";
    code = curl_url_set(u, CURLUPART_URL, url, CURLU_DISALLOW_USER | CURLU_NON_SUPPORT_SCHEME);
    if (code == CURLUE_USER_NOT_ALLOWED)
        return "the URL holds a user name or password";
    if (code != CURLUE_OK)
        return curl_url_strerror(code);
    if (curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK)
        return "the URL has no scheme";
    if (strcasecmp(scheme, "https") != 0 && strcasecmp(scheme, "http") != 0)
        return "the URL's scheme is neither https nor http";
    if (strcasecmp(scheme, "http") == 0 && !allow_http)
        return "plain http is not allowed";
    return NULL;
}

static const char *set_url(struct http_transfer *t, const char *url)
{
    const char *problem;

    if (t->url && url && strcmp(t->url, url) == 0)
        return NULL;
    problem = url_problem(url, t->context->params.allow_http);
    if (problem)
        return problem;
    free(t->url);
    t->url = xstrdup(url);
    return curl_easy_setopt(t->easy, CURLOPT_URL, url) == CURLE_OK ? NULL : "libcurl does not take the URL";
}

/* False for what could smuggle in another header or end them. */
static bool header_is_clean(const char *text, size_t len)
{
    bool clean = true;

    for (size_t i = 0; i < len; i++)
        clean &= (unsigned char) text[i] >= ' ' || text[i] == '\t';
    return clean;
}

/* Copies the headers into one buffer and links them as libcurl wants them, without an allocation a header. */
static const char *set_headers(struct http_transfer *t, const char *const *headers)
{
    static const char no_expect[] = "Expect:"; /* else a large body waits a second for "100 Continue" */
    size_t count = 0, total = sizeof(no_expect);
    char *to;

    for (; headers && headers[count]; count++)
        total += strlen(headers[count]) + 1;
    if (count + 1 > t->headers_capacity) {
        t->headers_capacity = count + 1;
        t->headers = xreallocarray(t->headers, t->headers_capacity, sizeof(*t->headers));
    }
    strbuf_clear(&t->header_text);
    to = strbuf_reserve(&t->header_text, total);
    if (!to)
        return "the request's headers are too long";
    for (size_t i = 0; i <= count; i++) {
        const char *text = i < count ? headers[i] : no_expect;
        size_t len = strlen(text);

        if (!header_is_clean(text, len))
            return "a request header holds a control character";
        memcpy(to, text, len + 1);
        t->headers[i] = (struct curl_slist){to, i < count ? &t->headers[i + 1] : NULL};
        to += len + 1;
    }
    return curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers) == CURLE_OK
               ? NULL
               : "libcurl does not take the headers";
}

static CURLcode set_request(struct http_transfer *t, const struct http_request *request)
{
    long timeout_ms = (long) MIN(MAX(request->timeout_usec / USEC_PER_MSEC, 1), INT32_MAX);
    CURLcode code = CURLE_OK;

    if (timeout_ms != t->timeout_ms)
        SET(t->easy, code, CURLOPT_TIMEOUT_MS, timeout_ms);
    SET(t->easy, code, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) request->body_len);
    SET(t->easy, code, CURLOPT_POSTFIELDS, request->body_len > 0 ? request->body : ""); /* not copied */
    t->timeout_ms = timeout_ms;
    return code;
}

static void forget_last_request(struct http_transfer *t)
{
    t->finished = false;
    t->socket_opened = t->address_refused = t->handed_over = t->repeat_refused = false;
    t->local_errno = 0;
    t->header_bytes = t->body_excess = 0;
    t->headers_ended = t->body_started = t->has_retry_after = false;
    t->status = 0;
    t->truncated = false;
    t->detail = "";
    t->curl_error[0] = '\0';
    if (t->body.capacity > BODY_KEPT_MAX)
        strbuf_free(&t->body);
    strbuf_clear(&t->body);
    t->body.max = t->context->params.response_limit;
}

bool http_transfer_prepare(struct http_transfer *t, const struct http_request *request,
                           http_callback callback, void *userdata)
{
    const char *problem;
    CURLcode code = CURLE_OK;

    forget_last_request(t);
    t->callback = callback;
    t->userdata = userdata;
    t->started_usec = now_monotonic_usec();
    if (!t->configured || t->generation != t->context->generation)
        code = configure(t);
    if (code == CURLE_OK)
        code = set_request(t, request);
    if (code != CURLE_OK) {
        http_transfer_abandon(t, HTTP_INTERNAL, curl_easy_strerror(code));
        return false;
    }
    problem = set_url(t, request->url);
    if (!problem)
        problem = set_headers(t, request->headers);
    if (problem)
        http_transfer_abandon(t, HTTP_URL_INVALID, problem);
    return !problem;
}

/* Codes that name what stood in the way of the request; the others depend on how far it came. */
static const struct {
    CURLcode code;
    enum http_cause cause;
} causes[] = {
    {CURLE_COULDNT_RESOLVE_HOST, HTTP_DNS},
    {CURLE_COULDNT_RESOLVE_PROXY, HTTP_DNS},
    {CURLE_URL_MALFORMAT, HTTP_URL_INVALID},
    {CURLE_SSL_CONNECT_ERROR, HTTP_TLS},
    {CURLE_PEER_FAILED_VERIFICATION, HTTP_TLS},
    {CURLE_SSL_ENGINE_NOTFOUND, HTTP_TLS},
    {CURLE_SSL_ENGINE_SETFAILED, HTTP_TLS},
    {CURLE_SSL_CERTPROBLEM, HTTP_TLS},
    {CURLE_SSL_CIPHER, HTTP_TLS},
    {CURLE_USE_SSL_FAILED, HTTP_TLS},
    {CURLE_SSL_ENGINE_INITFAILED, HTTP_TLS},
    {CURLE_SSL_CACERT_BADFILE, HTTP_TLS},
    {CURLE_SSL_CRL_BADFILE, HTTP_TLS},
    {CURLE_SSL_ISSUER_ERROR, HTTP_TLS},
    {CURLE_SSL_PINNEDPUBKEYNOTMATCH, HTTP_TLS},
    {CURLE_SSL_INVALIDCERTSTATUS, HTTP_TLS},
    {CURLE_SSL_CLIENTCERT, HTTP_TLS},
};

/* Before the request was handed over these are our own fault. (Later they may be a server's: a header line
 * beyond all bounds is "out of memory" to some versions of libcurl.) */
static bool code_is_internal(CURLcode code)
{
    return code == CURLE_OUT_OF_MEMORY || code == CURLE_FAILED_INIT || code == CURLE_NOT_BUILT_IN ||
           code == CURLE_BAD_FUNCTION_ARGUMENT || code == CURLE_UNKNOWN_OPTION ||
           code == CURLE_UNSUPPORTED_PROTOCOL;
}

static enum http_cause cause_of(const struct http_transfer *t, CURLcode code)
{
    if (t->handed_over)
        return code == CURLE_OPERATION_TIMEDOUT ? HTTP_TIMEOUT : HTTP_CONNECTION_LOST;
    if (t->local_errno)
        return HTTP_INTERNAL;
    for (size_t i = 0; i < ARRAY_SIZE(causes); i++)
        if (causes[i].code == code)
            return causes[i].cause;
    if (t->address_refused && !t->socket_opened)
        return HTTP_ADDRESS_REFUSED;
    if (code_is_internal(code))
        return HTTP_INTERNAL;
    return code == CURLE_OPERATION_TIMEDOUT && !t->socket_opened ? HTTP_DNS : HTTP_CONNECT;
}

/* libcurl's words about the way to the server are worth having, and made fit for a log; what it says about
 * the answer might quote it. */
static const char *detail_of(struct http_transfer *t, CURLcode code)
{
    if (t->cause == HTTP_ADDRESS_REFUSED)
        return "the address lies in a network that is not allowed";
    if (t->cause == HTTP_INTERNAL && t->local_errno)
        return strerrordesc_np(t->local_errno);
    if (t->repeat_refused || (t->cause == HTTP_CONNECTION_LOST && code == CURLE_OK))
        return "the connection ended without an answer";
    if (t->cause == HTTP_CONNECTION_LOST || t->cause == HTTP_ANSWERED || !t->curl_error[0])
        return code == CURLE_OK ? "" : curl_easy_strerror(code);
    for (char *c = t->curl_error; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '?';
    return t->curl_error;
}

/* The status line decides, however the transfer ended. Interim answers (1xx) are none. */
static bool take_answer(struct http_transfer *t)
{
    long status = 0;

    if (t->handed_over) /* else it may be the last request's */
        curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status < 200)
        return false;
    t->cause = HTTP_ANSWERED;
    t->status = (int) status;
    return true;
}

static void finish(struct http_transfer *t)
{
    t->duration_usec = now_monotonic_usec() - t->started_usec;
    t->finished = true;
}

void http_transfer_conclude(struct http_transfer *t, CURLcode code)
{
    if (take_answer(t))
        t->truncated = code != CURLE_OK || t->body_excess > 0 || !t->headers_ended;
    else
        t->cause = cause_of(t, code);
    t->detail = detail_of(t, code);
    finish(t);
}

void http_transfer_abandon(struct http_transfer *t, enum http_cause cause, const char *detail)
{
    if (take_answer(t)) {
        t->truncated = true;
    } else {
        t->cause = cause;
        t->detail = detail;
    }
    finish(t);
}

struct http_result http_transfer_result(const struct http_transfer *t)
{
    return (struct http_result){
        .cause = t->cause,
        .status = t->status,
        .body_handed_over = t->handed_over,
        .body = strbuf_str(&t->body),
        .body_len = t->body.len,
        .truncated = t->truncated,
        .has_retry_after = t->has_retry_after && t->cause == HTTP_ANSWERED,
        .retry_after_sec = t->has_retry_after && t->cause == HTTP_ANSWERED ? t->retry_after_sec : 0,
        .duration_usec = t->duration_usec,
        .detail = t->detail,
    };
}

struct http_transfer *http_transfer_of(CURL *easy)
{
    char *t = NULL;

    curl_easy_getinfo(easy, CURLINFO_PRIVATE, &t);
    return (struct http_transfer *) (void *) t;
}

struct http_transfer *http_transfer_new(struct http_context *context)
{
    struct http_transfer *t = xcalloc(1, sizeof(*t));

    t->context = context;
    t->header_text = STRBUF_INIT(REQUEST_HEADERS_MAX);
    t->easy = curl_easy_init();
    if (!t->easy)
        abort(); /* out of memory */
    return t;
}

void http_transfer_free(struct http_transfer *t)
{
    if (!t)
        return;
    curl_easy_cleanup(t->easy);
    strbuf_free(&t->header_text);
    strbuf_free(&t->body);
    free(t->headers);
    free(t->url);
    free(t);
}
