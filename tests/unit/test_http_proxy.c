/* The HTTP client against proxies that refuse, stall, say nonsense or too much: whose fault it is, that
 * nothing is handed over before there is a connection, and that none of its bytes pass for an answer. */
#include "http_fixture.h"

#define ANSWER "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
#define ESTABLISHED "HTTP/1.1 200 Connection established\r\n\r\n"
#define STEPS_MAX 4

enum end { STAY, LEAVE, FLOOD };

/* What a proxy says, one part after each thing that it hears; `now`: without hearing anything. */
struct step {
    const char *bytes;
    size_t len; /* 0 = a string */
    bool now;
};

struct scene {
    const char *name, *scheme; /* of the proxy's URL */
    struct step steps[STEPS_MAX];
    enum end end;
    enum http_cause cause;
    const char *words; /* in the detail */
};

struct proxy {
    const struct scene *scene;
    int listen_fd, fd;
    uint16_t port;
    pthread_t thread;
    atomic_int posts; /* requests that reached the proxy */
};

static void flood(int fd)
{
    static char piece[65536];

    memset(piece, 'x', sizeof(piece));
    for (size_t i = 0; i + 16 < sizeof(piece); i += 16)
        memcpy(piece + i, "X-Head: endless\n", 16);
    while (send(fd, piece, sizeof(piece), MSG_NOSIGNAL) > 0)
        ;
}

static void *proxy_run(void *userdata)
{
    struct proxy *p = userdata;
    const struct scene *scene = p->scene;
    char heard[65536];

    p->fd = accept4(p->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (p->fd < 0)
        return NULL;
    for (int i = 0; i < STEPS_MAX && scene->steps[i].bytes; i++) {
        const struct step *step = &scene->steps[i];
        ssize_t n = step->now ? 1 : recv(p->fd, heard, sizeof(heard), 0);

        if (n <= 0)
            break;
        p->posts += !step->now && memmem(heard, (size_t) n, "POST ", 5);
        send(p->fd, step->bytes, step->len ? step->len : strlen(step->bytes), MSG_NOSIGNAL);
    }
    if (scene->end == FLOOD)
        flood(p->fd);
    for (ssize_t n; scene->end == STAY && (n = recv(p->fd, heard, sizeof(heard), 0)) > 0;)
        p->posts += memmem(heard, (size_t) n, "POST ", 5) != NULL;
    shutdown(p->fd, SHUT_WR);
    return NULL;
}

static struct proxy *proxy_start(struct client *c, const struct scene *scene)
{
    static char url[128];
    struct proxy *p = calloc(1, sizeof(*p));

    p->scene = scene;
    p->listen_fd = listen_on_loopback(&p->port);
    pthread_create(&p->thread, NULL, proxy_run, p);
    snprintf(url, sizeof(url), "%s://user:SECRET@127.0.0.1:%d", scene->scheme, p->port);
    c->params.proxy = url;
    http_set_params(c->http, &c->params);
    return p;
}

static void proxy_stop(struct proxy *p)
{
    shutdown(p->listen_fd, SHUT_RDWR);
    shutdown(p->fd, SHUT_RDWR);
    pthread_join(p->thread, NULL);
    close(p->listen_fd);
    closep(&p->fd);
    free(p);
}

#define HTTP(name, text, end, cause, words)                                                                  \
    {                                                                                                        \
        name, "http", {{text, 0, false}}, end, cause, words                                                  \
    }
#define BYTES(text)                                                                                          \
    {                                                                                                        \
        text, sizeof(text) - 1, false                                                                        \
    }

static const struct scene scenes[] = {
    {"well", "http", {{ESTABLISHED, 0, false}, {ANSWER, 0, false}}, STAY, HTTP_ANSWERED, ""},
    /* libcurl takes the first answer for the last one. */
    HTTP("an interim answer first", "HTTP/1.1 100 Go on\r\n\r\n" ESTABLISHED, STAY, HTTP_CONNECT, "100"),
    {"empty body",
     "http",
     {{"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0, false}, {ANSWER, 0, false}},
     STAY,
     HTTP_ANSWERED,
     ""},
    {"slow",
     "http",
     {{"HTTP/1.1 20", 0, false}, {"0 OK\r\nX: y\r\n", 0, true}, {"\r\n", 0, true}, {ANSWER, 0, false}},
     STAY,
     HTTP_ANSWERED,
     ""},
    HTTP("an answer behind its own", ESTABLISHED ANSWER, STAY, HTTP_CONNECT, "more than"),
    HTTP("length", "HTTP/1.1 200 OK\r\nContent-Length: 38\r\n\r\n" ANSWER, STAY, HTTP_CONNECT, "more than"),
    HTTP("length, body to come", "HTTP/1.1 200 OK\r\ncontent-length:38\r\n\r\n", STAY, HTTP_CONNECT,
         "more than"),
    HTTP("chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", STAY,
         HTTP_CONNECT, "more than"),
    HTTP("403", "HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nok", STAY, HTTP_INTERNAL, "403"),
    HTTP("404", "HTTP/1.1 404 No\r\n\r\n", LEAVE, HTTP_CONNECT, "404"),
    HTTP("405", "HTTP/1.1 405 No\r\n\r\n", LEAVE, HTTP_INTERNAL, "405"),
    HTTP("429", "HTTP/1.1 429 No\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n", STAY, HTTP_INTERNAL,
         "429"),
    HTTP("302", "HTTP/1.1 302 No\r\nLocation: http://127.0.0.1/SECRET\r\n\r\n", LEAVE, HTTP_CONNECT, "302"),
    HTTP("502", "HTTP/1.1 502 No\r\n\r\n", LEAVE, HTTP_CONNECT, "502"),
    HTTP("503", "HTTP/1.1 503 No\r\nRetry-After: 60\r\nContent-Length: 2\r\n\r\nno", STAY, HTTP_CONNECT,
         "503"),
    HTTP("504", "HTTP/1.1 504 No\r\n\r\n", LEAVE, HTTP_CONNECT, "504"),
    HTTP("407", "HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm=\"SECRET\"\r\nContent-Length: 0\r\n\r\n",
         STAY, HTTP_INTERNAL, "407"),
    HTTP("407 chunked",
         "HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
         STAY, HTTP_INTERNAL, "407"),
    HTTP("101", "HTTP/1.1 101 Switching\r\n\r\n", STAY, HTTP_CONNECT, ""),
    {"204", "http", {{"HTTP/1.1 204 No\r\n\r\n", 0, false}, {ANSWER, 0, false}}, STAY, HTTP_ANSWERED, ""},
    HTTP("garbage", "SSH-2.0-SECRET\r\n\r\n", STAY, HTTP_CONNECT, ""),
    HTTP("half a head", "HTTP/1.1 200 OK\r\nX: y", STAY, HTTP_CONNECT, "in time"),
    HTTP("nothing", "", STAY, HTTP_CONNECT, "in time"),
    HTTP("the end", "", LEAVE, HTTP_CONNECT, ""),
    HTTP("an endless head", "HTTP/1.1 200 OK\r\n", FLOOD, HTTP_CONNECT, "too long"),
    HTTP("an endless refusal", "HTTP/1.1 502 No\r\n\r\n", FLOOD, HTTP_CONNECT, "502"),
    HTTP("an endless body", "HTTP/1.1 502 No\r\nContent-Length: 100000000000\r\n\r\n", FLOOD, HTTP_CONNECT,
         "502"),
    HTTP("endless chunks", "HTTP/1.1 502 No\r\nTransfer-Encoding: chunked\r\n\r\n", FLOOD, HTTP_CONNECT, ""),
    {"socks5",
     "socks5h",
     {BYTES("\x05\x00"), BYTES("\x05\x00\x00\x01\0\0\0\0\0\0"), {ANSWER, 0, false}},
     STAY,
     HTTP_ANSWERED,
     ""},
    {"socks5, password",
     "socks5h",
     {BYTES("\x05\x02"), BYTES("\x01\x00"), BYTES("\x05\x00\x00\x01\0\0\0\0\0\0"), {ANSWER, 0, false}},
     STAY,
     HTTP_ANSWERED,
     ""},
    {"socks5, wrong password",
     "socks5h",
     {BYTES("\x05\x02"), BYTES("\x01\x01")},
     STAY,
     HTTP_INTERNAL,
     "rejected"},
    {"socks5, no method", "socks5h", {BYTES("\x05\xff")}, STAY, HTTP_INTERNAL, ""},
    {"socks5, not allowed",
     "socks5h",
     {BYTES("\x05\x00"), BYTES("\x05\x02\x00\x01\0\0\0\0\0\0")},
     STAY,
     HTTP_CONNECT,
     ""},
    {"socks5, refused",
     "socks5h",
     {BYTES("\x05\x00"), BYTES("\x05\x05\x00\x01\0\0\0\0\0\0")},
     STAY,
     HTTP_CONNECT,
     ""},
    {"socks5, too much",
     "socks5h",
     {BYTES("\x05\x00"), BYTES("\x05\x00\x00\x01\0\0\0\0\0\0" ANSWER)},
     STAY,
     HTTP_CONNECT,
     "more than"},
    {"socks5, garbage", "socks5h", {BYTES("HTTP/1.1 400 Bad\r\n\r\n")}, STAY, HTTP_CONNECT, ""},
    {"socks5, half",
     "socks5h",
     {BYTES("\x05\x00"), BYTES("\x05\x00\x00\x01\0")},
     STAY,
     HTTP_CONNECT,
     "in time"},
    {"socks5, silent", "socks5h", {{"", 0, false}}, STAY, HTTP_CONNECT, "in time"},
    {"socks5, end", "socks5h", {{"", 0, false}}, LEAVE, HTTP_CONNECT, ""},
    {"socks5, end later", "socks5h", {BYTES("\x05\x00"), {"", 0, false}}, LEAVE, HTTP_CONNECT, ""},
    {"socks4a", "socks4a", {BYTES("\x00\x5a\0\0\0\0\0\0"), {ANSWER, 0, false}}, STAY, HTTP_ANSWERED, ""},
    {"socks4a, refused", "socks4a", {BYTES("\x00\x5b\0\0\0\0\0\0")}, STAY, HTTP_CONNECT, ""},
    {"socks4a, garbage", "socks4a", {BYTES("\x05\x00\x01\x02\x03\x04\x05\x06")}, STAY, HTTP_CONNECT, ""},
    {"socks4a, silent", "socks4a", {{"", 0, false}}, STAY, HTTP_CONNECT, "in time"},
    {"socks4a, end", "socks4a", {BYTES("\x00")}, LEAVE, HTTP_CONNECT, ""},
};

static void play(struct client *c, const struct scene *scene, const char *url)
{
    bool over_tls = strncmp(url, "https", 5) == 0, answered = scene->cause == HTTP_ANSWERED;

    c->params.connect_timeout_usec =
        strcmp(scene->words, "in time") == 0 ? 300 * USEC_PER_MSEC : TIMEOUT_USEC;
    struct proxy *p = proxy_start(c, scene);
    struct outcome *o = finished(c, post(c, url));
    /* None of them speaks TLS: that is found out behind the tunnel. */
    enum http_cause cause = answered && over_tls ? HTTP_TLS : scene->cause;
    if (o->result.cause != cause || (cause != HTTP_TLS && !strstr(o->detail, scene->words)))
        fail_msg("%s: %s: %s", scene->name, http_cause_word(o->result.cause), o->detail);
    assert_null(strstr(o->detail, "SECRET"));
    assert_int_equal(o->result.body_handed_over, cause == HTTP_ANSWERED);
    assert_int_equal(p->posts, cause == HTTP_ANSWERED);
    free(o);
    proxy_stop(p);
}

TEST(test_scenes)
{
    for (size_t i = 0; i < ARRAY_SIZE(scenes); i++)
        play(*state, &scenes[i], "http://institution.test/");
}

TEST(test_scenes_before_tls)
{
    for (size_t i = 0; i < ARRAY_SIZE(scenes); i++)
        play(*state, &scenes[i], "https://institution.test/");
}

/* A proxy that is away is no fault of the institution's, and costs it no attempt. */
TEST(test_proxy_is_away)
{
    struct client *c = *state;
    uint16_t port;
    int fd = listen_on_loopback(&port);
    char refusing[64], unknown[] = "http://user:SECRET@proxy.invalid:3128";
    const char *const proxies[] = {refusing, unknown};

    close(fd);
    snprintf(refusing, sizeof(refusing), "http://user:SECRET@127.0.0.1:%d", port);
    for (size_t i = 0; i < ARRAY_SIZE(proxies); i++) {
        c->params.proxy = proxies[i];
        http_set_params(c->http, &c->params);
        struct outcome *o = finished(c, post(c, "https://institution.test/"));
        expect_cause(o, HTTP_INTERNAL);
        assert_non_null(strstr(o->detail, "proxy"));
        assert_null(strstr(o->detail, "SECRET"));
        assert_false(o->result.body_handed_over);
        free(o);
    }
}

/* A stop, wherever the way through the proxy has come to. */
TEST(test_cancelled_on_the_way)
{
    static const struct scene silent[] = {
        HTTP("silent", "", STAY, HTTP_CANCELLED, ""),
        HTTP("half an answer", "HTTP/1.1 200 OK\r\nX: y", STAY, HTTP_CANCELLED, ""),
        {"socks5", "socks5h", {BYTES("\x05\x00")}, STAY, HTTP_CANCELLED, ""},
        HTTP("a tunnel, and no more", ESTABLISHED, STAY, HTTP_CANCELLED, ""),
    };
    struct client *c = *state;

    for (size_t i = 0; i < 2 * ARRAY_SIZE(silent); i++) {
        struct proxy *p = proxy_start(c, &silent[i / 2]);
        struct outcome *o = post(c, "https://institution.test/");

        for (uint64_t until = now_monotonic_usec() + 100 * USEC_PER_MSEC; now_monotonic_usec() < until;)
            turn(c);
        assert_false(o->done);
        if (i % 2 == 0) {
            http_cancel(c->http, o->transfer);
            expect_cause(finished(c, o), HTTP_CANCELLED);
            assert_false(o->result.body_handed_over);
        } else { /* the end of the process */
            http_free(TAKE_PTR(c->http));
            assert_int_equal(http_new(&c->http, c->event, &c->params, &(struct error){0}), 0);
        }
        assert_int_equal(p->posts, 0);
        free(o);
        proxy_stop(p);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        WITH_CLIENT(test_scenes),
        WITH_CLIENT(test_scenes_before_tls),
        WITH_CLIENT(test_proxy_is_away),
        WITH_CLIENT(test_cancelled_on_the_way),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
