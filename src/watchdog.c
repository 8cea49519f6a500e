/* Feeds systemd's watchdog. See watchdog.h. */
#include "watchdog.h"

#include <systemd/sd-daemon.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"

/* A heartbeat that has not moved for so long no longer feeds the watchdog. */
#define STUCK_USEC (20 * USEC_PER_SEC)

/* The first thread that makes no progress, or NULL. */
static const char *find_stuck(struct watchdog *w, uint64_t now_usec)
{
    for (size_t i = 0; i < HEARTS; i++) {
        uint64_t beats = w->hearts[i].beats;
        if (!w->hearts[i].name || beats != w->beats[i] || !w->moved_at[i]) {
            w->beats[i] = beats;
            w->moved_at[i] = now_usec;
        } else if (now_usec - w->moved_at[i] > STUCK_USEC) {
            return w->hearts[i].name;
        }
    }
    return NULL;
}

void watchdog_init(struct watchdog *w)
{
    *w = (struct watchdog){0};
    (void) sd_watchdog_enabled(0, &w->interval_usec);
}

void watchdog_feed(struct watchdog *w, uint64_t now_usec)
{
    const char *stuck = find_stuck(w, now_usec);

    if (!stuck) {
        (void) trouble_ends(&w->stuck);
        if (w->interval_usec)
            sd_notify(0, "WATCHDOG=1");
    } else if (trouble_begins(&w->stuck)) {
        log_line(LOG_ERR, MSG_THREAD_STUCK, "thread \"%s\" makes no progress", stuck);
    }
}
