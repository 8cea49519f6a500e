/* The HTTP client: what it sends, what it hands back, what it refuses, and how it behaves on the event loop.
 */
#include "http_fixture.h"

#include <curl/curl.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <sys/resource.h>

#define OK "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

static const struct reply ok[] = {{OK, KEEP, NULL, false}};
static const struct reply silence[] = {{NULL, HOLD, NULL, false}};

/* The resolver as the client sees it: names below test have their addresses here, one waits until it is let
 * go. */

static pthread_mutex_t resolver_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t resolver_changed = PTHREAD_COND_INITIALIZER;
static bool resolver_let_go;
static int resolver_waiting;

static void resolver_wait(void)
{
    pthread_mutex_lock(&resolver_lock);
    resolver_waiting++;
    while (!resolver_let_go)
        pthread_cond_wait(&resolver_changed, &resolver_lock);
    resolver_waiting--;
    pthread_cond_broadcast(&resolver_changed);
    pthread_mutex_unlock(&resolver_lock);
}

/* Nobody is in the resolver any more when this returns. */
static void resolver_release(void)
{
    pthread_mutex_lock(&resolver_lock);
    resolver_let_go = true;
    pthread_cond_broadcast(&resolver_changed);
    while (resolver_waiting > 0)
        pthread_cond_wait(&resolver_changed, &resolver_lock);
    pthread_mutex_unlock(&resolver_lock);
}

int getaddrinfo(const char *restrict name, const char *restrict service,
                const struct addrinfo *restrict hints, struct addrinfo **restrict ret)
{
    static const struct {
        const char *name, *address;
    } hosts[] = {
        {"private.test", "10.0.0.1"},     {"metadata.test", "169.254.169.254"},
        {"loopback.test", "127.0.0.1"},   {"mapped.test", "::ffff:127.0.0.1"},
        {"unique-local.test", "fd00::1"},
    };
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    void *symbol = dlsym(RTLD_NEXT, "getaddrinfo");

    memcpy(&real, &symbol, sizeof(real));
    for (size_t i = 0; i < ARRAY_SIZE(hosts); i++)
        if (strcmp(name, hosts[i].name) == 0)
            return real(hosts[i].address, service, hints, ret);
    if (strcmp(name, "slow.test") == 0)
        resolver_wait();
    if (strstr(name, ".test"))
        return EAI_NONAME;
    return real(name, service, hints, ret);
}

TEST(test_request)
{
    struct server *s = server_start(ok, 1);
    struct outcome *o = post_to(*state, s);

    expect_status(o, 200);
    assert_string_equal(o->body, "ok");
    assert_int_equal(o->result.body_len, 2);
    assert_false(o->result.truncated);
    assert_false(o->result.has_retry_after);
    assert_in_range(o->result.duration_usec, 1, PATIENCE_USEC);
    assert_string_equal(o->detail, "");

    assert_int_equal(strncmp(s->request, "POST /inscricoes HTTP/1.1\r\n", 27), 0);
    assert_non_null(strstr(s->request, "\r\nHost: 127.0.0.1:"));
    assert_non_null(strstr(s->request, "\r\nContent-Type: application/json\r\n"));
    assert_non_null(strstr(s->request, "\r\nContent-Length: 7\r\n"));
    assert_non_null(strstr(s->request, "\r\nUser-Agent: anubisd/test\r\n"));
    assert_non_null(strstr(s->request, "\r\n\r\n{\"a\":1}"));
    assert_null(strcasestr(s->request, "\r\nExpect"));
    assert_non_null(strstr(s->request, "\r\nAccept-Encoding: identity\r\n"));
    assert_null(strcasestr(s->request, "\r\nUpgrade"));
    free(o);
    server_stop(s);
}

static atomic_int writes; /* on connections, by the client: the servers' are others */

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    ssize_t (*real)(int, const struct msghdr *, int);
    void *symbol = dlsym(RTLD_NEXT, "sendmsg");

    memcpy(&real, &symbol, sizeof(real));
    writes++;
    return real(fd, message, flags);
}

/* Head and body together, on a new connection and on a kept one: a packet and a system call. */
TEST(test_request_goes_out_in_one_write)
{
    struct server *s = server_start(ok, 1);

    for (int i = 1; i <= 2; i++) {
        writes = 0;
        struct outcome *o = post_to(*state, s);
        expect_status(o, 200);
        assert_int_equal(s->requests, i);
        assert_int_equal(writes, 1);
        free(o);
    }
    server_stop(s);
}

TEST(test_connection_is_reused)
{
    struct server *s = server_start(ok, 1);

    for (int i = 0; i < 50; i++) {
        struct outcome *o = post_to(*state, s);

        expect_status(o, 200);
        free(o);
    }
    assert_int_equal(s->requests, 50);
    assert_int_equal(s->connections, 1);
    server_stop(s);
}

/* Several servers behind one address: one that wants no more is not asked again while another may be. */
TEST(test_connection_of_a_sated_server_is_given_up)
{
    static const struct {
        int status, connections;
    } cases[] = {{429, 2}, {503, 2}, {500, 1}, {422, 1}};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char text[128];
        struct reply reply = {text, KEEP, NULL, false};
        struct server *s = server_start(&reply, 1);

        snprintf(text, sizeof(text), "HTTP/1.1 %d X\r\nContent-Length: 0\r\nRetry-After: 1\r\n\r\n",
                 cases[i].status);
        for (int n = 0; n < 2; n++) {
            struct outcome *o = post_to(*state, s);
            expect_status(o, cases[i].status);
            free(o);
        }
        assert_int_equal(s->requests, 2);
        assert_int_equal(s->connections, cases[i].connections);
        server_stop(s);
    }
}

/* A path beyond ASCII goes out percent-encoded (RFC 3986, 2.5); what is encoded already stays as it is. */
TEST(test_path_beyond_ascii)
{
    struct server *s = server_start(ok, 1);
    struct outcome *o =
        finished(*state, post(*state, server_url(s, "/inscri\xc3\xa7\xc3\xa3o/a%2Fb?nome=Jo\xc3\xa3o")));

    expect_status(o, 200);
    assert_non_null(strstr(s->request, "POST /inscri%C3%A7%C3%A3o/a%2Fb?nome=Jo%C3%A3o HTTP/1.1\r\n"));
    free(o);
    server_stop(s);
}

TEST(test_headers_are_copied)
{
    struct client *c = *state;
    struct server *s = server_start(ok, 1);
    char token[] = "Authorization: Bearer abc";
    const char *headers[] = {"Content-Type: application/json", token, NULL};
    struct http_request request = {server_url(s, "/"), headers, "{}", 2, TIMEOUT_USEC, false, NULL};
    struct outcome *o = outcome_new();

    http_post(c->http, &request, on_result, o);
    memset(token, 'X', sizeof(token) - 1);
    expect_status(finished(c, o), 200);
    assert_non_null(strstr(s->request, "\r\nAuthorization: Bearer abc\r\n"));
    free(o);
    server_stop(s);
}

TEST(test_many_headers_and_none)
{
    struct client *c = *state;
    struct server *s = server_start(ok, 1);
    char texts[80][24];
    const char *headers[81] = {NULL};

    for (int i = 0; i < 80; i++) {
        snprintf(texts[i], sizeof(texts[i]), "X-Header-%d: %d", i, i * i);
        headers[i] = texts[i];
    }
    for (int round = 0; round < 3; round++) {
        const char *const *sent = round == 0 ? headers : round == 1 ? NULL : json_headers();
        struct http_request request = {server_url(s, "/"), sent, "{}", 2, TIMEOUT_USEC, false, NULL};
        struct outcome *o = outcome_new();

        http_post(c->http, &request, on_result, o);
        expect_status(finished(c, o), 200);
        assert_int_equal(strstr(s->request, "\r\nX-Header-79: 6241\r\n") != NULL, round == 0);
        assert_int_equal(strstr(s->request, "application/json") != NULL, round == 2);
        free(o);
    }
    server_stop(s);
}

TEST(test_large_body)
{
    enum { SIZE = 10 * 1024 * 1024 };
    struct client *c = *state;
    struct server *s = server_start(ok, 1);
    char *body = malloc(SIZE);
    struct http_request request = {server_url(s, "/"), json_headers(), body, SIZE, TIMEOUT_USEC, false, NULL};
    struct outcome *o = outcome_new();

    memset(body, 'x', SIZE);
    http_post(c->http, &request, on_result, o);
    expect_status(finished(c, o), 200);
    assert_int_equal(s->body_len, SIZE);
    assert_null(strcasestr(s->request, "\r\nExpect"));
    free(o);
    free(body);
    server_stop(s);
}

TEST(test_empty_body)
{
    struct client *c = *state;
    struct server *s = server_start(ok, 1);
    struct http_request request = {server_url(s, "/"), json_headers(), "", 0, TIMEOUT_USEC, false, NULL};
    struct outcome *o = outcome_new();

    http_post(c->http, &request, on_result, o);
    expect_status(finished(c, o), 200);
    assert_non_null(strstr(s->request, "\r\nContent-Length: 0\r\n"));
    free(o);
    server_stop(s);
}

TEST(test_get)
{
    struct client *c = *state;
    struct server *s = server_start(ok, 1);
    struct http_request request = {server_url(s, "/"), json_headers(), NULL, 0, TIMEOUT_USEC, false, NULL};
    struct outcome *o = outcome_new();

    http_post(c->http, &request, on_result, o);
    expect_status(finished(c, o), 200);
    assert_memory_equal(s->request, "GET / HTTP/1.1\r\n", 16);
    assert_null(strstr(s->request, "Content-Length"));
    free(o);
    server_stop(s);
}

TEST(test_statuses)
{
    static const int statuses[] = {200, 201, 202, 204, 299, 300, 302, 304, 400, 401, 403, 404, 409,
                                   410, 413, 415, 422, 429, 451, 499, 500, 502, 503, 504, 599, 999};

    for (size_t i = 0; i < ARRAY_SIZE(statuses); i++) {
        char text[128];
        struct reply reply = {text, KEEP, NULL, false};
        struct server *s = server_start(&reply, 1);
        struct outcome *o;

        snprintf(text, sizeof(text), "HTTP/1.1 %d X\r\nContent-Length: 0\r\nLocation: /elsewhere\r\n\r\n",
                 statuses[i]);
        o = post_to(*state, s);
        expect_status(o, statuses[i]);
        assert_false(o->result.truncated);
        assert_int_equal(s->requests, 1); /* a redirect is not followed */
        free(o);
        server_stop(s);
    }
}

TEST(test_interim_answers)
{
    static const struct reply replies[] = {
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
         "HTTP/1.1 103 Early Hints\r\nRetry-After: 99\r\nLink: </x>\r\n\r\n"
         "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok",
         KEEP, NULL, false},
    };
    struct server *s = server_start(replies, 1);
    struct outcome *o = post_to(*state, s);

    expect_status(o, 201);
    assert_string_equal(o->body, "ok");
    assert_false(o->result.has_retry_after);
    free(o);
    server_stop(s);
}

TEST(test_retry_after)
{
    static const struct reply replies[] = {
        {"HTTP/1.1 429 Slow\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n", KEEP, NULL, false},
        {"HTTP/1.1 503 Busy\r\nretry-after:Fri, 31 Dec 9999 23:59:59 GMT\r\nContent-Length: 0\r\n\r\n", KEEP,
         NULL, false},
        {"HTTP/1.1 503 Busy\r\nRetry-After: -5\r\nContent-Length: 0\r\n\r\n", KEEP, NULL, false},
        {"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\nTrailer: Retry-After\r\n\r\n"
         "2\r\nok\r\n0\r\nRetry-After: 5\r\n\r\n",
         KEEP, NULL, false},
    };
    static const struct {
        bool has;
        int64_t seconds;
    } expected[] = {{true, 120}, {true, 31536000}, {false, 0}, {false, 0}};
    struct server *s = server_start(replies, ARRAY_SIZE(replies));

    for (size_t i = 0; i < ARRAY_SIZE(replies); i++) {
        struct outcome *o = post_to(*state, s);

        assert_int_equal(o->result.cause, HTTP_ANSWERED);
        assert_int_equal(o->result.has_retry_after, expected[i].has);
        assert_int_equal(o->result.retry_after_sec, expected[i].seconds);
        free(o);
    }
    server_stop(s);
}

/* A compressed answer comes as it is: nothing unpacks it, however large it would become. */
TEST(test_compressed_answer_stays_compressed)
{
    static const struct reply replies[] = {
        {"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 6\r\n\r\n\x1f\x8b\x08zip", KEEP, NULL,
         false},
    };
    struct server *s = server_start(replies, 1);
    struct outcome *o = post_to(*state, s);

    expect_status(o, 200);
    assert_string_equal(o->body, "\x1f\x8b\x08zip");
    assert_true(o->result.truncated); /* marked: it is not the answer's text */
    free(o);
    server_stop(s);
}

TEST(test_invalid_urls)
{
    static const char *const urls[] = {
        NULL,
        "",
        " ",
        "not a URL",
        "institution.example",
        "/inscricoes",
        "file:///etc/passwd",
        "ftp://institution.example/",
        "gopher://institution.example/",
        "javascript:alert(1)",
        "http://",
        "https://",
        "https:///",
        "http://user@127.0.0.1/",
        "http://user:secret@127.0.0.1/",
        "http://:secret@127.0.0.1/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:x/",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/\r\nHost: x",
        "http://127.0.0.1/\x01",
        "http://127.0.0.1/\x7f",
        " http://127.0.0.1/",
        "http://127.0.0.1/\n",
        "http://[::1/",
    };

    for (size_t i = 0; i < ARRAY_SIZE(urls); i++) {
        struct outcome *o = finished(*state, post(*state, urls[i]));

        if (o->result.cause != HTTP_URL_INVALID)
            fail_msg("\"%s\": %s (%s)", urls[i], http_cause_word(o->result.cause), o->detail);
        assert_false(o->result.body_handed_over);
        assert_true(strlen(o->detail) > 0);
        assert_null(strstr(o->detail, "secret"));
        free(o);
    }
}

TEST(test_long_urls)
{
    struct server *s = server_start(ok, 1);
    char url[8002] = "";

    snprintf(url, sizeof(url), "%s", server_url(s, "/"));
    memset(url + strlen(url), 'a', sizeof(url) - 1 - strlen(url));
    for (size_t len = 8001; len >= 8000; len--) {
        struct outcome *o;

        url[len] = '\0';
        o = finished(*state, post(*state, url));
        expect_cause(o, len > 8000 ? HTTP_URL_INVALID : HTTP_ANSWERED);
        free(o);
    }
    server_stop(s);
}

TEST(test_plain_http_is_refused_unless_allowed)
{
    struct client *c = *state;
    struct server *s = server_start(ok, 1);
    struct outcome *o = post_to(c, s);

    expect_status(o, 200);
    free(o);
    c->params.allow_http = false;
    http_set_params(c->http, &c->params);
    for (int i = 0; i < 2; i++) {
        o = finished(c, post(c, i == 0 ? server_url(s, "/inscricoes") : "HTTP://127.0.0.1/"));
        expect_cause(o, HTTP_URL_INVALID);
        free(o);
    }
    assert_int_equal(s->requests, 1);
    server_stop(s);
}

TEST(test_header_injection_is_refused)
{
    static const char *const texts[] = {"Authorization: Bearer abc\r\nX-Evil: 1", "X: a\n", "X: a\rb",
                                        "X: \x01"};
    struct client *c = *state;
    struct server *s = server_start(ok, 1);

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        const char *headers[] = {texts[i], NULL};
        struct http_request request = {server_url(s, "/"), headers, "{}", 2, TIMEOUT_USEC, false, NULL};
        struct outcome *o = outcome_new();

        http_post(c->http, &request, on_result, o);
        expect_cause(finished(c, o), HTTP_URL_INVALID);
        assert_null(strstr(o->detail, "abc"));
        free(o);
    }
    assert_int_equal(s->connections, 0);
    server_stop(s);
}

static void refuse_private_networks(struct client *c)
{
    c->params.allow_private_networks = false;
    http_set_params(c->http, &c->params);
}

TEST(test_private_addresses_are_refused)
{
    static const char *const hosts[] = {
        "127.0.0.1",     "2130706433",        "0x7f000001",   "0177.0.0.1",         "127.1",
        "[::1]",         "localhost",         "0.0.0.0",      "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
        "loopback.test", "metadata.test",     "private.test", "169.254.169.254",    "[64:ff9b::7f00:1]",
        "mapped.test",   "unique-local.test",
    };
    struct client *c = *state;
    struct server *s = server_start(ok, 1);

    refuse_private_networks(c);
    for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
        char url[128];
        struct outcome *o;

        snprintf(url, sizeof(url), "http://%s:%d/", hosts[i], s->port);
        o = finished(c, post(c, url));
        if (o->result.cause != HTTP_ADDRESS_REFUSED)
            fail_msg("%s: %s (%s)", hosts[i], http_cause_word(o->result.cause), o->detail);
        assert_false(o->result.body_handed_over);
        free(o);
    }
    assert_int_equal(s->connections, 0);
    server_stop(s);
}

/* A connection made under laxer rules is no way around the new ones. */
TEST(test_private_address_of_a_kept_connection_is_refused)
{
    struct client *c = *state;
    struct server *s = server_start(ok, 1);
    struct outcome *o = post_to(c, s);

    expect_status(o, 200);
    free(o);
    refuse_private_networks(c);
    o = post_to(c, s);
    expect_cause(o, HTTP_ADDRESS_REFUSED);
    assert_false(o->result.body_handed_over);
    free(o);
    assert_int_equal(s->requests, 1);
    assert_int_equal(s->connections, 1);
    server_stop(s);
}

TEST(test_environment_proxy_is_ignored)
{
    struct server *s = server_start(ok, 1), *proxy = server_start(ok, 1);
    struct outcome *o;

    setenv("http_proxy", server_url(proxy, ""), 1);
    setenv("all_proxy", server_url(proxy, ""), 1);
    o = post_to(*state, s);
    expect_status(o, 200);
    assert_int_equal(s->requests, 1);
    assert_int_equal(proxy->connections, 0);
    unsetenv("http_proxy");
    unsetenv("all_proxy");
    free(o);
    server_stop(s);
    server_stop(proxy);
}

/* The proxy may be on a private network, and it resolves the names; http is tunnelled as https is. */
TEST(test_proxy)
{
    static const struct reply replies[] = {
        {"HTTP/1.1 200 Connected\r\n\r\n", KEEP, NULL, false},
        {OK, CLOSE, NULL, false},
        {"HTTP/1.1 403 No\r\nContent-Length: 0\r\nRetry-After: 7\r\n\r\n", CLOSE, NULL, false},
    };
    struct client *c = *state;
    struct server *proxy = server_start(replies, ARRAY_SIZE(replies));
    struct outcome *o;

    setenv("no_proxy", "*", 1);
    c->params.proxy = server_url(proxy, "");
    refuse_private_networks(c);
    o = finished(c, post(c, "http://institution.test/inscricoes"));
    expect_status(o, 200);
    assert_int_equal(strncmp(proxy->request, "POST /inscricoes HTTP/1.1\r\nHost: institution.test\r\n", 50),
                     0);
    free(o);
    o = finished(c, post(c, "https://institution.test/inscricoes"));
    expect_cause(o, HTTP_INTERNAL);
    assert_false(o->result.body_handed_over);
    assert_false(o->result.has_retry_after);
    assert_int_equal(strncmp(proxy->request, "CONNECT institution.test:443 HTTP/1.1\r\n", 39), 0);
    free(o);
    unsetenv("no_proxy");
    server_stop(proxy);
}

TEST(test_name_not_found)
{
    struct outcome *o = finished(*state, post(*state, "https://nowhere.test/"));

    expect_cause(o, HTTP_DNS);
    assert_false(o->result.body_handed_over);
    free(o);
}

/* A name that does not resolve holds neither the loop nor, in the end, its own transfer. */
TEST(test_slow_resolver_blocks_nothing)
{
    struct client *c = *state;
    struct server *s;
    struct outcome *timed_out, *cancelled, *o;

    if (curl_version_info(CURLVERSION_NOW)->version_num < 0x075700) {
        print_message("libcurl before 7.87 waits for its resolver\n");
        skip();
    }
    s = server_start(ok, 1);
    timed_out = post_within(c, "http://slow.test/", 300 * USEC_PER_MSEC);
    cancelled = post(c, "http://slow.test/cancelled");
    o = post_to(c, s);
    expect_status(o, 200);
    assert_false(timed_out->done);
    http_cancel(c->http, cancelled->transfer);
    expect_cause(finished(c, cancelled), HTTP_CANCELLED);
    expect_cause(finished(c, timed_out), HTTP_DNS);
    assert_false(timed_out->result.body_handed_over);
    http_free(TAKE_PTR(c->http)); /* nor does the end of all */
    resolver_release();
    free(o);
    free(timed_out);
    free(cancelled);
    server_stop(s);
}

TEST(test_connection_refused)
{
    uint16_t port;
    int fd = listen_on_loopback(&port);
    char url[64];
    struct outcome *o;

    close(fd);
    snprintf(url, sizeof(url), "http://127.0.0.1:%d/", port);
    o = finished(*state, post(*state, url));
    expect_cause(o, HTTP_CONNECT);
    assert_false(o->result.body_handed_over);
    assert_true(strlen(o->detail) > 0);
    free(o);
}

TEST(test_no_descriptors_left)
{
    struct client *c = *state;
    struct server *s = server_start(ok, 1);
    struct rlimit before, none;
    struct outcome *o;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){0, before.rlim_max};
    o = post(c, server_url(s, "/"));
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    finished(c, o);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    expect_cause(o, HTTP_INTERNAL); /* not the institution's fault */
    assert_false(o->result.body_handed_over);
    free(o);
    o = post_to(c, s);
    expect_status(o, 200);
    free(o);
    server_stop(s);
}

TEST(test_results_come_from_the_loop)
{
    struct client *c = *state;
    struct outcome *o = post(c, "file:///etc/passwd");

    assert_false(o->done);
    assert_int_equal(http_running(c->http), 1);
    http_cancel(c->http, o->transfer); /* too late: it has its result */
    assert_false(o->done);
    expect_cause(finished(c, o), HTTP_URL_INVALID);
    assert_int_equal(http_running(c->http), 0);
    free(o);
}

TEST(test_cancel_before_sending)
{
    struct client *c = *state;
    struct server *s = server_start(ok, 1);
    struct outcome *o = post(c, server_url(s, "/"));

    http_cancel(c->http, o->transfer);
    http_cancel(c->http, o->transfer);
    assert_false(o->done);
    expect_cause(finished(c, o), HTTP_CANCELLED);
    assert_false(o->result.body_handed_over);
    assert_int_equal(s->requests, 0);
    free(o);
    server_stop(s);
}

TEST(test_cancel_in_flight)
{
    struct client *c = *state;
    struct server *s = server_start(silence, 1);
    struct outcome *o = post(c, server_url(s, "/"));

    WAIT_FOR(c, s->requests == 1);
    http_cancel(c->http, o->transfer);
    assert_false(o->done);
    expect_cause(finished(c, o), HTTP_CANCELLED);
    assert_true(o->result.body_handed_over);
    free(o);
    server_stop(s);
}

TEST(test_cancel_keeps_an_answer)
{
    static const struct reply replies[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart", HOLD, NULL, false}};
    struct client *c = *state;
    struct server *s = server_start(replies, 1);
    struct outcome *o = post(c, server_url(s, "/"));

    WAIT_FOR(c, s->requests == 1);
    for (int i = 0; i < 20; i++)
        turn(c);
    http_cancel(c->http, o->transfer);
    expect_status(finished(c, o), 200);
    assert_true(o->result.truncated);
    assert_string_equal(o->body, "part");
    free(o);
    server_stop(s);
}

/* A requester that goes on from its callback, as the dispatcher does. */
struct chain {
    struct client *client;
    const char *url;
    int left, answered, invalid;
    int depth;
};

static void chain_next(const struct http_result *result, void *userdata)
{
    struct chain *chain = userdata;
    struct http_request request = {chain->url, json_headers(), "{}", 2, TIMEOUT_USEC, false, NULL};

    assert_int_equal(chain->depth, 0);
    chain->depth++;
    chain->answered += result->cause == HTTP_ANSWERED && result->status == 200;
    chain->invalid += result->cause == HTTP_URL_INVALID;
    if (chain->left-- > 0)
        http_post(chain->client->http, &request, chain_next, chain);
    chain->depth--;
}

TEST(test_callbacks_may_post)
{
    struct client *c = *state;
    struct server *s = server_start(ok, 1);
    struct chain chain = {.client = c, .url = server_url(s, "/"), .left = 3000};
    struct http_result start = {.cause = HTTP_CANCELLED};

    for (int i = 0; i < 8; i++)
        chain_next(&start, &chain);
    WAIT_FOR(c, http_running(c->http) == 0);
    assert_int_equal(chain.answered, 3000);
    assert_int_equal(s->requests, 3000);
    assert_true(s->connections <= 8);
    server_stop(s);
}

static int on_tick(sd_event_source *source, uint64_t usec, void *userdata)
{
    int *ticks = userdata;

    (void) usec;
    (*ticks)++;
    assert_true(sd_event_source_set_time_relative(source, USEC_PER_MSEC) >= 0);
    assert_true(sd_event_source_set_enabled(source, SD_EVENT_ONESHOT) >= 0);
    return 0;
}

/* Invalid requests without end leave the loop to others. */
TEST(test_invalid_requests_do_not_hold_the_loop)
{
    struct client *c = *state;
    struct chain chain = {.client = c, .url = "file:///", .left = INT32_MAX};
    struct http_result start = {.cause = HTTP_CANCELLED};
    sd_event_source *source = NULL;
    int ticks = 0;

    assert_true(sd_event_add_time_relative(c->event, &source, CLOCK_MONOTONIC, 0, 1, on_tick, &ticks) >= 0);
    chain_next(&start, &chain);
    WAIT_FOR(c, ticks > 5 && chain.invalid > 5);
    chain.left = 0;
    WAIT_FOR(c, http_running(c->http) == 0);
    sd_event_source_disable_unref(source);
}

/* One-shot timers must not get lost, however many requests went before. */
TEST(test_timeouts_after_many_requests)
{
    struct client *c = *state;
    struct server *s = server_start(ok, 1), *silent = server_start(silence, 1);
    struct outcome *first = post_within(c, server_url(silent, "/"), 90 * USEC_PER_SEC);
    struct outcome *o;

    for (int i = 0; i < 500; i++) {
        o = post_within(c, server_url(s, "/"), (uint64_t) (100 + i % 3) * USEC_PER_SEC);
        expect_status(finished(c, o), 200);
        free(o);
    }
    o = finished(c, post_within(c, server_url(silent, "/"), 500 * USEC_PER_MSEC));
    expect_cause(o, HTTP_TIMEOUT);
    assert_true(o->result.body_handed_over);
    assert_in_range(o->result.duration_usec, 490 * USEC_PER_MSEC, 60 * USEC_PER_SEC);
    free(o);
    /* The timer of a request that is over fires in vain, and must then be set for those that still run. */
    free(finished(c, post_within(c, server_url(s, "/"), 150 * USEC_PER_MSEC)));
    o = finished(c, post_within(c, server_url(silent, "/"), 400 * USEC_PER_MSEC));
    expect_cause(o, HTTP_TIMEOUT);
    assert_in_range(o->result.duration_usec, 390 * USEC_PER_MSEC, 60 * USEC_PER_SEC);
    assert_false(first->done);
    http_cancel(c->http, first->transfer);
    expect_cause(finished(c, first), HTTP_CANCELLED);
    free(first);
    free(o);
    server_stop(s);
    server_stop(silent);
}

TEST(test_changed_parameters)
{
    struct client *c = *state;
    struct server *s = server_start(ok, 1);
    struct outcome *o = post_to(c, s);

    expect_status(o, 200);
    free(o);
    c->params.user_agent = "other/2";
    c->params.response_limit = 1;
    http_set_params(c->http, &c->params);
    o = post_to(c, s);
    expect_status(o, 200);
    assert_non_null(strstr(s->request, "\r\nUser-Agent: other/2\r\n"));
    assert_string_equal(o->body, "o");
    assert_true(o->result.truncated);
    assert_int_equal(s->connections, 2); /* a reload begins anew */
    free(o);
    server_stop(s);
}

static int open_descriptors(void)
{
    int count = 0;

    for (int fd = 0; fd < 4096; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

TEST(test_no_descriptor_leaks)
{
    struct client *c = *state;
    struct server *s = server_start(ok, 1);
    struct chain chain = {.client = c, .url = server_url(s, "/"), .left = 400};
    struct http_result start = {.cause = HTTP_CANCELLED};
    int before = open_descriptors();

    for (int i = 0; i < 100; i++)
        chain_next(&start, &chain);
    WAIT_FOR(c, http_running(c->http) == 0);
    assert_int_equal(chain.answered, 400);
    http_free(TAKE_PTR(c->http));
    server_stop(s);
    assert_true(open_descriptors() < before); /* the server's and the client's own are gone too */
}

TEST(test_free_with_transfers_running)
{
    struct client *c = *state;
    struct server *s = server_start(silence, 1);
    struct outcome *o[4];

    o[0] = post(c, server_url(s, "/"));
    WAIT_FOR(c, s->requests == 1);
    o[1] = post(c, server_url(s, "/"));
    o[2] = post(c, "file:///");
    o[3] = post(c, server_url(s, "/"));
    http_cancel(c->http, o[3]->transfer);
    assert_int_equal(http_running(c->http), 4);
    http_free(TAKE_PTR(c->http));
    turn(c);
    for (int i = 0; i < 4; i++) {
        assert_false(o[i]->done);
        free(o[i]);
    }
    server_stop(s);
}

TEST(test_cause_words)
{
    for (int cause = HTTP_ANSWERED; cause <= HTTP_INTERNAL; cause++) {
        const char *word = http_cause_word((enum http_cause) cause);

        assert_non_null(word);
        assert_in_range(strlen(word), 3, 40);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        WITH_CLIENT(test_request),
        WITH_CLIENT(test_request_goes_out_in_one_write),
        WITH_CLIENT(test_connection_is_reused),
        WITH_CLIENT(test_connection_of_a_sated_server_is_given_up),
        WITH_CLIENT(test_path_beyond_ascii),
        WITH_CLIENT(test_headers_are_copied),
        WITH_CLIENT(test_many_headers_and_none),
        WITH_CLIENT(test_large_body),
        WITH_CLIENT(test_empty_body),
        WITH_CLIENT(test_get),
        WITH_CLIENT(test_statuses),
        WITH_CLIENT(test_interim_answers),
        WITH_CLIENT(test_retry_after),
        WITH_CLIENT(test_compressed_answer_stays_compressed),
        WITH_CLIENT(test_invalid_urls),
        WITH_CLIENT(test_long_urls),
        WITH_CLIENT(test_plain_http_is_refused_unless_allowed),
        WITH_CLIENT(test_header_injection_is_refused),
        WITH_CLIENT(test_private_addresses_are_refused),
        WITH_CLIENT(test_private_address_of_a_kept_connection_is_refused),
        WITH_CLIENT(test_environment_proxy_is_ignored),
        WITH_CLIENT(test_proxy),
        WITH_CLIENT(test_name_not_found),
        WITH_CLIENT(test_slow_resolver_blocks_nothing),
        WITH_CLIENT(test_connection_refused),
        WITH_CLIENT(test_no_descriptors_left),
        WITH_CLIENT(test_results_come_from_the_loop),
        WITH_CLIENT(test_cancel_before_sending),
        WITH_CLIENT(test_cancel_in_flight),
        WITH_CLIENT(test_cancel_keeps_an_answer),
        WITH_CLIENT(test_callbacks_may_post),
        WITH_CLIENT(test_invalid_requests_do_not_hold_the_loop),
        WITH_CLIENT(test_timeouts_after_many_requests),
        WITH_CLIENT(test_changed_parameters),
        WITH_CLIENT(test_no_descriptor_leaks),
        WITH_CLIENT(test_free_with_transfers_running),
        WITH_CLIENT(test_cause_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
