/* Feeds systemd's watchdog, but only while every thread that may block makes progress. Main thread. */
#pragma once

#include "base/trouble.h"
#include "base/worker.h"
#include "consumers/consumer.h"

enum {
    HEART_MONITOR,
    HEART_RELAY,
    HEART_ALERTS,
    HEART_CONSUMERS,
    HEARTS = HEART_CONSUMERS + CONSUMER_THREADS_MAX
};

struct watchdog {
    struct heartbeat hearts[HEARTS];          /* those of running threads have a name */
    uint64_t beats[HEARTS], moved_at[HEARTS]; /* as of the last look */
    struct trouble stuck;
    uint64_t interval_usec; /* 0 = systemd does not watch */
};

void watchdog_init(struct watchdog *w);                    /* the hearts without names */
void watchdog_feed(struct watchdog *w, uint64_t now_usec); /* once a second */
