/* What Kafka let go unread. See unread.h. */
#include "monitor/unread.h"

#include <inttypes.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"
#include "sql/statements.h"

#define LOOK_USEC (5 * USEC_PER_SEC)
/* A tenth of a second or so. */
#define EVENTS 50000

void unread_end(struct unread *u)
{
    free(u->topic);
    free(u->groups);
    free(u->partitions);
    free(u->words);
    *u = (struct unread){.going = u->going, .resting = u->resting, .unable = u->unable};
}

/* Is the relay still at what was found before, or may groups be? What they have not handled would be
 * published once more. */
static int set_going(struct unread *u, struct pg *pg, struct error *err)
{
    bool busy, rested = u->resting;
    int r = pg_query_bool(pg, &sql_unread_busy, NULL, &busy, err);

    if (r == PG_DONE)
        u->resting = busy;
    u->going = r == PG_DONE && !busy && !rested;
    return r;
}

/* Takes the next topic. */
static int begin(struct unread *u, struct pg *pg, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    int r = u->going ? PG_DONE : set_going(u, pg, err);

    if (r == PG_DONE && u->going)
        r = pg_query(pg, &sql_unread_ready, NULL, &result, err);
    if (r != PG_DONE || pg_rows(result) == 0) {
        u->going = false;
        return r;
    }
    struct pg_row row = {.result = result};
    u->topic = xstrdup(pg_next_text(&row));
    u->groups = xstrdup(pg_next_text(&row));
    u->partitions = xstrdup(pg_next_text(&row));
    u->words = xstrdup(pg_next_text(&row));
    u->below = pg_next_i64(&row);
    return PG_DONE;
}

static int look(struct unread *u, struct pg *pg, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_text(&args, u->topic);
    pg_arg_text(&args, u->groups);
    pg_arg_text(&args, u->partitions);
    pg_arg_i64(&args, u->at);
    pg_arg_i64(&args, u->below);
    pg_arg_i64(&args, EVENTS);
    int r = pg_query(pg, &sql_unread_publish, &args, &result, err);
    if (r != PG_DONE)
        return r;
    struct pg_row row = {.result = result};
    u->at = pg_next_i64(&row);
    int64_t found = pg_next_i64(&row), first = pg_next_i64(&row), last = pg_next_i64(&row);
    if (found > 0) {
        u->first = u->found ? u->first : first;
        u->last = last;
        u->found += found;
        u->resting = true;
    }
    return PG_DONE;
}

static int finish(struct unread *u, struct pg *pg, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, u->topic);
    pg_arg_text(&args, u->groups);
    pg_arg_text(&args, u->partitions);
    pg_arg_i64(&args, u->below);
    int r = pg_query(pg, &sql_unread_done, &args, NULL, err);
    if (r == PG_DONE && u->found > 0)
        log_about(
            LOG_WARNING, MSG_CONSUMER_GAP, &(const struct log_about){.kafka_topic = u->topic},
            "%" PRId64 " event%s of \"%s\", with ledger ids from %" PRId64 " to %" PRId64
            ", had left Kafka before they were read (%s): published again from the ledger, and counted then",
            u->found, plural(u->found), u->topic, u->first, u->last, u->words);
    return r;
}

/* Says once why it cannot be told. */
static uint64_t wait_longer(struct unread *u, struct pg *pg, const struct error *err)
{
    if (pg_usable(pg) && trouble_begins(&u->unable))
        log_warning("could not look for events that left Kafka before they were read: %s; trying again",
                    err->text);
    unread_end(u);
    return LOOK_USEC;
}

uint64_t unread_run(struct unread *u, struct pg *pg)
{
    struct error err;
    int r = u->topic ? PG_DONE : begin(u, pg, &err);

    if (r == PG_DONE && !u->topic)
        return LOOK_USEC;
    if (r == PG_DONE)
        r = look(u, pg, &err);
    if (r == PG_DONE && u->at < u->below)
        return 0;
    if (r == PG_DONE)
        r = finish(u, pg, &err);
    if (r != PG_DONE)
        return wait_longer(u, pg, &err);
    (void) trouble_ends(&u->unable);
    unread_end(u);
    return 0;
}
