/* Moving bytes over a connection. See http_connection.h. */
#include "http/http_connection.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/timeutil.h"

struct http_connection *http_connection_new(struct http_origin *origin, struct http_tls *tls, int fd)
{
    struct http_connection *c = xcalloc(1, sizeof(*c));
    socklen_t len = sizeof(c->address.in6);

    c->peer.session = &origin->session;
    c->ssl = origin->tls ? http_tls_open(tls, fd, origin->peer, &c->peer) : NULL;
    if (origin->tls && !c->ssl) {
        close(fd);
        free(c);
        return NULL;
    }
    c->origin = origin;
    c->fd = fd;
    c->secured = !c->ssl;
    (void) getpeername(fd, &c->address.any, &len);
    c->made_usec = now_monotonic_usec();
    origin->users++;
    return c;
}

void http_connection_free(struct http_connection *c)
{
    http_tls_close(c->ssl);
    close(c->fd);
    http_origin_done(c->origin);
    free(c);
}

int http_connection_secure(struct http_connection *c, const char **ret_fault, struct error *err)
{
    if (c->secured)
        return HTTP_MOVED;
    int r = http_tls_handshake(c->ssl);
    c->secured = r == HTTP_MOVED;
    if (r == HTTP_ENDED || r == HTTP_LOST) {
        *ret_fault = http_tls_fault(c->ssl, err);
        return HTTP_LOST;
    }
    return r;
}

static int send_plain(struct http_connection *c, struct iovec parts[2], size_t *ret)
{
    const struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t n;

    do
        n = sendmsg(c->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? HTTP_WAIT : HTTP_LOST;
    *ret = (size_t) n;
    return HTTP_MOVED;
}

int http_connection_send(struct http_connection *c, struct iovec parts[2], char *scratch, size_t scratch_size,
                         size_t *ret, bool *ret_begun)
{
    *ret = 0;
    *ret_begun = false;
    if (!c->ssl)
        return send_plain(c, parts, ret);
    size_t total = parts[0].iov_len + parts[1].iov_len;
    const char *bytes = parts[0].iov_len ? parts[0].iov_base : parts[1].iov_base;
    size_t len = parts[0].iov_len ? parts[0].iov_len : parts[1].iov_len;
    if (parts[0].iov_len && parts[1].iov_len && total <= scratch_size) {
        memcpy(scratch, parts[0].iov_base, parts[0].iov_len);
        memcpy(scratch + parts[0].iov_len, parts[1].iov_base, parts[1].iov_len);
        bytes = scratch;
        len = total;
    }
    int r = http_tls_send(c->ssl, bytes, len, ret);
    if (bytes == scratch)
        explicit_bzero(scratch, parts[0].iov_len); /* a head holds secrets */
    *ret_begun = r == HTTP_WAIT;                   /* part of the record may have left */
    return r == HTTP_ENDED ? HTTP_LOST : r;
}

int http_connection_receive(struct http_connection *c, char *bytes, size_t size, size_t *ret)
{
    ssize_t n;

    *ret = 0;
    if (c->ssl) {
        int r = http_tls_receive(c->ssl, bytes, size, ret);
        c->readable &= r != HTTP_WAIT || SSL_want_write(c->ssl);
        return r;
    }
    do
        n = recv(c->fd, bytes, size, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    c->readable &= n >= 0;
    if (n < 0)
        return errno == EAGAIN ? HTTP_WAIT : HTTP_LOST;
    *ret = (size_t) n;
    return n > 0 ? HTTP_MOVED : HTTP_ENDED;
}

const char *http_connection_refusal(const struct http_connection *c)
{
    return c && c->idle_since_usec == 0 ? http_tls_refusal(&c->peer) : NULL;
}

int http_connection_look(struct http_connection *c)
{
    char byte;
    ssize_t n = recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    bool empty = n < 0 && errno == EAGAIN;

    c->readable = !empty;
    if (c->ssl) {
        int r = empty && http_tls_is_between_records(c->ssl) ? HTTP_QUIET : http_tls_look(c->ssl);
        return c->peer.was_refused ? HTTP_ENDED : r;
    }
    if (empty)
        return HTTP_QUIET;
    return n > 0 ? HTTP_MOVED : n == 0 ? HTTP_ENDED : HTTP_LOST;
}
