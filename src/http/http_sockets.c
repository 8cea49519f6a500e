/* An epoll set with lazy removal.
 *
 * Owns the epoll descriptor and a table by descriptor number; main thread only; must not block, close sockets
 * or call back. The kernel drops a socket from the set when it is closed, so the table only has to hear of
 * it. */
#include "http/http_sockets.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct socket_state {
    uint32_t registered; /* what the kernel watches; 0 = not in the set */
    uint32_t wanted;     /* what was asked for */
    bool told;           /* its end will be told */
};

struct http_sockets {
    int epoll_fd;
    int wake_fd; /* an eventfd, readable for ever; looked at by the kernel only when asked to */
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
    if (s->wake_fd >= 0)
        close(s->wake_fd);
    if (s->epoll_fd >= 0)
        close(s->epoll_fd);
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

void http_sockets_opened(struct http_sockets *s, int fd)
{
    *find(s, fd) = (struct socket_state){.told = true};
}

void http_sockets_closed(struct http_sockets *s, int fd)
{
    *find(s, fd) = (struct socket_state){0};
}

/* The table may be behind for a socket that was closed without a word, hence ENOENT and EEXIST. */
static int registration_set(struct http_sockets *s, int fd, struct socket_state *state, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    int op = events == 0 ? EPOLL_CTL_DEL : state->registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

    if (events == 0 && state->registered == 0)
        return 0;
    if (epoll_ctl(s->epoll_fd, op, fd, &event) < 0) {
        state->registered = 0;
        if (op == EPOLL_CTL_DEL)
            return 0;
        op = errno == ENOENT ? EPOLL_CTL_ADD : errno == EEXIST ? EPOLL_CTL_MOD : 0;
        if (op == 0 || epoll_ctl(s->epoll_fd, op, fd, &event) < 0)
            return -errno;
    }
    state->registered = events;
    return 0;
}

int http_sockets_watch(struct http_sockets *s, int fd, uint32_t events, bool soon)
{
    struct socket_state *state = find(s, fd);

    state->wanted = events;
    if (events == state->registered || (events == 0 && soon && state->told))
        return 0;
    return registration_set(s, fd, state, events);
}

void http_sockets_wake(struct http_sockets *s)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.fd = s->wake_fd};

    if (!s->woken && epoll_ctl(s->epoll_fd, EPOLL_CTL_MOD, s->wake_fd, &event) == 0)
        s->woken = true;
}

int http_sockets_wait(struct http_sockets *s, struct epoll_event *ret_events, int max)
{
    int ready = epoll_wait(s->epoll_fd, ret_events, max, 0), watched = 0;

    for (int i = 0; i < ready; i++) {
        int fd = ret_events[i].data.fd;
        struct socket_state *state = find(s, fd);

        if (fd == s->wake_fd)
            s->woken = false;
        else if (state->wanted)
            ret_events[watched++] = ret_events[i];
        else
            registration_set(s, fd, state, 0); /* an idle connection that the other side closed */
    }
    return watched;
}
