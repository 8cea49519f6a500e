/* The HTTP client and TLS: certificates are verified, and what goes wrong before the request is told apart.
 * The one server that speaks TLS is openssl(1)'s; without it those tests are skipped. */
#include "http_fixture.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>

struct tls_server {
    char directory[64], certificate[96], key[96];
    pid_t pid;
    int to, from; /* its standard input goes to the client, what the client sends comes out */
    int port;
    char output[8192];
    size_t output_len;
};

static pid_t run(const char *const *argv, int in, int out)
{
    pid_t parent = getpid(), pid = fork();

    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    execvp(argv[0], (char *const *) (uintptr_t) argv);
    _exit(127);
}

static bool make_certificate(struct tls_server *s)
{
    const char *const argv[] = {
        "openssl",  "req",
        "-x509",    "-newkey",
        "rsa:2048", "-nodes",
        "-days",    "2",
        "-keyout",  s->key,
        "-out",     s->certificate,
        "-subj",    "/CN=institution",
        "-addext",  "subjectAltName=IP:127.0.0.1",
        NULL,
    };
    int null = open("/dev/null", O_RDWR | O_CLOEXEC), status = -1;

    snprintf(s->directory, sizeof(s->directory), "/tmp/anubis-test-XXXXXX");
    assert_non_null(mkdtemp(s->directory));
    snprintf(s->certificate, sizeof(s->certificate), "%s/certificate.pem", s->directory);
    snprintf(s->key, sizeof(s->key), "%s/key.pem", s->directory);
    waitpid(run(argv, null, null), &status, 0);
    close(null);
    return status == 0;
}

/* Reads what there is. */
static void tls_read(struct tls_server *s)
{
    ssize_t n = read(s->from, s->output + s->output_len, sizeof(s->output) - 1 - s->output_len);

    if (n > 0)
        s->output_len += (size_t) n;
    s->output[s->output_len] = '\0';
}

static void tls_start(struct tls_server *s)
{
    const char *const argv[] = {
        "openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", s->certificate, "-key", s->key, NULL,
    };
    static const char ready[] = "ACCEPT 127.0.0.1:";
    uint64_t deadline = now_monotonic_usec() + PATIENCE_USEC;
    int in[2], out[2];

    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    s->pid = run(argv, in[0], out[1]);
    close(in[0]);
    close(out[1]);
    s->to = in[1];
    s->from = out[0];
    do {
        assert_true(now_monotonic_usec() < deadline);
        tls_read(s);
    } while (!strstr(s->output, ready) || !strchr(strstr(s->output, ready), '\n'));
    s->port = (int) strtol(strstr(s->output, ready) + strlen(ready), NULL, 10);
    fcntl(s->from, F_SETFL, O_NONBLOCK);
}

static void tls_stop(struct tls_server *s)
{
    if (s->pid > 0) {
        kill(s->pid, SIGKILL);
        waitpid(s->pid, NULL, 0);
        close(s->to);
        close(s->from);
    }
    unlink(s->certificate);
    unlink(s->key);
    rmdir(s->directory);
}

static const char *tls_url(const struct tls_server *s, const char *scheme, const char *host)
{
    static char url[128];

    snprintf(url, sizeof(url), "%s://%s:%d/inscricoes", scheme, host, s->port);
    return url;
}

/* What happens when nobody is asked to trust the certificate, when somebody is, and when the name is
 * another's. */
TEST(test_certificate)
{
    static const char answer[] = "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok";
    struct client *c = *state;
    struct tls_server s = {0};
    struct outcome *o;

    if (!make_certificate(&s)) {
        tls_stop(&s);
        print_message("openssl is not installed\n");
        skip();
    }
    tls_start(&s);
    o = finished(c, post(c, tls_url(&s, "https", "127.0.0.1")));
    expect_cause(o, HTTP_TLS);
    assert_false(o->result.body_handed_over);
    assert_true(strlen(o->detail) > 0);
    free(o);

    c->params.ca_file = s.certificate;
    c->params.allow_http = false;
    http_set_params(c->http, &c->params);
    o = finished(c, post(c, tls_url(&s, "https", "localhost")));
    expect_cause(o, HTTP_TLS);
    assert_false(o->result.body_handed_over);
    free(o);

    o = post(c, tls_url(&s, "https", "127.0.0.1"));
    WAIT_FOR(c, (tls_read(&s), strstr(s.output, "{\"a\":1}")));
    assert_non_null(strstr(s.output, "POST /inscricoes HTTP/1.1\r\n"));
    assert_int_equal(write(s.to, answer, strlen(answer)), strlen(answer));
    expect_status(finished(c, o), 201);
    assert_string_equal(o->body, "ok");
    assert_false(o->result.truncated);
    free(o);
    tls_stop(&s);
}

TEST(test_no_such_ca_file)
{
    static const struct reply replies[] = {{NULL, HOLD, NULL, true}};
    struct client *c = *state;
    struct server *s = server_start(replies, 1);
    char url[64];
    struct outcome *o;

    c->params.ca_file = "/nonexistent/ca.pem";
    http_set_params(c->http, &c->params);
    snprintf(url, sizeof(url), "https://127.0.0.1:%d/", s->port);
    o = finished(c, post(c, url));
    expect_cause(o, HTTP_INTERNAL); /* not the institution's fault */
    assert_non_null(strstr(o->detail, "ca_file"));
    assert_false(o->result.body_handed_over);
    free(o);
    server_stop(s);
}

/* Whoever does not speak TLS gets no request. */
TEST(test_handshakes_that_fail)
{
    static const struct {
        struct reply reply;
        enum http_cause cause, alternative;
    } scenes[] = {
        {{"HTTP/1.1 400 Bad Request\r\n\r\n", HOLD, NULL, true}, HTTP_TLS, HTTP_TLS},
        {{NULL, CLOSE, NULL, true}, HTTP_TLS, HTTP_TLS},
        {{NULL, RESET, NULL, true}, HTTP_TLS, HTTP_CONNECT},    /* whichever of the two is reset */
        {{NULL, HOLD, NULL, true}, HTTP_CONNECT, HTTP_CONNECT}, /* its time to connect runs out */
    };
    struct client *c = *state;

    for (size_t i = 0; i < ARRAY_SIZE(scenes); i++) {
        struct server *s = server_start(&scenes[i].reply, 1);
        char url[64];
        struct outcome *o;

        c->params.connect_timeout_usec = scenes[i].cause == HTTP_CONNECT ? 300 * USEC_PER_MSEC : TIMEOUT_USEC;
        http_set_params(c->http, &c->params);
        snprintf(url, sizeof(url), "https://127.0.0.1:%d/", s->port);
        o = finished(c, post(c, url));
        expect_cause(o, o->result.cause == scenes[i].alternative ? scenes[i].alternative : scenes[i].cause);
        assert_false(o->result.body_handed_over);
        assert_true(o->result.duration_usec < 60 * USEC_PER_SEC);
        free(o);
        server_stop(s);
    }
}

/* The client's certificate is missed during the handshake (TLS 1.2), or when the request is there already. */
TEST(test_server_that_wants_a_client_certificate)
{
    static const struct reply ok = {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", KEEP, NULL, false};
    static const struct {
        int version, mode;
        bool wants;
    } scenes[] = {
        {TLS1_2_VERSION, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, true},
        {TLS1_3_VERSION, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, true},
        {TLS1_2_VERSION, SSL_VERIFY_PEER, false}, /* asks, and goes on without */
        {TLS1_3_VERSION, SSL_VERIFY_PEER, false},
    };
    struct client *c = *state;

    for (size_t i = 0; i < 2 * ARRAY_SIZE(scenes); i++) {
        size_t scene = i % ARRAY_SIZE(scenes);
        struct server *s = tls_server(c, &ok, 1);

        SSL_CTX_set_max_proto_version(s->tls, scenes[scene].version);
        SSL_CTX_set_min_proto_version(s->tls, scenes[scene].version);
        SSL_CTX_set_verify(s->tls, scenes[scene].mode, NULL);
        struct outcome *o = post_to(c, s);
        if (scenes[scene].wants) {
            expect_cause(o, HTTP_CLIENT_REFUSED);
            assert_string_equal(o->detail, "the server wants a client certificate");
            assert_int_equal(s->requests, 0);
        } else {
            expect_status(o, 200);
        }
        free(o);
        server_stop(s);
    }
}

/* --- a server of our own ---------------------------------------------------------------------- */

#define ANSWER "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

TEST(test_tls_connection_is_reused)
{
    static const struct reply replies[] = {{ANSWER, KEEP, NULL, false}};
    struct client *c = *state;
    struct server *s = tls_server(c, replies, 1);

    for (int i = 0; i < 50; i++) {
        struct outcome *o = post_to(c, s);

        expect_status(o, 200);
        assert_string_equal(o->body, "ok");
        free(o);
    }
    assert_int_equal(s->requests, 50);
    assert_int_equal(s->connections, 1);
    server_stop(s);
}

/* The everyday case: the server ends idle connections, with close_notify or without, TLS 1.2 or 1.3. */
TEST(test_tls_idle_connection_closed_by_the_server)
{
    static const struct reply replies[] = {{ANSWER, CLOSE, NULL, false}, {ANSWER, CUT, NULL, false}};

    for (size_t i = 0; i < 2 * ARRAY_SIZE(replies); i++) {
        struct client *c = *state;
        struct server *s = tls_server(c, &replies[i / 2], 1);
        SSL_CTX_set_max_proto_version(s->tls, i % 2 ? TLS1_2_VERSION : TLS1_3_VERSION);

        for (int n = 1; n <= 8; n++) {
            struct outcome *o = post_to(c, s);

            expect_status(o, 200);
            assert_false(o->result.truncated);
            assert_int_equal(s->requests, n);
            free(o);
            while (server_has_connections(s)) /* without a turn of the loop: it shows when it is to be used */
                usleep(1000);
            if (n % 2)
                turn(c);
        }
        server_stop(s);
    }
}

/* What comes without having been asked for ends the connection, and is nobody's answer. */
TEST(test_tls_unasked_answers)
{
    static const struct reply replies[] = {{ANSWER ANSWER, KEEP, NULL, false}};
    struct client *c = *state;
    struct server *s = tls_server(c, replies, 1);

    for (int n = 1; n <= 10; n++) {
        struct outcome *o = post_to(c, s);

        expect_status(o, 200);
        free(o);
        assert_int_equal(s->requests, n);
        assert_int_equal(s->connections, n);
    }
    server_stop(s);
}

TEST(test_tls_answers_that_break_off)
{
    static const struct {
        struct reply reply;
        int status;
        const char *body;
        bool truncated;
    } scenes[] = {
        {{"HTTP/1.1 200 OK\r\n\r\nall of it", CLOSE, NULL, false}, 200, "all of it", false},
        {{"HTTP/1.1 200 OK\r\n\r\npart", CUT, NULL, false}, 200, "part", true},
        {{"HTTP/1.1 422 No\r\nContent-Length: 9\r\n\r\npart", CLOSE, NULL, false}, 422, "part", true},
        {{"HTTP/1.1 20", CLOSE, NULL, false}, 0, "", false},
        {{NULL, CUT, NULL, false}, 0, "", false},
        {{NULL, RESET, NULL, false}, 0, "", false},
    };
    struct client *c = *state;

    for (size_t i = 0; i < ARRAY_SIZE(scenes); i++) {
        struct server *s = tls_server(c, &scenes[i].reply, 1);
        struct outcome *o = post_to(c, s);

        expect_cause(o, scenes[i].status ? HTTP_ANSWERED : HTTP_CONNECTION_LOST);
        assert_int_equal(o->result.status, scenes[i].status);
        assert_string_equal(o->body, scenes[i].body);
        assert_int_equal(o->result.truncated, scenes[i].truncated);
        assert_true(o->result.body_handed_over);
        assert_int_equal(s->requests, 1);
        free(o);
        server_stop(s);
    }
}

TEST(test_large_body_over_tls)
{
    enum { SIZE = 5 * 1024 * 1024 };
    static const struct reply replies[] = {{ANSWER, KEEP, NULL, false}};
    struct client *c = *state;
    struct server *s = tls_server(c, replies, 1);
    char *body = malloc(SIZE);

    memset(body, 'x', SIZE);
    for (int i = 0; i < 2; i++) {
        struct http_request request = {server_url(s, "/"), json_headers(), body, SIZE,
                                       TIMEOUT_USEC,       false,          NULL};
        struct outcome *o = outcome_new();

        http_post(c->http, &request, on_result, o);
        expect_status(finished(c, o), 200);
        assert_int_equal(s->body_len, SIZE);
        free(o);
    }
    free(body);
    server_stop(s);
}

TEST(test_certificate_faults_are_told_apart)
{
    static const struct {
        const char *name;
        long from, to;
        bool trusted;
        const char *words;
    } faults[] = {
        {"IP:127.0.0.1", -60, 3600, false, "self-signed"},
        {"IP:127.0.0.1", -7200, -3600, true, "expired"},
        {"IP:127.0.0.1", 3600, 7200, true, "not valid yet"},
        {"IP:127.0.0.2", -60, 3600, true, "another address"},
        {"institution.example", -60, 3600, true, "another address"},
    };
    static const struct reply replies[] = {{ANSWER, KEEP, NULL, false}};
    struct client *c = *state;

    for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
        char path[64];
        snprintf(path, sizeof(path), "/tmp/anubis-test-%d.pem", getpid());
        SSL_CTX *tls = tls_context_new(faults[i].name, path, faults[i].from, faults[i].to);
        struct server *s = server_start_over(tls, replies, 1);

        c->params.ca_file = faults[i].trusted ? path : "";
        http_set_params(c->http, &c->params);
        unlink(path);
        struct outcome *o = post_to(c, s);
        expect_cause(o, HTTP_TLS);
        if (!strstr(o->detail, faults[i].words))
            fail_msg("\"%s\" instead of \"%s\"", o->detail, faults[i].words);
        assert_false(o->result.body_handed_over);
        assert_int_equal(s->requests, 0);
        free(o);
        server_stop(s);
    }
}

/* A reload that takes all trust away meets requests that are still connecting. */
TEST(test_trust_is_lost_while_connecting)
{
    static const struct reply replies[] = {{ANSWER, KEEP, NULL, false}};
    struct client *c = *state;
    struct server *s = tls_server(c, replies, 1);
    struct outcome *o = post(c, server_url(s, "/"));

    c->params.ca_file = "/nonexistent/ca.pem";
    http_set_params(c->http, &c->params);
    expect_cause(finished(c, o), HTTP_INTERNAL);
    assert_false(o->result.body_handed_over);
    free(o);
    server_stop(s);
}

/* --- a server whose records are made before they are sent ------------------------------------- */

struct recorder {
    SSL_CTX *tls;
    int listen_fd, fd;
    uint16_t port;
    SSL *ssl;
    BIO *records;
    char url[64];
    pthread_t thread;
    size_t first; /* bytes of a record that come before the request */
    atomic_bool ready;
    atomic_long sent;
};

static struct recorder *recorder_new(struct client *c)
{
    static char trusted[64];
    struct recorder *r = calloc(1, sizeof(*r));

    snprintf(trusted, sizeof(trusted), "/tmp/anubis-test-%d.pem", getpid());
    r->tls = tls_context_new("IP:127.0.0.1", trusted, -60, 3600);
    c->params.ca_file = trusted;
    http_set_params(c->http, &c->params);
    unlink(trusted);
    r->listen_fd = listen_on_loopback(&r->port);
    snprintf(r->url, sizeof(r->url), "https://127.0.0.1:%d/", r->port);
    return r;
}

/* Answers the first request; what is written from then on lies in r->records. */
static void recorder_accept(struct recorder *r)
{
    char sink[4096];

    r->fd = accept4(r->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    r->ssl = SSL_new(r->tls);
    SSL_set_fd(r->ssl, r->fd);
    SSL_accept(r->ssl);
    SSL_read(r->ssl, sink, sizeof(sink));
    SSL_write(r->ssl, ANSWER, (int) strlen(ANSWER));
    r->records = BIO_new(BIO_s_mem());
    SSL_set0_wbio(r->ssl, r->records);
}

static void recorder_free(struct recorder *r)
{
    pthread_join(r->thread, NULL);
    SSL_free(r->ssl);
    SSL_CTX_free(r->tls);
    close(r->fd);
    close(r->listen_fd);
    free(r);
}

static void *half_a_record_run(void *userdata)
{
    struct recorder *r = userdata;
    static const char stale[] = "HTTP/1.1 422 Stale\r\nContent-Length: 0\r\n\r\n";
    char *record, sink[4096];

    recorder_accept(r);
    SSL_write(r->ssl, stale, (int) strlen(stale));
    size_t len = (size_t) BIO_get_mem_data(r->records, &record);
    send(r->fd, record, r->first, MSG_NOSIGNAL);
    r->ready = true;
    if (recv(r->fd, sink, 1, MSG_PEEK) == 1) /* the next request, or the end */
        send(r->fd, record + r->first, len - r->first, MSG_NOSIGNAL);
    close(accept4(r->listen_fd, NULL, NULL, SOCK_CLOEXEC));
    return NULL;
}

/* An answer that nothing asked for, of which a part has come before the next request. */
TEST(test_half_a_record_is_no_answer)
{
    static const size_t firsts[] = {1, 4, 5, 6, 30};

    for (size_t i = 0; i < ARRAY_SIZE(firsts); i++) {
        struct client *c = *state;
        struct recorder *r = recorder_new(c);

        r->first = firsts[i];
        pthread_create(&r->thread, NULL, half_a_record_run, r);
        struct outcome *o = finished(c, post(c, r->url));
        expect_status(o, 200);
        free(o);
        WAIT_FOR(c, r->ready);
        usleep(2000);
        o = finished(c, post(c, r->url));
        assert_int_not_equal(o->result.cause, HTTP_ANSWERED);
        free(o);
        recorder_free(r);
    }
}

#define TICKETS_SIZE (16L << 20)

static void *endless_tickets_run(void *userdata)
{
    struct recorder *r = userdata;
    char *records;

    recorder_accept(r);
    while (BIO_pending(r->records) < TICKETS_SIZE) {
        SSL_new_session_ticket(r->ssl);
        SSL_do_handshake(r->ssl);
    }
    long len = BIO_get_mem_data(r->records, &records);
    for (ssize_t n = 1; n > 0 && r->sent < len; r->sent += MAX(n, 0))
        n = send(r->fd, records + r->sent, (size_t) (len - r->sent), MSG_NOSIGNAL);
    r->ready = true;
    return NULL;
}

/* What TLS says to itself is not read for ever: it brings no byte of an answer. */
TEST(test_endless_session_tickets)
{
    struct client *c = *state;
    struct recorder *r = recorder_new(c);

    pthread_create(&r->thread, NULL, endless_tickets_run, r);
    struct outcome *o = finished(c, post(c, r->url));
    expect_status(o, 200);
    free(o);
    WAIT_FOR(c, r->ready);
    assert_true(r->sent < TICKETS_SIZE);
    recorder_free(r);
}

/* A session is no way around a certificate that has expired since. */
TEST(test_session_of_an_expired_certificate)
{
    static const struct reply replies[] = {{ANSWER, CLOSE, NULL, false}};
    struct client *c = *state;
    char path[64];

    snprintf(path, sizeof(path), "/tmp/anubis-test-%d.pem", getpid());
    struct server *s = server_start_over(tls_context_new("IP:127.0.0.1", path, -60, 2), replies, 1);
    c->params.ca_file = path;
    http_set_params(c->http, &c->params);
    unlink(path);
    struct outcome *o = post_to(c, s);
    expect_status(o, 200);
    free(o);
    usleep(3500 * 1000);
    o = post_to(c, s);
    expect_cause(o, HTTP_TLS);
    free(o);
    server_stop(s);
}

/* --- whom to trust ---------------------------------------------------------------------------- */

/* A reload reads the file again: what is no longer in it is not trusted, on no kept connection or session. */
TEST(test_trust_that_a_reload_takes_away)
{
    static const struct reply replies[] = {{ANSWER, KEEP, NULL, false}};
    struct client *c = *state;
    char path[64];

    snprintf(path, sizeof(path), "/tmp/anubis-test-%d.pem", getpid());
    struct server *s = server_start_over(tls_context_new("IP:127.0.0.1", path, -60, 3600), replies, 1);
    c->params.ca_file = path;
    http_set_params(c->http, &c->params);
    for (int i = 0; i < 2; i++) {
        struct outcome *o = post_to(c, s);
        expect_status(o, 200);
        free(o);
    }
    SSL_CTX_free(tls_context_new("IP:127.0.0.1", path, -60, 3600));
    http_set_params(c->http, &c->params);
    unlink(path);
    struct outcome *o = post_to(c, s);
    expect_cause(o, HTTP_TLS);
    assert_int_equal(s->requests, 2);
    free(o);
    server_stop(s);
}

/* The environment has no say in whom to trust. */
TEST(test_certificates_of_the_environment_are_ignored)
{
    static const struct reply replies[] = {{ANSWER, KEEP, NULL, false}};
    struct client *c = *state;
    char path[64];

    snprintf(path, sizeof(path), "/tmp/anubis-test-%d.pem", getpid());
    struct server *s = server_start_over(tls_context_new("IP:127.0.0.1", path, -60, 3600), replies, 1);
    setenv("SSL_CERT_FILE", path, 1);
    c->params.ca_file = "";
    http_set_params(c->http, &c->params);
    struct outcome *o = post_to(c, s);
    assert_int_not_equal(o->result.cause, HTTP_ANSWERED);
    assert_int_equal(s->requests, 0);
    free(o);
    unsetenv("SSL_CERT_FILE");
    unlink(path);
    server_stop(s);
}

/* --- neighbours ------------------------------------------------------------------------------- */

enum { HEALTHY = 12, STUCK = 16, ROUNDS = 100 };

struct street {
    struct client *client;
    struct server *secure[HEALTHY], *plain, *hanging, *doubtful;
    char hanging_url[64];
};

/* Twelve institutions over TLS with one trusted certificate, one in clear text, one that hangs in its
 * handshake and one with a certificate of its own. */
static void street_open(struct street *s, struct client *c)
{
    static const struct reply replies[] = {{ANSWER, KEEP, NULL, false}};
    static const struct reply closing[] = {
        {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", CLOSE, NULL, false}};
    static const struct reply silence[] = {{NULL, HOLD, NULL, true}};

    *s = (struct street){.client = c};
    s->secure[0] = tls_server(c, replies, 1);
    for (int i = 1; i < HEALTHY; i++) {
        SSL_CTX_up_ref(s->secure[0]->tls);
        /* Half of them need a handshake for each request. */
        s->secure[i] = server_start_over(s->secure[0]->tls, i % 2 ? closing : replies, 1);
    }
    s->plain = server_start(replies, 1);
    s->hanging = server_start(silence, 1);
    s->doubtful = server_start_over(tls_context_new("IP:127.0.0.1", NULL, -60, 3600), replies, 1);
    snprintf(s->hanging_url, sizeof(s->hanging_url), "https://127.0.0.1:%d/", s->hanging->port);
}

static void street_close(struct street *s)
{
    for (int i = 0; i < HEALTHY; i++)
        server_stop(s->secure[i]);
    server_stop(s->plain);
    server_stop(s->hanging);
    server_stop(s->doubtful);
}

/* While requests hang in a handshake, and others meet a certificate that is not trusted, all others pass. */
TEST(test_neighbours_of_a_hanging_handshake)
{
    struct client *c = *state;
    struct outcome *stuck[STUCK], *o[HEALTHY], *plain, *doubtful;
    struct street s;
    int rounds = 0;

    c->params.connect_timeout_usec = 5 * USEC_PER_SEC;
    street_open(&s, c);
    for (int i = 0; i < STUCK; i++)
        stuck[i] = post(c, s.hanging_url);
    for (; rounds < ROUNDS && (!stuck[STUCK - 1]->done || rounds < 20); rounds++) {
        for (int i = 0; i < HEALTHY; i++)
            o[i] = post(c, server_url(s.secure[i], "/"));
        plain = post(c, server_url(s.plain, "/"));
        doubtful = post(c, server_url(s.doubtful, "/"));
        for (int i = 0; i < HEALTHY; i++) {
            expect_status(finished(c, o[i]), 200);
            free(o[i]);
        }
        expect_status(finished(c, plain), 200);
        free(plain);
        expect_cause(finished(c, doubtful), HTTP_TLS);
        assert_false(doubtful->result.body_handed_over);
        free(doubtful);
    }
    for (int i = 0; i < STUCK; i++) {
        expect_cause(finished(c, stuck[i]), HTTP_CONNECT);
        assert_string_equal(stuck[i]->detail, "the TLS handshake did not end in time");
        assert_false(stuck[i]->result.body_handed_over);
        free(stuck[i]);
    }
    for (int i = 0; i < HEALTHY; i++)
        assert_int_equal(s.secure[i]->requests, rounds);
    assert_int_equal(s.plain->requests, rounds);
    assert_int_equal(s.doubtful->requests, 0);
    street_close(&s);
}

/* Nobody was asked in time, because this process was away. */
TEST(test_a_standstill_is_not_the_servers_fault)
{
    static const struct reply silence[] = {{NULL, HOLD, NULL, true}};
    struct client *c = *state;
    struct server *s = server_start(silence, 1);
    char url[64];

    c->params.connect_timeout_usec = 200 * USEC_PER_MSEC;
    http_set_params(c->http, &c->params);
    snprintf(url, sizeof(url), "https://127.0.0.1:%d/", s->port);
    struct outcome *o = post(c, url);
    WAIT_FOR(c, s->connections == 1 || o->done);
    usleep(1000 * 1000); /* no turn of the loop */
    expect_cause(finished(c, o), HTTP_INTERNAL);
    assert_false(o->result.body_handed_over);
    free(o);
    server_stop(s);
}

/* The same for those whose handshakes wait for their turns. */
TEST(test_a_standstill_amid_many_handshakes)
{
    enum { MANY = 60 };
    static const struct reply replies[] = {{ANSWER, KEEP, NULL, false}};
    struct client *c = *state;
    struct server *s = tls_server(c, replies, 1);
    struct outcome *o[MANY];
    int missed = 0;

    for (int i = 0; i < MANY; i++)
        o[i] = post_within(c, server_url(s, "/"), 500 * USEC_PER_MSEC);
    turn(c);
    usleep(5000);
    turn(c); /* they have said hello */
    usleep(1000 * 1000);
    for (int i = 0; i < MANY; i++) {
        finished(c, o[i]);
        missed += o[i]->result.cause == HTTP_INTERNAL;
        if (o[i]->result.cause != HTTP_INTERNAL && o[i]->result.cause != HTTP_ANSWERED)
            fail_msg("%d: %s: %s", i, http_cause_word(o[i]->result.cause), o[i]->detail);
        free(o[i]);
    }
    assert_true(missed > 0);
    server_stop(s);
}

/* A connection that is there just after its time is the server's fault, not this process's. */
TEST(test_a_little_too_late)
{
    static const struct reply replies[] = {{ANSWER, KEEP, NULL, false}};
    struct client *c = *state;

    for (int over_tls = 0; over_tls < 2; over_tls++) {
        struct server *s = over_tls ? tls_server(c, replies, 1) : server_start(replies, 1);
        struct outcome *o = post_within(c, server_url(s, "/"), 200 * USEC_PER_MSEC);

        turn(c); /* it begins to connect */
        usleep(250 * 1000);
        finished(c, o);
        if (o->result.cause != HTTP_CONNECT || o->result.body_handed_over || s->requests > 0)
            fail_msg("over TLS %d: %s: %s, %d requests", over_tls, http_cause_word(o->result.cause),
                     o->detail, s->requests);
        free(o);
        server_stop(s);
    }
}

/* What follows the CONNECT would go to such a proxy beside its TLS: in clear text. */
TEST(test_proxy_over_tls_gets_nothing)
{
    static const struct reply replies[] = {{ANSWER, KEEP, NULL, false}};
    struct client *c = *state;
    struct server *s = tls_server(c, replies, 1);
    char proxy[64];

    snprintf(proxy, sizeof(proxy), "https://127.0.0.1:%d", s->port);
    c->params.proxy = proxy;
    http_set_params(c->http, &c->params);
    struct outcome *o = finished(c, post(c, "http://institution.example/"));
    expect_cause(o, HTTP_CONNECT);
    assert_false(o->result.body_handed_over);
    assert_int_equal(s->connections, 0);
    free(o);
    server_stop(s);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        WITH_CLIENT(test_certificate),
        WITH_CLIENT(test_no_such_ca_file),
        WITH_CLIENT(test_handshakes_that_fail),
        WITH_CLIENT(test_server_that_wants_a_client_certificate),
        WITH_CLIENT(test_tls_connection_is_reused),
        WITH_CLIENT(test_tls_idle_connection_closed_by_the_server),
        WITH_CLIENT(test_tls_unasked_answers),
        WITH_CLIENT(test_tls_answers_that_break_off),
        WITH_CLIENT(test_large_body_over_tls),
        WITH_CLIENT(test_certificate_faults_are_told_apart),
        WITH_CLIENT(test_trust_is_lost_while_connecting),
        WITH_CLIENT(test_half_a_record_is_no_answer),
        WITH_CLIENT(test_endless_session_tickets),
        WITH_CLIENT(test_session_of_an_expired_certificate),
        WITH_CLIENT(test_trust_that_a_reload_takes_away),
        WITH_CLIENT(test_certificates_of_the_environment_are_ignored),
        WITH_CLIENT(test_neighbours_of_a_hanging_handshake),
        WITH_CLIENT(test_a_standstill_is_not_the_servers_fault),
        WITH_CLIENT(test_a_standstill_amid_many_handshakes),
        WITH_CLIENT(test_a_little_too_late),
        WITH_CLIENT(test_proxy_over_tls_gets_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
