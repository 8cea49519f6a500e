/* The stage thread: answers that come late, never, or as raw bytes that libmicrohttpd would not send.
 *
 * Included once, by institutions.c. A connection is suspended and its actor put on the stage; the thread owns
 * the actor until it resumes the connection, whose handler then ends it (or answers). Thousands at once cost
 * one heap. */
#pragma once

#include <microhttpd.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "base/timeutil.h"

enum ending {
    ENDING_ANSWER, /* the handler answers as usual */
    ENDING_CLOSE,
    ENDING_RESET,
    ENDING_NEVER, /* until the client goes away */
};

/* Bytes written past libmicrohttpd: `head` once, then `repeat` (when set) for ever, `pause_ms` between each.
 */
struct script {
    const char *head;
    const char *repeat;
    unsigned pause_ms;
    bool drain; /* read and drop what still comes, for up to DRAIN_MS */
    enum ending ending;
};

struct actor {
    struct MHD_Connection *connection;
    const struct script *script; /* NULL: only waits */
    uint64_t due_usec;
    uint64_t end_usec; /* of draining */
    int fd;
    unsigned heap_at;
    bool head_sent;
    bool hung_up; /* the handler is to end the connection, not to answer */
};

#define DRAIN_MS 3000
#define SWEEP_USEC USEC_PER_SEC
#define BEFORE_RESET_USEC (20 * USEC_PER_MSEC) /* so that the client reads what came before it */

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    pthread_t thread;
    bool ending;
    int left_fd;         /* an eventfd, for the server's loop: a connection was resumed */
    struct actor **heap; /* by due_usec */
    unsigned count, capacity;
} stage = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* Sends RST at once (disconnecting is what close() with SO_LINGER 0 does, but libmicrohttpd keeps the
 * descriptor). */
static void socket_reset(int fd)
{
    struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    (void) !connect(fd, &nobody, sizeof nobody);
}

static void heap_set(unsigned i, struct actor *a)
{
    stage.heap[i] = a;
    a->heap_at = i;
}

static void heap_fix(unsigned i)
{
    struct actor *a = stage.heap[i];
    while (i > 0 && stage.heap[(i - 1) / 2]->due_usec > a->due_usec) {
        heap_set(i, stage.heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    for (;;) {
        unsigned child = 2 * i + 1;
        if (child >= stage.count)
            break;
        if (child + 1 < stage.count && stage.heap[child + 1]->due_usec < stage.heap[child]->due_usec)
            child++;
        if (stage.heap[child]->due_usec >= a->due_usec)
            break;
        heap_set(i, stage.heap[child]);
        i = child;
    }
    heap_set(i, a);
}

static void heap_remove(struct actor *a)
{
    unsigned i = a->heap_at;
    struct actor *last = stage.heap[--stage.count];
    if (last != a) {
        heap_set(i, last);
        heap_fix(i);
    }
}

/* Suspends the connection and puts its actor on the stage. From the connection's handler. When the server is
 * ending it does nothing but mark the actor as hung up. */
static void stage_enter(struct actor *a)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(a->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    a->fd = info ? info->connect_fd : -1;
    a->head_sent = false;
    pthread_mutex_lock(&stage.mutex);
    if (stage.ending) {
        a->hung_up = true;
    } else {
        MHD_suspend_connection(a->connection);
        if (stage.count == stage.capacity) {
            stage.capacity = MAX(1024, 2 * stage.capacity);
            stage.heap = xreallocarray(stage.heap, stage.capacity, sizeof(struct actor *));
        }
        heap_set(stage.count++, a);
        heap_fix(stage.count - 1);
        if (a->heap_at == 0)
            pthread_cond_signal(&stage.wake);
    }
    pthread_mutex_unlock(&stage.mutex);
}

static void stage_leave(struct actor *a, bool hung_up)
{
    heap_remove(a);
    a->hung_up = hung_up;
    MHD_resume_connection(a->connection);
    eventfd_write(stage.left_fd, 1);
}

static void stage_wait(struct actor *a, uint64_t usec)
{
    a->due_usec = usec == USEC_INFINITY ? USEC_INFINITY : now_monotonic_usec() + usec;
    heap_fix(a->heap_at);
}

static void stage_end(struct actor *a)
{
    if (a->script->ending == ENDING_RESET)
        socket_reset(a->fd);
    else if (a->script->ending == ENDING_CLOSE)
        shutdown(a->fd, SHUT_RDWR);
    stage_leave(a, a->script->ending != ENDING_ANSWER);
}

static void stage_drain(struct actor *a)
{
    char buffer[65536];
    ssize_t n = 1;
    for (int i = 0; i < 16 && n > 0; i++)
        n = recv(a->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN) || now_monotonic_usec() >= a->end_usec)
        stage_end(a);
    else
        stage_wait(a, USEC_PER_MSEC);
}

/* Writes what the script has next, without blocking. False when the connection is gone. */
static bool stage_send(struct actor *a, const char *text)
{
    ssize_t n = send(a->fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL);
    return n >= 0 || errno == EAGAIN;
}

static bool stage_repeat(struct actor *a)
{
    unsigned times = a->script->pause_ms ? 1 : 64;
    for (unsigned i = 0; i < times; i++) {
        if (!stage_send(a, a->script->repeat))
            return false;
    }
    return true;
}

/* The next step of an actor that is due. */
static void stage_act(struct actor *a)
{
    const struct script *s = a->script;
    if (!s) {
        stage_leave(a, false);
    } else if (s->head && !a->head_sent) {
        a->head_sent = true;
        a->end_usec = now_monotonic_usec() + DRAIN_MS * USEC_PER_MSEC;
        if (!stage_send(a, s->head))
            stage_leave(a, true);
        else if (s->drain)
            shutdown(a->fd, SHUT_WR);
        else
            stage_wait(a, s->repeat ? 0 : BEFORE_RESET_USEC);
    } else if (s->drain) {
        stage_drain(a);
    } else if (s->repeat) {
        if (stage_repeat(a))
            stage_wait(a, MAX(s->pause_ms, 1) * USEC_PER_MSEC);
        else
            stage_leave(a, true);
    } else if (s->ending == ENDING_NEVER) {
        stage_wait(a, USEC_INFINITY);
    } else {
        stage_end(a);
    }
}

/* Lets those go whose client has gone: a suspended connection's socket is watched by nobody else. */
static void stage_sweep(void)
{
    for (unsigned i = 0; i < stage.count;) {
        struct actor *a = stage.heap[i];
        struct pollfd p = {.fd = a->fd, .events = POLLRDHUP};
        bool draining = a->script && a->script->drain;
        if (!draining && poll(&p, 1, 0) == 1 && p.revents)
            stage_leave(a, true); /* another one is at i now */
        else
            i++;
    }
}

static void *stage_run(void *unused)
{
    (void) unused;
    uint64_t sweep = now_monotonic_usec() + SWEEP_USEC;
    pthread_mutex_lock(&stage.mutex);
    while (!stage.ending) {
        uint64_t now = now_monotonic_usec();
        while (stage.count && stage.heap[0]->due_usec <= now)
            stage_act(stage.heap[0]);
        if (now >= sweep) {
            stage_sweep();
            sweep = now + SWEEP_USEC;
        }
        uint64_t next = stage.count ? MIN(sweep, stage.heap[0]->due_usec) : sweep;
        struct timespec until = {.tv_sec = (time_t) (next / USEC_PER_SEC),
                                 .tv_nsec = (long) (next % USEC_PER_SEC) * 1000};
        if (next > now_monotonic_usec())
            pthread_cond_timedwait(&stage.wake, &stage.mutex, &until);
    }
    while (stage.count)
        stage_leave(stage.heap[0], true);
    pthread_mutex_unlock(&stage.mutex);
    return NULL;
}

static void stage_open(void)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&stage.wake, &attributes);
    pthread_condattr_destroy(&attributes);
    stage.left_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (pthread_create(&stage.thread, NULL, stage_run, NULL) != 0)
        abort();
}

/* Everybody leaves; to be called before MHD_stop_daemon(), which accepts no suspended connection. */
static void stage_close(void)
{
    pthread_mutex_lock(&stage.mutex);
    stage.ending = true;
    pthread_cond_signal(&stage.wake);
    pthread_mutex_unlock(&stage.mutex);
    pthread_join(stage.thread, NULL);
    close(stage.left_fd);
    free(stage.heap);
}
