/* A thread that blocks. See worker.h. */
#include "base/worker.h"

#include <poll.h>
#include <string.h>
#include <time.h>

#include "base/timeutil.h"

#define BEAT_USEC USEC_PER_SEC

int worker_start(struct worker *w, const char *name, void *(*run)(void *), void *userdata, struct error *err)
{
    int r = pthread_create(&w->thread, NULL, run, userdata);

    if (r != 0) {
        error_set(err, "could not start the thread \"%s\": %s", name, strerror(r));
        return -r;
    }
    pthread_setname_np(w->thread, name);
    return 0;
}

bool worker_is_stopping(const struct worker *w)
{
    struct pollfd fd = {.fd = w->stop_fd, .events = POLLIN};

    return poll(&fd, 1, 0) > 0;
}

void worker_wait(const struct worker *w, int wake_fd, uint64_t usec)
{
    uint64_t until = now_monotonic_usec() + usec, now;

    while ((now = now_monotonic_usec()) < until) {
        struct pollfd fds[] = {{.fd = w->stop_fd, .events = POLLIN}, {.fd = wake_fd, .events = POLLIN}};
        if (w->heartbeat)
            heartbeat_beat(w->heartbeat);
        if (poll(fds, ARRAY_SIZE(fds), (int) (MIN(until - now, BEAT_USEC) / USEC_PER_MSEC + 1)) > 0)
            return;
    }
}

bool worker_join(struct worker *w, unsigned timeout_sec)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_sec;
    return pthread_clockjoin_np(w->thread, NULL, CLOCK_MONOTONIC, &until) == 0;
}
