/* Ways to one server that differ in the client's certificate, in TLS or in the proxy: each has its own
 * connections and sessions, and nothing of another one's. */
#include "http_fixture.h"

#define ANSWER "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
/* The end is said, since the next request may come before it. */
#define LAST_ANSWER "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"

static const struct reply kept[] = {{ANSWER, KEEP, NULL, false}},
                          closed[] = {{LAST_ANSWER, CLOSE, NULL, false}};

/* --- clients ---------------------------------------------------------------------------------- */

struct pem {
    char certificate[2048], key[2048];
};

static void read_pem(BIO *from, char *to, size_t size)
{
    int n = BIO_read(from, to, (int) size - 1);

    assert_true(n > 0);
    to[n] = '\0';
    BIO_free(from);
}

/* A certificate that it has signed itself, and its key. */
static struct pem identity(const char *name)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    BIO *certificate = BIO_new(BIO_s_mem()), *secret = BIO_new(BIO_s_mem());
    struct pem pem = {.certificate = ""};

    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), -60);
    X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    X509_set_pubkey(x, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, (const unsigned char *) name, -1,
                               -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(x));
    X509_sign(x, key, EVP_sha256());
    PEM_write_bio_X509(certificate, x);
    PEM_write_bio_PrivateKey(secret, key, NULL, NULL, 0, NULL, NULL);
    read_pem(certificate, pem.certificate, sizeof(pem.certificate));
    read_pem(secret, pem.key, sizeof(pem.key));
    X509_free(x);
    EVP_PKEY_free(key);
    return pem;
}

static struct http_way *way_new(struct http_way_params params)
{
    struct http_way *way = NULL;
    struct error err;

    if (http_way_new(&way, &params, &err) < 0)
        fail_msg("%s", err.text);
    return way;
}

static struct http_way *way_of(const char *name)
{
    struct pem pem = identity(name);

    return way_new((struct http_way_params){.certificate = pem.certificate, .key = pem.key});
}

static struct outcome *post_by(struct client *c, const struct server *s, struct http_way *way)
{
    struct outcome *o = outcome_new();

    o->transfer = http_post(c->http,
                            &(struct http_request){.url = server_url(s, "/"),
                                                   .way = way,
                                                   .headers = json_headers(),
                                                   .body = "{}",
                                                   .body_len = 2,
                                                   .timeout_usec = TIMEOUT_USEC},
                            on_result, o);
    return finished(c, o);
}

static void expect_by(struct client *c, const struct server *s, struct http_way *way, int status)
{
    struct outcome *o = post_by(c, s, way);

    expect_status(o, status);
    free(o);
}

/* --- a server that asks who is there ---------------------------------------------------------- */

static char visitors[64]; /* a letter for each handshake: the client's name, '-' = nobody */
static atomic_int resumed;
static bool trusting;

static int look_at(X509_STORE_CTX *store, void *unused)
{
    (void) store, (void) unused;
    if (!trusting)
        X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_UNTRUSTED);
    return trusting;
}

static void note_visitor(const SSL *ssl, int where, int value)
{
    char name[16] = "-";

    (void) value;
    if (!(where & SSL_CB_HANDSHAKE_DONE))
        return;
    X509 *x = SSL_get0_peer_certificate(ssl);
    if (x)
        X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_commonName, name, sizeof(name));
    size_t len = strlen(visitors);
    if (len + 1 < sizeof(visitors)) {
        visitors[len] = name[0];
        visitors[len + 1] = '\0';
    }
    resumed += SSL_session_reused(ssl);
}

static struct server *asking_server(struct client *c, const struct reply *replies, int version)
{
    struct server *s = tls_server(c, replies, 1);

    visitors[0] = '\0';
    resumed = 0;
    trusting = true;
    SSL_CTX_set_min_proto_version(s->tls, version);
    SSL_CTX_set_max_proto_version(s->tls, version);
    SSL_CTX_set_verify(s->tls, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_cert_verify_callback(s->tls, look_at, NULL);
    SSL_CTX_set_session_id_context(s->tls, (const unsigned char *) "test", 4);
    SSL_CTX_set_info_callback(s->tls, note_visitor);
    return s;
}

TEST(test_two_identities_share_no_connection)
{
    struct client *c = *state;
    struct server *s = asking_server(c, kept, TLS1_3_VERSION);
    struct http_way *a = way_of("A"), *b = way_of("B");

    for (int i = 0; i < 5; i++) {
        expect_by(c, s, a, 200);
        expect_by(c, s, b, 200);
        expect_by(c, s, NULL, 200);
    }
    assert_int_equal(s->connections, 3);
    assert_string_equal(visitors, "AB-");
    http_way_unref(a);
    http_way_unref(b);
    server_stop(s);
}

/* Each takes up its own session again, and is who it is. */
TEST(test_two_identities_share_no_session)
{
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    struct client *c = *state;

    for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
        struct server *s = asking_server(c, closed, versions[i]);
        struct http_way *a = way_of("A"), *b = way_of("B");

        for (int j = 0; j < 3; j++) {
            expect_by(c, s, a, 200);
            expect_by(c, s, b, 200);
            expect_by(c, s, NULL, 200);
        }
        assert_string_equal(visitors, "AB-AB-AB-");
        assert_int_equal(resumed, 6);
        http_way_unref(a);
        http_way_unref(b);
        server_stop(s);
    }
}

/* One that was exchanged is not used any longer, nor is its connection kept. */
TEST(test_what_an_identity_leaves)
{
    struct client *c = *state;
    struct server *s = asking_server(c, kept, TLS1_3_VERSION);
    struct http_way *a = way_of("A");

    expect_by(c, s, a, 200);
    assert_true(server_has_connections(s));
    http_way_unref(a);
    WAIT_FOR(c, !server_has_connections(s));
    a = way_of("a");
    expect_by(c, s, a, 200);
    http_set_params(c->http, &c->params); /* a reload: made anew, and the same */
    WAIT_FOR(c, !server_has_connections(s));
    server_stop(s);
    s = asking_server(c, kept, TLS1_3_VERSION); /* with another certificate, which the reload trusts */
    expect_by(c, s, a, 200);
    assert_string_equal(visitors, "a");
    http_way_unref(a);
    server_stop(s);
}

TEST(test_a_server_that_refuses_the_certificate)
{
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    struct client *c = *state;

    for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
        struct server *s = asking_server(c, kept, versions[i]);
        struct http_way *a = way_of("A");
        trusting = false;
        struct outcome *o = post_by(c, s, a);
        expect_cause(o, HTTP_CLIENT_REFUSED);
        assert_string_equal(o->detail, "the server refuses the client certificate");
        assert_int_equal(s->requests, 0);
        free(o);
        http_way_unref(a);
        server_stop(s);
    }
}

TEST(test_what_is_no_identity)
{
    struct pem a = identity("A"), b = identity("B");
    char cut[2048], encrypted[4096];
    const struct {
        const char *certificate, *key, *words;
    } cases[] = {
        {"", a.key, "certificate"},
        {"s3cret", a.key, "certificate"},
        {a.key, a.key, "certificate"},
        {cut, a.key, "certificate"},
        {a.certificate, "", "private key"},
        {a.certificate, "s3cret", "private key"},
        {a.certificate, a.certificate, "private key"},
        {a.certificate, encrypted, "encrypted"},
        {a.certificate, b.key, "not that of the certificate"},
    };
    BIO *text = BIO_new_mem_buf(a.key, -1), *sealed = BIO_new(BIO_s_mem());
    EVP_PKEY *key = PEM_read_bio_PrivateKey(text, NULL, NULL, NULL);
    char word[] = "s3cret";

    PEM_write_bio_PrivateKey(sealed, key, EVP_aes_128_cbc(), NULL, 0, NULL, word);
    read_pem(sealed, encrypted, sizeof(encrypted));
    BIO_free(text);
    EVP_PKEY_free(key);
    snprintf(cut, sizeof(cut), "%.100s", a.certificate);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct http_way *way = NULL;
        struct error err;

        assert_true(
            http_way_new(&way,
                         &(struct http_way_params){.certificate = cases[i].certificate, .key = cases[i].key},
                         &err) < 0);
        assert_null(way);
        assert_non_null(strstr(err.text, cases[i].words));
        assert_null(strstr(err.text, "s3cret"));
    }
}

/* --- old servers ------------------------------------------------------------------------------ */

TEST(test_a_server_that_knows_old_tls_only)
{
    static const struct {
        const char *min_tls;
        bool works;
    } cases[] = {{NULL, false}, {"1.2", false}, {"1.3", false}, {"1.1", true}, {"1.0", true}};
    struct client *c = *state;
    struct server *s = tls_server(c, kept, 1);

    SSL_CTX_set_security_level(s->tls, 0);
    SSL_CTX_set_min_proto_version(s->tls, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(s->tls, TLS1_1_VERSION);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct http_way *way = way_new((struct http_way_params){.min_tls = cases[i].min_tls});
        struct outcome *o = post_by(c, s, way);

        expect_cause(o, cases[i].works ? HTTP_ANSWERED : HTTP_TLS);
        free(o);
        http_way_unref(way);
    }
    server_stop(s);
}

/* The beginning of an answer by TLS 1.2 without RFC 5746: only who allows it waits for the rest. */
TEST(test_a_server_without_secure_renegotiation)
{
    static const unsigned char hello[] = {22, 3,  3,  0,  42, 2,  0,  0,  38, 3,  3,  1,  2,    3,    4,  5,
                                          6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18,   19,   20, 21,
                                          22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 0,  0xc0, 0x2b, 0};
    struct client *c = *state;
    uint16_t port;

    for (int legacy = 0; legacy < 2; legacy++) {
        struct http_way *way = way_new((struct http_way_params){.legacy_renegotiation = legacy});
        int listener = listen_on_loopback(&port);
        struct outcome *o = outcome_new();
        char url[64], heard[8];

        snprintf(url, sizeof(url), "https://127.0.0.1:%d/", port);
        o->transfer =
            http_post(c->http,
                      &(struct http_request){
                          .url = url, .way = way, .body = "{}", .body_len = 2, .timeout_usec = TIMEOUT_USEC},
                      on_result, o);
        turn(c);
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        for (int i = 0; i < 5; i++)
            turn(c);
        assert_true(recv(fd, heard, sizeof(heard), 0) > 0);
        assert_int_equal(send(fd, hello, sizeof(hello), MSG_NOSIGNAL), sizeof(hello));
        for (int i = 0; i < 5; i++)
            turn(c);
        if (legacy)
            assert_false(o->done);
        close(fd);
        finished(c, o);
        expect_cause(o, HTTP_TLS);
        assert_int_equal(strstr(o->detail, "unsafe legacy renegotiation") != NULL, !legacy);
        close(listener);
        free(o);
        http_way_unref(way);
    }
}

/* --- proxies ---------------------------------------------------------------------------------- */

static const char *proxy_url(const struct server *s)
{
    static char url[64];

    snprintf(url, sizeof(url), "http://127.0.0.1:%d", s->port);
    return url;
}

/* The tunnel of one is not the other's, nor are connections without. */
TEST(test_a_proxy_of_its_own)
{
    static const struct reply replies[] = {{"HTTP/1.1 200 OK\r\n\r\n", KEEP, NULL, false},
                                           {ANSWER, KEEP, NULL, false}};
    struct client *c = *state;
    struct server *s = server_start(kept, 1), *proxy = server_start(replies, 2),
                  *other = server_start(replies, 2);
    struct http_way *way = way_new((struct http_way_params){.proxy = proxy_url(proxy)}),
                    *another = way_new((struct http_way_params){.proxy = proxy_url(other)});

    for (int i = 0; i < 3; i++) {
        expect_by(c, s, way, 200);
        expect_by(c, s, another, 200);
        expect_by(c, s, NULL, 200);
    }
    assert_int_equal(proxy->connections, 1);
    assert_int_equal(proxy->requests, 4);
    assert_int_equal(other->connections, 1);
    assert_int_equal(s->connections, 1);
    assert_int_equal(s->requests, 3);
    http_way_unref(way);
    http_way_unref(another);
    server_stop(s);
    server_stop(proxy);
    server_stop(other);
}

/* Its address is checked like a server's; that of the configuration's proxy is not. Its trouble is nobody
 * else's. */
TEST(test_a_proxy_of_its_own_that_is_of_no_use)
{
    struct client *c = *state;
    struct server *s = server_start(kept, 1);
    struct http_way *way = way_new((struct http_way_params){.proxy = proxy_url(s)});

    c->params.allow_private_networks = false;
    http_set_params(c->http, &c->params);
    struct outcome *o = post_by(c, s, way);
    expect_cause(o, HTTP_ADDRESS_REFUSED);
    assert_non_null(strstr(o->detail, "the proxy's address"));
    assert_int_equal(s->connections, 0);
    free(o);
    c->params.allow_private_networks = true;
    http_set_params(c->http, &c->params);
    server_stop(s); /* the port is free now */
    s = server_start(kept, 1);
    o = post_by(c, s, way);
    expect_cause(o, HTTP_CONNECT);
    free(o);
    http_way_unref(way);
    server_stop(s);
}

/* A way may outlive the client, and the client the way. */
TEST(test_who_goes_first)
{
    struct client *c = *state;
    struct server *s = server_start(kept, 1);
    struct http_way *way = way_new((struct http_way_params){.min_tls = "1.3"}),
                    *other = way_new((struct http_way_params){.min_tls = "1.3"});
    struct error err;

    expect_by(c, s, way, 200);
    struct outcome *o = outcome_new();
    http_post(c->http,
              &(struct http_request){.url = server_url(s, "/"), .way = other, .timeout_usec = TIMEOUT_USEC},
              on_result, o);
    http_way_unref(other); /* the transfer holds it */
    http_free(c->http);
    assert_false(o->done);
    http_way_unref(way);
    assert_int_equal(http_new(&c->http, c->event, &c->params, &err), 0);
    free(o);
    server_stop(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_CLIENT(test_two_identities_share_no_connection),
        WITH_CLIENT(test_two_identities_share_no_session),
        WITH_CLIENT(test_what_an_identity_leaves),
        WITH_CLIENT(test_a_server_that_refuses_the_certificate),
        cmocka_unit_test(test_what_is_no_identity),
        WITH_CLIENT(test_a_server_that_knows_old_tls_only),
        WITH_CLIENT(test_a_server_without_secure_renegotiation),
        WITH_CLIENT(test_a_proxy_of_its_own),
        WITH_CLIENT(test_a_proxy_of_its_own_that_is_of_no_use),
        WITH_CLIENT(test_who_goes_first),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
