/* What the tests of the HTTP client share: a server that answers by script, and a client to run against it.
 *
 * The server has a thread for itself and one for each connection; all end in server_stop(). */
#pragma once
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "base/timeutil.h"
#include "http/http.h"
#include "unit.h"

#define CONNECTIONS_MAX 512
#define TIMEOUT_USEC                                                                                         \
    (100 * USEC_PER_SEC) /* of a request that is not about timeouts: slow machines, valgrind */
#define PATIENCE_USEC (120 * USEC_PER_SEC) /* until a test is given up */

enum after {
    KEEP,       /* wait for the next request */
    CLOSE,      /* end the connection */
    CUT,        /* the same; over TLS without close_notify */
    RESET,      /* with a RST */
    HOLD,       /* say no more until the client goes away */
    REPEAT,     /* send `repeated` until the client goes away */
    LATE,       /* send `repeated` a moment later, then wait for the next request */
    LATE_CLOSE, /* the same, then end the connection */
};

struct reply {
    const char *text; /* NULL = nothing */
    enum after after;
    const char *repeated;
    bool early; /* do not read the request first */
};

struct server {
    SSL_CTX *tls;                /* NULL = clear text */
    const struct reply *replies; /* the last one serves all further requests */
    size_t reply_count;
    int idle_ms; /* a connection is ended when no request comes for so long; 0 = never */
    int listen_fd;
    uint16_t port;
    pthread_t thread;
    atomic_bool stopping;
    atomic_int connections, requests, late;
    atomic_long sent; /* bytes of repeated text */
    pthread_mutex_t lock;
    pthread_t threads[CONNECTIONS_MAX];
    int fds[CONNECTIONS_MAX];
    char request[12288]; /* the beginning of the last one, its body after the empty line */
    size_t body_len;
};

struct connection {
    struct server *server;
    int fd;
    SSL *ssl;
};

static inline ssize_t receive_bytes(struct connection *c, char *bytes, size_t size)
{
    return c->ssl ? SSL_read(c->ssl, bytes, (int) size) : recv(c->fd, bytes, size, 0);
}

static inline bool send_all(struct connection *c, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = c->ssl ? SSL_write(c->ssl, bytes, (int) len) : send(c->fd, bytes, len, MSG_NOSIGNAL);

        if (n <= 0)
            return false;
        bytes += n;
        len -= (size_t) n;
    }
    return true;
}

/* Reads one request; false when the client has gone away before its end. */
static inline bool read_request(struct server *s, struct connection *c)
{
    char head[12288] = "", sink[65536];
    const char *end = NULL, *length;
    size_t have = 0, body, wanted;

    while (!end) {
        ssize_t n = receive_bytes(c, head + have, sizeof(head) - 1 - have);

        if (n <= 0)
            return false;
        have += (size_t) n;
        head[have] = '\0';
        end = strstr(head, "\r\n\r\n");
    }
    length = strcasestr(head, "\r\nContent-Length:");
    wanted = length ? strtoul(length + strlen("\r\nContent-Length:"), NULL, 10) : 0;
    for (body = have - (size_t) (end + 4 - head); body < wanted;) {
        ssize_t n = receive_bytes(c, sink, sizeof(sink));

        if (n <= 0)
            return false;
        body += (size_t) n;
    }
    pthread_mutex_lock(&s->lock);
    memcpy(s->request, head, sizeof(head));
    s->body_len = body;
    pthread_mutex_unlock(&s->lock);
    return true;
}

static inline void reset_on_close(int fd)
{
    struct linger linger = {.l_onoff = 1};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

static inline void wait_for_end(struct connection *c)
{
    char sink[4096];

    while (receive_bytes(c, sink, sizeof(sink)) > 0)
        ;
}

/* In large pieces, so that many such servers leave the processor to others. */
static inline void repeat_text(struct server *s, struct connection *c, const char *text)
{
    size_t text_len = strlen(text), len = 65536 / text_len * text_len;
    char *piece = malloc(len);

    for (size_t at = 0; at < len; at += text_len)
        memcpy(piece + at, text, text_len);
    while (send_all(c, piece, len))
        s->sent += (long) len;
    free(piece);
}

/* False when the connection is to end. */
static inline bool give_reply(struct server *s, struct connection *c, const struct reply *reply)
{
    if (reply->text && !send_all(c, reply->text, strlen(reply->text)))
        return false;
    switch (reply->after) {
    case KEEP:
        return true;
    case RESET:
        reset_on_close(c->fd);
        return false;
    case HOLD:
        wait_for_end(c);
        return false;
    case REPEAT:
        repeat_text(s, c, reply->repeated);
        return false;
    case LATE:
    case LATE_CLOSE:
        usleep(5000);
        s->late += send_all(c, reply->repeated, strlen(reply->repeated));
        return reply->after == LATE;
    case CLOSE:
        if (c->ssl)
            SSL_shutdown(c->ssl); /* close_notify, then the socket's end */
        break;
    case CUT:
        break;
    }
    return false;
}

/* False when the connection is to end, since it was idle for too long. The end is on its way for a moment, as
 * from afar. */
static inline bool request_comes(const struct server *s, struct connection *c)
{
    struct pollfd p = {c->fd, POLLIN, 0};
    bool comes = s->idle_ms == 0 || (c->ssl && SSL_has_pending(c->ssl)) || poll(&p, 1, s->idle_ms) > 0;

    if (comes)
        return true;
    usleep(20000);
    if (c->ssl)
        SSL_shutdown(c->ssl);
    return false;
}

static inline void *connection_run(void *userdata)
{
    struct connection *c = userdata;
    struct server *s = c->server;

    /* A reset throws away what Nagle's algorithm still holds back. */
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    c->ssl = s->tls ? SSL_new(s->tls) : NULL;
    if (c->ssl) {
        SSL_set_fd(c->ssl, c->fd);
        SSL_accept(c->ssl);
    }
    for (bool open = true; open && !s->stopping;) {
        const struct reply *reply = &s->replies[MIN((size_t) s->requests, s->reply_count - 1)];
        size_t number;

        if (!reply->early && (!request_comes(s, c) || !read_request(s, c)))
            break;
        number = (size_t) atomic_fetch_add(&s->requests, 1);
        open = give_reply(s, c, &s->replies[MIN(number, s->reply_count - 1)]);
    }
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < CONNECTIONS_MAX; i++)
        if (s->fds[i] == c->fd)
            s->fds[i] = -1;
    SSL_free(c->ssl);
    close(c->fd);
    pthread_mutex_unlock(&s->lock);
    free(c);
    return NULL;
}

static inline void *server_run(void *userdata)
{
    struct server *s = userdata;

    while (!s->stopping) {
        int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC), i = s->connections;
        struct connection *c;

        if (fd < 0)
            continue;
        c = malloc(sizeof(*c));
        if (i == CONNECTIONS_MAX)
            abort();
        *c = (struct connection){.server = s, .fd = fd};
        pthread_mutex_lock(&s->lock);
        s->fds[i] = fd;
        pthread_create(&s->threads[i], NULL, connection_run, c);
        s->connections++;
        pthread_mutex_unlock(&s->lock);
    }
    return NULL;
}

static inline int listen_on_loopback(uint16_t *ret_port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr address;
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memcpy(&address, &in, sizeof(in));
    assert_int_equal(bind(fd, &address, len), 0);
    assert_int_equal(listen(fd, 1024), 0);
    assert_int_equal(getsockname(fd, &address, &len), 0);
    memcpy(&in, &address, sizeof(in));
    *ret_port = ntohs(in.sin_port);
    return fd;
}

static inline struct server *server_start_over(SSL_CTX *tls, const struct reply *replies, size_t count)
{
    struct server *s = calloc(1, sizeof(*s));

    s->tls = tls;
    s->replies = replies;
    s->reply_count = count;
    pthread_mutex_init(&s->lock, NULL);
    for (int i = 0; i < CONNECTIONS_MAX; i++)
        s->fds[i] = -1;
    s->listen_fd = listen_on_loopback(&s->port);
    assert_int_equal(pthread_create(&s->thread, NULL, server_run, s), 0);
    return s;
}

static inline struct server *server_start(const struct reply *replies, size_t count)
{
    return server_start_over(NULL, replies, count);
}

static inline bool server_has_connections(struct server *s)
{
    bool any = false;

    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < CONNECTIONS_MAX; i++)
        any |= s->fds[i] >= 0;
    pthread_mutex_unlock(&s->lock);
    return any;
}

/* A self-signed certificate for `name` (a host's name, or "IP:…"), also written to `path`. */
static inline SSL_CTX *tls_context_new(const char *name, const char *path, long valid_from, long valid_to)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    X509V3_CTX v3;
    char alternative[128];

    snprintf(alternative, sizeof(alternative), "%s%s", strchr(name, ':') ? "" : "DNS:", name);
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), valid_from);
    X509_gmtime_adj(X509_getm_notAfter(x), valid_to);
    X509_set_pubkey(x, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                               (const unsigned char *) "institution", -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(x));
    X509V3_set_ctx(&v3, x, x, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &v3, NID_subject_alt_name, alternative);
    X509_add_ext(x, extension, -1);
    X509_EXTENSION_free(extension);
    X509_sign(x, key, EVP_sha256());
    assert_int_equal(SSL_CTX_use_certificate(context, x), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(context, key), 1);
    if (path) {
        BIO *file = BIO_new_file(path, "w");
        PEM_write_bio_X509(file, x);
        BIO_free(file);
    }
    X509_free(x);
    EVP_PKEY_free(key);
    return context;
}

static inline void server_stop(struct server *s)
{
    s->stopping = true;
    shutdown(s->listen_fd, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < CONNECTIONS_MAX; i++)
        if (s->fds[i] >= 0)
            shutdown(s->fds[i], SHUT_RDWR);
    pthread_mutex_unlock(&s->lock);
    for (int i = 0; i < s->connections; i++)
        pthread_join(s->threads[i], NULL);
    close(s->listen_fd);
    pthread_mutex_destroy(&s->lock);
    SSL_CTX_free(s->tls);
    free(s);
}

/* The client. */

struct client {
    sd_event *event;
    struct http *http;
    struct http_params params;
};

/* A copy of a result, which lives only during its callback. */
struct outcome {
    bool done;
    struct http_result result;
    char body[70000];
    char detail[512];
    struct http_transfer *transfer;
};

static inline void on_result(const struct http_result *result, void *userdata)
{
    struct outcome *o = userdata;

    assert_false(o->done);
    assert_non_null(result->body);
    assert_non_null(result->detail);
    assert_true(result->body_len < sizeof(o->body));
    o->done = true;
    o->result = *result;
    memcpy(o->body, result->body, result->body_len);
    o->body[result->body_len] = '\0';
    snprintf(o->detail, sizeof(o->detail), "%s", result->detail);
}

static inline int client_setup(void **state)
{
    struct client *c = calloc(1, sizeof(*c));
    struct error err;

    signal(SIGPIPE, SIG_IGN);
    c->params = (struct http_params){
        .connect_timeout_usec = TIMEOUT_USEC,
        .response_limit = 65536,
        .max_connections = 512,
        .allow_http = true,
        .allow_private_networks = true,
        .ca_file = "",
        .proxy = "",
        .user_agent = "anubisd/test",
    };
    assert_true(sd_event_new(&c->event) >= 0);
    assert_int_equal(http_new(&c->http, c->event, &c->params, &err), 0);
    *state = c;
    return 0;
}

static inline int client_teardown(void **state)
{
    struct client *c = *state;

    http_free(c->http);
    assert_null(sd_event_unref(c->event));
    free(c);
    return 0;
}

#define WITH_CLIENT(test) cmocka_unit_test_setup_teardown(test, client_setup, client_teardown)

/* A server over TLS whose certificate is the only one that the client trusts. */
static inline struct server *tls_server(struct client *c, const struct reply *replies, size_t count)
{
    static char trusted[64];

    snprintf(trusted, sizeof(trusted), "/tmp/anubis-test-%d.pem", getpid());
    struct server *s = server_start_over(tls_context_new("IP:127.0.0.1", trusted, -60, 3600), replies, count);

    c->params.ca_file = trusted;
    http_set_params(c->http, &c->params);
    unlink(trusted);
    return s;
}

static inline struct outcome *outcome_new(void)
{
    return calloc(1, sizeof(struct outcome));
}

static inline const char *const *json_headers(void)
{
    static const char *const headers[] = {"Content-Type: application/json", NULL};

    return headers;
}

static inline struct outcome *post_within(struct client *c, const char *url, uint64_t timeout_usec)
{
    struct http_request request = {
        .url = url,
        .headers = json_headers(),
        .body = "{\"a\":1}",
        .body_len = 7,
        .timeout_usec = timeout_usec,
    };
    struct outcome *o = outcome_new();

    o->transfer = http_post(c->http, &request, on_result, o);
    assert_false(o->done);
    return o;
}

static inline struct outcome *post(struct client *c, const char *url)
{
    return post_within(c, url, TIMEOUT_USEC);
}

static inline void turn(struct client *c)
{
    assert_true(sd_event_run(c->event, 10 * USEC_PER_MSEC) >= 0);
}

/* Turns the loop until the condition holds. */
#define WAIT_FOR(client, condition)                                                                          \
    for (uint64_t deadline_ = now_monotonic_usec() + PATIENCE_USEC; !(condition); turn(client))              \
    assert_true(now_monotonic_usec() < deadline_)

static inline struct outcome *finished(struct client *c, struct outcome *o)
{
    for (uint64_t deadline = now_monotonic_usec() + PATIENCE_USEC; !o->done; turn(c))
        if (now_monotonic_usec() > deadline)
            fail_msg("no result");
    return o;
}

static inline const char *server_url(const struct server *s, const char *path)
{
    static char url[16][256];
    static int next;
    char *to = url[next++ % 16];

    snprintf(to, sizeof(url[0]), "%s://127.0.0.1:%d%s", s->tls ? "https" : "http", s->port, path);
    return to;
}

static inline struct outcome *post_to(struct client *c, const struct server *s)
{
    return finished(c, post(c, server_url(s, "/inscricoes")));
}

static inline void expect_cause(const struct outcome *o, enum http_cause cause)
{
    if (o->result.cause != cause)
        fail_msg("\"%s\" (%s) instead of \"%s\"", http_cause_word(o->result.cause), o->detail,
                 http_cause_word(cause));
    if (cause != HTTP_ANSWERED)
        assert_int_equal(o->result.status, 0);
}

static inline void expect_status(const struct outcome *o, int status)
{
    expect_cause(o, HTTP_ANSWERED);
    assert_int_equal(o->result.status, status);
    assert_true(o->result.body_handed_over);
}
