/* Credentials that were read again. See reread.h. */
#include "delivery/reread.h"

#include <errno.h>

#include "base/timeutil.h"
#include "sql/statements.h"

static void on_answer(struct pg_answer *answer, void *userdata)
{
    struct reread *r = userdata;
    bool locked = queue_session_gave_up_for_lock(r->session, answer);

    if (answer->r == -EBADMSG && !locked)
        queue_session_refused(r->session, STANDSTILL_CLAIM,
                              "try integrations again whose credentials were read anew", answer);
    r->wanted = answer->r != 0;
    r->at = now_monotonic_usec() + USEC_PER_SEC;
    r->done(answer->r == 0 && pg_rows(answer->result) > 0, r->userdata);
}

bool reread_run(struct reread *r)
{
    if (!r->wanted || now_monotonic_usec() < r->at)
        return false;
    pg_args_clear(queue_session_args(r->session));
    return queue_session_ask(r->session, &sql_credentials_read_again, on_answer, r) == 0;
}
