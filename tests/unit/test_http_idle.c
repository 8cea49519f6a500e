/* Servers that end idle connections: after a time of their own, at the moment of the next request, and those
 * that take one connection at a time. */
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
        uint64_t until =
            now_monotonic_usec() + 4800 + (uint64_t) i % 20 * 30; /* LATE_CLOSE closes after 5 ms */
        while (now_monotonic_usec() < until)
            if (i % 2)
                turn_now(c);
    }
    assert_true(lost < ROUNDS / 2);
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

/* It takes one connection at a time, and ends it after `idle_ms`. */
static void *serial_run(void *userdata)
{
    struct server *s = userdata;
    char sink[4096];

    for (int fd; (fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC)) >= 0; close(fd)) {
        struct pollfd p = {fd, POLLIN, 0};
        s->connections++;
        while (poll(&p, 1, s->idle_ms) > 0 && recv(fd, sink, sizeof(sink), 0) > 0) {
            s->requests++;
            send(fd, s->replies->text, strlen(s->replies->text), MSG_NOSIGNAL);
        }
    }
    return NULL;
}

static void serial_start(struct server *s, const struct reply *reply, int idle_ms)
{
    *s = (struct server){.replies = reply, .idle_ms = idle_ms};
    s->listen_fd = listen_on_loopback(&s->port);
    assert_int_equal(pthread_create(&s->thread, NULL, serial_run, s), 0);
}

static void serial_stop(struct client *c, struct server *s)
{
    shutdown(s->listen_fd, SHUT_RDWR);
    http_set_params(c->http, &c->params); /* ends what is idle */
    pthread_join(s->thread, NULL);
    close(s->listen_fd);
}

/* The connection that is watched does not keep it from taking the next one for long. */
TEST(test_a_server_that_takes_one_connection_at_a_time)
{
    static const struct reply ok = {OK, KEEP, NULL, false};
    struct client *c = *state;
    struct server s;

    serial_start(&s, &ok, 100 * 1000);
    for (int n = 1; n <= 8; n++) {
        struct outcome *o = post_within(c, server_url(&s, "/"), 60 * USEC_PER_SEC);
        expect_status(finished(c, o), 200);
        assert_int_equal(s.requests, n);
        free(o);
        turn_for(c, 600 * USEC_PER_MSEC);
    }
    serial_stop(c, &s);
}

/* Who ends connections after a second, as said or as seen, meets no request at that moment. */
TEST(test_a_request_at_the_end_of_the_time_that_is_kept)
{
    static const struct reply ways[] = {
        {OK, KEEP, NULL, false},
        {"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 2\r\n\r\nok", KEEP, NULL, false},
    };
    struct client *c = *state;

    for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
        struct server s;
        serial_start(&s, &ways[i], 1000);
        for (int n = 0; n < 5; n++) {
            struct outcome *o = post_to(c, &s);
            expect_status(o, 200);
            free(o);
            /* The first time it shows how long it waits, if it has not said so. */
            uint64_t wait = n == 0 && i == 0 ? 1100 : 999;
            turn_for(c, wait * USEC_PER_MSEC);
        }
        assert_int_equal(s.requests, 5);
        assert_int_equal(s.connections, 5); /* the moment itself is avoided */
        serial_stop(c, &s);
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
