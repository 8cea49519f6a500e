/* Alerts in the journal. See alerts_internal.h. It takes them at once; should the database not learn that,
 * they are said again. */
#include <inttypes.h>
#include <string.h>

#include "alerts/alerts_internal.h"
#include "base/log.h"
#include "base/message_ids.h"

#define NOTICES_MAX 100

/* One that was deleted long ago has no name any more. */
static char *where_words(const struct alert_notice *n)
{
    if (!n->integration_id)
        return xstrdup("");
    if (!*n->name)
        return xasprintf(", integration %" PRId64, n->integration_id);
    return xasprintf(", integration %" PRId64 " \"%s\"", n->integration_id, n->name);
}

static void say(const struct alert_notice *n)
{
    struct log_about about = {.integration_id = n->integration_id,
                              .integration_name = *n->name ? n->name : NULL};
    bool resolved = strcmp(n->event, "resolved") == 0;
    bool repeated = strcmp(n->event, "repeated") == 0;
    CLEANUP(freep) char *where = where_words(n);

    if (resolved)
        log_about(LOG_NOTICE, MSG_ALERT_RESOLVED, &about, "alert %" PRId64 " is over: %s%s", n->alert_id,
                  n->kind, where);
    else
        log_about(LOG_ALERT, MSG_ALERT, &about, "alert %" PRId64 "%s: %s%s: %s", n->alert_id,
                  repeated ? " goes on" : "", n->kind, where, n->message);
}

int alert_journal_turn(struct alerts *a, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    CLEANUP(freep) struct alert_notice *notices = NULL;
    int64_t ids[NOTICES_MAX];
    size_t count = 0;
    int r = alerts_outbox_read(a->pg, "journal", NOTICES_MAX, &result, &notices, &count, err);

    if (r != PG_DONE || count == 0)
        return r;
    for (size_t i = 0; i < count; i++) {
        say(&notices[i]);
        ids[i] = notices[i].id;
    }
    return alerts_outbox_sent(a->pg, ids, count, err);
}
