/* See pg_halves.h. */
#include "pg/pg_halves.h"

#include <errno.h>

int pg_in_halves(struct pg *pg, const int64_t *ids, size_t count, pg_rows_work work, pg_row_refused refused,
                 void *userdata)
{
    int r = work(ids, count, userdata);

    if (r != -EBADMSG || !pg_usable(pg) || !pg_blames_row(pg_error_sqlstate(pg)))
        return r;
    if (count == 1) {
        refused(*ids, userdata);
        return PG_DONE;
    }
    size_t half = count / 2;
    r = pg_in_halves(pg, ids, half, work, refused, userdata);
    return r == PG_DONE ? pg_in_halves(pg, ids + half, count - half, work, refused, userdata) : r;
}
