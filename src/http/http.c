/* The HTTP client on the event loop.
 *
 * Owns what all transfers share, the transfers, and what the event loop watches for them; main thread only.
 * Must not block and must not call the requester back from within http_post() or http_cancel(). */
#include "http/http.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/timeutil.h"
#include "http/http_transfer.h"

#define ROUNDS_MAX 16 /* of ready sockets in one turn of the event loop */
/* More handshakes than this part of all connections that wait for their turns: tens of milliseconds. */
#define CONGESTED_PART 4

struct http {
    struct http_context context;
    struct http_wheel wheel;
    char buffer[HTTP_BUFFER];

    struct http_transfer_list idle; /* to be used again, the latest first */
    int running_count;              /* running and finished */
    int idle_count;
    bool delivering;

    sd_event_source *sockets_source;
    sd_event_source *timer_source;
    uint64_t armed_usec; /* when the timer fires: never later than the earliest deadline */
};

/* --- results ---------------------------------------------------------------------------------- */

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
    http_transfer_drop(t);
    if (h->idle_count >= h->context.params.max_connections) {
        http_transfer_free(t);
        return;
    }
    TAILQ_INSERT_HEAD(&h->idle, t, link);
    h->idle_count++;
}

/* Valid until the transfer is started anew or freed. */
static struct http_result result_of(const struct http_transfer *t)
{
    bool answered = t->end.cause == HTTP_ANSWERED;

    return (struct http_result){
        .cause = t->end.cause,
        .status = answered ? t->answer.status : 0,
        .body_handed_over = t->request.handed_over,
        .body = strbuf_str(&t->answer.body),
        .body_len = t->answer.body.len,
        .content_type = answered ? t->answer.content_type : "",
        .truncated = answered && t->answer.truncated,
        .has_retry_after = t->end.has_retry_after,
        .retry_after_sec = t->end.has_retry_after ? t->end.retry_after_sec : 0,
        .duration_usec = t->end.duration_usec,
        .detail = t->end.detail.text,
    };
}

/* Only those that have finished by now: what the callbacks make finish comes in the loop's next turn, so that
 * one that starts an invalid request again and again does not hold the loop. */
static void deliver(struct http *h)
{
    struct http_transfer_list batch = TAILQ_HEAD_INITIALIZER(batch);
    struct http_transfer *t;

    TAILQ_CONCAT(&batch, &h->context.finished, link);
    h->delivering = true;
    while ((t = TAILQ_FIRST(&batch))) {
        struct http_result result = result_of(t);

        TAILQ_REMOVE(&batch, t, link);
        h->running_count--;
        t->callback(&result, t->userdata);
        give_back(h, t);
    }
    h->delivering = false;
}

/* --- the loop --------------------------------------------------------------------------------- */

/* Deadlines mostly move away (each new request has the latest one), so the timer is left to fire too early
 * and is set again then: far cheaper than setting it for each request. */
static void arm_timer(struct http *h, uint64_t deadline_usec)
{
    uint64_t next = MIN(deadline_usec, http_connector_next_usec(h->context.connector));

    if (next >= h->armed_usec)
        return;
    h->armed_usec = next;
    sd_event_source_set_time(h->timer_source, next);
    sd_event_source_set_enabled(h->timer_source, SD_EVENT_ONESHOT);
}

/* What has arrived is read before any deadline is judged: answers that came while the process stood still, or
 * was busy elsewhere, are not thrown away. */
static void serve(struct http *h)
{
    uint64_t now = now_monotonic_usec();
    struct http_timer *timer;

    for (int i = 0; i < ROUNDS_MAX && http_sockets_dispatch(h->context.sockets); i++)
        ;
    http_connector_run(h->context.connector);
    http_transfers_shake(&h->context);
    while ((timer = http_wheel_expired(&h->wheel, now)))
        timer->fire(timer->owner);
    deliver(h);
    arm_timer(h, http_wheel_next_usec(&h->wheel));
}

static int on_sockets(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    (void) source, (void) fd, (void) revents;
    serve(userdata);
    return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct http *h = userdata;

    (void) source, (void) usec;
    h->armed_usec = USEC_INFINITY;
    serve(h);
    return 0;
}

bool http_check_ca_file(const char *path, struct strbuf *why)
{
    struct http_tls *tls = NULL;
    struct error err;
    bool good = http_tls_new(&tls, path, &err) == 0;

    if (!good)
        strbuf_addf(why, "must be a file of certificates in PEM (%s)", err.text);
    http_tls_free(tls);
    return good;
}

/* --- the interface ---------------------------------------------------------------------------- */

static void free_params(struct http_context *context)
{
    free(context->ca_file);
    free(context->proxy);
    free(context->user_agent);
}

/* Kept connections, sessions and addresses are given up: what they rest on may have changed, also where the
 * parameters are the same (the files that they name, the system's certificates and names). */
static void begin_anew(struct http_context *c)
{
    c->generation++;
    http_routes_forget(c->way->routes);
    http_pool_drop_all(&c->pool);
    http_connector_forget_names(c->connector);
}

void http_set_params(struct http *h, const struct http_params *params)
{
    struct http_context *c = &h->context, old = *c;

    c->params = *params;
    c->params.ca_file = c->ca_file = xstrdup(params->ca_file);
    c->params.proxy = c->proxy = xstrdup(params->proxy);
    c->params.user_agent = c->user_agent = xstrdup(params->user_agent);
    c->pool.max = MAX(params->max_connections, 1);
    begin_anew(c);
    http_tls_free(TAKE_PTR(c->way->tls));
    (void) http_tls_new(&c->way->tls, c->ca_file, &c->way->tls_error);
    c->way->generation = c->generation;
    free_params(&old);
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

static void http_freep(struct http **h)
{
    http_free(*h);
}

int http_new(struct http **ret, sd_event *event, const struct http_params *params, struct error *err)
{
    CLEANUP(http_freep) struct http *h = xcalloc(1, sizeof(*h));
    struct http_context *c = &h->context;

    TAILQ_INIT(&c->running);
    TAILQ_INIT(&c->finished);
    TAILQ_INIT(&c->handshakes);
    TAILQ_INIT(&h->idle);
    h->armed_usec = USEC_INFINITY;
    c->buffer = h->buffer;
    c->wheel = &h->wheel;
    http_wheel_init(&h->wheel, now_monotonic_usec());
    LIST_INIT(&c->ways);
    (void) http_way_new(&c->way, &(struct http_way_params){0}, err);
    int r = http_sockets_new(&c->sockets);
    http_pool_init(&c->pool, c->sockets, c->wheel);
    if (r >= 0)
        r = http_connector_new(&c->connector, c->sockets, c->wheel);
    c->pool.connector = c->connector;
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

static void free_list(struct http_transfer_list *list)
{
    struct http_transfer *t;

    while ((t = TAILQ_FIRST(list))) {
        TAILQ_REMOVE(list, t, link);
        http_transfer_free(t);
    }
}

void http_free(struct http *h)
{
    if (!h)
        return;
    assert(!h->delivering);
    free_list(&h->context.running);
    free_list(&h->context.finished);
    free_list(&h->idle);
    http_pool_drop_all(&h->context.pool);
    http_connector_free(h->context.connector);
    while (!LIST_EMPTY(&h->context.ways))
        http_way_leave(LIST_FIRST(&h->context.ways));
    http_way_unref(h->context.way);
    sd_event_source_disable_unref(h->timer_source);
    sd_event_source_disable_unref(h->sockets_source);
    http_sockets_free(h->context.sockets);
    free_params(&h->context);
    free(h);
}

/* Ready for a request, which holds it. */
static struct http_way *use_way(struct http_context *c, struct http_way *way)
{
    if (!way)
        way = c->way;
    if (way != c->way && !way->pool) {
        way->pool = &c->pool;
        LIST_INSERT_HEAD(&c->ways, way, link);
    }
    http_way_prepare(way, c->generation, c->way->tls, &c->way->tls_error);
    way->users++;
    return way;
}

struct http_transfer *http_post(struct http *h, const struct http_request *request, http_callback callback,
                                void *userdata)
{
    struct http_transfer *t = take_idle(h);

    h->running_count++;
    http_transfer_start(t, request, use_way(&h->context, request->way), callback, userdata);
    if (!t->finished)
        arm_timer(h, t->timer.at_usec);
    return t;
}

void http_cancel(struct http *h, struct http_transfer *t)
{
    (void) h;
    if (!t->finished)
        http_transfer_cancel(t);
}

bool http_is_congested(const struct http *h)
{
    return h->context.handshake_count > h->context.pool.max / CONGESTED_PART;
}

bool http_is_ready_for(const struct http *h, const struct http_way *way, const char *url)
{
    const struct http_route *route = http_routes_find((way ? way : h->context.way)->routes, url);

    return route && (!route->origin->tls || !TAILQ_EMPTY(&route->origin->idle));
}

int http_running(const struct http *h)
{
    return h->running_count;
}
