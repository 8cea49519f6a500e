/* TLS's own messages at odd moments: behind the handshake, amid an answer, between two requests. Each request
 * is answered by its own answer, on this connection or on another one, and is sent once. */
#include "http_fixture.h"

#define HALF "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha"
#define REST "lf"

typedef void act(SSL *ssl);

struct odd {
    const char *name;
    int version; /* of TLS, at most */
    void (*prepare)(SSL_CTX *tls);
    act *before, *within, *after; /* the first request; the answer's second half; the answer */
    enum http_cause cause;        /* of both requests */
    bool truncated;               /* both answers */
};

struct peer {
    const struct odd *odd;
    SSL_CTX *tls;
    int fd;
    uint16_t port;
    pthread_t thread;
    atomic_int requests, connections, done; /* `done`: what comes behind an answer has been said */
};

static bool peer_exchange(struct peer *p, SSL *ssl)
{
    char request[8192];
    size_t have = 0, n = 0;

    while (have < sizeof(request) && SSL_read_ex(ssl, request + have, sizeof(request) - have, &n) == 1) {
        have += n;
        if (request[have - 1] == '}')
            break;
    }
    if (!have)
        return false;
    p->requests++;
    SSL_write(ssl, HALF, (int) strlen(HALF));
    if (p->odd->within)
        p->odd->within(ssl);
    SSL_write(ssl, REST, (int) strlen(REST));
    if (p->odd->after)
        p->odd->after(ssl);
    p->done++;
    return true;
}

static void *peer_run(void *userdata)
{
    struct peer *p = userdata;

    for (int fd; (fd = accept4(p->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0; close(fd)) {
        SSL *ssl = SSL_new(p->tls);
        p->connections++;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        SSL_set_fd(ssl, fd);
        if (SSL_accept(ssl) == 1) {
            if (p->odd->before)
                p->odd->before(ssl);
            while (peer_exchange(p, ssl))
                ;
        }
        SSL_free(ssl);
    }
    return NULL;
}

/* --- what it does ----------------------------------------------------------------------------- */

static void ask_for_renegotiation(SSL *ssl)
{
    SSL_renegotiate(ssl);
    SSL_do_handshake(ssl);
}

static void give_tickets(SSL *ssl)
{
    for (int i = 0; i < 5; i++) {
        SSL_new_session_ticket(ssl);
        SSL_do_handshake(ssl);
    }
}

static void change_keys(SSL *ssl)
{
    SSL_key_update(ssl, SSL_KEY_UPDATE_REQUESTED);
    SSL_do_handshake(ssl);
}

static void say_farewell(SSL *ssl)
{
    SSL_shutdown(ssl);
}

/* To the client it is as if another server answered at this address from now on. */
static void know_old_tls_only(SSL *ssl)
{
    SSL_CTX_set_max_proto_version(SSL_get_SSL_CTX(ssl), TLS1_2_VERSION);
    SSL_shutdown(ssl);
    shutdown(SSL_get_fd(ssl), SHUT_RDWR);
}

static void end(SSL *ssl)
{
    SSL_shutdown(ssl);
    shutdown(SSL_get_fd(ssl), SHUT_RDWR);
}

static void take_early_data(SSL_CTX *tls)
{
    SSL_CTX_set_max_early_data(tls, 16384);
}

static void cut_records_short(SSL_CTX *tls)
{
    SSL_CTX_set_max_send_fragment(tls, 512);
    SSL_CTX_set_split_send_fragment(tls, 512);
}

static void ask_for_a_certificate(SSL_CTX *tls)
{
    SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, NULL);
}

static int warn(SSL *ssl, int *alert, void *userdata)
{
    (void) ssl, (void) userdata;
    *alert = SSL_AD_UNRECOGNIZED_NAME;
    return SSL_TLSEXT_ERR_ALERT_WARNING;
}

static int refuse(SSL *ssl, int *alert, void *userdata)
{
    (void) ssl, (void) userdata;
    *alert = SSL_AD_UNRECOGNIZED_NAME;
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static void know_no_such_name(SSL_CTX *tls)
{
    SSL_CTX_set_tlsext_servername_callback(tls, warn);
}

static void refuse_the_name(SSL_CTX *tls)
{
    SSL_CTX_set_tlsext_servername_callback(tls, refuse);
}

static int no_protocol(SSL *ssl, const unsigned char **out, unsigned char *len, const unsigned char *in,
                       unsigned in_len, void *userdata)
{
    (void) ssl, (void) out, (void) len, (void) in, (void) in_len, (void) userdata;
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static void speak_http2_only(SSL_CTX *tls)
{
    SSL_CTX_set_alpn_select_cb(tls, no_protocol, NULL);
}

static void know_no_sessions(SSL_CTX *tls)
{
    SSL_CTX_set_options(tls, SSL_OP_NO_TICKET);
    SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_OFF);
}

/* --- the moments ------------------------------------------------------------------------------ */

#define OLD TLS1_2_VERSION
#define NEW TLS1_3_VERSION

static const struct odd all_odd[] = {
    {"renegotiation amid the answer", OLD, NULL, NULL, ask_for_renegotiation, NULL, HTTP_ANSWERED, false},
    {"renegotiation while idle", OLD, NULL, NULL, NULL, ask_for_renegotiation, HTTP_ANSWERED, false},
    {"tickets first", NEW, NULL, give_tickets, NULL, NULL, HTTP_ANSWERED, false},
    {"tickets amid the answer", NEW, NULL, NULL, give_tickets, NULL, HTTP_ANSWERED, false},
    {"tickets while idle", NEW, NULL, NULL, NULL, give_tickets, HTTP_ANSWERED, false},
    {"new keys first", NEW, NULL, change_keys, NULL, NULL, HTTP_ANSWERED, false},
    {"new keys amid the answer", NEW, NULL, NULL, change_keys, NULL, HTTP_ANSWERED, false},
    {"new keys while idle", NEW, NULL, NULL, NULL, change_keys, HTTP_ANSWERED, false},
    {"farewell amid the answer", NEW, NULL, NULL, say_farewell, NULL, HTTP_ANSWERED, true},
    {"farewell while idle", NEW, NULL, NULL, NULL, say_farewell, HTTP_ANSWERED, false},
    {"farewell while idle, 1.2", OLD, NULL, NULL, NULL, say_farewell, HTTP_ANSWERED, false},
    {"an older server from now on", NEW, NULL, NULL, NULL, know_old_tls_only, HTTP_ANSWERED, false},
    {"early data", NEW, take_early_data, NULL, NULL, end, HTTP_ANSWERED, false},
    {"short records", NEW, cut_records_short, NULL, NULL, NULL, HTTP_ANSWERED, false},
    {"short records, 1.2", OLD, cut_records_short, NULL, NULL, end, HTTP_ANSWERED, false},
    {"a certificate, if there is one", NEW, ask_for_a_certificate, NULL, NULL, end, HTTP_ANSWERED, false},
    {"a certificate, if there is one, 1.2", OLD, ask_for_a_certificate, NULL, NULL, end, HTTP_ANSWERED,
     false},
    {"no such name, 1.2", OLD, know_no_such_name, NULL, NULL, NULL, HTTP_ANSWERED, false},
    {"no such name", NEW, know_no_such_name, NULL, NULL, NULL, HTTP_ANSWERED, false},
    {"the name is refused", NEW, refuse_the_name, NULL, NULL, NULL, HTTP_TLS, false},
    {"HTTP/2 only", NEW, speak_http2_only, NULL, NULL, NULL, HTTP_TLS, false},
    {"no sessions", NEW, know_no_sessions, NULL, NULL, end, HTTP_ANSWERED, false},
    {"no sessions, 1.2", OLD, know_no_sessions, NULL, NULL, end, HTTP_ANSWERED, false},
};

static void expect_odd(const struct odd *odd, const struct peer *p, const struct outcome *o, int number)
{
    bool answered = odd->cause == HTTP_ANSWERED;

    if (o->result.cause != odd->cause || o->result.truncated != odd->truncated ||
        (answered && strcmp(o->body, odd->truncated ? "ha" : "half") != 0))
        fail_msg("%s, %d: %s (%s), \"%s\"", odd->name, number, http_cause_word(o->result.cause), o->detail,
                 o->body);
    if (answered ? p->requests != number : p->requests > 0 && odd->cause == HTTP_TLS)
        fail_msg("%s, %d: %d requests", odd->name, number, p->requests);
    if (odd->cause == HTTP_TLS)
        assert_false(o->result.body_handed_over);
}

static void play(struct client *c, const struct odd *odd)
{
    struct peer p = {.odd = odd};
    char path[64], url[64];

    snprintf(path, sizeof(path), "/tmp/anubis-odd-%d.pem", getpid());
    p.tls = tls_context_new("localhost", path, -60, 3600);
    SSL_CTX_set_max_proto_version(p.tls, odd->version);
    SSL_CTX_set_session_id_context(p.tls, (const unsigned char *) "odd", 3);
    if (odd->prepare)
        odd->prepare(p.tls);
    c->params.ca_file = path;
    http_set_params(c->http, &c->params);
    p.fd = listen_on_loopback(&p.port);
    snprintf(url, sizeof(url), "https://localhost:%d/", p.port);
    assert_int_equal(pthread_create(&p.thread, NULL, peer_run, &p), 0);
    for (int number = 1; number <= 2; number++) {
        struct outcome *o = finished(c, post(c, url));
        expect_odd(odd, &p, o, number);
        if (odd->cause == HTTP_ANSWERED)
            WAIT_FOR(c, p.done >= number);
        free(o);
    }
    http_set_params(c->http, &c->params); /* ends what was kept */
    shutdown(p.fd, SHUT_RDWR);
    pthread_join(p.thread, NULL);
    close(p.fd);
    SSL_CTX_free(p.tls);
    unlink(path);
}

TEST(test_odd_moments)
{
    for (size_t i = 0; i < ARRAY_SIZE(all_odd); i++)
        play(*state, &all_odd[i]);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        WITH_CLIENT(test_odd_moments),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
