/* Connections by libcurl. See http_connector.h. libcurl's callbacks only take note. */
#define CURL_DISABLE_DEPRECATION
#include "http/http_connector.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "base/timeutil.h"
#include "http/http_address.h"

/* libcurl gives an address up after a part of the time, and then waits to be called again without having set
 * a timer (7.88): so it is called now and then while it connects. */
#define LOOK_USEC (100 * USEC_PER_MSEC)

struct http_attempt {
    TAILQ_ENTRY(http_attempt) link;
    struct http_connector *connector;
    CURL *easy;
    bool check_address;
    bool socket_opened, address_refused;
    int local_errno; /* our own machine refused something */
    http_connected *callback;
    void *userdata;
    char error[CURL_ERROR_SIZE];
};
TAILQ_HEAD(attempt_list, http_attempt);

struct http_connector {
    struct http_sockets *sockets;
    CURLM *multi;
    struct attempt_list attempts;
    uint64_t deadline_usec; /* when libcurl wants to be called */
    uint64_t look_usec;     /* when it is called anyway */
};

/* --- libcurl's callbacks ---------------------------------------------------------------------- */

static int on_curl_timer(CURLM *multi, long timeout_ms, void *userdata)
{
    struct http_connector *c = userdata;

    (void) multi;
    c->deadline_usec =
        timeout_ms < 0 ? USEC_INFINITY : now_monotonic_usec() + (uint64_t) timeout_ms * USEC_PER_MSEC;
    if (timeout_ms == 0)
        http_sockets_wake(c->sockets);
    return 0;
}

static void on_socket(void *owner, int fd, uint32_t events)
{
    struct http_connector *c = owner;
    int running;

    curl_multi_socket_action(c->multi, fd,
                             (events & (EPOLLIN | EPOLLHUP) ? CURL_CSELECT_IN : 0) |
                                 (events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
                                 (events & EPOLLERR ? CURL_CSELECT_ERR : 0),
                             &running);
}

static int on_curl_socket(CURL *easy, curl_socket_t fd, int what, void *userdata, void *unused)
{
    static const uint32_t masks[] = {
        [CURL_POLL_IN] = EPOLLIN, [CURL_POLL_OUT] = EPOLLOUT, [CURL_POLL_INOUT] = EPOLLIN | EPOLLOUT};
    struct http_connector *c = userdata;
    struct http_attempt *a = NULL;

    (void) unused;
    if (what == CURL_POLL_NONE || what == CURL_POLL_REMOVE) {
        http_sockets_forget(c->sockets, fd);
        return 0;
    }
    int r = http_sockets_watch(c->sockets, fd, masks[what], on_socket, c);
    curl_easy_getinfo(easy, CURLINFO_PRIVATE, &a);
    if (r < 0 && a)
        a->local_errno = -r; /* runs into its timeout, and the blame is ours */
    return 0;
}

static curl_socket_t on_open_socket(void *userdata, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct http_attempt *a = userdata;

    (void) purpose;
    if (a->check_address && !http_address_is_public(&address->addr, address->addrlen)) {
        a->address_refused = true;
        return CURL_SOCKET_BAD;
    }
    int fd = socket(address->family, address->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, address->protocol);
    if (fd < 0) {
        if (errno != EAFNOSUPPORT) /* no IPv6 here: the next address may do */
            a->local_errno = errno;
        return CURL_SOCKET_BAD;
    }
    a->socket_opened = true;
    return fd;
}

static int on_close_socket(void *userdata, curl_socket_t fd)
{
    struct http_connector *c = userdata;

    http_sockets_forget(c->sockets, fd);
    return close(fd);
}

/* --- an attempt ------------------------------------------------------------------------------- */

static void set_options(struct http_attempt *a, const struct http_connect *wanted)
{
    CURL *easy = a->easy;
    char url[512];

    /* The port is open in clear text as far as libcurl is concerned; TLS is not its part. */
    snprintf(url, sizeof(url), "http://%s:%d/", wanted->host, wanted->port);
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, a);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, a->error);
    curl_easy_setopt(easy, CURLOPT_CONNECT_ONLY, 1L);
    curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L); /* a peer that vanished is noticed while idle */
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, 30L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, 10L);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long) MAX(wanted->timeout_usec / USEC_PER_MSEC, 1));
    curl_easy_setopt(easy, CURLOPT_PROXY, wanted->proxy); /* always, or the environment's is used */
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "");
    curl_easy_setopt(easy, CURLOPT_HTTPPROXYTUNNEL, 1L);
    curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, a);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, on_close_socket);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, a->connector);
#if LIBCURL_VERSION_NUM >= 0x075700
    /* Else the end of an attempt waits for the resolver, for as long as resolv.conf(5) lets it try. */
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
#endif
}

struct http_attempt *http_connector_start(struct http_connector *c, const struct http_connect *wanted,
                                          http_connected *callback, void *userdata)
{
    struct http_attempt *a = xcalloc(1, sizeof(*a));

    a->connector = c;
    a->check_address = wanted->check_address && !wanted->proxy[0];
    a->callback = callback;
    a->userdata = userdata;
    /* A handle of its own for each attempt: 7.88 mixes up what it keeps of two transfers of one handle. */
    a->easy = curl_easy_init();
    if (!a->easy)
        abort(); /* out of memory */
    set_options(a, wanted);
    if (TAILQ_EMPTY(&c->attempts))
        c->look_usec = now_monotonic_usec() + LOOK_USEC;
    TAILQ_INSERT_TAIL(&c->attempts, a, link);
    if (curl_multi_add_handle(c->multi, a->easy) != CURLM_OK)
        abort(); /* out of memory, or a fault of ours */
    return a;
}

static void attempt_free(struct http_attempt *a)
{
    TAILQ_REMOVE(&a->connector->attempts, a, link);
    curl_multi_remove_handle(a->connector->multi, a->easy);
    curl_easy_cleanup(a->easy);
    free(a);
}

enum http_cause http_attempt_cancel(struct http_attempt *a)
{
    enum http_cause cause = a->socket_opened ? HTTP_CONNECT : HTTP_DNS;

    attempt_free(a);
    return cause;
}

/* --- its end ---------------------------------------------------------------------------------- */

static enum http_cause cause_of(const struct http_attempt *a, CURLcode code)
{
    if (a->local_errno)
        return HTTP_INTERNAL;
    if (code == CURLE_COULDNT_RESOLVE_HOST || code == CURLE_COULDNT_RESOLVE_PROXY)
        return HTTP_DNS;
    if (code == CURLE_URL_MALFORMAT)
        return HTTP_URL_INVALID;
    if (a->address_refused && !a->socket_opened)
        return HTTP_ADDRESS_REFUSED;
    if (code == CURLE_OUT_OF_MEMORY || code == CURLE_FAILED_INIT || code == CURLE_BAD_FUNCTION_ARGUMENT)
        return HTTP_INTERNAL;
    return code == CURLE_OPERATION_TIMEDOUT && !a->socket_opened ? HTTP_DNS : HTTP_CONNECT;
}

static const char *detail_of(struct http_attempt *a, enum http_cause cause, CURLcode code)
{
    if (cause == HTTP_ADDRESS_REFUSED)
        return "the address lies in a network that is not allowed";
    if (a->local_errno)
        return strerrordesc_np(a->local_errno);
    if (!a->error[0])
        return curl_easy_strerror(code);
    for (char *p = a->error; *p; p++)
        if (*p < ' ' || *p > '~')
            *p = '?';
    return a->error;
}

/* libcurl closes its descriptor when it likes; the requester's is another one for the same socket. */
static void report(struct http_attempt *a, CURLcode code)
{
    http_connected *callback = a->callback;
    void *userdata = a->userdata;
    curl_socket_t fd = -1;

    if (code == CURLE_OK && curl_easy_getinfo(a->easy, CURLINFO_ACTIVESOCKET, &fd) == CURLE_OK && fd >= 0) {
        int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        a->local_errno = own < 0 ? errno : 0;
        if (own >= 0) {
            attempt_free(a);
            callback(userdata, own, HTTP_ANSWERED, "");
            return;
        }
    }
    char detail[CURL_ERROR_SIZE];
    enum http_cause cause = cause_of(a, code);
    snprintf(detail, sizeof(detail), "%s", detail_of(a, cause, code));
    attempt_free(a); /* before the callback, which may start another one */
    callback(userdata, -1, cause, detail);
}

void http_connector_run(struct http_connector *c)
{
    uint64_t now = now_monotonic_usec();
    CURLMsg *message;
    int running, left;

    if (TAILQ_EMPTY(&c->attempts))
        return;
    if (now >= c->look_usec) {
        c->look_usec = now + LOOK_USEC;
        curl_multi_socket_all(c->multi, &running);
    }
    if (now >= c->deadline_usec) {
        c->deadline_usec = USEC_INFINITY;
        curl_multi_socket_action(c->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    }
    while ((message = curl_multi_info_read(c->multi, &left))) {
        struct http_attempt *a;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &a);
        report(a, message->data.result);
    }
}

uint64_t http_connector_next_usec(const struct http_connector *c)
{
    return TAILQ_EMPTY(&c->attempts) ? USEC_INFINITY : MIN(c->deadline_usec, c->look_usec);
}

int http_connector_new(struct http_connector **ret, struct http_sockets *sockets)
{
    struct http_connector *c = xcalloc(1, sizeof(*c));

    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        free(c);
        return -ENOMEM;
    }
    c->sockets = sockets;
    c->deadline_usec = USEC_INFINITY;
    TAILQ_INIT(&c->attempts);
    c->multi = curl_multi_init();
    if (!c->multi)
        abort(); /* out of memory */
    curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, on_curl_socket);
    curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c);
    curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, on_curl_timer);
    curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c);
    *ret = c;
    return 0;
}

void http_connector_free(struct http_connector *c)
{
    struct http_attempt *a;

    if (!c)
        return;
    while ((a = TAILQ_FIRST(&c->attempts)))
        attempt_free(a);
    curl_multi_cleanup(c->multi);
    curl_global_cleanup();
    free(c);
}
