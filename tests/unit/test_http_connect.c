/* The HTTP client on its way to a connection: names, their addresses, and what this machine may lack. */
#include "http_fixture.h"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <resolv.h>
#include <sys/syscall.h>
#include <time.h>

#define OK "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
#define OK_CLOSE "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
#define PUBLIC "93.184.215.14" /* is led elsewhere, see connect() */
#define ADDRESSES_MAX 1024

static const struct reply ok[] = {{OK, KEEP, NULL, false}};
static const struct reply ok_close[] = {{OK_CLOSE, CLOSE, NULL, false}};

/* --- the machine as the client sees it -------------------------------------------------------- */

/* The names, the network and the clock. Set while no lookup is under way. */
static struct world {
    const char *addresses[ADDRESSES_MAX];                    /* of each name below test */
    int resolver_code;                                       /* what a name below test gets instead */
    int resolver_errno;                                      /* with EAI_SYSTEM */
    enum speech { SPEAKS, FAILS, SILENT, NONE } name_server; /* SERVFAIL; no packet; nobody at its port */
    int socket_errno, connect_errno;                         /* at once */
    const char *connect_only;                                /* connect_errno is for this address */
    const char *public_is; /* where PUBLIC is led to; NULL = to the loopback */
    uint64_t later_usec;   /* the clock is ahead by this much */
} world;
static char asked[256];              /* the last name that was looked up */
static char connected[64][64];       /* addresses, in the order of connect() */
static atomic_int connects, hanging; /* lookups that hang */
static atomic_bool resolver_hangs;
static atomic_int name_server; /* an enum speech; threads that hang ask it in the end */
static atomic_int name_server_fd, questions;
static uint16_t name_server_port;
static pthread_t name_server_thread;
static pthread_t main_thread;
static int alone; /* threads between two tests */

static void *real(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

static int look_up(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **ret)
{
    int (*f)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    void *symbol = real("getaddrinfo");

    memcpy(&f, &symbol, sizeof(f));
    return f(name, service, hints, ret);
}

int getaddrinfo(const char *restrict name, const char *restrict service,
                const struct addrinfo *restrict hints, struct addrinfo **restrict ret)
{
    if (strncmp(name, "hangs", 5) == 0) {
        hanging++;
        while (resolver_hangs)
            usleep(50 * 1000);
        hanging--;
        return EAI_AGAIN;
    }
    if (!strstr(name, ".test"))
        return look_up(name, service, hints, ret);
    snprintf(asked, sizeof(asked), "%s", name);
    errno = world.resolver_errno;
    if (world.resolver_code)
        return world.resolver_code;
    for (int i = 0; world.addresses[i]; i++) {
        assert_int_equal(look_up(world.addresses[i], service, hints, ret), 0);
        ret = &(*ret)->ai_next;
    }
    return 0;
}

/* What resolv.conf(5) says. */
int __res_ninit(res_state resolver)
{
    int (*f)(res_state);
    void *symbol = real("__res_ninit");

    memcpy(&f, &symbol, sizeof(f));
    int r = f(resolver);
    resolver->nscount = 1;
    resolver->nsaddr_list[0] = (struct sockaddr_in){
        .sin_family = AF_INET,
        .sin_port = htons(name_server == NONE ? 1 : name_server_port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    return r;
}

static void *name_server_run(void *unused)
{
    unsigned char packet[512];
    struct sockaddr from;
    socklen_t len = sizeof(from);

    for (ssize_t n; (n = recvfrom(name_server_fd, packet, sizeof(packet), 0, &from, &len)) > 0;) {
        questions++;
        packet[2] |= 0x80;                        /* an answer */
        packet[3] = name_server == FAILS ? 2 : 3; /* SERVFAIL, NXDOMAIN */
        if (name_server != SILENT)
            sendto(name_server_fd, packet, (size_t) n, 0, &from, len);
    }
    return unused;
}

static void name_server_start(void)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr address;
    socklen_t len = sizeof(address);

    name_server_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    memcpy(&address, &in, sizeof(in));
    assert_int_equal(bind(name_server_fd, &address, len), 0);
    assert_int_equal(getsockname(name_server_fd, &address, &len), 0);
    memcpy(&in, &address, sizeof(in));
    name_server_port = ntohs(in.sin_port);
    assert_int_equal(pthread_create(&name_server_thread, NULL, name_server_run, NULL), 0);
}

static void name_server_stop(void)
{
    shutdown(name_server_fd, SHUT_RDWR);
    pthread_join(name_server_thread, NULL);
    close(name_server_fd);
}

int socket(int family, int type, int protocol)
{
    int (*f)(int, int, int);
    void *symbol = real("socket");

    memcpy(&f, &symbol, sizeof(f));
    if (world.socket_errno && pthread_equal(pthread_self(), main_thread)) {
        errno = world.socket_errno;
        return -1;
    }
    return f(family, type, protocol);
}

int connect(int fd, const struct sockaddr *address, socklen_t len)
{
    int (*f)(int, const struct sockaddr *, socklen_t);
    void *symbol = real("connect");
    struct sockaddr_in6 in6;
    struct sockaddr_in in;
    struct sockaddr other;
    char *text = connected[connects++ % 64];

    memcpy(&f, &symbol, sizeof(f));
    if (address->sa_family == AF_INET6) {
        memcpy(&in6, address, sizeof(in6));
        inet_ntop(AF_INET6, &in6.sin6_addr, text, sizeof(connected[0]));
    } else {
        memcpy(&in, address, sizeof(in));
        inet_ntop(AF_INET, &in.sin_addr, text, sizeof(connected[0]));
    }
    if (world.connect_errno && (!world.connect_only || strcmp(text, world.connect_only) == 0)) {
        errno = world.connect_errno;
        return -1;
    }
    if (strcmp(text, PUBLIC) != 0)
        return f(fd, address, len);
    inet_pton(AF_INET, world.public_is ? world.public_is : "127.0.0.1", &in.sin_addr);
    memcpy(&other, &in, sizeof(other));
    return f(fd, &other, len);
}

int clock_gettime(clockid_t clock, struct timespec *ret)
{
    int r = (int) syscall(SYS_clock_gettime, clock, ret);

    if (clock != CLOCK_REALTIME)
        ret->tv_sec += (time_t) (world.later_usec / USEC_PER_SEC);
    return r;
}

static int count_threads(void)
{
    DIR *d = opendir("/proc/self/task");
    int count = 0;

    for (struct dirent *entry; (entry = readdir(d));)
        count += entry->d_name[0] != '.';
    closedir(d);
    return count;
}

static void wait_for_threads(int count)
{
    for (uint64_t deadline = now_monotonic_usec() + PATIENCE_USEC; count_threads() > count; usleep(1000))
        assert_true(now_monotonic_usec() < deadline);
}

static int setup(void **state)
{
    if (!alone)
        alone = count_threads();
    main_thread = pthread_self();
    world = (struct world){.addresses = {"127.0.0.1"}};
    name_server = SPEAKS;
    questions = 0;
    name_server_start();
    connects = 0;
    return client_setup(state);
}

static int teardown(void **state)
{
    uint64_t later_usec = world.later_usec;

    world = (struct world){.later_usec = later_usec};
    name_server_stop();
    int r = client_teardown(state);
    wait_for_threads(alone); /* or they ask the next test's name server */
    return r;
}

#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

static void set_connect_timeout(struct client *c, uint64_t usec)
{
    c->params.connect_timeout_usec = usec;
    http_set_params(c->http, &c->params);
}

static const char *url_of(const char *host, const struct server *s)
{
    static char url[512];

    snprintf(url, sizeof(url), "%s://%s:%d/", s->tls ? "https" : "http", host, s->port);
    return url;
}

static struct outcome *post_to_name(struct client *c, const char *name, const struct server *s)
{
    return finished(c, post(c, url_of(name, s)));
}

/* --- addresses -------------------------------------------------------------------------------- */

/* A listener that takes no connection any more: what is sent to it is dropped. */
struct hole {
    int fds[4];
};

static bool hole_new(struct hole *h, const char *address, uint16_t port)
{
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } to = {.in = {.sin_family = AF_INET, .sin_port = htons(port)}};
    int family = strchr(address, ':') ? AF_INET6 : AF_INET;

    if (family == AF_INET6)
        to.in6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(port)};
    inet_pton(family, address, family == AF_INET6 ? (void *) &to.in6.sin6_addr : &to.in.sin_addr);
    *h = (struct hole){{-1, -1, -1, -1}};
    h->fds[0] = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (h->fds[0] < 0 || bind(h->fds[0], &to.any, sizeof(to)) < 0)
        return false;
    assert_int_equal(listen(h->fds[0], 0), 0);
    for (int i = 1; i < 4; i++) {
        h->fds[i] = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void) connect(h->fds[i], &to.any, sizeof(to));
    }
    return true;
}

static void hole_free(struct hole *h)
{
    for (int i = 0; i < 4; i++)
        closep(&h->fds[i]);
}

/* However many addresses of a name are dead, the good one has its chance; the next time it is the first. */
static void reach_the_last_of_many(struct client *c, struct server *s, const char *name)
{
    enum { DEAD = 20 };
    static char texts[DEAD][24];
    struct hole holes[DEAD];

    for (int i = 0; i < DEAD; i++) {
        snprintf(texts[i], sizeof(texts[i]), "127.0.0.%d", 100 + i);
        assert_true(hole_new(&holes[i], texts[i], s->port));
        world.addresses[i] = texts[i];
    }
    world.addresses[DEAD] = "127.0.0.1";
    set_connect_timeout(c, 5 * USEC_PER_SEC);
    connects = 0;
    struct outcome *o = post_to_name(c, name, s);
    expect_status(o, 200);
    assert_int_equal(connects, DEAD + 1);
    free(o);
    o = post_to_name(c, name, s);
    expect_status(o, 200);
    assert_int_equal(connects, DEAD + 2);
    free(o);
    for (int i = 0; i < DEAD; i++)
        hole_free(&holes[i]);
}

TEST(test_twenty_black_holes_before_the_good_address)
{
    struct client *c = *state;
    struct server *s = server_start(ok_close, 1);

    reach_the_last_of_many(c, s, "many.test");
    server_stop(s);
}

/* A name server may say what it likes. */
TEST(test_a_thousand_addresses)
{
    static char texts[1000][24];
    struct client *c = *state;
    struct server *s = server_start(ok_close, 1);

    for (int i = 0; i < 999; i++) { /* each refuses */
        snprintf(texts[i], sizeof(texts[i]), "127.1.%d.%d", i / 250, i % 250 + 1);
        world.addresses[i] = texts[i];
    }
    world.addresses[999] = "127.0.0.1";
    struct outcome *o = post_to_name(c, "many.test", s);
    expect_status(o, 200);
    assert_int_equal(connects, 1000);
    free(o);
    server_stop(s);
}

static SSL_CTX *trusted_name(struct client *c, const char *name)
{
    static char path[64];

    snprintf(path, sizeof(path), "/tmp/anubis-test-%d.pem", getpid());
    SSL_CTX *context = tls_context_new(name, path, -60, 3600);
    c->params.ca_file = path;
    http_set_params(c->http, &c->params);
    return context;
}

TEST(test_twenty_black_holes_over_tls)
{
    struct client *c = *state;
    struct server *s = server_start_over(trusted_name(c, "many.test"), ok_close, 1);

    reach_the_last_of_many(c, s, "many.test");
    unlink(c->params.ca_file);
    server_stop(s);
}

static int open_descriptors(void)
{
    int count = 0;

    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* The address that was connected to last is the first to be tried: it may be silent the next time. */
TEST(test_the_last_good_address_falls_silent)
{
    struct client *c = *state;
    struct server *s = server_start(ok_close, 1);
    struct hole hole;

    memcpy(world.addresses, (const char *[]){"127.0.0.1", "127.0.0.4", PUBLIC}, 3 * sizeof(char *));
    world.connect_errno = ECONNREFUSED;
    world.connect_only = "127.0.0.1";
    struct outcome *o = post_to_name(c, "some.test", s);
    expect_status(o, 200);
    assert_int_equal(connects, 3);
    free(o);
    assert_true(hole_new(&hole, "127.0.0.9", s->port));
    WAIT_FOR(c, !server_has_connections(s));
    int before = open_descriptors();
    world.connect_errno = 0;
    world.public_is = "127.0.0.9";
    connects = 0;
    o = post_to_name(c, "some.test", s);
    expect_status(o, 200);
    assert_int_equal(connects, 2);
    assert_string_equal(connected[0], PUBLIC);
    free(o);
    WAIT_FOR(c, open_descriptors() == before);
    hole_free(&hole);
    server_stop(s);
}

/* A name with many addresses takes a few descriptors at a time. */
static int listen_at(const char *address, uint16_t port)
{
    union {
        struct sockaddr any;
        struct sockaddr_in in;
    } at = {.in = {.sin_family = AF_INET, .sin_port = htons(port)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    inet_pton(AF_INET, address, &at.in.sin_addr);
    assert_int_equal(bind(fd, &at.any, sizeof(at.in)), 0);
    assert_int_equal(listen(fd, 16), 0);
    return fd;
}

static void *close_all(void *userdata)
{
    for (int fd; (fd = accept4(*(int *) userdata, NULL, NULL, SOCK_CLOEXEC)) >= 0;)
        close(fd);
    return NULL;
}

/* The first address takes connections, and says nothing or ends them: the next request goes to the other. */
static void pass_a_sick_address(struct client *c, struct server *s, const char *name, bool ends)
{
    int sick = listen_at("127.0.0.3", s->port);
    pthread_t thread;

    if (ends)
        pthread_create(&thread, NULL, close_all, &sick);
    struct outcome *o = finished(c, post_within(c, url_of(name, s), 500 * USEC_PER_MSEC));
    assert_true(o->result.cause != HTTP_ANSWERED || ends);
    free(o);
    for (int i = 0; i < 3; i++) {
        o = post_to_name(c, name, s);
        expect_status(o, 200);
        assert_string_equal(connected[(connects - 1) % 64], "127.0.0.1");
        free(o);
    }
    shutdown(sick, SHUT_RDWR);
    if (ends)
        pthread_join(thread, NULL);
    close(sick);
}

TEST(test_an_address_that_brings_nothing)
{
    struct client *c = *state;

    for (int i = 0; i < 4; i++) {
        SSL_CTX *tls = i / 2 ? trusted_name(c, "sick.test") : NULL;
        struct server *s = server_start_over(tls, ok_close, 1);
        if (tls)
            unlink(c->params.ca_file);
        world.addresses[0] = "127.0.0.3";
        world.addresses[1] = "127.0.0.1";
        pass_a_sick_address(c, s, "sick.test", i % 2);
        server_stop(s);
        http_set_params(c->http, &c->params); /* forget the addresses */
    }
}

TEST(test_many_addresses_take_few_descriptors)
{
    enum { MANY = 30, AT_ONCE = 8 };
    static char texts[MANY][24];
    struct client *c = *state;
    struct server *s = server_start(ok, 1);
    struct hole holes[MANY];
    int most = 0;

    for (int i = 0; i < MANY; i++) {
        snprintf(texts[i], sizeof(texts[i]), "127.0.0.%d", 100 + i);
        assert_true(hole_new(&holes[i], texts[i], s->port));
        world.addresses[i] = texts[i];
    }
    set_connect_timeout(c, USEC_PER_SEC);
    connects = 0;
    int before = open_descriptors();
    struct outcome *o = post(c, url_of("many.test", s));
    while (!o->done) {
        turn(c);
        if (connects > 0)
            most = MAX(most, open_descriptors() - before);
    }
    expect_cause(o, HTTP_CONNECT);
    assert_int_equal(connects, MANY);
    assert_int_equal(most, AT_ONCE);
    free(o);
    for (int i = 0; i < MANY; i++)
        hole_free(&holes[i]);
    server_stop(s);
}

/* The order in which addresses are tried: families by turns; what fails at once makes room at once. */
TEST(test_dead_addresses_of_either_family)
{
    static const struct {
        const char *addresses[4];
        const char *hole; /* drops what it gets, the others refuse */
        const char *tried;
    } scenes[] = {
        {{"127.0.0.1"}, NULL, "127.0.0.1"},
        {{"127.0.0.9", "127.0.0.1"}, "127.0.0.9", "127.0.0.9 127.0.0.1"},
        {{"::1", "127.0.0.1"}, "::1", "::1 127.0.0.1"},
        {{"::1", "127.0.0.1"}, NULL, "::1 127.0.0.1"},
        {{"127.0.0.3", "127.0.0.1"}, NULL, "127.0.0.3 127.0.0.1"},
        {{"127.0.0.3", "127.0.0.4", "127.0.0.1", "::1"}, NULL, "127.0.0.3 ::1 127.0.0.4 127.0.0.1"},
        {{"::1", "::1", "127.0.0.1"}, "::1", "::1 127.0.0.1"},
    };
    struct client *c = *state;

    for (size_t i = 0; i < ARRAY_SIZE(scenes); i++) {
        struct server *s = server_start(ok_close, 1);
        struct hole hole = {{-1, -1, -1, -1}};

        if (scenes[i].hole && !hole_new(&hole, scenes[i].hole, s->port)) {
            print_message("no IPv6 here\n");
            hole_free(&hole);
            server_stop(s);
            continue;
        }
        memset(world.addresses, 0, sizeof(world.addresses));
        memcpy(world.addresses, scenes[i].addresses, sizeof(scenes[i].addresses));
        set_connect_timeout(c, 20 * USEC_PER_SEC);
        connects = 0;
        struct outcome *o = post_to_name(c, "some.test", s);
        expect_status(o, 200);
        struct strbuf tried = STRBUF_INIT(1024);
        for (int n = 0; n < connects; n++)
            strbuf_addf(&tried, "%s%s", n ? " " : "", connected[n]);
        assert_string_equal(strbuf_str(&tried), scenes[i].tried);
        strbuf_free(&tried);
        free(o);
        hole_free(&hole);
        server_stop(s);
    }
}

TEST(test_private_address_among_public_ones)
{
    static const struct {
        const char *addresses[4];
        enum http_cause cause;
        const char *unrouted;
    } scenes[] = {
        {{"127.0.0.1", PUBLIC}, HTTP_ANSWERED, NULL},
        {{PUBLIC, "127.0.0.1"}, HTTP_ANSWERED, NULL},
        {{"::1", "10.0.0.1", PUBLIC}, HTTP_ANSWERED, NULL},
        {{"127.0.0.1", "::1"}, HTTP_ADDRESS_REFUSED, NULL},
        {{"127.0.0.1"}, HTTP_ADDRESS_REFUSED, NULL},
        {{"2001:4860::1", "10.0.0.1"}, HTTP_ADDRESS_REFUSED, "2001:4860::1"},
        {{"10.0.0.1", "2001:4860::1"}, HTTP_ADDRESS_REFUSED, "2001:4860::1"},
    };
    struct client *c = *state;
    struct server *s = server_start(ok_close, 1);

    c->params.allow_private_networks = false;
    for (size_t i = 0; i < ARRAY_SIZE(scenes); i++) {
        memset(world.addresses, 0, sizeof(world.addresses));
        memcpy(world.addresses, scenes[i].addresses, sizeof(scenes[i].addresses));
        http_set_params(c->http, &c->params);
        world.connect_only = scenes[i].unrouted;
        world.connect_errno = scenes[i].unrouted ? ENETUNREACH : 0;
        connects = 0;
        struct outcome *o = post_to_name(c, "some.test", s);
        expect_cause(o, scenes[i].cause);
        assert_int_equal(connects, scenes[i].unrouted || scenes[i].cause == HTTP_ANSWERED);
        if (scenes[i].cause == HTTP_ANSWERED)
            assert_string_equal(connected[0], PUBLIC);
        free(o);
    }
    server_stop(s);
}

TEST(test_all_addresses_refuse)
{
    struct client *c = *state;
    struct server *s = server_start(ok, 1);

    world.addresses[0] = "127.0.0.3";
    world.addresses[1] = "127.0.0.4";
    struct outcome *o = post_to_name(c, "some.test", s);
    expect_cause(o, HTTP_CONNECT);
    assert_string_equal(o->detail, "none of 2 addresses could be reached, the last one: Connection refused");
    assert_false(o->result.body_handed_over);
    free(o);
    server_stop(s);
}

TEST(test_all_addresses_are_silent)
{
    struct client *c = *state;
    struct server *s = server_start(ok, 1);
    struct hole holes[2];

    world.addresses[0] = "127.0.0.3";
    world.addresses[1] = "127.0.0.4";
    for (int i = 0; i < 2; i++)
        assert_true(hole_new(&holes[i], world.addresses[i], s->port));
    set_connect_timeout(c, 300 * USEC_PER_MSEC);
    connects = 0;
    struct outcome *o = post_to_name(c, "some.test", s);
    expect_cause(o, HTTP_CONNECT);
    assert_string_equal(o->detail, "no connection in time");
    assert_int_equal(connects, 2);
    free(o);
    for (int i = 0; i < 2; i++)
        hole_free(&holes[i]);
    server_stop(s);
}

/* Ended in the midst of a race, or with all: nothing is left open. */
TEST(test_cancelled_while_connecting)
{
    struct client *c = *state;
    struct server *s = server_start(ok, 1);
    struct hole hole;
    struct outcome *o[3];

    world.addresses[0] = "127.0.0.3";
    assert_true(hole_new(&hole, "127.0.0.3", s->port));
    connects = 0;
    for (int i = 0; i < 3; i++)
        o[i] = post(c, url_of(i == 2 ? "127.0.0.3" : "some.test", s));
    http_cancel(c->http, o[2]->transfer); /* it has not begun yet */
    WAIT_FOR(c, connects == 2);
    http_cancel(c->http, o[0]->transfer);
    expect_cause(finished(c, o[0]), HTTP_CANCELLED);
    expect_cause(finished(c, o[2]), HTTP_CANCELLED);
    http_free(TAKE_PTR(c->http));
    assert_false(o[1]->done);
    for (int i = 0; i < 3; i++)
        free(o[i]);
    hole_free(&hole);
    server_stop(s);
}

/* --- names ------------------------------------------------------------------------------------ */

/* As many hanging names as anybody may have, and more: those that are well are served all the while. */
TEST(test_hanging_names_delay_nobody)
{
    enum { NAMES = 40, EACH = 5 };
    struct client *c = *state;
    struct server *s = server_start(ok_close, 1);
    struct outcome *o[NAMES][EACH];
    char url[64], name[16];
    int before = count_threads();

    resolver_hangs = true;
    for (int i = 0; i < NAMES; i++)
        for (int n = 0; n < EACH; n++) {
            snprintf(url, sizeof(url), "http://hangs%d.example/", i);
            o[i][n] = post_within(c, url, n == 0 ? USEC_PER_SEC : TIMEOUT_USEC);
        }
    WAIT_FOR(c, hanging == NAMES);
    assert_int_equal(count_threads(), before + NAMES); /* one for each name */
    for (int i = 0; i < 50; i++) {
        snprintf(name, sizeof(name), "well%d.test", i % 10);
        struct outcome *well = post_to_name(c, name, s);
        expect_status(well, 200);
        free(well);
    }
    for (int i = 0; i < NAMES; i++) {
        expect_cause(finished(c, o[i][0]), HTTP_DNS);
        assert_false(o[i][0]->result.body_handed_over);
        assert_false(o[i][1]->done);
    }
    assert_int_equal(hanging, NAMES);
    http_free(TAKE_PTR(c->http)); /* at once */
    assert_int_equal(hanging, NAMES);
    resolver_hangs = false;
    server_stop(s);
    wait_for_threads(before - 1);
    for (int i = 0; i < NAMES; i++)
        for (int n = 0; n < EACH; n++)
            free(o[i][n]);
}

/* The threads have an end; what waits for one gets it. */
TEST(test_more_hanging_names_than_threads)
{
    enum { NAMES = 1030, THREADS = 1024 };
    struct client *c = *state;
    struct outcome *o[NAMES];
    int before = count_threads();
    char url[64];

    resolver_hangs = true;
    for (int i = 0; i < NAMES; i++) {
        snprintf(url, sizeof(url), "http://hangs%d.example/", i);
        o[i] = post(c, url);
    }
    WAIT_FOR(c, hanging == THREADS);
    http_cancel(c->http, o[NAMES - 1]->transfer); /* still waiting */
    expect_cause(finished(c, o[NAMES - 1]), HTTP_CANCELLED);
    assert_true(hanging <= THREADS);
    resolver_hangs = false;
    for (int i = 0; i < NAMES; i++) {
        /* So many ask the name server at once that their packets may get lost. */
        if (i < NAMES - 1 && finished(c, o[i])->result.cause != HTTP_INTERNAL)
            expect_cause(o[i], HTTP_DNS);
        free(o[i]);
    }
    wait_for_threads(before);
}

/* A name that moves is followed when its address has been known for a minute, or at a reload. */
TEST(test_changed_address_is_followed)
{
    struct client *c = *state;
    struct server *s = server_start(ok_close, 1);
    struct outcome *o = post_to_name(c, "moving.test", s);

    expect_status(o, 200);
    free(o);
    world.addresses[0] = "127.0.0.3";
    o = post_to_name(c, "moving.test", s);
    expect_status(o, 200);
    free(o);
    world.later_usec += 61 * USEC_PER_SEC;
    o = post_to_name(c, "moving.test", s);
    expect_cause(o, HTTP_CONNECT);
    free(o);
    assert_string_equal(connected[2], "127.0.0.3");
    world.addresses[0] = "127.0.0.1";
    http_set_params(c->http, &c->params);
    o = post_to_name(c, "moving.test", s);
    expect_status(o, 200);
    free(o);
    server_stop(s);
}

/* The same for a connection that is always in use. */
TEST(test_kept_connection_follows_its_name_in_the_end)
{
    struct client *c = *state;
    struct server *s = server_start(ok, 1);
    struct outcome *o = NULL;

    for (int i = 0; i < 5; i++) {
        o = post_to_name(c, "moving.test", s);
        expect_status(o, 200);
        free(o);
        world.later_usec += 90 * USEC_PER_SEC;
        turn(c);
    }
    assert_int_equal(connects, 2); /* the first one showed that they are kept */
    world.addresses[0] = "127.0.0.3";
    o = post_to_name(c, "moving.test", s);
    expect_cause(o, HTTP_CONNECT);
    free(o);
    server_stop(s);
}

static int note_server_name(SSL *ssl, int *alert, void *userdata)
{
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);

    (void) alert;
    snprintf(userdata, 64, "%s", name ? name : "");
    return SSL_TLSEXT_ERR_OK;
}

TEST(test_dot_at_the_end_of_a_name)
{
    static char indicated[64];
    struct client *c = *state;
    SSL_CTX *tls = trusted_name(c, "dot.test");
    char host[64];

    unlink(c->params.ca_file);
    SSL_CTX_set_tlsext_servername_callback(tls, note_server_name);
    SSL_CTX_set_tlsext_servername_arg(tls, indicated);
    struct server *s = server_start_over(tls, ok, 1);
    struct outcome *o = post_to_name(c, "dot.test.", s);
    expect_status(o, 200);
    free(o);
    assert_string_equal(asked, "dot.test.");
    assert_string_equal(indicated, "dot.test");
    snprintf(host, sizeof(host), "\r\nHost: dot.test:%d\r\n", s->port);
    assert_non_null(strstr(s->request, host));
    server_stop(s);
}

TEST(test_hosts_that_no_name_has)
{
    static const char *const hosts[] = {
        "a,b",
        "*",
        "$(id)",
        "a'b\"",
        "a..b",
        ".a",
        "a.b..",
        ".",
        "a!b",
        "a+b",
        "a~b",
        "(a)",
        "a;b",
        "a=b",
        "a&b",
        "a*b.c",
        "m\xc3\xbcnchen.example",
        "%2A",
        "a%20b",
        "0123456789012345678901234567890123456789012345678901234567890123.example",
        "a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a."
        "a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a."
        "a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.abc",
    };
    struct client *c = *state;

    for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
        char url[512];

        snprintf(url, sizeof(url), "http://%s/", hosts[i]);
        struct outcome *o = finished(c, post(c, url));
        if (o->result.cause != HTTP_URL_INVALID)
            fail_msg("%s: %s (%s)", hosts[i], http_cause_word(o->result.cause), o->detail);
        free(o);
    }
    assert_int_equal(connects, 0);
}

/* --- what this machine lacks ------------------------------------------------------------------ */

TEST(test_own_shortage_is_not_the_institutions)
{
    static const struct {
        struct world world;
        enum http_cause cause;
        const char *words;
    } scenes[] = {
        /* Whatever else there is: one address could not be tried. */
        {{.socket_errno = EMFILE}, HTTP_INTERNAL, "LimitNOFILE"},
        {{.socket_errno = ENFILE}, HTTP_INTERNAL, "fs.file-max"},
        {{.socket_errno = ENOBUFS}, HTTP_INTERNAL, "memory"},
        {{.socket_errno = ENOMEM}, HTTP_INTERNAL, "memory"},
        {{.connect_errno = EADDRNOTAVAIL}, HTTP_INTERNAL, "ip_local_port_range"},
        {{.connect_errno = EADDRNOTAVAIL, .connect_only = "127.0.0.4"}, HTTP_INTERNAL, "ip_local_port_range"},
        /* No route: only when there is one to none of the addresses. */
        {{.connect_errno = ENETUNREACH}, HTTP_INTERNAL, "ip route"},
        {{.connect_errno = EHOSTUNREACH}, HTTP_INTERNAL, "ip route"},
        {{.connect_errno = ENETDOWN}, HTTP_INTERNAL, "ip link"},
        {{.connect_errno = EINVAL}, HTTP_INTERNAL, "ip route"}, /* a route of the kind "blackhole" */
        {{.socket_errno = EAFNOSUPPORT}, HTTP_INTERNAL, "IPv6"},
        {{.connect_errno = ENETUNREACH, .connect_only = "::1"}, HTTP_CONNECT, "Connection refused"},
        {{.connect_errno = EADDRNOTAVAIL, .connect_only = "::1"}, HTTP_CONNECT, "Connection refused"},
        {{.connect_errno = ENETUNREACH, .connect_only = "127.0.0.4"}, HTTP_CONNECT, "2 addresses"},
        /* The resolver. */
        {{.resolver_code = EAI_AGAIN, .name_server = SILENT}, HTTP_INTERNAL, "resolv.conf"},
        {{.resolver_code = EAI_AGAIN, .name_server = NONE}, HTTP_INTERNAL, "resolv.conf"},
        {{.resolver_code = EAI_AGAIN, .name_server = SPEAKS}, HTTP_DNS, "SERVFAIL"},
        {{.resolver_code = EAI_AGAIN, .name_server = FAILS}, HTTP_DNS, "SERVFAIL"},
        {{.resolver_code = EAI_MEMORY}, HTTP_INTERNAL, "memory"},
        {{.resolver_code = EAI_SYSTEM, .resolver_errno = EMFILE}, HTTP_INTERNAL, "LimitNOFILE"},
        {{.resolver_code = EAI_SYSTEM, .resolver_errno = EIO}, HTTP_DNS, ""},
        {{.resolver_code = EAI_NONAME, .name_server = SILENT}, HTTP_DNS, "not known"},
        {{.resolver_code = EAI_FAIL}, HTTP_DNS, ""},
        {{.resolver_code = EAI_NODATA}, HTTP_DNS, ""},
    };
    struct client *c = *state;
    struct server *s = server_start(ok, 1);

    for (size_t i = 0; i < ARRAY_SIZE(scenes); i++) {
        world = scenes[i].world;
        name_server = world.name_server;
        world.addresses[0] =
            world.socket_errno == EAFNOSUPPORT || (world.connect_only && world.connect_only[0] == ':')
                ? "::1"
                : "127.0.0.3";
        world.addresses[1] = world.connect_errno ? "127.0.0.4" : NULL;
        struct outcome *o = post_to_name(c, "some.test", s);
        if (o->result.cause != scenes[i].cause || !strstr(o->detail, scenes[i].words))
            fail_msg("scene %zu: %s: %s", i, http_cause_word(o->result.cause), o->detail);
        assert_false(o->result.body_handed_over);
        free(o);
        http_set_params(c->http, &c->params); /* forget the addresses */
    }
    server_stop(s);
}

/* Silence of all name servers, once known, is what a lookup that lasts too long ended by. */
TEST(test_no_name_server_answers)
{
    struct client *c = *state;
    int before = count_threads();
    struct server *s = server_start(ok, 1);

    world.resolver_code = EAI_AGAIN;
    name_server = SILENT;
    struct outcome *o = post_to_name(c, "some.test", s);
    expect_cause(o, HTTP_INTERNAL);
    free(o);
    resolver_hangs = true;
    o = finished(c, post_within(c, "http://hangs.example/", 100 * USEC_PER_MSEC));
    expect_cause(o, HTTP_INTERNAL);
    free(o);
    world.resolver_code = 0; /* it is back */
    name_server = SPEAKS;
    o = post_to_name(c, "other.test", s);
    expect_status(o, 200);
    free(o);
    o = finished(c, post_within(c, "http://hangs.example/", 100 * USEC_PER_MSEC));
    expect_cause(o, HTTP_DNS);
    free(o);
    resolver_hangs = false;
    server_stop(s);
    wait_for_threads(before);
}

/* The first request already that a name server's death keeps waiting is charged to nobody: the resolver
 * itself would need longer than the request has. */
TEST(test_silent_name_servers_are_found_out_in_time)
{
    static const struct {
        enum speech name_server;
        uint64_t timeout_usec;
        enum http_cause cause;
    } scenes[] = {
        {SPEAKS, 1200 * USEC_PER_MSEC, HTTP_DNS}, {SILENT, 1200 * USEC_PER_MSEC, HTTP_INTERNAL},
        {FAILS, 1200 * USEC_PER_MSEC, HTTP_DNS},  {SILENT, 4 * USEC_PER_SEC, HTTP_INTERNAL},
        {SPEAKS, 4 * USEC_PER_SEC, HTTP_DNS},     {NONE, 1200 * USEC_PER_MSEC, HTTP_INTERNAL},
    };
    struct client *c = *state;
    int before = count_threads();

    resolver_hangs = true;
    for (size_t i = 0; i < ARRAY_SIZE(scenes); i++) {
        name_server = scenes[i].name_server;
        struct outcome *o = finished(c, post_within(c, "http://hangs.example/", scenes[i].timeout_usec));
        if (o->result.cause != scenes[i].cause)
            fail_msg("scene %zu: %s: %s", i, http_cause_word(o->result.cause), o->detail);
        free(o);
    }
    resolver_hangs = false;
    wait_for_threads(before);
}

/* New names for longer than a lookup may last. False when the machine held one of them up. */
static bool all_found_at_once(struct client *c)
{
    struct server *s = server_start(ok, 1);
    uint64_t until = now_monotonic_usec() + 700 * USEC_PER_MSEC, longest_usec = 0;

    questions = 0;
    for (int i = 0; now_monotonic_usec() < until && i < CONNECTIONS_MAX; i++) {
        char host[32];
        usleep(2000);
        snprintf(host, sizeof(host), "n%d.test", i);
        uint64_t posted = now_monotonic_usec();
        struct outcome *o = post_to_name(c, host, s);
        expect_status(o, 200);
        free(o);
        longest_usec = MAX(longest_usec, now_monotonic_usec() - posted);
    }
    server_stop(s);
    http_set_params(c->http, &c->params); /* forget the addresses */
    return longest_usec < 100 * USEC_PER_MSEC;
}

/* They are not asked as long as names are found at once. */
TEST(test_name_servers_are_asked_for_a_reason_only)
{
    struct client *c = *state;
    uint64_t deadline = now_monotonic_usec() + PATIENCE_USEC;
    int before = count_threads();

    while (!all_found_at_once(c)) {
        assert_true(now_monotonic_usec() < deadline);
        wait_for_threads(before); /* whoever asks after all does not ask in the next round */
    }
    assert_int_equal(questions, 0);
}

/* A descriptor that is lacking for one of several addresses does not hold the others up. */
TEST(test_shortage_for_one_of_two_addresses)
{
    struct client *c = *state;
    struct server *s = server_start(ok, 1);

    world.addresses[0] = "127.0.0.3";
    world.addresses[1] = "127.0.0.1";
    world.connect_errno = EADDRNOTAVAIL;
    world.connect_only = "127.0.0.3";
    struct outcome *o = post_to_name(c, "some.test", s);
    expect_status(o, 200);
    free(o);
    server_stop(s);
}

/* Only descriptors are had by giving idle connections up. */
TEST(test_shortage_leaves_idle_connections)
{
    struct client *c = *state;
    struct server *s = server_start(ok, 1);

    for (int i = 0; i < 2; i++) {
        struct outcome *o = post_to_name(c, "well.test", s);
        expect_status(o, 200);
        free(o);
        world.connect_errno = ENETUNREACH;
        connects = 0;
        o = post_to_name(c, "some.test", s);
        expect_cause(o, HTTP_INTERNAL);
        assert_int_equal(connects, 1);
        free(o);
    }
    assert_int_equal(s->connections, 1);
    server_stop(s);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        IN_WORLD(test_twenty_black_holes_before_the_good_address),
        IN_WORLD(test_twenty_black_holes_over_tls),
        IN_WORLD(test_a_thousand_addresses),
        IN_WORLD(test_the_last_good_address_falls_silent),
        IN_WORLD(test_an_address_that_brings_nothing),
        IN_WORLD(test_many_addresses_take_few_descriptors),
        IN_WORLD(test_dead_addresses_of_either_family),
        IN_WORLD(test_private_address_among_public_ones),
        IN_WORLD(test_all_addresses_refuse),
        IN_WORLD(test_all_addresses_are_silent),
        IN_WORLD(test_cancelled_while_connecting),
        IN_WORLD(test_hanging_names_delay_nobody),
        IN_WORLD(test_more_hanging_names_than_threads),
        IN_WORLD(test_changed_address_is_followed),
        IN_WORLD(test_kept_connection_follows_its_name_in_the_end),
        IN_WORLD(test_dot_at_the_end_of_a_name),
        IN_WORLD(test_hosts_that_no_name_has),
        IN_WORLD(test_own_shortage_is_not_the_institutions),
        IN_WORLD(test_no_name_server_answers),
        IN_WORLD(test_silent_name_servers_are_found_out_in_time),
        IN_WORLD(test_name_servers_are_asked_for_a_reason_only),
        IN_WORLD(test_shortage_for_one_of_two_addresses),
        IN_WORLD(test_shortage_leaves_idle_connections),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
