/* The HTTP client against servers that break off, never end, say nonsense or nothing: what the outcome table
 * needs to tell apart, and that nothing grows without bound. */
#include "http_fixture.h"

#include <sys/resource.h>
#include <sys/wait.h>

#define OK "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
#define KIB "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n"

/* One request, one answer. */
struct scene {
    const char *name;
    struct reply reply;
    enum http_cause cause;
    int status;
    const char *body; /* NULL = whatever the library makes of it */
    bool truncated;   /* if there is a body to compare */
};

static const struct scene scenes[] = {
    /* The status line decides, whatever becomes of the rest. */
    {"nothing after the status line",
     {"HTTP/1.1 200 OK\r\n", CLOSE, NULL, false},
     HTTP_ANSWERED,
     200,
     "",
     true},
    {"reset after the status line",
     {"HTTP/1.1 200 OK\r\n", RESET, NULL, false},
     HTTP_ANSWERED,
     200,
     "",
     true},
    {"headers break off",
     {"HTTP/1.1 201 Created\r\nContent-Le", CLOSE, NULL, false},
     HTTP_ANSWERED,
     201,
     "",
     true},
    {"body breaks off",
     {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart", CLOSE, NULL, false},
     HTTP_ANSWERED,
     200,
     "part",
     true},
    {"error's body breaks off",
     {"HTTP/1.1 422 No\r\nContent-Length: 100\r\n\r\npart", CLOSE, NULL, false},
     HTTP_ANSWERED,
     422,
     "part",
     true},
    {"chunk breaks off",
     {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n9\r\nx", CLOSE, NULL, false},
     HTTP_ANSWERED,
     200,
     "partx",
     true},
    {"nonsense for a chunk",
     {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\nzz\r\n", HOLD, NULL, false},
     HTTP_ANSWERED,
     200,
     "part",
     true},
    {"nonsense for a length",
     {"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nok", CLOSE, NULL, false},
     HTTP_ANSWERED,
     200,
     NULL,
     true},
    {"enormous length",
     {"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nok", CLOSE, NULL, false},
     HTTP_ANSWERED,
     200,
     NULL,
     true},
    {"unknown transfer encoding",
     {"HTTP/1.1 200 OK\r\nTransfer-Encoding: zstd\r\n\r\nok", CLOSE, NULL, false},
     HTTP_ANSWERED,
     200,
     NULL,
     true},
    {"no length, ends with the connection",
     {"HTTP/1.1 200 OK\r\n\r\nall of it", CLOSE, NULL, false},
     HTTP_ANSWERED,
     200,
     "all of it",
     false},
    {"HTTP/1.0", {"HTTP/1.0 200 OK\r\n\r\nold", CLOSE, NULL, false}, HTTP_ANSWERED, 200, "old", false},
    {"more than was asked for",
     {OK "HTTP/1.1 500 No\r\n\r\n", CLOSE, NULL, false},
     HTTP_ANSWERED,
     200,
     "ok",
     false},
    {"header without a colon",
     {"HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 2\r\n\r\nok", KEEP, NULL, false},
     HTTP_ANSWERED,
     200,
     NULL,
     true},
    {"not UTF-8",
     {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xfe", KEEP, NULL, false},
     HTTP_ANSWERED,
     200,
     "\xff\xfe",
     false},
    /* No answer. */
    {"closed without a word", {NULL, CLOSE, NULL, false}, HTTP_CONNECTION_LOST, 0, "", false},
    {"reset without a word", {NULL, RESET, NULL, false}, HTTP_CONNECTION_LOST, 0, "", false},
    {"half a status line", {"HTTP/1.1 20", CLOSE, NULL, false}, HTTP_CONNECTION_LOST, 0, "", false},
    {"interim answer only",
     {"HTTP/1.1 100 Continue\r\n\r\n", CLOSE, NULL, false},
     HTTP_CONNECTION_LOST,
     0,
     "",
     false},
    {"early hints only",
     {"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n", RESET, NULL, false},
     HTTP_CONNECTION_LOST,
     0,
     "",
     false},
    {"garbage",
     {"\x01\x02\x03 what is this\r\n\r\n", CLOSE, NULL, false},
     HTTP_CONNECTION_LOST,
     0,
     "",
     false},
    {"another protocol", {"SSH-2.0-OpenSSH_9.2\r\n", CLOSE, NULL, false}, HTTP_CONNECTION_LOST, 0, "", false},
    {"no such version", {"HTTP/7.3 200 OK\r\n\r\n", CLOSE, NULL, false}, HTTP_CONNECTION_LOST, 0, "", false},
    /* Without end. */
    {"endless interim answers",
     {NULL, REPEAT, "HTTP/1.1 100 Continue\r\n\r\n", false},
     HTTP_CONNECTION_LOST,
     0,
     "",
     false},
    {"endless garbage", {NULL, REPEAT, KIB, false}, HTTP_CONNECTION_LOST, 0, "", false},
    {"endless status line",
     {"HTTP/1.1 200 ", REPEAT, "and so on ", false},
     HTTP_CONNECTION_LOST,
     0,
     "",
     false},
    {"endless headers",
     {"HTTP/1.1 200 OK\r\n", REPEAT, "X-Header: one more\r\n", false},
     HTTP_ANSWERED,
     200,
     "",
     true},
    {"endless header", {"HTTP/1.1 503 No\r\nX: ", REPEAT, "and so on ", false}, HTTP_ANSWERED, 503, "", true},
    {"endless folded header",
     {"HTTP/1.1 200 OK\r\nX: a\r\n", REPEAT, "  b\r\n", false},
     HTTP_ANSWERED,
     200,
     "",
     true},
    {"endless trailers",
     {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", REPEAT, "X: y\r\n", false},
     HTTP_ANSWERED,
     200,
     "ok",
     true},
};

static void play(struct client *c, const struct scene *scene, bool over_tls)
{
    struct server *s = over_tls ? tls_server(c, &scene->reply, 1) : server_start(&scene->reply, 1);
    struct outcome *o = post_to(c, s);

    if (o->result.cause != scene->cause || o->result.status != scene->status || !o->result.body_handed_over ||
        (scene->body && (o->result.truncated != scene->truncated || strcmp(o->body, scene->body) != 0)))
        fail_msg("%s: \"%s\", status %d, body \"%.20s\", truncated %d (%s)", scene->name,
                 http_cause_word(o->result.cause), o->result.status, o->body, o->result.truncated, o->detail);
    assert_int_equal(s->requests, 1);
    assert_true(s->sent < 20 << 20); /* what fits into buffers on the way is sent in vain */
    free(o);
    server_stop(s);
}

TEST(test_scenes)
{
    for (size_t i = 0; i < ARRAY_SIZE(scenes); i++)
        play(*state, &scenes[i], false);
}

TEST(test_scenes_over_tls)
{
    for (size_t i = 0; i < ARRAY_SIZE(scenes); i++)
        play(*state, &scenes[i], true);
}

/* Silence at each stage ends with the timeout, and says what is known. */
TEST(test_silence)
{
    static const struct scene silent[] = {
        {"nothing", {NULL, HOLD, NULL, false}, HTTP_TIMEOUT, 0, "", false},
        {"half a status line", {"HTTP/1.1 2", HOLD, NULL, false}, HTTP_TIMEOUT, 0, "", false},
        {"interim answer", {"HTTP/1.1 100 Continue\r\n\r\n", HOLD, NULL, false}, HTTP_TIMEOUT, 0, "", false},
        {"status line", {"HTTP/1.1 200 OK\r\n", HOLD, NULL, false}, HTTP_ANSWERED, 200, "", true},
        {"part of the body",
         {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart", HOLD, NULL, false},
         HTTP_ANSWERED,
         200,
         "part",
         true},
    };

    struct server *s[ARRAY_SIZE(silent)];
    struct outcome *o[ARRAY_SIZE(silent)];

    for (size_t i = 0; i < ARRAY_SIZE(silent); i++) {
        s[i] = server_start(&silent[i].reply, 1);
        o[i] = post_within(*state, server_url(s[i], "/"), USEC_PER_SEC);
    }
    for (size_t i = 0; i < ARRAY_SIZE(silent); i++) {
        expect_cause(finished(*state, o[i]), silent[i].cause);
        assert_int_equal(o[i]->result.status, silent[i].status);
        assert_string_equal(o[i]->body, silent[i].body);
        assert_int_equal(o[i]->result.truncated, silent[i].truncated);
        assert_true(o[i]->result.body_handed_over);
        assert_in_range(o[i]->result.duration_usec, 990 * USEC_PER_MSEC, 60 * USEC_PER_SEC);
        free(o[i]);
        server_stop(s[i]);
    }
}

/* The trap of traps: a kept-alive connection ends after the server has read the whole second request. libcurl
 * by itself would send that request a third time, and report a clean 200. */
TEST(test_no_request_is_sent_twice)
{
    static const struct reply ends[] = {{NULL, CLOSE, NULL, false}, {NULL, RESET, NULL, false}};

    for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
        const struct reply replies[] = {{OK, KEEP, NULL, false}, ends[i], {OK, KEEP, NULL, false}};
        struct server *s = server_start(replies, 3);
        struct outcome *o = post_to(*state, s);

        expect_status(o, 200);
        free(o);
        o = post_to(*state, s);
        expect_cause(o, HTTP_CONNECTION_LOST);
        assert_true(o->result.body_handed_over);
        assert_int_equal(s->requests, 2);
        assert_int_equal(s->connections, 1);
        free(o);
        o = post_to(*state, s); /* the handle is none the worse for it */
        expect_status(o, 200);
        assert_int_equal(s->requests, 3);
        free(o);
        server_stop(s);
    }
}

/* The same while other connections to the server are idle and could be taken for the repetition. */
TEST(test_no_request_is_sent_twice_on_another_connection)
{
    enum { PARALLEL = 8 };
    static const struct reply replies[] = {
        [0 ... PARALLEL - 1] = {OK, KEEP, NULL, false},
        {NULL, CLOSE, NULL, false},
        {OK, KEEP, NULL, false},
    };
    struct client *c = *state;
    struct server *s = server_start(replies, ARRAY_SIZE(replies));
    struct outcome *o[PARALLEL], *lost;

    for (int i = 0; i < PARALLEL; i++)
        o[i] = post(c, server_url(s, "/"));
    for (int i = 0; i < PARALLEL; i++) {
        expect_status(finished(c, o[i]), 200);
        free(o[i]);
    }
    lost = post_to(c, s);
    expect_cause(lost, HTTP_CONNECTION_LOST);
    assert_true(lost->result.body_handed_over);
    assert_int_equal(s->requests, PARALLEL + 1);
    free(lost);
    server_stop(s);
}

/* A connection that the server closed while it was idle is no loss: that is seen before anything is sent. */
TEST(test_idle_connection_closed_by_the_server)
{
    static const struct reply replies[] = {{OK, CLOSE, NULL, false}};
    struct client *c = *state;
    struct server *s = server_start(replies, 1);

    for (int i = 1; i <= 5; i++) {
        struct outcome *o = post_to(c, s);

        expect_status(o, 200);
        free(o);
        WAIT_FOR(c, !server_has_connections(s));
        assert_int_equal(s->requests, i);
    }
    server_stop(s);
}

/* What lies on a kept connection before a request goes out on it answers nothing: the connection is given up,
 * and each request is settled by its own answer. */
TEST(test_nothing_unasked_is_an_answer)
{
    static const struct {
        const char *name, *text, *late;
        enum after after;
    } unasked[] = {
        {"a second answer", OK, "HTTP/1.1 500 Stale\r\nContent-Length: 0\r\n\r\n", LATE},
        {"a refusal that nothing asked for", OK, "HTTP/1.1 422 Stale\r\nContent-Length: 0\r\n\r\n", LATE},
        {"408, then the end", OK, "HTTP/1.1 408 Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
         LATE_CLOSE},
        {"a stray line end", OK, "\r\n", LATE},
        {"a body where none belongs", "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n", "{}", LATE},
        {"one byte", OK, "x", LATE},
        {"half a status line", OK, "HTTP/1.1 2", LATE},
    };
    struct client *c = *state;

    for (size_t i = 0; i < ARRAY_SIZE(unasked); i++) {
        struct reply reply = {unasked[i].text, unasked[i].after, unasked[i].late, false};
        for (int with_turns = 0; with_turns < 2; with_turns++) {
            struct server *s = server_start(&reply, 1);
            for (int n = 1; n <= 5; n++) {
                struct outcome *o = post_to(c, s);

                if (o->result.cause != HTTP_ANSWERED || o->result.status / 100 != 2)
                    fail_msg("%s: %s, status %d", unasked[i].name, http_cause_word(o->result.cause),
                             o->result.status);
                free(o);
                while (s->late < n)
                    usleep(1000);
                usleep(2000); /* the bytes are on the loopback */
                if (with_turns)
                    turn(c);
                assert_int_equal(s->requests, n);
            }
            server_stop(s);
        }
    }
}

/* The process stood still while answers came: they count, although their time is over. */
TEST(test_answers_of_a_long_absence)
{
    enum { PARALLEL = 20 };
    static const struct reply replies[] = {{NULL, LATE, OK, false}};
    struct client *c = *state;
    struct server *s = server_start(replies, 1);
    struct outcome *o[PARALLEL];

    for (int i = 0; i < PARALLEL; i++)
        o[i] = post_within(c, server_url(s, "/"), 300 * USEC_PER_MSEC);
    WAIT_FOR(c, s->requests == PARALLEL);
    while (s->late < PARALLEL) /* no turn of the loop */
        usleep(1000);
    usleep(500 * 1000);
    for (int i = 0; i < PARALLEL; i++) {
        expect_status(finished(c, o[i]), 200);
        free(o[i]);
    }
    assert_int_equal(s->requests, PARALLEL);
    server_stop(s);
}

static int turns_within(struct client *c, uint64_t usec)
{
    uint64_t end = now_monotonic_usec() + usec;
    int turns = 0;

    for (; now_monotonic_usec() < end; turns++)
        assert_true(sd_event_run(c->event, usec) >= 0);
    return turns;
}

TEST(test_idle_loop_is_idle)
{
    static const struct reply replies[] = {{OK, CLOSE, NULL, false}};
    struct client *c = *state;
    struct server *s = server_start(replies, 1);
    struct outcome *o = post_to(c, s);

    expect_status(o, 200);
    assert_true(turns_within(c, 100 * USEC_PER_MSEC) < 20);
    free(o);
    server_stop(s);
}

static void set_response_limit(struct client *c, size_t limit)
{
    c->params.response_limit = limit;
    http_set_params(c->http, &c->params);
}

TEST(test_long_body)
{
    struct client *c = *state;
    char text[21000];
    int head = snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n");
    struct reply reply = {text, KEEP, NULL, false};
    struct server *s;

    memset(text + head, 'y', 20000);
    text[head + 20000] = '\0';
    s = server_start(&reply, 1);
    set_response_limit(c, 1000);
    for (int i = 0; i < 3; i++) { /* a small excess does not cost the connection */
        struct outcome *o = post_to(c, s);

        expect_status(o, 200);
        assert_int_equal(o->result.body_len, 1000);
        assert_true(o->result.truncated);
        free(o);
    }
    assert_int_equal(s->connections, 1);
    set_response_limit(c, 20000);
    for (size_t limit = 20000; limit <= 20001; limit++) {
        struct outcome *o;

        set_response_limit(c, limit);
        o = post_to(c, s);
        expect_status(o, 200);
        assert_int_equal(o->result.body_len, 20000);
        assert_false(o->result.truncated);
        free(o);
    }
    server_stop(s);
}

TEST(test_endless_bodies)
{
    static const struct reply replies[] = {
        {"HTTP/1.1 200 OK\r\n\r\n", REPEAT, KIB, false},
        {"HTTP/1.1 400 No\r\nContent-Length: 1073741824\r\n\r\n", REPEAT, KIB, false},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", REPEAT, "8\r\nsame old\r\n", false},
        {"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", REPEAT, KIB, false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(replies); i++) {
        struct server *s = server_start(&replies[i], 1);
        struct outcome *o = post_to(*state, s);

        expect_status(o, i == 1 ? 400 : 200);
        assert_int_equal(o->result.body_len, 65536);
        assert_true(o->result.truncated);
        assert_true(s->sent < 20 << 20);
        free(o);
        server_stop(s);
    }
}

TEST(test_no_body_wanted)
{
    static const struct reply replies[] = {{OK, KEEP, NULL, false}};
    struct client *c = *state;
    struct server *s = server_start(replies, 1);
    struct outcome *o;

    set_response_limit(c, 0);
    o = post_to(c, s);
    expect_status(o, 200);
    assert_int_equal(o->result.body_len, 0);
    assert_true(o->result.truncated);
    free(o);
    server_stop(s);
}

TEST(test_100_kb_of_headers)
{
    static char text[101000] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n";
    static const char line[] = "X-Header: 0123456789abcdef0123456789abcdef\r\n";
    struct reply reply = {text, KEEP, NULL, false};
    size_t len = strlen(text);
    struct server *s;
    struct outcome *o;

    for (; len + sizeof(line) + 8 < 100000; len += sizeof(line) - 1)
        memcpy(text + len, line, sizeof(line));
    memcpy(text + len, "\r\nok", sizeof("\r\nok"));
    s = server_start(&reply, 1);
    o = post_to(*state, s);
    expect_status(o, 200);
    assert_string_equal(o->body, "ok");
    assert_false(o->result.truncated);
    free(o);
    server_stop(s);
}

static void *early_answer_run(void *userdata)
{
    static const char answer[] =
        "HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig";
    char sink[4096];
    int fd = accept4(*(int *) userdata, NULL, NULL, SOCK_CLOEXEC);

    recv(fd, sink, 1, MSG_PEEK);
    send(fd, answer, strlen(answer), MSG_NOSIGNAL);
    while (recv(fd, sink, sizeof(sink), 0) > 0)
        ;
    close(fd);
    return NULL;
}

/* A server that answers and leaves before it has read a large request. */
TEST(test_answer_before_the_request_is_read)
{
    enum { SIZE = 8 * 1024 * 1024 };
    struct client *c = *state;
    pthread_t thread;
    uint16_t port;
    int fd = listen_on_loopback(&port);
    char *body = calloc(1, SIZE), url[64];
    struct http_request request = {url, json_headers(), body, SIZE, TIMEOUT_USEC, false, NULL};
    struct outcome *o = outcome_new();

    pthread_create(&thread, NULL, early_answer_run, &fd);
    snprintf(url, sizeof(url), "http://127.0.0.1:%d/", port);
    http_post(c->http, &request, on_result, o);
    expect_status(finished(c, o), 413);
    assert_string_equal(o->body, "big");
    pthread_join(thread, NULL);
    free(o);
    free(body);
    close(fd);
}

/* What a server says, or that it leaves, before a request goes out on a new connection: no answer, and
 * nothing ambiguous. */
TEST(test_what_comes_before_the_request)
{
    static const struct {
        struct reply first, second;
        enum http_cause cause;
        int connections;
    } early[] = {
        {{OK, HOLD, NULL, true}, {OK, KEEP, NULL, false}, HTTP_CONNECTION_LOST, 1},
        {{OK, CLOSE, NULL, true}, {OK, KEEP, NULL, false}, HTTP_CONNECTION_LOST, 1},
        {{"220 mail.example ESMTP\r\n", HOLD, NULL, true}, {OK, KEEP, NULL, false}, HTTP_CONNECTION_LOST, 1},
        {{NULL, CLOSE, NULL, true}, {OK, KEEP, NULL, false}, HTTP_ANSWERED, 2},
        {{NULL, CLOSE, NULL, true}, {NULL, CLOSE, NULL, true}, HTTP_CONNECT, 5},
    };
    struct client *c = *state;

    for (size_t i = 0; i < 2 * ARRAY_SIZE(early); i++) {
        const struct reply replies[] = {early[i / 2].first, early[i / 2].second};
        struct server *s = i % 2 ? tls_server(c, replies, 2) : server_start(replies, 2);
        if (s->tls) { /* the server has the last word of the handshake */
            SSL_CTX_set_max_proto_version(s->tls, TLS1_2_VERSION);
            SSL_CTX_set_options(s->tls, SSL_OP_NO_TICKET);
            SSL_CTX_set_session_cache_mode(s->tls, SSL_SESS_CACHE_OFF);
        }
        struct outcome *o = post(c, server_url(s, "/"));

        while (!o->done) { /* all that can come has come before each turn */
            turn(c);
            while (!s->tls && s->requests == 0)
                usleep(1000);
            usleep(20 * 1000);
        }
        if (o->result.cause != early[i / 2].cause || s->connections != early[i / 2].connections)
            fail_msg("%zu: %s: %s, %d connections", i, http_cause_word(o->result.cause), o->detail,
                     s->connections);
        assert_int_equal(o->result.body_handed_over, o->result.cause == HTTP_ANSWERED);
        free(o);
        server_stop(s);
    }
}

/* One that never reads: the request is half on its way when the time is over. */
TEST(test_request_that_nobody_reads)
{
    enum { SIZE = 32 * 1024 * 1024 };
    struct client *c = *state;
    uint16_t port;
    int fd = listen_on_loopback(&port);
    char *body = calloc(1, SIZE), url[64];
    struct http_request request = {url, json_headers(), body, SIZE, USEC_PER_SEC, false, NULL};
    struct outcome *o = outcome_new();

    snprintf(url, sizeof(url), "http://127.0.0.1:%d/", port);
    http_post(c->http, &request, on_result, o);
    expect_cause(finished(c, o), HTTP_TIMEOUT);
    assert_true(o->result.body_handed_over);
    free(o);
    free(body);
    close(fd);
}

/* The time to connect is over once there is a connection: the request has its own. */
TEST(test_time_to_connect_is_not_the_requests)
{
    static const struct reply replies[] = {{NULL, HOLD, NULL, false}};
    struct client *c = *state;
    struct server *s = server_start(replies, 1);

    c->params.connect_timeout_usec = 200 * USEC_PER_MSEC;
    http_set_params(c->http, &c->params);
    struct outcome *o = finished(c, post_within(c, server_url(s, "/"), USEC_PER_SEC));
    expect_cause(o, HTTP_TIMEOUT);
    assert_in_range(o->result.duration_usec, 990 * USEC_PER_MSEC, 60 * USEC_PER_SEC);
    free(o);
    server_stop(s);
}

/* Servers in a process of their own, whose descriptors are not the client's. Closing the result ends it. */
static int start_apart(uint16_t *ret_ports, int count)
{
    static const struct reply replies[] = {{OK, KEEP, NULL, false}};
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        char end;
        close(pair[0]);
        for (int i = 0; i < count; i++)
            if (write(pair[1], &server_start(replies, 1)->port, sizeof(uint16_t)) < 0)
                abort();
        _exit(read(pair[1], &end, 1) == 0 ? 0 : 1);
    }
    close(pair[1]);
    for (int i = 0; i < count; i++)
        assert_int_equal(recv(pair[0], &ret_ports[i], sizeof(uint16_t), MSG_WAITALL), sizeof(uint16_t));
    return pair[0];
}

/* Connections that are kept must not take the descriptors that new ones need. */
TEST(test_few_descriptors)
{
    enum { HOSTS = 12, FEW = 5 };
    struct client *c = *state;
    uint16_t ports[HOSTS];
    struct rlimit old, few;
    char url[64];
    int servers = start_apart(ports, HOSTS), next = dup(STDIN_FILENO);

    close(next);
    getrlimit(RLIMIT_NOFILE, &old);
    few = (struct rlimit){(rlim_t) next + FEW, old.rlim_max};
    setrlimit(RLIMIT_NOFILE, &few);
    for (int i = 0; i < HOSTS; i++) {
        snprintf(url, sizeof(url), "http://127.0.0.1:%d/", ports[i]);
        struct outcome *o = finished(c, post(c, url));
        expect_status(o, 200);
        free(o);
    }
    setrlimit(RLIMIT_NOFILE, &old);
    close(servers);
    assert_true(wait(NULL) > 0);
}

static void *urgent_data_run(void *userdata)
{
    static const char first[] = "HTTP/1.1 20", rest[] = "0 OK\r\nContent-Length: 2\r\n\r\nok";
    char sink[4096];
    int fd = accept4(*(int *) userdata, NULL, NULL, SOCK_CLOEXEC);

    recv(fd, sink, sizeof(sink), 0);
    send(fd, first, strlen(first), MSG_NOSIGNAL);
    send(fd, "!", 1, MSG_OOB | MSG_NOSIGNAL);
    send(fd, rest, strlen(rest), MSG_NOSIGNAL);
    while (recv(fd, sink, sizeof(sink), 0) > 0)
        ;
    close(fd);
    return NULL;
}

/* Reading stops short at urgent data; what is behind it has arrived all the same. */
TEST(test_urgent_data)
{
    struct client *c = *state;
    pthread_t thread;
    uint16_t port;
    char url[64];
    int fd = listen_on_loopback(&port);

    pthread_create(&thread, NULL, urgent_data_run, &fd);
    snprintf(url, sizeof(url), "http://127.0.0.1:%d/", port);
    struct outcome *o = finished(c, post_within(c, url, 5 * USEC_PER_SEC));
    expect_status(o, 200);
    free(o);
    http_free(c->http); /* ends the server */
    struct error err;
    assert_int_equal(http_new(&c->http, c->event, &c->params, &err), 0);
    pthread_join(thread, NULL);
    close(fd);
}

/* All of them at once must not disturb an institution that is well. */
TEST(test_isolation)
{
    static const struct reply ok[] = {{OK, KEEP, NULL, false}};
    struct client *c = *state;
    struct server *good = server_start(ok, 1), *bad[ARRAY_SIZE(scenes)];
    struct outcome *o[ARRAY_SIZE(scenes)];

    for (size_t i = 0; i < ARRAY_SIZE(scenes); i++) {
        bad[i] = server_start(&scenes[i].reply, 1);
        o[i] = post(c, server_url(bad[i], "/"));
    }
    for (int i = 0; i < 200; i++) {
        struct outcome *well = post_to(c, good);

        expect_status(well, 200);
        free(well);
    }
    for (size_t i = 0; i < ARRAY_SIZE(scenes); i++) {
        expect_cause(finished(c, o[i]), scenes[i].cause);
        free(o[i]);
        server_stop(bad[i]);
    }
    assert_int_equal(good->connections, 1);
    server_stop(good);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        WITH_CLIENT(test_scenes),
        WITH_CLIENT(test_scenes_over_tls),
        WITH_CLIENT(test_silence),
        WITH_CLIENT(test_no_request_is_sent_twice),
        WITH_CLIENT(test_no_request_is_sent_twice_on_another_connection),
        WITH_CLIENT(test_idle_connection_closed_by_the_server),
        WITH_CLIENT(test_nothing_unasked_is_an_answer),
        WITH_CLIENT(test_answers_of_a_long_absence),
        WITH_CLIENT(test_idle_loop_is_idle),
        WITH_CLIENT(test_long_body),
        WITH_CLIENT(test_endless_bodies),
        WITH_CLIENT(test_no_body_wanted),
        WITH_CLIENT(test_100_kb_of_headers),
        WITH_CLIENT(test_answer_before_the_request_is_read),
        WITH_CLIENT(test_what_comes_before_the_request),
        WITH_CLIENT(test_request_that_nobody_reads),
        WITH_CLIENT(test_isolation),
        WITH_CLIENT(test_time_to_connect_is_not_the_requests),
        WITH_CLIENT(test_few_descriptors),
        WITH_CLIENT(test_urgent_data),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
