/* An epoll set with a handler for each socket.
 *
 * Owns the epoll descriptor and a table by descriptor number; main thread only; must not block or close
 * sockets. */
#include "http/http_sockets.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define EVENTS_MAX 128 /* sockets served in one call */

struct socket_state {
    http_socket_handler *handler; /* NULL = not watched */
    void *owner;
    uint32_t round; /* tells the sockets apart that had this number one after the other */
};

struct http_sockets {
    int epoll_fd;
    int wake_fd; /* an eventfd, readable for ever; the kernel looks at it only when asked to */
    bool woken;  /* it is asked to */
    struct socket_state *states; /* by descriptor */
    size_t count;
};

int http_sockets_new(struct http_sockets **ret)
{
    struct epoll_event none = {0};
    struct http_sockets *s = xcalloc(1, sizeof(*s));

    s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    s->wake_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->epoll_fd < 0 || s->wake_fd < 0 || epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, s->wake_fd, &none) < 0) {
        int r = -errno;

        http_sockets_free(s);
        return r;
    }
    *ret = s;
    return 0;
}

void http_sockets_free(struct http_sockets *s)
{
    if (!s)
        return;
    closep(&s->wake_fd);
    closep(&s->epoll_fd);
    free(s->states);
    free(s);
}

int http_sockets_fd(const struct http_sockets *s)
{
    return s->epoll_fd;
}

static struct socket_state *find(struct http_sockets *s, int fd)
{
    size_t index = (size_t) fd;

    if (index >= s->count) {
        size_t count = MAX(index + 1, s->count * 2);

        s->states = xreallocarray(s->states, count, sizeof(*s->states));
        for (; s->count < count; s->count++)
            s->states[s->count] = (struct socket_state){0};
    }
    return &s->states[index];
}

/* libcurl closes its resolver's sockets without a word, hence ENOENT and EEXIST. */
int http_sockets_watch(struct http_sockets *s, int fd, uint32_t events, http_socket_handler *handler,
                       void *owner)
{
    struct socket_state *state = find(s, fd);
    int op = state->handler ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

    if (!state->handler || state->owner != owner)
        state->round++;
    struct epoll_event event = {.events = events, .data.u64 = (uint64_t) state->round << 32 | (uint32_t) fd};
    if (epoll_ctl(s->epoll_fd, op, fd, &event) < 0) {
        op = errno == ENOENT ? EPOLL_CTL_ADD : errno == EEXIST ? EPOLL_CTL_MOD : 0;
        if (op == 0 || epoll_ctl(s->epoll_fd, op, fd, &event) < 0)
            return -errno;
    }
    state->handler = handler;
    state->owner = owner;
    return 0;
}

void http_sockets_forget(struct http_sockets *s, int fd)
{
    struct socket_state *state = find(s, fd);

    if (!state->handler)
        return;
    (void) epoll_ctl(s->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    state->handler = NULL;
}

void http_sockets_wake(struct http_sockets *s)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = (uint32_t) s->wake_fd};

    if (!s->woken && epoll_ctl(s->epoll_fd, EPOLL_CTL_MOD, s->wake_fd, &event) == 0)
        s->woken = true;
}

bool http_sockets_dispatch(struct http_sockets *s)
{
    struct epoll_event events[EVENTS_MAX];
    int ready = epoll_wait(s->epoll_fd, events, EVENTS_MAX, 0);

    for (int i = 0; i < ready; i++) {
        int fd = (int) (uint32_t) events[i].data.u64;
        const struct socket_state *state = find(s, fd);

        if (fd == s->wake_fd)
            s->woken = false;
        else if (state->handler && state->round == events[i].data.u64 >> 32)
            state->handler(state->owner, fd, events[i].events);
    }
    return ready > 0;
}
