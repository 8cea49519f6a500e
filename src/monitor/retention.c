/* Retention. See retention.h. */
#include "monitor/retention.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "base/strbuf.h"
#include "base/timeutil.h"
#include "sql/statements.h"

#define LOOK_USEC (60 * 60 * USEC_PER_SEC)
/* Whether another daemon that did it is gone. */
#define LEAD_USEC (60 * USEC_PER_SEC)
/* A quarter of a second or so. */
#define IDS 262144
#define LETTERS 1000
/* Without the ledger's lock at once: writers shall not queue behind us too often. */
#define BACKOFF_LOCKED ((struct backoff){.base_usec = USEC_PER_SEC, .max_usec = 10 * 60 * USEC_PER_SEC})

void retention_free(struct retention *r)
{
    free(r->waits);
}

static int64_t seconds(uint64_t usec)
{
    return (int64_t) (usec / USEC_PER_SEC);
}

/* Once for each partition and reason. */
static void say_waits(struct retention *r, const char *part, const char *why)
{
    CLEANUP(freep) char *words = xasprintf("%s %s", part, why);

    if (r->waits && strcmp(r->waits, words) == 0)
        return;
    free(r->waits);
    r->waits = TAKE_PTR(words);
    log_line(LOG_NOTICE, MSG_RETENTION_WAITS,
             "%s is older than retention.events, but stays in the ledger: %s", part, why);
}

static void say_dropped(struct pg_row *row, const char *part)
{
    CLEANUP(strbuf_free) struct strbuf words = STRBUF_INIT(512);
    int64_t events = pg_next_i64(row), first_at = pg_next_time(row), last_at = pg_next_time(row);

    strbuf_addf(&words, "%s has left the ledger, older than retention.events", part);
    if (events > 0) {
        strbuf_addf(&words, ": %" PRId64 " event%s from ", events, plural(events));
        strbuf_add_timestamp_sec(&words, first_at);
        strbuf_adds(&words, " to ");
        strbuf_add_timestamp_sec(&words, last_at);
    }
    log_line(LOG_INFO, MSG_RETENTION, "%s", strbuf_str(&words));
}

/* A lock of another session usually goes by. */
static uint64_t say_unable(struct retention *r, struct pg *pg, const struct error *err)
{
    bool is_locked = pg_usable(pg) && strcmp(pg_error_sqlstate(pg), "55P03") == 0;

    if (pg_usable(pg) && !is_locked && trouble_begins(&r->unable))
        log_warning("could not take the oldest partition from the ledger: %s; trying again each hour",
                    err->text);
    if (!is_locked)
        return LOOK_USEC;
    if (r->backoff.base_usec == 0)
        r->backoff = BACKOFF_LOCKED;
    return backoff_next_usec(&r->backoff);
}

static void add_models(struct pg_args *args, const struct config *config)
{
    const char *models[3];
    size_t count = 0;

    if (config->consumers.integration)
        models[count++] = CONFIG_INTEGRATION_MODEL;
    if (config->consumers.monitoring)
        models[count++] = "monitoring";
    if (config->consumers.external)
        models[count++] = "external";
    pg_arg_texts(args, models, sizeof(*models), count);
}

static uint64_t look_at_ledger(struct retention *r, struct pg *pg, const struct config *config)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    struct error err;

    pg_arg_i64(&args, seconds(config->retention.events_usec));
    add_models(&args, config);
    pg_arg_i64(&args, r->checked);
    pg_arg_i64(&args, IDS);
    if (pg_query(pg, &sql_retention_ledger, &args, &result, &err) != PG_DONE)
        return say_unable(r, pg, &err);
    if (trouble_ends(&r->unable))
        log_notice("partitions can be taken from the ledger again");
    r->checked = 0;
    r->backoff.last_usec = 0;
    struct pg_row row = {.result = result};
    if (pg_next_is_null(&row))
        return LOOK_USEC;
    const char *part = pg_next_text(&row);
    bool goes_on = !pg_next_is_null(&row);
    int64_t checked = pg_next_i64(&row);
    bool stays = !pg_next_is_null(&row);
    const char *why = pg_next_text(&row);
    if (stays)
        say_waits(r, part, why);
    else if (!goes_on)
        say_dropped(&row, part);
    r->checked = checked;
    return stays ? LOOK_USEC : 0;
}

static void look_at_letters(struct retention *r, struct pg *pg, const struct config *config)
{
    int64_t gone, emptied, open;

    do {
        CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
        CLEANUP(pg_result_freep) struct pg_result *result = NULL;
        struct error err;

        pg_arg_i64(&args, seconds(config->retention.dead_letters_usec));
        pg_arg_i64(&args, LETTERS);
        if (pg_query(pg, &sql_retention_letters, &args, &result, &err) != PG_DONE) {
            if (pg_usable(pg) && trouble_begins(&r->unable_there))
                log_warning("could not let dead letters go: %s; trying again each hour", err.text);
            return;
        }
        (void) trouble_ends(&r->unable_there);
        struct pg_row row = {.result = result};
        gone = pg_next_i64(&row);
        emptied = pg_next_i64(&row);
        open = pg_next_i64(&row);
        if (gone + emptied > 0)
            log_line(open ? LOG_WARNING : LOG_INFO, MSG_RETENTION,
                     "%" PRId64 " dead letter%s older than retention.dead_letters: %" PRId64 " gone, %" PRId64
                     " emptied, because their events are in the ledger, uncounted; nobody had "
                     "replayed or discarded %" PRId64 " of them",
                     gone + emptied, plural(gone + emptied), gone, emptied, open);
    } while (gone + emptied == LETTERS);
}

uint64_t retention_run(struct retention *r, struct pg *pg, const struct config *config)
{
    if (!r->leads && pg_query_bool(pg, &sql_retention_lead, NULL, &r->leads, NULL) != PG_DONE)
        return LEAD_USEC;
    if (!r->leads)
        return LEAD_USEC;
    if (r->checked == 0)
        look_at_letters(r, pg, config);
    return pg_usable(pg) ? look_at_ledger(r, pg, config) : LEAD_USEC;
}
