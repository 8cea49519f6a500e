/* Who keeps a session waiting. See ctl_wait.h. A thread and a session of its own; both end with
 * ctl_wait_stop(). */
#include "ctl/ctl_wait.h"

#include <poll.h>
#include <pthread.h>
#include <string.h>

#include "base/timeutil.h"
#include "ctl/store_migrate.h"

#define LOOK_MSEC 200

struct ctl_wait {
    pthread_t thread;
    struct pg *pg;
    int pid;
    int stop_fd;
    pthread_mutex_t mutex;
    struct strbuf last; /* under the mutex */
};

static void look(struct ctl_wait *w)
{
    CLEANUP(strbuf_free) struct strbuf now = STRBUF_INIT(4096);

    if (store_blockers(w->pg, w->pid, &now, NULL) != PG_DONE || now.len == 0)
        return;
    pthread_mutex_lock(&w->mutex);
    /* The same session is named once, although the seconds in its description go on. */
    size_t same = strcspn(strbuf_str(&now), "(");
    bool known = strncmp(strbuf_str(&w->last), strbuf_str(&now), same) == 0;
    strbuf_clear(&w->last);
    strbuf_adds(&w->last, strbuf_str(&now));
    pthread_mutex_unlock(&w->mutex);
    if (!known)
        ctl_say("waiting for %s", strbuf_str(&now));
}

static void *run(void *userdata)
{
    struct ctl_wait *w = userdata;
    struct pollfd fd = {.fd = w->stop_fd, .events = POLLIN};

    while (poll(&fd, 1, LOOK_MSEC) == 0 && pg_usable(w->pg))
        look(w);
    return NULL;
}

static void wait_free(struct ctl_wait *w)
{
    pg_close(w->pg);
    closep(&w->stop_fd);
    pthread_mutex_destroy(&w->mutex);
    strbuf_free(&w->last);
    free(w);
}

void ctl_wait_start(struct ctl_wait **ret, const struct pg_params *params, int pid)
{
    struct ctl_wait *w = xcalloc(1, sizeof(*w));
    struct pg_params own = *params;

    *ret = NULL;
    w->pid = pid;
    w->stop_fd = own.stop_fd = wakefd_new();
    w->last = STRBUF_INIT(4096);
    own.remark = NULL;
    own.admit = NULL;
    own.statement_timeout_usec = 5 * USEC_PER_SEC;
    pthread_mutex_init(&w->mutex, NULL);
    if (pg_open(&w->pg, &own, NULL) != PG_DONE || pthread_create(&w->thread, NULL, run, w) != 0)
        wait_free(w);
    else
        *ret = w;
}

void ctl_wait_stop(struct ctl_wait *w)
{
    if (!w)
        return;
    wakefd_raise(w->stop_fd);
    pthread_join(w->thread, NULL);
    wait_free(w);
}

void ctl_wait_last(struct ctl_wait *w, struct strbuf *out)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->mutex);
    strbuf_adds(out, strbuf_str(&w->last));
    pthread_mutex_unlock(&w->mutex);
}
