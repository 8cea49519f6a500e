/* Whose fault is it that institutions cannot be reached? When most of them are lost within seconds, it is
 * this machine's network: no institution is to blame, and no attempt is spent.
 *
 * After a minute in which most of the others answer, those that are lost still are to blame after all.
 *
 * The first failures of an institution are held back for a moment, until those of others have had time to
 * come.
 *
 * Main thread only. */
#pragma once

#include <systemd/sd-event.h>

#include "base/util.h"
#include "http/http.h"

/* When an institution was tried, and since when it cannot be reached. Pure; times are monotonic, in
 * microseconds, and 0 = never, or it can be reached. */
struct trial;
struct reach {
    uint64_t tried_at, lost_at;
    uint64_t short_since; /* a shortage of this machine's keeps it from being tried */
    struct trial *trial;  /* and nothing is claimed for it; NULL = something is */
};
/* How many of those tried lately there are, and how many of them were lost lately, all at once. The same of
 * those tried within a minute, however long ago they were lost. */
struct reach_count {
    int tried, lost;
    int tried_long, lost_still;
};
void reach_count(struct reach_count *count, const struct reach *r, uint64_t now);
bool reach_count_blames_us(const struct reach_count *count);
/* Most can be reached: those that cannot have been lost by themselves. */
bool reach_count_clears_us(const struct reach_count *count);

struct network;

struct network_callbacks {
    /* Counts all institutions. */
    void (*count)(struct reach_count *ret, uint64_t now, void *userdata);
    /* A result that was held back is to be used; its cause is HTTP_INTERNAL when the network is to blame. */
    void (*decided)(const struct http_result *result, void *held, void *userdata);
};

struct network *network_new(sd_event *event, const struct network_callbacks *callbacks, void *userdata);
/* Held results are dropped. */
void network_free(struct network *n);
/* A request has ended with this result. True: it is held back, and `decided` will be called with `held`. */
bool network_holds(struct network *n, struct reach *r, const struct http_result *result, void *held);
/* The same result of a connection that no request is for: is the network lost, and not the institution? */
bool network_is_lost(struct network *n, struct reach *r, const struct http_result *result);
/* Is it lost, as far as requests of the last minute tell? */
bool network_is_down(const struct network *n, uint64_t now);
/* What is held back is used now. */
void network_release(struct network *n);
