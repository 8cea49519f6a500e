/* Connections. See http_connector.h. */
#include "http/http_connector.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/timeutil.h"
#include "http/http_address.h"
#include "http/http_names.h"
#include "http/http_shortage.h"
#include "http/http_tunnel.h"

/* RFC 8305, 5: the time from one address to the next; less when there are so many that the last ones would
 * have less than half of the time to connect. */
#define STAGGER_USEC (250 * USEC_PER_MSEC)
#define STAGGER_MIN_USEC (10 * USEC_PER_MSEC)
/* Of one attempt at a time: however many addresses a name has, it does not take the descriptors of others. */
#define OPEN_MAX 8

struct http_attempt {
    TAILQ_ENTRY(http_attempt) link;
    struct http_connector *connector;
    http_connected *callback;
    void *userdata;

    struct http_connect wanted; /* its proxy is the attempt's own copy */
    struct http_tunnel *tunnel; /* NULL = none, or not yet */
    struct http_lookup *lookup; /* of the name, or the proxy's, as long as it lasts */
    uint64_t until_usec;        /* its time is over */

    struct race {                         /* without a proxy */
        struct http_addresses *addresses; /* NULL = not known yet */
        int *fds;                         /* by turns, -1 = not under way */
        size_t best, begun, open;
        size_t refused;  /* by the address check */
        size_t unrouted; /* for which the kernel had no route */
        int shortage;    /* what this machine lacked for one of them; 0 = nothing */
        int last_error;
        struct http_timer timer; /* the next address's turn */
    } race;
};
TAILQ_HEAD(attempt_list, http_attempt);

struct http_connector {
    struct http_sockets *sockets;
    struct http_wheel *wheel;
    struct http_names *names;
    struct http_tunnels *tunnels;
    struct attempt_list fresh; /* have addresses, and begin in the loop's next turn */
    struct attempt_list under_way;
};

/* --- the end ---------------------------------------------------------------------------------- */

static void close_racer(struct http_attempt *a, size_t turn)
{
    struct race *race = &a->race;

    http_sockets_forget(a->connector->sockets, race->fds[turn]);
    closep(&race->fds[turn]);
    race->fds[turn] = -1;
    race->open--;
}

static void attempt_free(struct http_attempt *a)
{
    struct http_connector *c = a->connector;
    struct race *race = &a->race;
    bool fresh = race->addresses && race->begun == 0;

    TAILQ_REMOVE(fresh ? &c->fresh : &c->under_way, a, link);
    http_wheel_clear(&race->timer);
    if (a->tunnel)
        http_tunnel_cancel(a->tunnel);
    if (a->lookup)
        http_lookup_cancel(a->lookup);
    for (size_t turn = 0; turn < race->begun; turn++)
        if (race->fds[turn] >= 0)
            close_racer(a, turn);
    http_addresses_done(race->addresses);
    free(race->fds);
    free_secret((char *) (uintptr_t) a->wanted.proxy);
    free(a);
}

/* The attempt goes before the callback, which may start another one. */
static void report(struct http_attempt *a, int fd, enum http_cause cause, const char *detail)
{
    http_connected *callback = a->callback;
    void *userdata = a->userdata;

    attempt_free(a);
    callback(userdata, fd, cause, detail);
}

static void report_failure(struct http_attempt *a)
{
    const struct race *race = &a->race;
    size_t tried = race->addresses->count - race->refused;
    char detail[128];

    if (race->shortage) {
        report(a, -1, HTTP_INTERNAL, http_shortage_words(race->shortage));
        return;
    }
    if (tried == 0) {
        report(a, -1, HTTP_ADDRESS_REFUSED, "the address lies in a network that is not allowed");
        return;
    }
    if (race->unrouted == tried && race->refused > 0) {
        report(a, -1, HTTP_ADDRESS_REFUSED,
               "its only address with a route lies in a network that is not allowed");
        return;
    }
    if (race->unrouted == tried) {
        report(a, -1, HTTP_INTERNAL, http_shortage_words(race->last_error));
        return;
    }
    const char *words = strerrordesc_np(race->last_error);
    if (tried == 1)
        snprintf(detail, sizeof(detail), "%s", words);
    else
        snprintf(detail, sizeof(detail), "none of %zu addresses could be reached, the last one: %s", tried,
                 words);
    report(a, -1, HTTP_CONNECT, detail);
}

/* --- the race --------------------------------------------------------------------------------- */

static void race_on(struct http_attempt *a);

static void set_socket_options(int fd)
{
    static const struct {
        int level, name, value;
    } options[] = {
        {IPPROTO_TCP, TCP_NODELAY, 1},
        {SOL_SOCKET, SO_KEEPALIVE, 1}, /* a peer that vanished is noticed while idle */
        {IPPROTO_TCP, TCP_KEEPIDLE, 30},
        {IPPROTO_TCP, TCP_KEEPINTVL, 10},
    };

    for (size_t i = 0; i < ARRAY_SIZE(options); i++)
        (void) setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof(int));
}

/* The address that was connected to last comes first, the others in their order. */
static size_t address_of(const struct race *race, size_t turn)
{
    return turn == 0 ? race->best : turn <= race->best ? turn - 1 : turn;
}

static void win(struct http_attempt *a, size_t turn)
{
    struct race *race = &a->race;
    int fd = race->fds[turn];

    http_sockets_forget(a->connector->sockets, fd);
    race->fds[turn] = -1;
    race->open--;
    race->addresses->best = address_of(race, turn);
    set_socket_options(fd);
    report(a, fd, HTTP_ANSWERED, "");
}

/* A connection that the kernel itself did not let out is no word of the institution's. */
static void note_error(struct race *race, sa_family_t family, int error, bool at_once)
{
    race->last_error = error;
    if (!at_once)
        return;
    /* Without an IPv6 address of its own a machine has no port for such an address, either. */
    if (http_is_no_route(error) || (error == EADDRNOTAVAIL && family == AF_INET6))
        race->unrouted++;
    else if (http_is_shortage(error))
        race->shortage = error;
}

static void on_socket(void *owner, int fd, uint32_t events)
{
    struct http_attempt *a = owner;
    struct race *race = &a->race;
    int error = 0;
    size_t turn = 0;

    while (race->fds[turn] != fd)
        turn++;
    (void) getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &(socklen_t){sizeof(error)});
    if (error == 0 && events & EPOLLOUT) {
        win(a, turn);
        return;
    }
    close_racer(a, turn);
    note_error(race, race->addresses->list[address_of(race, turn)].family, error, false);
    race_on(a);
}

/* 0 = under way or connected; else positive errno. */
static int connect_to(struct http_attempt *a, size_t turn, bool *ret_connected)
{
    struct race *race = &a->race;
    struct http_address address = race->addresses->list[address_of(race, turn)];
    size_t len = address.family == AF_INET ? sizeof(address.in) : sizeof(address.in6);

    if (address.family == AF_INET)
        address.in.sin_port = htons(a->wanted.port);
    else
        address.in6.sin6_port = htons(a->wanted.port);
    int fd = socket(address.family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return errno;
    *ret_connected = connect(fd, &address.any, (socklen_t) len) == 0;
    int error = *ret_connected || errno == EINPROGRESS ? 0 : errno;
    if (error == 0 && !*ret_connected)
        error = -http_sockets_watch(a->connector->sockets, fd, EPOLLOUT, on_socket, a);
    if (error == 0) {
        race->fds[turn] = fd;
        race->open++;
    } else {
        close(fd);
    }
    return error;
}

/* True when the race is over: the address was connected to, and the attempt is gone. */
static bool begin_next(struct http_attempt *a)
{
    struct race *race = &a->race;
    size_t turn = race->begun++;
    const struct http_address *address = &race->addresses->list[address_of(race, turn)];
    bool connected = false;

    if (a->wanted.check_address && !http_address_is_public(&address->any, sizeof(struct sockaddr_in6))) {
        race->refused++;
        return false;
    }
    int error = connect_to(a, turn, &connected);
    if (error)
        note_error(race, address->family, error, true);
    if (connected)
        win(a, turn);
    return connected;
}

static void close_oldest(struct http_attempt *a)
{
    size_t turn = 0;

    while (a->race.fds[turn] < 0)
        turn++;
    close_racer(a, turn);
}

/* Begins with the next address that can be waited for. */
static void race_on(struct http_attempt *a)
{
    struct race *race = &a->race;
    size_t count = race->addresses->count;
    uint64_t now = now_monotonic_usec();

    if (race->open == OPEN_MAX && race->begun < count)
        close_oldest(a);
    size_t open = race->open;
    while (race->begun < count && race->open == open)
        if (begin_next(a))
            return;
    if (race->open == 0) {
        report_failure(a);
        return;
    }
    if (race->begun == count)
        return;
    uint64_t left = a->until_usec > now ? a->until_usec - now : 0;
    uint64_t share = left / 2 / (count - race->begun);
    http_wheel_set(a->connector->wheel, &race->timer, now + MAX(MIN(share, STAGGER_USEC), STAGGER_MIN_USEC));
}

static void on_turn(void *owner)
{
    race_on(owner);
}

/* --- the start -------------------------------------------------------------------------------- */

static void set_addresses(struct http_attempt *a, struct http_addresses *addresses)
{
    struct race *race = &a->race;

    race->addresses = addresses;
    race->best = addresses->best;
    race->fds = xcalloc(addresses->count, sizeof(race->fds[0]));
    for (size_t i = 0; i < addresses->count; i++)
        race->fds[i] = -1;
}

static void on_resolved(void *userdata, struct http_addresses *addresses, enum http_cause cause,
                        const char *detail)
{
    struct http_attempt *a = userdata;

    a->lookup = NULL;
    if (!addresses) {
        report(a, -1, cause, detail);
        return;
    }
    set_addresses(a, addresses);
    race_on(a);
}

static void on_tunnel(void *userdata, int fd, enum http_cause cause, const char *detail)
{
    struct http_attempt *a = userdata;

    a->tunnel = NULL;
    report(a, fd, cause, detail);
}

static void start_tunnel(struct http_attempt *a)
{
    uint64_t now = now_monotonic_usec();

    a->wanted.timeout_usec = a->until_usec > now ? a->until_usec - now : 0;
    a->tunnel = http_tunnel_start(a->connector->tunnels, &a->wanted, on_tunnel, a);
}

/* libcurl looks it up itself, and has the words; but does not know a name server that is silent from a name
 * that is not found. */
static void on_proxy_resolved(void *userdata, struct http_addresses *addresses, enum http_cause cause,
                              const char *detail)
{
    struct http_attempt *a = userdata;

    a->lookup = NULL;
    http_addresses_done(addresses);
    if (cause == HTTP_INTERNAL)
        report(a, -1, cause, detail);
    else
        start_tunnel(a);
}

static void go_to_proxy(struct http_attempt *a)
{
    CLEANUP(freep) char *host = http_tunnel_proxy_host(a->wanted.proxy);
    struct http_addresses *known = NULL;

    if (host)
        a->lookup = http_names_ask(a->connector->names, host, on_proxy_resolved, a, &known);
    http_addresses_done(known);
    if (!a->lookup)
        start_tunnel(a);
}

struct http_attempt *http_connector_start(struct http_connector *c, const struct http_connect *wanted,
                                          http_connected *callback, void *userdata)
{
    struct http_attempt *a = xcalloc(1, sizeof(*a));
    struct http_addresses *addresses = NULL;

    a->connector = c;
    a->callback = callback;
    a->userdata = userdata;
    a->wanted = *wanted;
    a->wanted.proxy = xstrdup(wanted->proxy);
    a->until_usec = now_monotonic_usec() + wanted->timeout_usec;
    a->race.timer = (struct http_timer){.fire = on_turn, .owner = a};
    if (wanted->proxy[0])
        go_to_proxy(a);
    else
        a->lookup = http_names_ask(c->names, wanted->host, on_resolved, a, &addresses);
    if (addresses) {
        set_addresses(a, addresses);
        http_sockets_wake(c->sockets);
    }
    TAILQ_INSERT_TAIL(addresses ? &c->fresh : &c->under_way, a, link);
    return a;
}

void http_attempt_cancel(struct http_attempt *a)
{
    attempt_free(a);
}

enum http_cause http_attempt_overdue(const struct http_attempt *a, const char **ret_detail)
{
    if (a->tunnel)
        return http_tunnel_overdue(a->tunnel, ret_detail);
    if (a->lookup) {
        enum http_cause cause = http_names_overdue(a->connector->names, ret_detail);
        return a->wanted.proxy[0] && cause != HTTP_INTERNAL ? http_tunnel_lost(&a->wanted, ret_detail)
                                                            : cause;
    }
    *ret_detail = "no connection in time";
    if (!a->race.shortage)
        return HTTP_CONNECT;
    *ret_detail = http_shortage_words(a->race.shortage);
    return HTTP_INTERNAL;
}

void http_connector_avoid(struct http_connector *c, const char *host, const struct http_address *peer)
{
    http_names_avoid(c->names, host, peer);
}

void http_connector_forget_names(struct http_connector *c)
{
    http_names_forget(c->names);
}

void http_connector_run(struct http_connector *c)
{
    struct http_attempt *a;

    http_tunnels_run(c->tunnels);
    /* Those that the callbacks start have begun by the loop's next turn. */
    for (struct http_attempt *last = TAILQ_LAST(&c->fresh, attempt_list); last;
         last = a == last ? NULL : last) {
        a = TAILQ_FIRST(&c->fresh);
        TAILQ_REMOVE(&c->fresh, a, link);
        TAILQ_INSERT_TAIL(&c->under_way, a, link);
        race_on(a);
    }
}

uint64_t http_connector_next_usec(const struct http_connector *c)
{
    return http_tunnels_next_usec(c->tunnels);
}

int http_connector_new(struct http_connector **ret, struct http_sockets *sockets, struct http_wheel *wheel)
{
    struct http_connector *c = xcalloc(1, sizeof(*c));

    c->sockets = sockets;
    c->wheel = wheel;
    TAILQ_INIT(&c->fresh);
    TAILQ_INIT(&c->under_way);
    int r = http_names_new(&c->names, sockets, wheel);
    if (r >= 0)
        r = http_tunnels_new(&c->tunnels, sockets);
    if (r < 0) {
        http_connector_free(c);
        return r;
    }
    *ret = c;
    return 0;
}

void http_connector_free(struct http_connector *c)
{
    struct http_attempt *a;

    if (!c)
        return;
    while ((a = TAILQ_FIRST(&c->under_way)) || (a = TAILQ_FIRST(&c->fresh)))
        attempt_free(a);
    http_tunnels_free(c->tunnels);
    http_names_free(c->names);
    free(c);
}
