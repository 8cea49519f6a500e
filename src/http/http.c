/* The HTTP client: one libcurl multi handle on the event loop.
 *
 * Owns the multi handle, the transfers and what the event loop watches for them; main thread only. Must not
 * block and must not call the requester back from within http_post() or http_cancel(). libcurl's callbacks
 * here only take note; no function of the multi handle is called inside them. */
#include "http/http.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/timeutil.h"
#include "http/http_transfer.h"

#define EVENTS_MAX 128 /* sockets served in one turn of the event loop */

TAILQ_HEAD(transfer_list, http_transfer);

struct http {
    struct http_context context;
    CURLM *multi;

    struct transfer_list running;  /* in the multi handle */
    struct transfer_list finished; /* wait for their callback */
    struct transfer_list idle;     /* handles to use again, the latest first */
    int running_count;             /* running and finished */
    int idle_count;
    bool driving; /* libcurl or a requester's callback may be on the stack; settle() comes after it */

    sd_event_source *sockets_source;
    sd_event_source *timer_source;
    bool run_now;           /* libcurl wants to be called without delay */
    uint64_t deadline_usec; /* when libcurl wants to be called; USEC_INFINITY = never */
    uint64_t armed_usec;    /* when the timer fires: never later than the deadline */
};

static void run_soon(struct http *h)
{
    if (!h->driving)
        http_sockets_wake(h->context.sockets);
}

/* Deadlines mostly move away (each new request has the latest one), so the timer is left to fire too early
 * and is set again then: far cheaper than setting it for each request. */
static void arm_timer(struct http *h)
{
    if (h->deadline_usec >= h->armed_usec)
        return;
    h->armed_usec = h->deadline_usec;
    sd_event_source_set_time(h->timer_source, h->armed_usec);
    sd_event_source_set_enabled(h->timer_source, SD_EVENT_ONESHOT);
}

static void set_timeout(struct http *h, long timeout_ms)
{
    h->deadline_usec = USEC_INFINITY;
    if (timeout_ms == 0) {
        h->run_now = true;
        run_soon(h);
    } else if (timeout_ms > 0) {
        h->deadline_usec = now_monotonic_usec() + (uint64_t) timeout_ms * USEC_PER_MSEC;
        arm_timer(h);
    }
}

static int on_curl_timer(CURLM *multi, long timeout_ms, void *userdata)
{
    (void) multi;
    set_timeout(userdata, timeout_ms);
    return 0;
}

static int on_curl_socket(CURL *easy, curl_socket_t fd, int what, void *userdata, void *unused)
{
    static const uint32_t masks[] = {
        [CURL_POLL_NONE] = 0,       [CURL_POLL_IN] = EPOLLIN,
        [CURL_POLL_OUT] = EPOLLOUT, [CURL_POLL_INOUT] = EPOLLIN | EPOLLOUT,
        [CURL_POLL_REMOVE] = 0,
    };
    struct http *h = userdata;
    struct http_transfer *t = http_transfer_of(easy);
    /* Once its request is on a connection, the connection's end will be told; the resolver's sockets and
     * those of attempts to connect may go without a word. */
    int r = http_sockets_watch(h->context.sockets, fd, masks[what], t && t->handed_over);

    (void) unused;
    if (r < 0 && t)
        t->local_errno = -r; /* runs into its timeout, and the blame is ours */
    return 0;
}

static void finish(struct http *h, struct http_transfer *t)
{
    curl_multi_remove_handle(h->multi, t->easy);
    TAILQ_REMOVE(&h->running, t, link);
    TAILQ_INSERT_TAIL(&h->finished, t, link);
}

static void collect(struct http *h)
{
    CURLMsg *message;
    int left;

    while ((message = curl_multi_info_read(h->multi, &left))) {
        struct http_transfer *t = http_transfer_of(message->easy_handle);

        http_transfer_conclude(t, message->data.result);
        finish(h, t);
    }
}

static struct http_transfer *take_idle(struct http *h)
{
    struct http_transfer *t = TAILQ_FIRST(&h->idle);

    if (!t)
        return http_transfer_new(&h->context);
    TAILQ_REMOVE(&h->idle, t, link);
    h->idle_count--;
    return t;
}

static void give_back(struct http *h, struct http_transfer *t)
{
    if (h->idle_count >= h->context.params.max_connections) {
        http_transfer_free(t);
        return;
    }
    TAILQ_INSERT_HEAD(&h->idle, t, link);
    h->idle_count++;
}

/* Only those that have finished by now: what the callbacks make finish comes in the loop's next turn, so that
 * one that starts an invalid request again and again does not hold the loop. */
static void deliver(struct http *h)
{
    struct transfer_list batch = TAILQ_HEAD_INITIALIZER(batch);
    struct http_transfer *t;

    TAILQ_CONCAT(&batch, &h->finished, link);
    while ((t = TAILQ_FIRST(&batch))) {
        struct http_result result = http_transfer_result(t);

        TAILQ_REMOVE(&batch, t, link);
        h->running_count--;
        t->callback(&result, t->userdata);
        give_back(h, t);
    }
}

static void act(struct http *h, curl_socket_t fd, int events)
{
    int running;

    curl_multi_socket_action(h->multi, fd, events, &running);
}

static void act_on_timeout(struct http *h)
{
    long timeout_ms = -1;

    h->run_now = false;
    h->deadline_usec = USEC_INFINITY;
    act(h, CURL_SOCKET_TIMEOUT, 0);
    /* libcurl tells only changes; that this call used the last timeout up may be none to it. */
    if (!h->run_now && h->deadline_usec == USEC_INFINITY && !TAILQ_EMPTY(&h->running) &&
        curl_multi_timeout(h->multi, &timeout_ms) == CURLM_OK)
        set_timeout(h, timeout_ms);
}

/* Once libcurl was called: hands out results, and starts at once what their callbacks asked for. */
static void settle(struct http *h)
{
    collect(h);
    deliver(h);
    if (h->run_now)
        act_on_timeout(h);
    collect(h);
    h->driving = false;
    if (h->run_now || !TAILQ_EMPTY(&h->finished))
        run_soon(h);
}

static int on_sockets(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct http *h = userdata;
    struct epoll_event events[EVENTS_MAX];
    int count = http_sockets_wait(h->context.sockets, events, EVENTS_MAX);

    (void) source, (void) fd, (void) revents;
    h->driving = true;
    for (int i = 0; i < count; i++) {
        uint32_t e = events[i].events;

        act(h, events[i].data.fd,
            (e & (EPOLLIN | EPOLLHUP) ? CURL_CSELECT_IN : 0) | (e & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
                (e & EPOLLERR ? CURL_CSELECT_ERR : 0));
    }
    settle(h);
    return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct http *h = userdata;

    (void) source, (void) usec;
    h->armed_usec = USEC_INFINITY;
    if (now_monotonic_usec() < h->deadline_usec) {
        arm_timer(h);
        return 0;
    }
    h->driving = true;
    act_on_timeout(h);
    settle(h);
    return 0;
}

static void free_params(struct http_context *context)
{
    free(context->ca_file);
    free(context->proxy);
    free(context->user_agent);
}

void http_set_params(struct http *h, const struct http_params *params)
{
    struct http_context *c = &h->context;
    struct http_context old = *c;

    c->params = *params;
    c->params.ca_file = c->ca_file = xstrdup(params->ca_file);
    c->params.proxy = c->proxy = xstrdup(params->proxy);
    c->params.user_agent = c->user_agent = xstrdup(params->user_agent);
    c->generation++;
    free_params(&old);
    curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, (long) MAX(params->max_connections, 1));
}

static int add_sources(struct http *h, sd_event *event)
{
    int r = sd_event_add_io(event, &h->sockets_source, http_sockets_fd(h->context.sockets), EPOLLIN,
                            on_sockets, h);

    if (r >= 0)
        r = sd_event_add_time(event, &h->timer_source, CLOCK_MONOTONIC, 0, USEC_PER_MSEC, on_timer, h);
    if (r >= 0)
        r = sd_event_source_set_enabled(h->timer_source, SD_EVENT_OFF);
    return MIN(r, 0);
}

static int make_multi(struct http *h)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return -ENOMEM;
    h->multi = curl_multi_init();
    if (!h->multi) {
        curl_global_cleanup();
        return -ENOMEM;
    }
    curl_multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, on_curl_socket);
    curl_multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h);
    curl_multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, on_curl_timer);
    curl_multi_setopt(h->multi, CURLMOPT_TIMERDATA, h);
    curl_multi_setopt(h->multi, CURLMOPT_PIPELINING, CURLPIPE_MULTIPLEX);
    return 0;
}

static void http_freep(struct http **h)
{
    http_free(*h);
}

int http_new(struct http **ret, sd_event *event, const struct http_params *params, struct error *err)
{
    CLEANUP(http_freep) struct http *h = xcalloc(1, sizeof(*h));
    int r;

    TAILQ_INIT(&h->running);
    TAILQ_INIT(&h->finished);
    TAILQ_INIT(&h->idle);
    h->deadline_usec = h->armed_usec = USEC_INFINITY;
    r = http_sockets_new(&h->context.sockets);
    if (r >= 0)
        r = make_multi(h);
    if (r >= 0)
        r = add_sources(h, event);
    if (r < 0) {
        error_set(err, "could not start the HTTP client: %s", strerrordesc_np(-r));
        return r;
    }
    http_set_params(h, params);
    *ret = TAKE_PTR(h);
    return 0;
}

static void free_list(struct http *h, struct transfer_list *list, bool in_multi)
{
    struct http_transfer *t;

    while ((t = TAILQ_FIRST(list))) {
        TAILQ_REMOVE(list, t, link);
        if (in_multi)
            curl_multi_remove_handle(h->multi, t->easy);
        http_transfer_free(t);
    }
}

void http_free(struct http *h)
{
    if (!h)
        return;
    assert(!h->driving);
    free_list(h, &h->running, true);
    free_list(h, &h->finished, false);
    free_list(h, &h->idle, false);
    if (h->multi) {
        curl_multi_cleanup(h->multi);
        curl_global_cleanup();
    }
    sd_event_source_disable_unref(h->timer_source);
    sd_event_source_disable_unref(h->sockets_source);
    http_sockets_free(h->context.sockets);
    free_params(&h->context);
    free(h);
}

struct http_transfer *http_post(struct http *h, const struct http_request *request, http_callback callback,
                                void *userdata)
{
    struct http_transfer *t = take_idle(h);

    h->running_count++;
    if (http_transfer_prepare(t, request, callback, userdata)) {
        CURLMcode code = curl_multi_add_handle(h->multi, t->easy);

        if (code == CURLM_OK) {
            TAILQ_INSERT_TAIL(&h->running, t, link);
            return t;
        }
        http_transfer_abandon(t, HTTP_INTERNAL, curl_multi_strerror(code));
    }
    TAILQ_INSERT_TAIL(&h->finished, t, link);
    run_soon(h);
    return t;
}

void http_cancel(struct http *h, struct http_transfer *t)
{
    if (t->finished)
        return;
    http_transfer_abandon(t, HTTP_CANCELLED, "cancelled");
    finish(h, t);
    run_soon(h);
}

int http_running(const struct http *h)
{
    return h->running_count;
}
