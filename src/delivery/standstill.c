/* Statements that the database refuses. See standstill.h. */
#include "delivery/standstill.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"

/* What helps, as the end of a line. */
static const struct help {
    const char *sqlstate;
    const char *words;
} helps[] = {
    {"53100", ": free space on the database server's disk"},
    {"53200", ": the database server lacks memory"},
    {"53300", ": the database server has no more connections (max_connections)"},
    {"57014",
     ": database.statement_timeout has cut it, or somebody has; pg_stat_activity shows what the server is busy "
     "with"},
    {"42501", NULL}, /* with the schema */
};

void standstill_free(struct standstill *s)
{
    for (size_t i = 0; i < STANDSTILL_WORKS; i++)
        free(TAKE_PTR(s->words[i]));
}

static char *help_words(const struct standstill *s, const char *sqlstate)
{
    for (size_t i = 0; i < ARRAY_SIZE(helps); i++) {
        if (strcmp(helps[i].sqlstate, sqlstate) != 0)
            continue;
        if (helps[i].words)
            return xstrdup(helps[i].words);
        return xasprintf(": let the role that migrated call %s.anubisd_grant('ROLE') with the daemon's role",
                         s->schema);
    }
    return xstrdup("");
}

static bool is_news(struct standstill *s, const char *sqlstate)
{
    for (size_t i = 0; i < STANDSTILL_CAUSES; i++) {
        if (strcmp(s->causes[i], sqlstate) == 0)
            return false;
        if (*s->causes[i])
            continue;
        snprintf(s->causes[i], sizeof(s->causes[i]), "%s", sqlstate);
        return true;
    }
    return false;
}

void standstill_kept(struct standstill *s, enum standstill_work work, const char *words)
{
    free(s->words[work]);
    s->words[work] = xstrdup(words);
}

void standstill_refused(struct standstill *s, enum standstill_work work, const char *what,
                        const char *sqlstate, const struct error *err)
{
    /* A deadlock or a conflict passes by itself: the second one in a row is worth a word. */
    bool passes = strncmp(sqlstate, "40", 2) == 0 && !s->words[work];
    CLEANUP(freep) char *words = xasprintf("could not %s: %s", what, err->text);

    standstill_kept(s, work, words);
    if (passes)
        return;
    if (s->trouble.since == 0)
        (void) trouble_lasts(&s->trouble, now_monotonic_usec(), now_monotonic_usec(), 0);
    if (!is_news(s, sqlstate))
        return;
    CLEANUP(freep) char *help = help_words(s, sqlstate);
    log_about(
        LOG_ERR, MSG_DATABASE_REFUSES, &(struct log_about){.error = sqlstate},
        "the database refuses deliveries, could not %s: %s (SQLSTATE %s); trying again until it works%s",
        what, err->text, sqlstate, help);
}

void standstill_over(struct standstill *s, enum standstill_work work)
{
    uint64_t since = s->trouble.since;

    if (!s->words[work])
        return;
    free(TAKE_PTR(s->words[work]));
    if (standstill_words(s) || !trouble_ends(&s->trouble))
        return;
    memset(s->causes, 0, sizeof(s->causes));
    log_line(LOG_NOTICE, MSG_DATABASE_REFUSES,
             "the database takes deliveries again, which it refused for %" PRIu64 " s",
             (now_monotonic_usec() - since) / USEC_PER_SEC);
}

const char *standstill_words(const struct standstill *s)
{
    for (size_t i = 0; i < STANDSTILL_WORKS; i++)
        if (s->words[i])
            return s->words[i];
    return NULL;
}
