/* Kept connections. See http_pool.h. */
#include "http/http_pool.h"

#include "base/timeutil.h"
#include "http/http_shortage.h"

#define LIFETIME_USEC (300 * USEC_PER_SEC) /* so that changes in the DNS are followed */
/* A witness is idle for so much longer than the connection that a request wanted. */
#define WITNESS_USEC USEC_PER_SEC
/* A request is to arrive before the server's time for idle connections is over. */
#define MARGIN_MAX_USEC (500 * USEC_PER_MSEC)
#define IDLE_MIN_USEC (20 * USEC_PER_MSEC)
#define SPARED 4

/* --- how long a server keeps idle connections ------------------------------------------------- */

static uint64_t safely_before(uint64_t idle_usec)
{
    return idle_usec - MIN(idle_usec / 5, MARGIN_MAX_USEC);
}

/* What ends a connection that is hardly idle is no rule for idle ones. */
void http_pool_note_end(struct http_origin *o, uint64_t idle_usec)
{
    if (idle_usec >= IDLE_MIN_USEC)
        o->proven_usec = MIN(o->proven_usec, safely_before(idle_usec));
}

/* Looks at it, and learns. */
static bool is_quiet(struct http_connection *c, uint64_t now)
{
    struct http_origin *o = c->origin;
    uint64_t idle_usec = now - c->idle_since_usec;
    bool quiet = http_connection_look(c) == HTTP_QUIET;

    if (quiet)
        o->proven_usec = MAX(o->proven_usec, safely_before(idle_usec));
    else
        http_pool_note_end(o, idle_usec);
    return quiet;
}

static void set_witness_timer(struct http_pool *p)
{
    const struct http_connection *c = TAILQ_FIRST(&p->witnesses);

    if (c)
        http_wheel_set(p->wheel, &p->witness_timer, c->watched_since_usec + WITNESS_USEC);
}

static void on_witness(void *owner)
{
    struct http_pool *p = owner;
    uint64_t now = now_monotonic_usec();
    struct http_connection *c;

    while ((c = TAILQ_FIRST(&p->witnesses)) && now - c->watched_since_usec >= WITNESS_USEC) {
        (void) is_quiet(c, now);
        http_pool_drop(p, c);
    }
    set_witness_timer(p);
}

/* --- the pool --------------------------------------------------------------------------------- */

/* One timer for all: the list is in the order of idleness. */
static void on_oldest(void *owner)
{
    struct http_pool *p = owner;
    uint64_t now = now_monotonic_usec();
    struct http_connection *c;

    while ((c = TAILQ_FIRST(&p->idle)) && now - c->idle_since_usec >= HTTP_IDLE_MAX_USEC)
        http_pool_drop(p, c);
    if (c)
        http_wheel_set(p->wheel, &p->timer, c->idle_since_usec + HTTP_IDLE_MAX_USEC);
}

void http_pool_init(struct http_pool *p, struct http_sockets *sockets, struct http_wheel *wheel)
{
    *p = (struct http_pool){.sockets = sockets,
                            .wheel = wheel,
                            .timer = {.fire = on_oldest, .owner = p},
                            .witness_timer = {.fire = on_witness, .owner = p}};
    TAILQ_INIT(&p->idle);
    TAILQ_INIT(&p->witnesses);
}

static void take_out(struct http_pool *p, struct http_connection *c)
{
    if (!c->idle)
        return;
    c->idle = false;
    p->count--;
    TAILQ_REMOVE(&p->idle, c, in_all);
    TAILQ_REMOVE(&c->origin->idle, c, in_origin);
}

/* It was idle for longer than is proven to be safe: no request goes out on it, but it shows for a moment
 * whether the server keeps it for longer. Where others are idle, the oldest of them shows as much. */
static void watch(struct http_pool *p, struct http_connection *c, uint64_t now)
{
    take_out(p, c);
    if (c->origin->witness || !TAILQ_EMPTY(&c->origin->idle)) {
        http_pool_drop(p, c);
        return;
    }
    c->origin->witness = c;
    c->watched_since_usec = now;
    TAILQ_INSERT_TAIL(&p->witnesses, c, in_all);
    set_witness_timer(p);
}

void http_pool_drop_witness(struct http_pool *p, struct http_origin *o)
{
    if (o->witness)
        http_pool_drop(p, o->witness);
}

void http_pool_drop(struct http_pool *p, struct http_connection *c)
{
    take_out(p, c);
    if (c == c->origin->witness) {
        c->origin->witness = NULL;
        TAILQ_REMOVE(&p->witnesses, c, in_all);
    }
    http_sockets_forget(p->sockets, c->fd);
    if (!c->answered && c->idle_since_usec == 0)
        http_connector_avoid(p->connector, c->origin->host, &c->address);
    http_connection_free(c);
}

static void drop_witnesses(struct http_pool *p)
{
    while (!TAILQ_EMPTY(&p->witnesses))
        http_pool_drop(p, TAILQ_FIRST(&p->witnesses));
}

void http_pool_spare(struct http_pool *p)
{
    drop_witnesses(p);
    for (int i = 0; i < SPARED && p->count > 0; i++)
        http_pool_drop(p, TAILQ_FIRST(&p->idle));
}

static void drop_forgotten(struct http_pool *p, struct http_connection_list *list)
{
    struct http_connection *c = TAILQ_FIRST(list), *next;

    for (; c; c = next) {
        next = TAILQ_NEXT(c, in_all);
        if (c->origin->forgotten)
            http_pool_drop(p, c);
    }
}

void http_pool_drop_forgotten(struct http_pool *p)
{
    drop_forgotten(p, &p->idle);
    drop_forgotten(p, &p->witnesses);
}

void http_pool_drop_all(struct http_pool *p)
{
    drop_witnesses(p);
    while (!TAILQ_EMPTY(&p->idle))
        http_pool_drop(p, TAILQ_FIRST(&p->idle));
}

void http_pool_look(struct http_pool *p, struct http_connection *c)
{
    if (!is_quiet(c, now_monotonic_usec()))
        http_pool_drop(p, c);
}

struct http_connection *http_pool_make(struct http_pool *p, struct http_origin *origin, struct http_tls *tls,
                                       int fd, http_socket_handler *handler, const char **ret_detail)
{
    struct http_connection *c = http_connection_new(origin, tls, fd);

    if (!c) {
        *ret_detail = "the TLS state could not be made";
        return NULL;
    }
    c->pool = p;
    int r = http_sockets_watch(p->sockets, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, handler, c);
    if (r < 0) {
        http_connection_free(c);
        *ret_detail = http_shortage_words(-r);
        return NULL;
    }
    return c;
}

/* The one that is idle for longest has seen most. */
static bool is_safe(const struct http_connection *c, uint64_t idle_usec, uint64_t now)
{
    struct http_origin *o = c->origin;
    struct http_connection *oldest = TAILQ_LAST(&o->idle, http_connection_list);

    if (idle_usec > o->proven_usec && oldest != c)
        (void) is_quiet(oldest, now);
    return idle_usec <= o->proven_usec;
}

struct http_connection *http_pool_take(struct http_pool *p, struct http_origin *origin, unsigned generation)
{
    struct http_connection *c;
    uint64_t now = now_monotonic_usec();

    while ((c = TAILQ_FIRST(&origin->idle))) {
        uint64_t idle_usec = now - c->idle_since_usec;
        bool fresh = c->generation == generation && now - c->made_usec < LIFETIME_USEC &&
                     idle_usec < origin->kept_usec;
        if (!fresh || !is_quiet(c, now)) {
            http_pool_drop(p, c);
            continue;
        }
        if (!is_safe(c, idle_usec, now)) {
            watch(p, c, now);
            break;
        }
        take_out(p, c);
        c->idle_usec = idle_usec;
        return c;
    }
    return NULL;
}

void http_pool_put(struct http_pool *p, struct http_connection *c)
{
    c->transfer = NULL;
    c->idle = true;
    c->idle_since_usec = now_monotonic_usec();
    p->count++;
    TAILQ_INSERT_TAIL(&p->idle, c, in_all);
    TAILQ_INSERT_HEAD(&c->origin->idle, c, in_origin);
    if (p->count > p->max)
        http_pool_drop(p, TAILQ_FIRST(&p->idle));
    if (!p->timer.at_usec)
        http_wheel_set(p->wheel, &p->timer, c->idle_since_usec + HTTP_IDLE_MAX_USEC);
}
