/* What a stranger tries: odd bytes in every part of an answer, connections cut at every byte, TLS that is no
 * such thing any more, and many institutions at once. */
#include "http_fixture.h"

#include <sys/resource.h>

#include "http/http_answer.h"

#define OK "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

/* --- answers ---------------------------------------------------------------------------------- */

static void expect_ok(const char *text, size_t len, const char *what, int byte)
{
    struct http_answer a = {0};

    for (size_t piece = 1; piece <= len; piece += len - 1) { /* byte by byte, and whole */
        http_answer_begin(&a, 64);
        for (size_t at = 0; at < len && !http_answer_is_over(&a); at += piece)
            http_answer_feed(&a, text + at, MIN(piece, len - at));
        if (a.state != HTTP_ANSWER_COMPLETE || a.status != 200 || strcmp(strbuf_str(&a.body), "ok") != 0)
            fail_msg("%s, byte %d: status %d, \"%s\" (%s)", what, byte, a.status, strbuf_str(&a.body),
                     a.fault);
    }
    http_answer_free(&a);
}

/* The form, with the byte for its '@'. */
static size_t fill(char *out, const char *form, int byte)
{
    size_t len = strlen(form), at = strcspn(form, "@");

    memcpy(out, form, len + 1);
    out[at] = (char) byte;
    return len;
}

/* A line that begins with, holds, or ends with any byte, where headers and trailers may be. */
TEST(test_header_lines_of_any_byte)
{
    static const char *const forms[] = {"@x: y", "@", "x@: y", "x: @y", "x: y@", "x@y", "@: y"};
    char line[16], text[256];

    for (int byte = 0; byte < 256; byte++) {
        if (byte == '\n' || byte == '\r')
            continue;
        for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
            size_t n = fill(line, forms[i], byte);
            char *p = text;
#define PUT(bytes, size) (memcpy(p, bytes, size), p += (size))
#define PUTS(bytes) PUT(bytes, sizeof(bytes) - 1)
            PUTS("HTTP/1.1 103 E\r\n");
            PUT(line, n);
            PUTS("\r\n\r\nHTTP/1.1 200 OK\r\n");
            PUT(line, n);
            PUTS("\r\nTransfer-Encoding: chunked\r\n");
            PUT(line, n);
            PUTS("\r\n\r\n2\r\nok\r\n0\r\n");
            PUT(line, n);
            PUTS("\r\n\r\n");
            expect_ok(text, (size_t) (p - text), forms[i], byte);
        }
    }
}

/* Any byte in the status line, and behind the size of a chunk: no byte is read twice or left out. */
TEST(test_any_byte_where_a_number_is)
{
    static const char *const forms[] = {"HTTP/1.1 2@0 OK\r\n\r\n", "HTTP/1.@ 200 OK\r\n\r\n",
                                        "HTTP/1.1@200 OK\r\n\r\n", "HTTP/1.1 200@OK\r\n\r\n"};
    char text[64];

    for (int byte = 0; byte < 256; byte++)
        for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
            struct http_answer a = {0};
            http_answer_begin(&a, 64);
            http_answer_feed(&a, text, fill(text, forms[i], byte));
            http_answer_end(&a, true);
            bool is_digit = byte >= '0' && byte <= '9', is_blank = byte == ' ' || byte == '\t';
            bool may_be = i < 2 ? is_digit : is_blank || (i == 3 && (byte == '\r' || byte == '\n'));
            if (a.status && !may_be)
                fail_msg("form %zu, byte %d: status %d", i, byte, a.status);
            http_answer_free(&a);
        }
}

TEST(test_odd_framing)
{
    static const struct {
        const char *head, *body;
        bool truncated;
    } odd[] = {
        {"Content-Length: 0000000000000000000000000000002\r\n\r\nok", "ok", false},
        {"Content-Length: 2,\r\n\r\nok", "ok", false},
        {"Content-Length: , 2\r\n\r\nok", "ok", false},
        {"Content-Length:\t2\t \r\n\r\nok", "ok", false},
        {"Content-Length: 2;\r\n\r\nok", "", true},
        {"Content-Length: 2 2\r\n\r\nok", "", true},
        {"Content-Length: 0x2\r\n\r\nok", "", true},
        {"Content-Length: 2.0\r\n\r\nok", "", true},
        {"Content-Length: 9223372036854775808\r\n\r\nok", "", true},
        {"Content-Length: 2\r\n\r\nok\r\n", "ok", false},
        {"Transfer-Encoding: ,chunked,\r\n\r\n2\r\nok\r\n0\r\n\r\n", "ok", false},
        {"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n2\r\nok\r\n0\r\n\r\n", NULL, true},
        {"Transfer-Encoding: \"chunked\"\r\n\r\n2\r\nok\r\n0\r\n\r\n", NULL, true},
        {"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n2\r\nok\r\n0\r\n\r\n", "ok", false},
        {"Transfer-Encoding: chunked\r\n\r\n02 \r\nok\r\n0\r\n\r\n", "ok", false},
        {"Transfer-Encoding: chunked\r\n\r\n2\t;a=\"0\"\r\nok\r\n0;last\r\n\r\n", "ok", false},
        {"Transfer-Encoding: chunked\r\n\r\n2\nok\n0\n\n", "ok", false},
        {"Transfer-Encoding: chunked\r\n\r\n0x2\r\nok\r\n0\r\n\r\n", "", true},
        {"Transfer-Encoding: chunked\r\n\r\n 2\r\nok\r\n0\r\n\r\n", "", true},
        {"Transfer-Encoding: chunked\r\n\r\n+2\r\nok\r\n0\r\n\r\n", "", true},
        {"Transfer-Encoding: chunked\r\n\r\n\r\n", "", true},
        {"Transfer-Encoding: chunked\r\n\r\n0000000000000002\r\nok\r\n0\r\n\r\n", "", true},
        {"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nContent-Length: 9\r\nRetry-After: 9\r\n\r\n",
         "ok", false},
        {"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nTransfer-Encoding: gzip\r\n\r\n", "ok", false},
        {"Trailer: X\r\nContent-Length: 2\r\n\r\nok", "ok", false},
        {"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nok", "ok", false},
        {"Connection: Keep-Alive, Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nok", "ok", false},
    };
    char text[512];

    for (size_t i = 0; i < ARRAY_SIZE(odd); i++) {
        struct http_answer a = {0};
        http_answer_begin(&a, 64);
        snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\n%s", odd[i].head);
        http_answer_feed(&a, text, strlen(text));
        http_answer_end(&a, true);
        if (a.status != 200 || a.truncated != odd[i].truncated || a.has_retry_after ||
            (odd[i].body && strcmp(strbuf_str(&a.body), odd[i].body) != 0))
            fail_msg("%s: status %d, \"%s\", truncated %d", odd[i].head, a.status, strbuf_str(&a.body),
                     a.truncated);
        http_answer_free(&a);
    }
}

/* --- connections that are cut ----------------------------------------------------------------- */

/* Passes bytes on between the client and a server, and cuts the client's connection after so many. */
struct relay {
    int fd;
    uint16_t port, to;
    pthread_t thread;
    atomic_size_t limit;
    bool of_client; /* the client's bytes are counted, else the server's */
    atomic_int connections;
};

static int connect_to(uint16_t port)
{
    struct sockaddr_in in = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memcpy(&address, &in, sizeof(in));
    if (connect(fd, &address, sizeof(address)) < 0)
        abort();
    return fd;
}

static void relay_bytes(struct relay *r, int client, int server)
{
    struct pollfd p[2] = {{client, POLLIN, 0}, {server, POLLIN, 0}};
    size_t left = r->limit;
    char bytes[4096];

    while (left > 0 && poll(p, 2, -1) > 0)
        for (int i = 0; i < 2; i++) {
            bool counts = r->of_client == (i == 0);
            if (!p[i].revents)
                continue;
            ssize_t n = recv(p[i].fd, bytes, counts ? MIN(left, sizeof(bytes)) : sizeof(bytes), 0);
            if (n <= 0)
                return;
            if (send(p[1 - i].fd, bytes, (size_t) n, MSG_NOSIGNAL) != n)
                return;
            left -= counts ? (size_t) n : 0;
        }
}

static void *relay_run(void *userdata)
{
    struct relay *r = userdata;

    for (int client; (client = accept4(r->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0; close(client)) {
        int server = connect_to(r->to);
        r->connections++;
        setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        relay_bytes(r, client, server);
        reset_on_close(client);
        close(server);
    }
    return NULL;
}

/* Whatever byte is the last: no request is sent twice, and one of which nothing was sent is not ambiguous. */
static void cut_everywhere(struct client *c, struct server *s, bool of_client, size_t total, size_t step)
{
    struct relay r = {.to = s->port, .of_client = of_client};
    char url[64];

    r.fd = listen_on_loopback(&r.port);
    snprintf(url, sizeof(url), "%s://127.0.0.1:%d/", s->tls ? "https" : "http", r.port);
    assert_int_equal(pthread_create(&r.thread, NULL, relay_run, &r), 0);
    for (size_t limit = 1; limit < total; limit += step) {
        int before = s->requests;
        r.limit = limit;
        struct outcome *o = finished(c, post(c, url));
        while (server_has_connections(s))
            usleep(200);
        int requests = s->requests - before;
        bool answered = o->result.cause == HTTP_ANSWERED;
        if (requests > 1 || (answered && (requests != 1 || o->result.status != 200)) ||
            (!answered && !o->result.body_handed_over && requests > 0))
            fail_msg("cut after %zu: %s (%s), %d requests", limit, http_cause_word(o->result.cause),
                     o->detail, requests);
        free(o);
        http_set_params(c->http, &c->params); /* no kept connection, no session */
    }
    shutdown(r.fd, SHUT_RDWR);
    pthread_join(r.thread, NULL);
    close(r.fd);
}

static const struct reply ok_close[] = {{OK, CLOSE, NULL, false}};

TEST(test_reset_at_each_byte)
{
    struct server *s = server_start(ok_close, 1);

    cut_everywhere(*state, s, false, strlen(OK) + 2, 1);
    cut_everywhere(*state, s, true, 200, 3);
    server_stop(s);
}

static struct server *tls_server_that_stays_trusted(struct client *c, const struct reply *replies)
{
    static char path[64];

    snprintf(path, sizeof(path), "/tmp/anubis-strangers-%d.pem", getpid());
    struct server *s = server_start_over(tls_context_new("IP:127.0.0.1", path, -60, 3600), replies, 1);
    c->params.ca_file = path;
    http_set_params(c->http, &c->params);
    return s;
}

TEST(test_reset_at_each_byte_of_tls)
{
    struct client *c = *state;
    struct server *s = tls_server_that_stays_trusted(c, ok_close);

    cut_everywhere(c, s, false, 2000, 29);
    cut_everywhere(c, s, true, 1200, 31);
    unlink(c->params.ca_file);
    server_stop(s);
}

/* --- TLS -------------------------------------------------------------------------------------- */

/* A peer that does as it likes with one connection after the other. */
struct peer {
    int fd;
    uint16_t port;
    pthread_t thread;
    SSL_CTX *tls;
    void (*serve)(SSL *ssl, int fd);
};

static void *peer_run(void *userdata)
{
    struct peer *p = userdata;

    for (int fd; (fd = accept4(p->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0; close(fd)) {
        SSL *ssl = SSL_new(p->tls);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        SSL_set_fd(ssl, fd);
        if (SSL_accept(ssl) == 1)
            p->serve(ssl, fd);
        SSL_free(ssl);
    }
    return NULL;
}

static struct outcome *post_to_peer(struct client *c, SSL_CTX *tls, void (*serve)(SSL *ssl, int fd))
{
    struct peer p = {.tls = tls, .serve = serve};
    char url[64];

    p.fd = listen_on_loopback(&p.port);
    snprintf(url, sizeof(url), "https://127.0.0.1:%d/", p.port);
    assert_int_equal(pthread_create(&p.thread, NULL, peer_run, &p), 0);
    struct outcome *o = finished(c, post(c, url));
    http_set_params(c->http, &c->params); /* ends what was kept */
    shutdown(p.fd, SHUT_RDWR);
    pthread_join(p.thread, NULL);
    close(p.fd);
    SSL_CTX_free(tls);
    return o;
}

static SSL_CTX *trusted_context(struct client *c)
{
    static char path[64];

    snprintf(path, sizeof(path), "/tmp/anubis-strangers-%d.pem", getpid());
    SSL_CTX *tls = tls_context_new("IP:127.0.0.1", path, -60, 3600);
    c->params.ca_file = path;
    http_set_params(c->http, &c->params);
    return tls;
}

static void read_some(SSL *ssl)
{
    char sink[4096];

    (void) SSL_read(ssl, sink, sizeof(sink));
}

static void wait_for_client(int fd)
{
    char sink[4096];

    while (recv(fd, sink, sizeof(sink), 0) > 0)
        ;
}

static void serve_plain_answer(SSL *ssl, int fd)
{
    read_some(ssl);
    send(fd, OK, strlen(OK), MSG_NOSIGNAL);
    wait_for_client(fd);
}

static void serve_garbage_within(SSL *ssl, int fd)
{
    static const char part[] = "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhalf";

    read_some(ssl);
    SSL_write(ssl, part, (int) strlen(part));
    send(fd, OK, strlen(OK), MSG_NOSIGNAL);
    wait_for_client(fd);
}

static void serve_some_key_updates(SSL *ssl, int fd)
{
    (void) fd;
    read_some(ssl);
    for (int i = 0; i < 20; i++) {
        SSL_key_update(ssl, SSL_KEY_UPDATE_REQUESTED);
        SSL_write(ssl, &OK[i], 1);
    }
    SSL_write(ssl, &OK[20], (int) strlen(OK) - 20);
    wait_for_client(fd);
}

static void serve_endless_key_updates(SSL *ssl, int fd)
{
    (void) fd;
    read_some(ssl);
    while (SSL_key_update(ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1 && SSL_do_handshake(ssl) == 1)
        ;
}

static void serve_a_byte_a_record(SSL *ssl, int fd)
{
    read_some(ssl);
    for (size_t i = 0; i < strlen(OK); i++)
        SSL_write(ssl, &OK[i], 1);
    wait_for_client(fd);
}

TEST(test_odd_tls)
{
    static const struct {
        void (*serve)(SSL *ssl, int fd);
        enum http_cause cause;
        const char *body;
    } odd[] = {
        {serve_plain_answer, HTTP_CONNECTION_LOST, ""}, {serve_garbage_within, HTTP_ANSWERED, "half"},
        {serve_some_key_updates, HTTP_ANSWERED, "ok"},  {serve_endless_key_updates, HTTP_CONNECTION_LOST, ""},
        {serve_a_byte_a_record, HTTP_ANSWERED, "ok"},
    };
    struct client *c = *state;

    for (size_t i = 0; i < ARRAY_SIZE(odd); i++) {
        struct outcome *o = post_to_peer(c, trusted_context(c), odd[i].serve);
        if (o->result.cause != odd[i].cause || strcmp(o->body, odd[i].body) != 0 ||
            !o->result.body_handed_over)
            fail_msg("%zu: %s (%s), \"%s\"", i, http_cause_word(o->result.cause), o->detail, o->body);
        free(o);
    }
    unlink(c->params.ca_file);
}

/* Of certificates that nobody needs: some are borne, many are refused in words. */
TEST(test_long_chains_of_certificates)
{
    static const struct {
        int count;
        enum http_cause cause;
    } chains[] = {{60, HTTP_ANSWERED}, {600, HTTP_TLS}};
    struct client *c = *state;

    for (size_t i = 0; i < ARRAY_SIZE(chains); i++) {
        SSL_CTX *tls = trusted_context(c);
        for (int n = 0; n < chains[i].count; n++)
            assert_int_equal(SSL_CTX_add1_chain_cert(tls, SSL_CTX_get0_certificate(tls)), 1);
        struct outcome *o = post_to_peer(c, tls, serve_a_byte_a_record);
        expect_cause(o, chains[i].cause);
        if (o->result.cause == HTTP_TLS)
            assert_false(o->result.body_handed_over);
        free(o);
    }
    unlink(c->params.ca_file);
}

/* One full handshake, however many connections; and a new one after a reload. */
TEST(test_sessions_are_resumed)
{
    enum { CONNECTIONS = 20 };
    struct client *c = *state;

    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct server *s = tls_server_that_stays_trusted(c, ok_close);
        SSL_CTX_set_max_proto_version(s->tls, version);
        for (int round = 1; round <= 2; round++) {
            for (int i = 0; i < CONNECTIONS; i++) {
                struct outcome *o = post_to(c, s);
                expect_status(o, 200);
                free(o);
                while (server_has_connections(s))
                    usleep(200);
            }
            assert_int_equal(s->connections, round * CONNECTIONS);
            assert_int_equal(SSL_CTX_sess_hits(s->tls), round * (CONNECTIONS - 1));
            http_set_params(c->http, &c->params);
        }
        unlink(c->params.ca_file);
        server_stop(s);
    }
}

/* --- kept connections ------------------------------------------------------------------------- */

enum { HOSTS = 1000 };

/* Many hosts, that answer whatever comes. */
struct town {
    uint16_t ports[HOSTS];
    int wake[2]; /* ends it */
    pthread_t thread;
    struct pollfd sockets[2 * HOSTS + 1]; /* listeners, the pipe, connections */
};

static void *town_run(void *userdata)
{
    struct town *t = userdata;
    char sink[4096];

    while (poll(t->sockets, ARRAY_SIZE(t->sockets), -1) > 0 && !t->sockets[HOSTS].revents)
        for (int i = 0; i < HOSTS; i++) {
            struct pollfd *connection = &t->sockets[HOSTS + 1 + i];
            if (t->sockets[i].revents)
                *connection = (struct pollfd){accept4(t->sockets[i].fd, NULL, NULL, SOCK_CLOEXEC), POLLIN, 0};
            else if (connection->revents && recv(connection->fd, sink, sizeof(sink), MSG_DONTWAIT) > 0)
                send(connection->fd, OK, strlen(OK), MSG_NOSIGNAL);
        }
    return NULL;
}

static void town_open(struct town *t)
{
    for (int i = 0; i < HOSTS; i++)
        t->sockets[i] = (struct pollfd){listen_on_loopback(&t->ports[i]), POLLIN, 0};
    for (size_t i = HOSTS + 1; i < ARRAY_SIZE(t->sockets); i++)
        t->sockets[i].fd = -1;
    assert_int_equal(pipe(t->wake), 0);
    t->sockets[HOSTS] = (struct pollfd){t->wake[0], POLLIN, 0};
    assert_int_equal(pthread_create(&t->thread, NULL, town_run, t), 0);
}

static void town_close(struct town *t)
{
    close(t->wake[1]);
    pthread_join(t->thread, NULL);
    for (size_t i = 0; i < ARRAY_SIZE(t->sockets); i++)
        if (t->sockets[i].fd >= 0)
            close(t->sockets[i].fd);
}

static void visit_all(struct client *c, const struct town *t)
{
    enum { AT_ONCE = 100 };
    struct outcome *o[AT_ONCE];
    char url[64];

    for (int first = 0; first < HOSTS; first += AT_ONCE) {
        for (int i = 0; i < AT_ONCE; i++) {
            snprintf(url, sizeof(url), "http://127.0.0.1:%d/", t->ports[first + i]);
            o[i] = post(c, url);
        }
        for (int i = 0; i < AT_ONCE; i++) {
            expect_status(finished(c, o[i]), 200);
            free(o[i]);
        }
    }
}

/* A thousand hosts with a kept connection each: the loop sleeps, and one request wakes it for its own events
 * alone. */
TEST(test_many_kept_connections_cost_nothing)
{
    struct client *c = *state;
    struct town *t = calloc(1, sizeof(*t));
    struct rlimit old, many;

    getrlimit(RLIMIT_NOFILE, &old);
    many = (struct rlimit){old.rlim_max, old.rlim_max};
    setrlimit(RLIMIT_NOFILE, &many);
    c->params.max_connections = HOSTS;
    http_set_params(c->http, &c->params);
    town_open(t);
    visit_all(c, t);
    int turns = 0;
    for (uint64_t end = now_monotonic_usec() + 2 * USEC_PER_SEC; now_monotonic_usec() < end; turns++)
        assert_true(sd_event_run(c->event, 2 * USEC_PER_SEC) >= 0);
    assert_true(turns <= 4);
    visit_all(c, t); /* on the same connections: a host takes one only */
    free(finished(c, post(c, "http://127.0.0.1:1/")));
    town_close(t);
    free(t);
    setrlimit(RLIMIT_NOFILE, &old);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header_lines_of_any_byte),
        cmocka_unit_test(test_any_byte_where_a_number_is),
        cmocka_unit_test(test_odd_framing),
        WITH_CLIENT(test_reset_at_each_byte),
        WITH_CLIENT(test_reset_at_each_byte_of_tls),
        WITH_CLIENT(test_odd_tls),
        WITH_CLIENT(test_long_chains_of_certificates),
        WITH_CLIENT(test_sessions_are_resumed),
        WITH_CLIENT(test_many_kept_connections_cost_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
