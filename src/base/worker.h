/* A thread that blocks: its start, its waits, its heartbeat, its end.
 *
 * The owner fills the struct, starts the thread, and joins it after the stop descriptor was raised.
 * Everything between runs on the thread itself. */
#pragma once

#include <pthread.h>

#include "base/util.h"

/* One per thread that blocks: beats at each turn, at most a second apart when all is well. The main thread
 * feeds systemd's watchdog only while every heartbeat moves. */
struct heartbeat {
    const char *name;
    _Atomic uint64_t beats;
};
static inline void heartbeat_beat(struct heartbeat *h)
{
    h->beats++;
}

struct worker {
    int stop_fd;                 /* becomes readable and stays so when it is time to go */
    struct heartbeat *heartbeat; /* NULL = none */
    pthread_t thread;
};

/* `name` (at most 15 bytes) is for debuggers. 0, or a negative errno with *err. */
int worker_start(struct worker *w, const char *name, void *(*run)(void *), void *userdata, struct error *err);
bool worker_is_stopping(const struct worker *w);
/* Beats, and waits until the time is over, the stop descriptor is raised, or `wake_fd` (-1 = none) is
 * readable. A wait is cut into parts of a second, so that the heartbeat moves. */
void worker_wait(const struct worker *w, int wake_fd, uint64_t usec);
/* Waits for the thread's end. False when it has not ended after `timeout_sec`: it runs on, with its
 * memory. */
bool worker_join(struct worker *w, unsigned timeout_sec);
