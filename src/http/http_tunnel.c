/* Connections through a proxy. See http_tunnel.h. libcurl's callbacks only take note. */
#define CURL_DISABLE_DEPRECATION
#include "http/http_tunnel.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "base/timeutil.h"
#include "http/http_address.h"
#include "http/http_shortage.h"

/* libcurl gives an address up after a part of the time, and then waits to be called again without having set
 * a timer (7.88): so it is called now and then while it connects. */
#define LOOK_USEC (100 * USEC_PER_MSEC)
#define HEAD_MAX ((size_t) 64 * 1024)
#define UNREACHED "the proxy could not be reached in time"

struct http_tunnel {
    TAILQ_ENTRY(http_tunnel) link;
    struct http_tunnels *all;
    CURL *easy;
    int local_errno; /* our own machine refused something */
    int fd;          /* the last that libcurl opened; -1 once it has closed it */
    bool reached;    /* the proxy is connected to */
    bool own;        /* the proxy is an institution's */
    bool checked;    /* its address has to be public */
    bool refused;    /* one was not */
    bool body;       /* it says that its answer has one */
    size_t head_bytes;
    http_connected *callback;
    void *userdata;
    char error[CURL_ERROR_SIZE];
};
TAILQ_HEAD(tunnel_list, http_tunnel);

struct http_tunnels {
    struct http_sockets *sockets;
    CURLM *multi;
    struct tunnel_list tunnels;
    uint64_t deadline_usec; /* when libcurl wants to be called */
    uint64_t look_usec;     /* when it is called anyway */
};

/* --- libcurl's callbacks ---------------------------------------------------------------------- */

static int on_curl_timer(CURLM *multi, long timeout_ms, void *userdata)
{
    struct http_tunnels *all = userdata;

    (void) multi;
    all->deadline_usec =
        timeout_ms < 0 ? USEC_INFINITY : now_monotonic_usec() + (uint64_t) timeout_ms * USEC_PER_MSEC;
    if (timeout_ms == 0)
        http_sockets_wake(all->sockets);
    return 0;
}

static void on_socket(void *owner, int fd, uint32_t events)
{
    struct http_tunnels *all = owner;
    int running;

    for (struct http_tunnel *t = TAILQ_FIRST(&all->tunnels); t; t = TAILQ_NEXT(t, link))
        if (t->fd == fd && events & EPOLLOUT && !(events & (EPOLLERR | EPOLLHUP)))
            t->reached = true;

    curl_multi_socket_action(all->multi, fd,
                             (events & (EPOLLIN | EPOLLHUP) ? CURL_CSELECT_IN : 0) |
                                 (events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
                                 (events & EPOLLERR ? CURL_CSELECT_ERR : 0),
                             &running);
}

static int on_curl_socket(CURL *easy, curl_socket_t fd, int what, void *userdata, void *unused)
{
    static const uint32_t masks[] = {
        [CURL_POLL_IN] = EPOLLIN, [CURL_POLL_OUT] = EPOLLOUT, [CURL_POLL_INOUT] = EPOLLIN | EPOLLOUT};
    struct http_tunnels *all = userdata;
    struct http_tunnel *t = NULL;

    (void) unused;
    if (what == CURL_POLL_NONE || what == CURL_POLL_REMOVE) {
        http_sockets_forget(all->sockets, fd);
        return 0;
    }
    int r = http_sockets_watch(all->sockets, fd, masks[what], on_socket, all);
    curl_easy_getinfo(easy, CURLINFO_PRIVATE, &t);
    if (r < 0 && t)
        t->local_errno = -r; /* runs into its timeout, and the blame is ours */
    return 0;
}

static curl_socket_t on_open_socket(void *userdata, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct http_tunnel *t = userdata;

    (void) purpose;
    if (t->checked && !http_address_is_public(&address->addr, address->addrlen)) {
        t->refused = true;
        return CURL_SOCKET_BAD;
    }
    int fd = socket(address->family, address->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, address->protocol);
    if (fd < 0) {
        if (errno != EAFNOSUPPORT) /* no IPv6 here: the next address may do */
            t->local_errno = errno;
        return CURL_SOCKET_BAD;
    }
    t->fd = fd;
    return fd;
}

static int on_close_socket(void *userdata, curl_socket_t fd)
{
    struct http_tunnels *all = userdata;

    for (struct http_tunnel *t = TAILQ_FIRST(&all->tunnels); t; t = TAILQ_NEXT(t, link))
        if (t->fd == fd)
            t->fd = -1; /* the number may come back as another tunnel's */
    http_sockets_forget(all->sockets, fd);
    return close(fd);
}

/* An answer to CONNECT has no body (RFC 9110, 9.3.6): what came of one would be the institution's answer. Nor
 * is it long: libcurl reads it byte by byte, without a pause. */
static size_t on_header(char *line, size_t size, size_t count, void *userdata)
{
    static const char length[] = "Content-Length:", coding[] = "Transfer-Encoding:";
    struct http_tunnel *t = userdata;
    size_t len = size * count, at = strlen(length);

    if (len >= at && strncasecmp(line, length, at) == 0) {
        while (at < len && strchr(" \t0\r\n", line[at]))
            at++;
        t->body |= at < len;
    }
    t->body |= len >= strlen(coding) && strncasecmp(line, coding, strlen(coding)) == 0;
    t->head_bytes += len;
    return t->head_bytes <= HEAD_MAX ? len : 0;
}

char *http_tunnel_proxy_host(const char *proxy)
{
    CURLU *u = curl_url();
    char *host = NULL, *copy = NULL;

    if (curl_url_set(u, CURLUPART_URL, proxy, CURLU_NON_SUPPORT_SCHEME | CURLU_GUESS_SCHEME) == CURLUE_OK &&
        curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK)
        copy = xstrdup(host);
    curl_free(host);
    curl_url_cleanup(u);
    return copy;
}

/* --- a tunnel --------------------------------------------------------------------------------- */

static void set_options(struct http_tunnel *t, const struct http_connect *wanted)
{
    CURL *easy = t->easy;
    char url[512];

    /* The port is open in clear text as far as libcurl is concerned; TLS is not its part. */
    snprintf(url, sizeof(url), "http://%s:%d/", wanted->host, wanted->port);
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, t);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, t->error);
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
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, t);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, on_close_socket);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, t->all);
#if LIBCURL_VERSION_NUM >= 0x075700
    /* Else the end of an attempt waits for the resolver, for as long as resolv.conf(5) lets it try. */
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
#endif
}

struct http_tunnel *http_tunnel_start(struct http_tunnels *all, const struct http_connect *wanted,
                                      http_connected *callback, void *userdata)
{
    struct http_tunnel *t = xcalloc(1, sizeof(*t));

    t->all = all;
    t->fd = -1;
    t->own = wanted->own_proxy;
    t->checked = wanted->own_proxy && wanted->check_address;
    t->callback = callback;
    t->userdata = userdata;
    /* A handle of its own for each attempt: 7.88 mixes up what it keeps of two transfers of one handle. */
    t->easy = curl_easy_init();
    if (!t->easy)
        abort(); /* out of memory */
    set_options(t, wanted);
    if (TAILQ_EMPTY(&all->tunnels))
        all->look_usec = now_monotonic_usec() + LOOK_USEC;
    TAILQ_INSERT_TAIL(&all->tunnels, t, link);
    if (curl_multi_add_handle(all->multi, t->easy) != CURLM_OK)
        abort(); /* out of memory, or a fault of ours */
    return t;
}

static void tunnel_free(struct http_tunnel *t)
{
    TAILQ_REMOVE(&t->all->tunnels, t, link);
    curl_multi_remove_handle(t->all->multi, t->easy);
    curl_easy_cleanup(t->easy);
    free(t);
}

void http_tunnel_cancel(struct http_tunnel *t)
{
    tunnel_free(t);
}

/* --- its end ---------------------------------------------------------------------------------- */

/* It does not even try: its own rules, its own limits, or no CONNECT at all. What it answers when it has
 * tried in vain begins with a 5, or is 404 (Privoxy). */
static bool refuses_us(const struct http_tunnel *t)
{
    long status = 0, reason = 0;

    curl_easy_getinfo(t->easy, CURLINFO_HTTP_CONNECTCODE, &status);
#if LIBCURL_VERSION_NUM >= 0x074900
    curl_easy_getinfo(t->easy, CURLINFO_PROXY_ERROR, &reason);
    if (reason == CURLPX_NO_AUTH || reason == CURLPX_USER_REJECTED)
        return true;
#endif
    return status == 403 || status == 405 || status == 407 || status == 429;
}

/* The proxy is part of this installation: that it is away, or does not let us through, is no fault of the
 * institution's, unless the proxy is its own. That it cannot connect may be. */
static enum http_cause cause_of(const struct http_tunnel *t, CURLcode code)
{
    bool unreached = code == CURLE_COULDNT_RESOLVE_HOST || code == CURLE_COULDNT_RESOLVE_PROXY ||
                     code == CURLE_COULDNT_CONNECT || code == CURLE_OPERATION_TIMEDOUT;

    if (code == CURLE_URL_MALFORMAT)
        return HTTP_URL_INVALID;
    if (t->refused && !t->reached)
        return HTTP_ADDRESS_REFUSED;
    bool by_proxy = (unreached && !t->reached) || refuses_us(t);
    return t->local_errno || (by_proxy && !t->own) ? HTTP_INTERNAL : HTTP_CONNECT;
}

enum http_cause http_tunnel_lost(const struct http_connect *wanted, const char **ret_detail)
{
    *ret_detail = UNREACHED;
    return wanted->own_proxy ? HTTP_CONNECT : HTTP_INTERNAL;
}

enum http_cause http_tunnel_overdue(const struct http_tunnel *t, const char **ret_detail)
{
    *ret_detail = t->local_errno ? http_shortage_words(t->local_errno)
                  : t->reached   ? "the proxy made no connection in time"
                                 : UNREACHED;
    return cause_of(t, CURLE_OPERATION_TIMEDOUT);
}

static void put_detail(char *detail, size_t size, const struct http_tunnel *t, CURLcode code)
{
    const char *words;

    (void) http_tunnel_overdue(t, &words);
    if (t->refused && !t->reached)
        snprintf(detail, size, "the proxy's address lies in a network that is not allowed");
    else if (t->local_errno || code == CURLE_OPERATION_TIMEDOUT)
        snprintf(detail, size, "%s", words);
    else if (t->head_bytes > HEAD_MAX)
        snprintf(detail, size, "the proxy: the head of its answer is too long");
    else
        snprintf(detail, size, "the proxy: %s", t->error[0] ? t->error : curl_easy_strerror(code));
    for (char *p = detail; *p; p++)
        if (*p < ' ' || *p > '~')
            *p = '?';
}

/* Why a connection that the proxy has made is of no use; NULL = it is. */
static const char *fault_of(const struct http_tunnel *t, int fd)
{
    char byte;
    ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

    if (t->body || n > 0)
        return "the proxy sends more than its answer";
    return n == 0 ? "the proxy ends the connection that it has made" : NULL;
}

/* libcurl closes its descriptor when it likes; the requester's is another one for the same socket. */
static void report(struct http_tunnel *t, CURLcode code)
{
    http_connected *callback = t->callback;
    void *userdata = t->userdata;
    char detail[CURL_ERROR_SIZE + 16];
    curl_socket_t fd = -1;
    int own = -1;

    if (code == CURLE_OK && curl_easy_getinfo(t->easy, CURLINFO_ACTIVESOCKET, &fd) == CURLE_OK && fd >= 0) {
        own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        t->local_errno = own < 0 ? errno : 0;
    }
    enum http_cause cause = own >= 0 ? HTTP_ANSWERED : cause_of(t, code);
    const char *fault = own >= 0 ? fault_of(t, own) : NULL;
    put_detail(detail, sizeof(detail), t, code);
    tunnel_free(t); /* before the callback, which may start another one */
    if (fault)
        closep(&own);
    callback(userdata, fault ? -1 : own, fault ? HTTP_CONNECT : cause, fault ? fault : detail);
}

void http_tunnels_run(struct http_tunnels *all)
{
    uint64_t now = now_monotonic_usec();
    CURLMsg *message;
    int running, left;

    if (TAILQ_EMPTY(&all->tunnels))
        return;
    if (now >= all->look_usec) {
        all->look_usec = now + LOOK_USEC;
        curl_multi_socket_all(all->multi, &running);
    }
    if (now >= all->deadline_usec) {
        all->deadline_usec = USEC_INFINITY;
        curl_multi_socket_action(all->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    }
    while ((message = curl_multi_info_read(all->multi, &left))) {
        struct http_tunnel *t;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &t);
        report(t, message->data.result);
    }
}

uint64_t http_tunnels_next_usec(const struct http_tunnels *all)
{
    return TAILQ_EMPTY(&all->tunnels) ? USEC_INFINITY : MIN(all->deadline_usec, all->look_usec);
}

int http_tunnels_new(struct http_tunnels **ret, struct http_sockets *sockets)
{
    struct http_tunnels *all = xcalloc(1, sizeof(*all));

    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        free(all);
        return -ENOMEM;
    }
    all->sockets = sockets;
    all->deadline_usec = USEC_INFINITY;
    TAILQ_INIT(&all->tunnels);
    all->multi = curl_multi_init();
    if (!all->multi)
        abort(); /* out of memory */
    curl_multi_setopt(all->multi, CURLMOPT_SOCKETFUNCTION, on_curl_socket);
    curl_multi_setopt(all->multi, CURLMOPT_SOCKETDATA, all);
    curl_multi_setopt(all->multi, CURLMOPT_TIMERFUNCTION, on_curl_timer);
    curl_multi_setopt(all->multi, CURLMOPT_TIMERDATA, all);
    *ret = all;
    return 0;
}

void http_tunnels_free(struct http_tunnels *all)
{
    struct http_tunnel *t;

    if (!all)
        return;
    while ((t = TAILQ_FIRST(&all->tunnels)))
        tunnel_free(t);
    curl_multi_cleanup(all->multi);
    curl_global_cleanup();
    free(all);
}
