/* What keeps claims from seeing what is due, said. See sight.h. */
#include "delivery/sight.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"
#include "pg/pg_session.h"

#define PATIENCE_USEC (10 * USEC_PER_SEC)

void sight_free(struct sight *s)
{
    free(TAKE_PTR(s->words));
}

void sight_wanted(struct sight *s, uint64_t now)
{
    if (s->wanted_since == 0)
        s->wanted_since = now;
}

void sight_had(struct sight *s)
{
    s->wanted_since = 0;
}

static double seconds(uint64_t usec)
{
    return (double) usec / (double) USEC_PER_SEC;
}

/* Why there is no look. */
static char *cause(const struct queue_session *session, const struct looks *looks, uint64_t now)
{
    uint64_t since;
    const char *statement = queue_session_busy_with(session, &since);

    if (statement)
        return xasprintf("the statement \"%s\" has been under way for %.0f s (pg_stat_activity, "
                         "application_name '" PG_SESSION_CLAIM "', tells what it waits for)",
                         statement, seconds(now - since));
    if (looks->everywhere.again_at > now)
        return xasprintf("the last look took %.1f s, and the next one follows in %.0f s (anubisctl status "
                         "names old snapshots; then VACUUM subscriptions)",
                         seconds(looks->everywhere.took), seconds(looks->everywhere.again_at - now));
    return xstrdup("other statements of the daemon had the session");
}

static char *check_blind(struct sight *s, const struct queue_session *session, const struct looks *looks,
                         uint64_t now)
{
    uint64_t since = s->blind.since;

    if (!queue_session_up(session))
        sight_had(s); /* that is said */
    if (s->wanted_since == 0 || now - s->wanted_since < PATIENCE_USEC) {
        if (trouble_ends(&s->blind))
            log_line(LOG_NOTICE, MSG_CLAIMS_BLIND, "due subscriptions are looked for again, after %.0f s",
                     seconds(now - since));
        return NULL;
    }
    char *why = cause(session, looks, now);
    if (trouble_lasts(&s->blind, s->wanted_since, now, PATIENCE_USEC))
        log_line(LOG_WARNING, MSG_CLAIMS_BLIND,
                 "nobody has looked for due subscriptions for %.0f s, and they wait: %s",
                 seconds(now - s->wanted_since), why);
    return why;
}

static char *check_apart(struct sight *s, const struct masses *masses, uint64_t now)
{
    uint64_t since = s->apart.since;
    const struct mass *slowest = &masses->all[0];

    if (masses->count == 0) {
        if (trouble_ends(&s->apart))
            log_line(LOG_NOTICE, MSG_CLAIMS_BLIND,
                     "all integrations are looked at together again, after %.0f s", seconds(now - since));
        return NULL;
    }
    for (size_t i = 1; i < masses->count; i++)
        if (masses->all[i].took > slowest->took)
            slowest = &masses->all[i];
    char *words = xasprintf("integration %" PRId64 " is looked at only now and then: that takes %.1f s, for "
                            "subscriptions nobody may see yet or any more",
                            slowest->integration_id, seconds(slowest->took));
    if (trouble_lasts(&s->apart, now, now, PATIENCE_USEC))
        log_line(
            LOG_WARNING, MSG_CLAIMS_BLIND,
            "%s (a large transaction that is open, or an old snapshot: anubisctl status, pg_stat_activity); "
            "%zu integration%s in all, others do not wait for them",
            words, masses->count, plural((int64_t) masses->count));
    return words;
}

void sight_check(struct sight *s, const struct queue_session *session, const struct looks *looks,
                 const struct masses *masses, uint64_t now)
{
    char *apart = check_apart(s, masses, now), *blind = check_blind(s, session, looks, now);

    free(s->words);
    s->words = blind ? xasprintf("DUE SUBSCRIPTIONS ARE NOT LOOKED FOR: %s", blind) : TAKE_PTR(apart);
    free(apart);
    free(blind);
}
