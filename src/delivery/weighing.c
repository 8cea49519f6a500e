/* Which integrations make looks slow. See weighing.h. */
#include "delivery/weighing.h"

#include "base/timeutil.h"

static void on_weighed(struct pg_answer *answer, void *userdata)
{
    struct weighing *w = userdata;
    uint64_t now = now_monotonic_usec();
    struct mass found[MASSES_MAX] = {0};
    size_t count = answer->r == 0 ? MIN((size_t) pg_rows(answer->result), (size_t) MASSES_MAX) : 0;

    for (size_t i = 0; i < count; i++)
        found[i] = (struct mass){
            .integration_id = pg_get_i64(answer->result, (int) i, 0),
            .took = (uint64_t) pg_get_i64(answer->result, (int) i, 1),
        };
    /* One that is cut or refused is no worse than none at all: claims say what is wrong. */
    (void) queue_session_gave_up_for_lock(w->session, answer);
    if (w->masses->doubted)
        masses_judged(w->masses, answer->r == 0 ? found[0].took : now - w->sent_at, now);
    else
        masses_weighed(w->masses, count, found, now - w->sent_at, now);
    w->done(w->userdata);
}

bool weighing_run(struct weighing *w)
{
    struct masses *m = w->masses;
    const struct store_place *places = NULL;
    const int64_t *only = m->doubted ? &m->all[m->turn].integration_id : NULL;

    if (!m->wanted && !only)
        return false;
    size_t count = only ? 0 : integrations_near_places(deliveries_integrations(w->deliveries), &places);
    store_weigh_args(queue_session_args(w->session), only ? MASS_USEC / 2 : MASS_USEC, only, count, places);
    w->sent_at = now_monotonic_usec();
    return queue_session_ask(w->session, &sql_claim_weigh, on_weighed, w) == 0;
}
