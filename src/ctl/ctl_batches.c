/* See ctl_batches.h. */
#include "ctl/ctl_batches.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>

bool ctl_is_stopped(const struct ctl *c)
{
    struct pollfd stop = {.fd = c->stop_fd, .events = POLLIN};

    return poll(&stop, 1, 0) != 0;
}

/* Where a row is to blame, halves find it. */
static int work_on(struct pg *pg, const int64_t *ids, size_t count, ctl_batch_work work, void *userdata,
                   struct sentences *refused)
{
    int r = work(ids, count, userdata);

    if (r != -EBADMSG || !pg_usable(pg) || !pg_blames_row(pg_error_sqlstate(pg)))
        return r;
    if (count == 1) {
        sentences_add(refused,
                      "subscription %" PRId64
                      ": a rule or a trigger of the application refuses the change (SQLSTATE %s)",
                      *ids, pg_error_sqlstate(pg));
        return PG_DONE;
    }
    size_t half = count / 2;
    r = work_on(pg, ids, half, work, userdata, refused);
    return r == PG_DONE ? work_on(pg, ids + half, count - half, work, userdata, refused) : r;
}

int ctl_in_batches(struct ctl *c, struct pg *pg, const int64_t *ids, size_t count, ctl_batch_work work,
                   void *userdata, struct sentences *refused)
{
    int r = PG_DONE;

    for (size_t i = 0; r == PG_DONE && i < count && !ctl_is_stopped(c); i += CTL_BATCH)
        r = work_on(pg, ids + i, MIN(count - i, (size_t) CTL_BATCH), work, userdata, refused);
    return r;
}
