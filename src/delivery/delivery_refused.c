/* Rows that were refused for their data, until it is known whether they fail. See delivery_internal.h,
 * verdicts.h. */
#include <stdlib.h>
#include <string.h>

#include "base/timeutil.h"
#include "delivery/delivery_internal.h"

static struct store_refusal refusal_of(const struct delivery *d)
{
    uint64_t taken_at = d->integration->burst.taken_at;

    return (struct store_refusal){.integration_id = d->integration->id,
                                  .fingerprint = d->sent_with.fingerprint,
                                  .turn = d->sent_with.turn,
                                  .taken_usec =
                                      taken_at > 0 ? now_monotonic_usec() - taken_at : USEC_INFINITY};
}

void delivery_note_taken(const struct delivery *d)
{
    if (!burst_taken(&d->integration->burst, now_monotonic_usec()))
        return;
    const struct store_refusal taken = refusal_of(d);
    d->all->callbacks.verdict_wanted(&taken, NULL, d->all->userdata);
}

static char *copy(const char *text, size_t len)
{
    char *c = xmalloc(len + 1);

    memcpy(c, text, len);
    c[len] = '\0';
    return c;
}

bool delivery_waits_for_verdict(struct delivery *d, const struct outcome *o, const struct http_result *result)
{
    if (d->sent_with.fingerprint != d->integration->fingerprint ||
        !burst_refused(&d->integration->burst, now_monotonic_usec()))
        return false;
    struct refused *r = xcalloc(1, sizeof(*r));
    r->outcome = *o;
    r->result = *result;
    r->result.body = r->body = copy(result->body, result->body_len);
    r->result.detail = r->detail = xstrdup(result->detail);
    r->result.content_type = NULL;
    d->transfer = NULL;
    d->refused = r;
    const struct store_refusal refusal = refusal_of(d);
    d->all->callbacks.verdict_wanted(&refusal, d, d->all->userdata);
    return true;
}

void delivery_refused_free(struct refused *r)
{
    if (!r)
        return;
    free(r->body);
    free(r->detail);
    free(r);
}

void deliveries_told(struct deliveries *all, const struct store_verdict *verdict, const char *reason)
{
    struct integration *i = integrations_find(all->integrations, verdict->integration_id);

    if (!i)
        return;
    burst_counted(&i->burst, verdict->is_vain);
    if (verdict->paused_turn == 0)
        return;
    burst_paused(&i->burst, verdict->paused_turn, now_monotonic_usec());
    notes_say_paused(i->id, i->name, reason);
}
