/* Compares clocks. See clocks.h. */
#include "monitor/clocks.h"

#include <inttypes.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"
#include "sql/statements.h"

/* Machines whose clocks are kept are some milliseconds apart. */
#define FAR_USEC (60 * (int64_t) USEC_PER_SEC)
#define NEAR_USEC (30 * (int64_t) USEC_PER_SEC)
#define LOOK_USEC (30 * USEC_PER_SEC)

struct times {
    int64_t here, there; /* microseconds since 1970 */
    int64_t ahead; /* what ours is ahead of the server's, as far as the question's way does not explain it */
};

static bool compare(struct pg *pg, struct times *ret)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    int64_t before = now_realtime_usec();

    if (pg_query(pg, &sql_server_clock, NULL, &result, NULL) != PG_DONE)
        return false;
    int64_t after = now_realtime_usec();
    struct pg_row row = {.result = result};
    int64_t there = pg_next_time(&row);
    *ret = (struct times){.here = after, .there = there};
    if (there < before)
        ret->ahead = before - there;
    else if (there > after)
        ret->ahead = after - there;
    return true;
}

static void say(const struct times *t)
{
    CLEANUP(strbuf_free) struct strbuf far = STRBUF_INIT(64), here = STRBUF_INIT(64), there = STRBUF_INIT(64);

    strbuf_add_duration_human(&far, (uint64_t) imaxabs(t->ahead));
    strbuf_add_timestamp_sec(&here, t->here);
    strbuf_add_timestamp_sec(&there, t->there);
    log_line(
        LOG_WARNING, MSG_CLOCKS_DIFFER,
        "this machine's clock is %s %s the database server's: %s here, %s there; set the one that is wrong, "
        "and have both kept by a time server (timedatectl)",
        strbuf_str(&far), t->ahead < 0 ? "behind" : "ahead of", strbuf_str(&here), strbuf_str(&there));
}

static void name_session(struct pg *pg, const char *name)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, name);
    (void) pg_query(pg, &sql_session_name, &args, NULL, NULL);
}

uint64_t clocks_run(struct clocks *c, struct pg *pg, const char *instance)
{
    CLEANUP(freep) char *name = NULL;
    struct times t;

    if (!compare(pg, &t))
        return LOOK_USEC;
    if (imaxabs(t.ahead) >= FAR_USEC) {
        if (trouble_begins(&c->differ))
            say(&t);
    } else if (imaxabs(t.ahead) < NEAR_USEC && trouble_ends(&c->differ)) {
        log_line(LOG_NOTICE, MSG_CLOCKS_DIFFER,
                 "the clocks of this machine and of the database server agree again");
        name_session(pg, "anubisd monitor");
    }
    if (c->differ.said) {
        name = xasprintf("anubisd monitor (clock %+" PRId64 " s: %s)", t.ahead / (int64_t) USEC_PER_SEC,
                         instance);
        name_session(pg, name);
    }
    return LOOK_USEC;
}
