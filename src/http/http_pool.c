/* Kept connections. See http_pool.h. */
#include "http/http_pool.h"

#include "base/timeutil.h"

#define LIFETIME_USEC (300 * USEC_PER_SEC) /* so that changes in the DNS are followed */
/* Less is no server's rule for idle connections, but a server that restarts. */
#define RULE_MIN_USEC USEC_PER_SEC

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
    *p = (struct http_pool){.sockets = sockets, .wheel = wheel, .timer = {.fire = on_oldest, .owner = p}};
    TAILQ_INIT(&p->idle);
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

void http_pool_drop(struct http_pool *p, struct http_connection *c)
{
    take_out(p, c);
    http_sockets_forget(p->sockets, c->fd);
    http_connection_free(c);
}

void http_pool_drop_all(struct http_pool *p)
{
    while (!TAILQ_EMPTY(&p->idle))
        http_pool_drop(p, TAILQ_FIRST(&p->idle));
}

/* The server's rule is learnt, so that no request meets a connection that is just being ended. */
void http_pool_look(struct http_pool *p, struct http_connection *c)
{
    uint64_t idle_usec = now_monotonic_usec() - c->idle_since_usec;

    if (http_connection_look(c) == HTTP_QUIET)
        return;
    if (idle_usec >= RULE_MIN_USEC)
        c->origin->idle_max_usec = MIN(c->origin->idle_max_usec, idle_usec / 10 * 9);
    http_pool_drop(p, c);
}

struct http_connection *http_pool_take(struct http_pool *p, struct http_origin *origin, unsigned generation)
{
    struct http_connection *c;
    uint64_t now = now_monotonic_usec();

    while ((c = TAILQ_FIRST(&origin->idle))) {
        bool fresh = c->generation == generation && now - c->made_usec < LIFETIME_USEC &&
                     now - c->idle_since_usec < origin->idle_max_usec;
        if (fresh && http_connection_look(c) == HTTP_QUIET) {
            take_out(p, c);
            return c;
        }
        http_pool_drop(p, c);
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
