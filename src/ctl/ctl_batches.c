/* See ctl_batches.h. */
#include "ctl/ctl_batches.h"

#include <inttypes.h>
#include <poll.h>

bool ctl_is_stopped(const struct ctl *c)
{
    struct pollfd stop = {.fd = c->stop_fd, .events = POLLIN};

    return poll(&stop, 1, 0) != 0;
}

struct batches {
    struct pg *pg;
    pg_rows_work work;
    void *userdata;
    struct sentences *refused;
};

static int work_on(const int64_t *ids, size_t count, void *userdata)
{
    struct batches *b = userdata;

    return b->work(ids, count, b->userdata);
}

static void name_refused(int64_t id, void *userdata)
{
    struct batches *b = userdata;

    sentences_add(b->refused,
                  "subscription %" PRId64
                  ": a rule or a trigger of the application refuses the change (SQLSTATE %s)",
                  id, pg_error_sqlstate(b->pg));
}

int ctl_in_batches(struct ctl *c, struct pg *pg, const int64_t *ids, size_t count, pg_rows_work work,
                   void *userdata, struct sentences *refused)
{
    struct batches b = {.pg = pg, .work = work, .userdata = userdata, .refused = refused};
    int r = PG_DONE;

    for (size_t i = 0; r == PG_DONE && i < count && !ctl_is_stopped(c); i += CTL_BATCH)
        r = pg_in_halves(pg, ids + i, MIN(count - i, (size_t) CTL_BATCH), work_on, name_refused, &b);
    return r;
}
