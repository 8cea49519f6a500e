/* One POST. See http_transfer.h.
 *
 * A POST must not be sent twice unseen. Handed over = the first byte that a connection took: until then a
 * connection that fails costs nothing and another one is tried; from then on an attempt without an answer is
 * ambiguous. The status line decides, whatever becomes of the rest of the answer. */
#include "http/http_transfer.h"

#include <string.h>
#include <unistd.h>

#include "base/timeutil.h"
#include "http/http_retry_after.h"
#include "http/http_shortage.h"

#define REQUEST_HEADERS_MAX ((size_t) 256 * 1024)
/* Connections tried for one request before it counts as an attempt that failed. */
#define RESTARTS_MAX 4
/* Of handshakes in a turn, beside all exchanges; a step of one is the least. */
#define SHAKE_USEC (2 * USEC_PER_MSEC)
#define SHAKE_LOOK_USEC (100 * USEC_PER_MSEC)
/* A deadline that is seen so late was missed by this process. */
#define STANDSTILL_USEC (250 * USEC_PER_MSEC)
#define STOOD_STILL "this process stood still until the request's time was over"

static void go_on(struct http_transfer *t);
static void find_connection(struct http_transfer *t);

/* --- the end ---------------------------------------------------------------------------------- */

static void leave_handshakes(struct http_transfer *t)
{
    if (!t->can_shake)
        return;
    TAILQ_REMOVE(&t->context->handshakes, t, turn);
    t->context->handshake_count--;
    t->can_shake = false;
}

static void let_go(struct http_transfer *t)
{
    http_wheel_clear(&t->timer);
    leave_handshakes(t);
    if (t->attempt)
        http_attempt_cancel(TAKE_PTR(t->attempt));
    if (t->connection)
        http_pool_drop(&t->context->pool, TAKE_PTR(t->connection));
}

/* With the answer, if its status is known, whatever else is said. */
static void conclude(struct http_transfer *t, enum http_cause cause, const char *detail)
{
    struct http_context *h = t->context;

    if (t->finished)
        return;
    if (t->answer.status > 0) {
        cause = HTTP_ANSWERED;
        detail = t->answer.fault ? t->answer.fault : "";
        t->answer.truncated |= t->answer.state != HTTP_ANSWER_COMPLETE;
    }
    t->end.cause = cause;
    t->end.detail.text[0] = '\0';
    if (detail[0])
        error_set(&t->end.detail, "%s", detail);
    t->end.has_retry_after = cause == HTTP_ANSWERED && t->answer.has_retry_after &&
                             http_parse_retry_after(t->answer.retry_after, t->answer.retry_after_len,
                                                    now_realtime_usec(), &t->end.retry_after_sec) == 0;
    t->end.duration_usec = now_monotonic_usec() - t->started_usec;
    t->finished = true;
    let_go(t);
    TAILQ_REMOVE(&h->running, t, link);
    TAILQ_INSERT_TAIL(&h->finished, t, link);
    http_sockets_wake(h->sockets);
}

static void conclude_exchange(struct http_transfer *t)
{
    const char *fault = t->answer.header_bytes > 0 ? t->answer.fault : NULL,
               *refusal = http_connection_refusal(t->connection);

    if (t->connection && t->connection->idle_since_usec && t->answer.header_bytes == 0)
        http_pool_note_end(t->connection->origin, t->connection->idle_usec);
    if (refusal)
        conclude(t, HTTP_CLIENT_REFUSED, refusal);
    else
        conclude(t, HTTP_CONNECTION_LOST, fault ? fault : "the connection ended without an answer");
}

/* Into the pool with it, if another request may go out on it. */
static void keep_connection(struct http_transfer *t, bool leftover)
{
    struct http_connection *c = t->connection;
    const struct http_answer *a = &t->answer;
    bool all_sent = t->request.sent == t->request.head.len + t->request.body_len;
    /* Where several servers share an address, this one wants no more for now, and another may. */
    bool sated = a->status == 429 || a->status == 503;
    bool good = !sated && c->generation == t->context->generation && !c->origin->forgotten && !c->hung_up;

    uint64_t kept_usec = (uint64_t) a->keep_alive_sec * USEC_PER_SEC;
    if (kept_usec > 0)
        c->origin->kept_usec = MIN(HTTP_IDLE_MAX_USEC, MAX(kept_usec / 2, kept_usec - USEC_PER_SEC));
    if (a->keep_alive && all_sent && !leftover && good)
        http_pool_put(&t->context->pool, TAKE_PTR(t->connection));
}

/* Nothing is to be sent: the connection is what was wanted. */
static void conclude_connected(struct http_transfer *t)
{
    http_pool_put(&t->context->pool, TAKE_PTR(t->connection));
    conclude(t, HTTP_ANSWERED, "");
}

/* The connection failed before it took a byte. */
static void restart(struct http_transfer *t)
{
    const char *refusal = http_connection_refusal(t->connection); /* a constant */

    http_pool_drop(&t->context->pool, TAKE_PTR(t->connection));
    http_pool_drop_witness(&t->context->pool, t->route->origin);
    if (refusal)
        conclude(t, HTTP_CLIENT_REFUSED, refusal);
    else if (t->restarts++ < RESTARTS_MAX)
        find_connection(t);
    else
        conclude(t, HTTP_CONNECT, "the server ends each connection before the request is sent");
}

/* --- the exchange ----------------------------------------------------------------------------- */

/* False when the transfer waits, or is over. */
static bool receive_some(struct http_transfer *t)
{
    size_t n, used;

    switch (http_connection_receive(t->connection, t->context->buffer, HTTP_BUFFER, &n)) {
    case HTTP_MOVED:
        used = http_answer_feed(&t->answer, t->context->buffer, n);
        t->connection->answered |= t->answer.status > 0;
        if (http_answer_is_over(&t->answer)) {
            keep_connection(t, used < n);
            break;
        }
        return true; /* a short read may have stopped at urgent data, and the rest is not told twice */
    case HTTP_WAIT:
        return false;
    case HTTP_ENDED:
        http_answer_end(&t->answer, true);
        break;
    default:
        http_answer_end(&t->answer, false);
        break;
    }
    conclude_exchange(t);
    return false;
}

static void receive(struct http_transfer *t)
{
    while (receive_some(t))
        ;
}

/* False when sending has to wait, or the transfer has ended or moved to another connection. */
static bool send_some(struct http_transfer *t)
{
    struct http_sending *q = &t->request;
    size_t n, of_head = MIN(q->sent, q->head.len), of_body = q->sent - of_head;
    struct iovec parts[2] = {{q->head.data + of_head, q->head.len - of_head},
                             {(char *) (uintptr_t) q->body + of_body, q->body_len - of_body}};
    bool begun;

    switch (http_connection_send(t->connection, parts, t->context->buffer, HTTP_BUFFER, &n, &begun)) {
    case HTTP_MOVED:
        q->handed_over = true;
        q->sent += n;
        return true;
    case HTTP_WAIT:
        q->handed_over |= begun;
        return false;
    default:
        if (!q->handed_over) {
            restart(t);
            return false;
        }
        /* The answer may have come before the end. */
        receive(t);
        conclude_exchange(t);
        return false;
    }
}

/* The process stood still, or the machine slept: somebody else may send it meanwhile. */
static bool is_late(const struct http_transfer *t)
{
    return now_boottime_usec() > t->boot_deadline_usec;
}

/* Nothing was handed over. A deadline that is seen at once was the server's to keep, unless the handshake
 * waited for its turn here. */
static void conclude_late(struct http_transfer *t)
{
    bool in_turn = now_monotonic_usec() >= t->deadline_usec;

    if (in_turn && now_boottime_usec() - t->boot_deadline_usec <= STANDSTILL_USEC)
        conclude(t, HTTP_CONNECT, "no connection in time");
    else
        conclude(t, HTTP_INTERNAL, STOOD_STILL);
}

/* What the server says before it is asked is no answer, and that it has left costs nothing. A connection that
 * was idle was looked at when it was taken. */
static bool may_begin(struct http_transfer *t)
{
    if (is_late(t)) {
        conclude_late(t);
        return false;
    }
    switch (t->connection->idle_since_usec ? HTTP_QUIET : http_connection_look(t->connection)) {
    case HTTP_QUIET:
        return true;
    case HTTP_WAIT:
        return false;
    case HTTP_MOVED:
        conclude(t, HTTP_CONNECTION_LOST, "the server sent data before it was asked");
        return false;
    default:
        restart(t);
        return false;
    }
}

static void exchange(struct http_transfer *t)
{
    size_t total = t->request.head.len + t->request.body_len;

    if (!t->request.handed_over && !may_begin(t))
        return;
    if (t->request.connects_only) {
        conclude_connected(t);
        return;
    }
    while (t->request.sent < total && !is_late(t))
        if (!send_some(t))
            break;
    /* The answer seldom is there already: the socket tells. */
    if (!t->finished && t->connection && t->request.handed_over && t->connection->readable)
        receive(t);
}

/* --- connections ------------------------------------------------------------------------------ */

static void secure(struct http_transfer *t)
{
    struct error err;
    const char *fault;

    if (is_late(t)) {
        conclude_late(t);
        return;
    }
    switch (http_connection_secure(t->connection, &fault, &err)) {
    case HTTP_MOVED:
        http_wheel_set(t->context->wheel, &t->timer, t->deadline_usec);
        exchange(t);
        return;
    case HTTP_WAIT:
        return;
    default:
        conclude(t, fault == http_connection_refusal(t->connection) ? HTTP_CLIENT_REFUSED : HTTP_TLS, fault);
        return;
    }
}

static void go_on(struct http_transfer *t)
{
    if (t->connection->secured) {
        exchange(t);
    } else if (!t->can_shake) {
        t->can_shake = true;
        t->can_shake_since_usec = now_monotonic_usec();
        TAILQ_INSERT_TAIL(&t->context->handshakes, t, turn);
        t->context->handshake_count++;
        http_sockets_wake(t->context->sockets);
    }
}

static void set_connect_timer(struct http_transfer *t)
{
    http_wheel_set(t->context->wheel, &t->timer, MIN(t->connect_until_usec, t->deadline_usec));
}

/* What it waited for its turn is our time, not the server's. */
static void shake(struct http_transfer *t, uint64_t now)
{
    leave_handshakes(t);
    t->connect_until_usec += now - t->can_shake_since_usec;
    t->deadline_usec += now - t->can_shake_since_usec;
    set_connect_timer(t);
    secure(t);
}

void http_transfers_shake(struct http_context *h)
{
    uint64_t now = now_monotonic_usec(), until = now + SHAKE_USEC;
    struct http_transfer *t;

    while ((t = TAILQ_FIRST(&h->handshakes)) && now < until) {
        shake(t, now);
        now = now_monotonic_usec();
    }
    if (t)
        http_sockets_wake(h->sockets);
}

static void on_connection(void *owner, int fd, uint32_t events)
{
    struct http_connection *c = owner;

    (void) fd;
    c->readable |= (events & ~EPOLLOUT) != 0;
    c->hung_up |= (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    if (c->transfer)
        go_on(c->transfer);
    else
        http_pool_look(c->pool, c);
}

static void attach(struct http_transfer *t, struct http_connection *c)
{
    c->transfer = t;
    t->connection = c;
    if (c->secured)
        http_wheel_set(t->context->wheel, &t->timer, t->deadline_usec);
    go_on(t);
}

/* True when the transfer has ended: its origin needs TLS, and there are no certificates to trust. */
static bool lacks_tls(struct http_transfer *t)
{
    bool lacking = t->route->origin->tls && !t->request.way->tls;

    if (lacking)
        conclude(t, HTTP_INTERNAL, t->request.way->tls_error.text);
    return lacking;
}

static void on_connected(void *userdata, int fd, enum http_cause cause, const char *detail)
{
    struct http_transfer *t = userdata;
    struct http_context *h = t->context;
    t->attempt = NULL;
    if (fd < 0 && cause == HTTP_INTERNAL && h->pool.count > 0 && http_missing_descriptors() &&
        t->restarts++ < RESTARTS_MAX) {
        http_pool_spare(&h->pool); /* idle connections are the last to deserve one */
        find_connection(t);
        return;
    }
    if (fd < 0) {
        conclude(t, cause, detail);
        return;
    }
    if (lacks_tls(t)) { /* since it began to connect */
        close(fd);
        return;
    }
    struct http_connection *c =
        http_pool_make(&h->pool, t->route->origin, t->request.way->tls, fd, on_connection, &detail);
    if (!c) {
        conclude(t, HTTP_INTERNAL, detail);
        return;
    }
    c->generation = h->generation;
    attach(t, c);
}

static void find_connection(struct http_transfer *t)
{
    struct http_context *h = t->context;
    struct http_origin *origin = t->route->origin;
    struct http_connection *c = http_pool_take(&h->pool, origin, h->generation);
    const char *proxy = t->request.way->proxy ? t->request.way->proxy : h->params.proxy;

    if (c) {
        attach(t, c);
        return;
    }
    if (lacks_tls(t))
        return;
    /* The socket alone bypasses libcurl's TLS on it. */
    if (strncmp(proxy, "https://", 8) == 0) {
        conclude(t, HTTP_CONNECT, "a proxy that is spoken to over TLS is not supported");
        return;
    }
    uint64_t now = now_monotonic_usec(), left = t->deadline_usec > now ? t->deadline_usec - now : 0;
    uint64_t timeout_usec = MIN(h->params.connect_timeout_usec, left);
    t->connect_until_usec = now + timeout_usec;
    set_connect_timer(t);
    t->attempt = http_connector_start(h->connector,
                                      &(struct http_connect){
                                          .host = origin->host,
                                          .port = origin->port,
                                          .timeout_usec = timeout_usec,
                                          .proxy = proxy,
                                          .own_proxy = t->request.way->proxy != NULL,
                                          .check_address = !h->params.allow_private_networks,
                                      },
                                      on_connected, t);
}

/* --- time ------------------------------------------------------------------------------------- */

static void on_timeout(void *owner)
{
    struct http_transfer *t = owner;
    bool secured = t->connection && t->connection->secured;
    uint64_t due = secured ? t->deadline_usec : MIN(t->connect_until_usec, t->deadline_usec);

    if (t->can_shake) {
        /* It waits for its turn here; whether the server is late shows afterwards. */
        http_wheel_set(t->context->wheel, &t->timer, now_monotonic_usec() + SHAKE_LOOK_USEC);
    } else if (!t->request.handed_over && now_monotonic_usec() - due > STANDSTILL_USEC) {
        conclude(t, HTTP_INTERNAL, STOOD_STILL);
    } else if (t->attempt) {
        const char *detail;
        enum http_cause cause = http_attempt_overdue(t->attempt, &detail);
        conclude(t, cause, detail);
    } else if (t->connection && !t->connection->secured) {
        conclude(t, HTTP_CONNECT, "the TLS handshake did not end in time");
    } else {
        conclude(t, HTTP_TIMEOUT, "no answer in time");
    }
}

/* --- the start -------------------------------------------------------------------------------- */

void http_transfer_start(struct http_transfer *t, const struct http_request *request, struct http_way *way,
                         http_callback callback, void *userdata)
{
    struct http_context *h = t->context;
    struct strbuf head = t->request.head;
    const char *problem = NULL;

    t->finished = false;
    t->restarts = 0;
    t->request = (struct http_sending){.way = way,
                                       .head = head,
                                       .body = request->body,
                                       .body_len = request->body_len,
                                       .connects_only = request->connects_only};
    http_answer_begin(&t->answer, h->params.response_limit);
    t->callback = callback;
    t->userdata = userdata;
    t->started_usec = now_monotonic_usec();
    t->deadline_usec = t->started_usec + MAX(request->timeout_usec, 1);
    t->boot_deadline_usec = now_boottime_usec() + MAX(request->timeout_usec, 1);
    TAILQ_INSERT_TAIL(&h->running, t, link);
    t->route = http_routes_use(t->request.way->routes, &h->params, request->url, &problem);
    if (!problem)
        problem = http_route_write_head(t->route, request, &t->request.head);
    if (problem) {
        conclude(t, HTTP_URL_INVALID, problem);
        return;
    }
    find_connection(t);
}

void http_transfer_cancel(struct http_transfer *t)
{
    conclude(t, HTTP_CANCELLED, "");
}

void http_transfer_drop(struct http_transfer *t)
{
    let_go(t);
    if (t->route)
        http_route_done(TAKE_PTR(t->route));
    http_way_unref(TAKE_PTR(t->request.way));
    if (t->request.head.data) /* it holds secrets */
        explicit_bzero(t->request.head.data, t->request.head.len);
}

struct http_transfer *http_transfer_new(struct http_context *context)
{
    struct http_transfer *t = xcalloc(1, sizeof(*t));

    t->context = context;
    t->timer = (struct http_timer){.fire = on_timeout, .owner = t};
    t->request.head = STRBUF_INIT(REQUEST_HEADERS_MAX);
    return t;
}

void http_transfer_free(struct http_transfer *t)
{
    if (!t)
        return;
    http_transfer_drop(t);
    strbuf_wipe(&t->request.head);
    http_answer_free(&t->answer);
    free(t);
}
