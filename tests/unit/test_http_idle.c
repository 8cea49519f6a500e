/* Servers that end idle connections: after a time of their own, at the moment of the next request, and those
 * that take one connection at a time. */
#include <fcntl.h>

#include "http_fixture.h"

#define OK "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

static void turn_now(struct client *c)
{
    assert_true(sd_event_run(c->event, 500) >= 0);
}

static void turn_for(struct client *c, uint64_t usec)
{
    for (uint64_t until = now_monotonic_usec() + usec; now_monotonic_usec() < until;)
        turn_now(c);
}

/* The server ends each connection at the very moment of the next request: it goes out on another one, or was
 * handed over and is ambiguous. It is never sent twice, and never free of charge when it was received. */
static void race_the_close(struct client *c, struct server *s)
{
    enum { ROUNDS = 300 };
    int lost = 0;

    for (int i = 0; i < ROUNDS; i++) {
        int before = s->requests;
        struct outcome *o = post_to(c, s);
        bool answered = o->result.cause == HTTP_ANSWERED;
        lost += !answered;
        if (answered ? s->requests != before + 1 : s->requests > before + 1 || !o->result.body_handed_over)
            fail_msg("round %d: %s (%s), %d requests", i, http_cause_word(o->result.cause), o->detail,
                     s->requests - before);
        free(o);
        /* LATE_CLOSE closes after 5 ms, or a little later: most come behind it, many at that moment. */
        uint64_t until = now_monotonic_usec() + 4800 + (uint64_t) i * 37 % 2000;
        while (now_monotonic_usec() < until)
            if (i % 2)
                turn_now(c);
    }
    assert_true(lost < ROUNDS * 3 / 4);
    server_stop(s);
}

static const struct reply ok_late_close[] = {{OK, LATE_CLOSE, "", false}};

TEST(test_race_with_the_end_of_a_connection)
{
    race_the_close(*state, server_start(ok_late_close, 1));
}

TEST(test_race_with_the_end_of_a_tls_connection)
{
    race_the_close(*state, tls_server(*state, ok_late_close, 1));
}

/* --- a server's time for idle connections ----------------------------------------------------- */

enum { PERIODIC = 40, ROUNDS = 6, KEPT_MS = 1000 };

/* A client of this server alone, that comes again at the same intervals. */
struct periodic {
    struct server *server;
    struct outcome *outcome;
    uint64_t period_usec, next_at;
    int rounds, answered, lost;
};

static void periodic_go_on(struct client *c, struct periodic *p, uint64_t now, bool stood_still)
{
    if (p->outcome && p->outcome->done) {
        p->answered += p->outcome->result.cause == HTTP_ANSWERED;
        p->lost += p->outcome->result.cause != HTTP_ANSWERED && !stood_still;
        free(p->outcome);
        p->outcome = NULL;
        p->next_at = now + p->period_usec;
    } else if (!p->outcome && p->rounds < ROUNDS && now >= p->next_at) {
        p->rounds++;
        p->outcome = post(c, server_url(p->server, "/"));
    }
}

static bool all_periodic_done(const struct periodic *all)
{
    for (int i = 0; i < PERIODIC; i++)
        if (all[i].outcome || all[i].rounds < ROUNDS)
            return false;
    return true;
}

/* Whatever the interval, none is lost; unless this process stood still between its look at the connection and
 * the request. */
static void come_at_intervals(struct client *c, struct periodic *all)
{
    uint64_t last = now_monotonic_usec(), still_until = 0;

    for (uint64_t end = last + PATIENCE_USEC; !all_periodic_done(all);) {
        uint64_t now = now_monotonic_usec();
        assert_true(now < end);
        if (now - last > 50 * USEC_PER_MSEC)
            still_until = now + USEC_PER_SEC;
        last = now;
        for (int i = 0; i < PERIODIC; i++)
            periodic_go_on(c, &all[i], now, now < still_until);
        turn_now(c);
    }
}

/* `tls` serves all of them; NULL = clear text. */
static void visit_at_any_interval(struct client *c, SSL_CTX *tls)
{
    static const struct reply ok = {OK, KEEP, NULL, false};
    struct periodic all[PERIODIC] = {0};

    for (int i = 0; i < PERIODIC; i++) {
        if (tls)
            SSL_CTX_up_ref(tls);
        all[i] = (struct periodic){.server = server_start_over(tls, &ok, 1),
                                   .period_usec = (uint64_t) (KEPT_MS - 32 + i) * USEC_PER_MSEC};
        all[i].server->idle_ms = KEPT_MS;
    }
    come_at_intervals(c, all);
    for (int i = 0; i < PERIODIC; i++) {
        if (all[i].lost)
            fail_msg("every %d ms: %d lost", KEPT_MS - 32 + i, all[i].lost);
        assert_int_equal(all[i].server->requests, all[i].answered);
        server_stop(all[i].server);
    }
}

TEST(test_requests_at_any_interval)
{
    visit_at_any_interval(*state, NULL);
}

TEST(test_requests_at_any_interval_over_tls)
{
    static const struct reply ok = {OK, KEEP, NULL, false};
    struct client *c = *state;
    struct server *trusted = tls_server(c, &ok, 1);

    visit_at_any_interval(c, trusted->tls);
    server_stop(trusted);
}

/* Faster than any server should be: it is found out. */
TEST(test_a_server_that_keeps_connections_for_a_moment)
{
    enum { TIMES = 20, MOMENT_MS = 50 };
    static const struct reply ok = {OK, KEEP, NULL, false};
    struct client *c = *state;
    struct server *s = server_start(&ok, 1);
    int lost = 0;

    s->idle_ms = MOMENT_MS;
    for (int i = 0; i < TIMES; i++) {
        struct outcome *o = post_to(c, s);
        lost += o->result.cause != HTTP_ANSWERED;
        free(o);
        turn_for(c, MOMENT_MS * USEC_PER_MSEC);
    }
    assert_in_range(lost, 0, TIMES / 4);
    server_stop(s);
}

/* --- what it costs ---------------------------------------------------------------------------- */

/* One more connection, until it is known that the server keeps them for longer; whatever it says itself. */
TEST(test_a_server_that_keeps_connections)
{
    static const struct reply ways[] = {
        {OK, KEEP, NULL, false},
        {"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=60\r\nContent-Length: 2\r\n\r\nok", KEEP, NULL, false},
    };
    struct client *c = *state;

    for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
        struct server *s = server_start(&ways[i], 1);
        for (int n = 0; n < 12; n++) {
            struct outcome *o = post_to(c, s);
            expect_status(o, 200);
            free(o);
            turn_for(c, 600 * USEC_PER_MSEC);
        }
        assert_in_range(s->connections, 2, 5);
        server_stop(s);
    }
}

/* Takes one connection at a time, and ends it when no request comes for `idle_usec`. It lives in the client's
 * own thread: where that stands still, so does the server, and what is late is late for both. */
struct serial {
    int listen_fd, fd; /* -1 = no connection */
    uint16_t port;
    const char *text;
    uint64_t idle_usec, idle_since_usec;
    int connections, requests;
};

static struct serial serial_start(const char *text, uint64_t idle_usec)
{
    struct serial s = {.fd = -1, .text = text, .idle_usec = idle_usec};

    s.listen_fd = listen_on_loopback(&s.port);
    fcntl(s.listen_fd, F_SETFL, O_NONBLOCK);
    return s;
}

static void serial_serve(struct serial *s)
{
    char sink[4096];

    if (s->fd < 0) {
        s->fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        s->connections += s->fd >= 0;
        s->idle_since_usec = now_monotonic_usec();
    }
    ssize_t n = s->fd >= 0 ? recv(s->fd, sink, sizeof(sink), 0) : -1;
    if (n > 0) {
        s->requests++;
        send(s->fd, s->text, strlen(s->text), MSG_NOSIGNAL);
        s->idle_since_usec = now_monotonic_usec();
    } else if (s->fd >= 0 && (n == 0 || now_monotonic_usec() - s->idle_since_usec >= s->idle_usec)) {
        closep(&s->fd);
    }
}

static void serial_expect_ok(struct client *c, struct serial *s)
{
    char url[64];

    snprintf(url, sizeof(url), "http://127.0.0.1:%d/", s->port);
    serial_serve(s); /* the end of a connection comes before the request */
    struct outcome *o = post(c, url);
    for (uint64_t end = now_monotonic_usec() + PATIENCE_USEC; !o->done; turn_now(c)) {
        serial_serve(s);
        assert_true(now_monotonic_usec() < end);
    }
    expect_status(o, 200);
    free(o);
}

static void serial_rest(struct client *c, struct serial *s, uint64_t usec)
{
    for (uint64_t until = now_monotonic_usec() + usec; now_monotonic_usec() < until; turn_now(c))
        serial_serve(s);
}

static void serial_stop(struct serial *s)
{
    closep(&s->fd);
    close(s->listen_fd);
}

/* The connection that is watched does not keep it from taking the next one for long. */
TEST(test_a_server_that_takes_one_connection_at_a_time)
{
    struct client *c = *state;
    struct serial s = serial_start(OK, 100 * USEC_PER_SEC);

    for (int n = 1; n <= 8; n++) {
        serial_expect_ok(c, &s);
        assert_int_equal(s.requests, n);
        serial_rest(c, &s, 600 * USEC_PER_MSEC);
    }
    serial_stop(&s);
}

/* Who ends connections after a second, as said or as seen, meets no request at that moment. */
TEST(test_a_request_at_the_end_of_the_time_that_is_kept)
{
    static const char *const ways[] = {
        OK, "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 2\r\n\r\nok"};
    struct client *c = *state;

    for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
        struct serial s = serial_start(ways[i], USEC_PER_SEC);
        for (int n = 0; n < 5; n++) {
            serial_expect_ok(c, &s);
            /* The first time it shows how long it waits, if it has not said so. */
            serial_rest(c, &s, (n == 0 && i == 0 ? 1100 : 999) * USEC_PER_MSEC);
        }
        assert_int_equal(s.requests, 5);
        assert_int_equal(s.connections, 5); /* the moment itself is avoided */
        serial_stop(&s);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        WITH_CLIENT(test_race_with_the_end_of_a_connection),
        WITH_CLIENT(test_race_with_the_end_of_a_tls_connection),
        WITH_CLIENT(test_requests_at_any_interval),
        WITH_CLIENT(test_requests_at_any_interval_over_tls),
        WITH_CLIENT(test_a_server_that_keeps_connections_for_a_moment),
        WITH_CLIENT(test_a_server_that_keeps_connections),
        WITH_CLIENT(test_a_server_that_takes_one_connection_at_a_time),
        WITH_CLIENT(test_a_request_at_the_end_of_the_time_that_is_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
