/* anubisctl replay: rebuilds what a consumer group has counted. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sysexits.h>

#include "ctl/ctl.h"
#include "kafka/kafka_times.h"
#include "sql/statements.h"

#define ASK_MS 15000

struct replay {
    struct ctl *ctl;
    struct pg *pg;
    int64_t partitions, leaves, marks;          /* set back; that are gone, and come again; made for leaves */
    int64_t integrations, stats, confirmations; /* corrected */
    struct pg_result *places;                   /* topics and partitions to be read from a time on */
    struct kafka_partition *from;               /* the same, with the offsets of that time */
    struct error err;
};

static int one(struct replay *r, const struct pg_statement *statement, int64_t *ret)
{
    return pg_query_i64(r->pg, statement, NULL, ret, &r->err);
}

/* The counters would come to less than was counted. */
static int refuse_lost(struct replay *r)
{
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    int res = pg_query(r->pg, &sql_replay_lost, NULL, &rows, &r->err);
    struct pg_row row = {.result = rows};
    if (res != PG_DONE || pg_next_is_null(&row))
        return res;
    int64_t first = pg_next_i64(&row), last = pg_next_i64(&row);
    error_set(&r->err,
              "the ledger has no partition any more for ids from %" PRId64 " to %" PRId64
              ", whose events were counted: it was dropped by hand, and what they counted would be lost; "
              "bring it back from a dump and run \"anubisctl migrate\"",
              first, last);
    return -ENODATA;
}

/* Asked before anything is locked. */
static int find_from(struct replay *r)
{
    CLEANUP(config_unrefp) struct config *config = NULL;
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(freep) char *from = NULL;

    int code = ctl_read_time(r->ctl->stats.from, "--from", &from);
    if (!code)
        code = ctl_check_order(r->pg, "--from", from, "now", NULL);
    if (code)
        return code;
    pg_arg_text(&args, from);
    pg_arg_text(&args, r->ctl->stats.group);
    int res = pg_query(r->pg, &sql_replay_places, &args, &r->places, &r->err);
    if (res != PG_DONE)
        return ctl_refused(res, "find what the group reads", &r->err);
    size_t count = (size_t) pg_rows(r->places);
    r->from = xcalloc(count + 1, sizeof(*r->from));
    for (size_t i = 0; i < count; i++)
        r->from[i] = (struct kafka_partition){.topic = pg_get_text(r->places, (int) i, 0),
                                              .partition = (int32_t) pg_get_i64(r->places, (int) i, 1)};
    if (count == 0)
        return 0;
    if (ctl_load_kafka(r->ctl, &config, &r->err) == 0 &&
        kafka_times_ask(config, pg_get_i64(r->places, 0, 2), r->from, count, ASK_MS, &r->err) == 0)
        return 0;
    ctl_say("could not ask Kafka where the messages of that time begin: %s", r->err.text);
    return EX_UNAVAILABLE;
}

/* Of the places: where each is read again, at the latest. */
static void add_from(const struct replay *r, struct pg_args *args)
{
    size_t count = r->places ? (size_t) pg_rows(r->places) : 0;
    const struct kafka_partition none = {0}, *first = count > 0 ? r->from : &none;

    pg_arg_texts(args, &first->topic, sizeof(*first), count);
    pg_arg_i32s(args, &first->partition, sizeof(*first), count);
    pg_arg_i64s(args, &first->offset, sizeof(*first), count);
}

/* A group that had stopped since marks were lost. */
static int go_on(struct replay *r, bool *ret_had_stopped)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, r->ctl->stats.group);
    return pg_query_bool(r->pg, &sql_replay_goes_on, &args, ret_had_stopped, &r->err);
}

/* From the topics: the daemons find the offsets changed, and start over from them. */
static int read_again(struct replay *r)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    bool logs = strcmp(r->ctl->stats.group, "monitoring") == 0;
    bool had_stopped;
    int res = logs ? one(r, &sql_replay_unmark, &r->leaves) : PG_DONE;

    if (logs && res == PG_DONE)
        res = one(r, &sql_replay_mark, &r->marks);
    if (logs && res == PG_DONE)
        res = go_on(r, &had_stopped);
    pg_arg_text(&args, r->ctl->stats.group);
    add_from(r, &args);
    return res == PG_DONE ? pg_query_i64(r->pg, &sql_replay_again, &args, &r->partitions, &r->err) : res;
}

/* Marks were lost, and counters are as the marks are now: what is not marked is to be counted again. */
static int count_unmarked(struct replay *r)
{
    bool had_stopped;
    int res = go_on(r, &had_stopped);

    return res == PG_DONE && had_stopped ? read_again(r) : res;
}

/* From the ledger: the daemons go on meanwhile, see replay_stats.sql. */
static int correct(struct replay *r)
{
    if (strcmp(r->ctl->stats.group, "external") == 0)
        return one(r, &sql_replay_confirmations, &r->confirmations);
    int res = refuse_lost(r);

    if (res == PG_DONE)
        res = one(r, &sql_replay_counters, &r->integrations);
    if (res == PG_DONE)
        res = one(r, &sql_replay_stats, &r->stats);
    return res == PG_DONE ? count_unmarked(r) : res;
}

static int rebuild(struct replay *r)
{
    const struct ctl *c = r->ctl;
    int res = pg_execute(r->pg,
                         "begin; set local work_mem = '256MB'; do $$ begin "
                         "lock table subscription_events in access share mode; "
                         "exception when undefined_table then null; end $$",
                         &r->err);

    if (res == PG_DONE)
        res = pg_query(r->pg, &sql_replay_lock, NULL, NULL, &r->err);
    if (res == PG_DONE)
        res = ctl_check_tables(r->pg, &r->err);
    if (res == PG_DONE)
        res = c->stats.from_ledger ? correct(r) : read_again(r);
    if (res == PG_DONE)
        res = pg_execute(r->pg, c->dry_run ? "rollback" : "commit", &r->err);
    return res;
}

static int show(const struct replay *r)
{
    struct sheet *sheet;

    sheet_new(&sheet);
    if (r->ctl->stats.from_ledger && strcmp(r->ctl->stats.group, "external") == 0) {
        sheet_add(sheet, "confirmations", "subscriptions whose confirmation was expected otherwise",
                  value_i64(r->confirmations));
    } else if (r->ctl->stats.from_ledger) {
        sheet_add(sheet, "integrations", "integrations whose counts differed", value_i64(r->integrations));
        sheet_add(sheet, "stats", "rows of integration_stats that differed", value_i64(r->stats));
    }
    if (!r->ctl->stats.from_ledger || r->partitions) {
        sheet_add(sheet, "partitions", "partitions that are read again", value_i64(r->partitions));
        sheet_add(sheet, "leaves", r->leaves ? "leaves that the audit log lacked" : NULL,
                  value_i64(r->leaves));
        sheet_add(sheet, "marks", r->marks ? "events of the audit log that were not marked" : NULL,
                  value_i64(r->marks));
    }
    bool read_nothing = !r->ctl->stats.from_ledger && r->partitions == 0;
    if (read_nothing)
        sheet_say(
            sheet, "",
            "The group has not read anything yet, so there is nothing that it could read again: run the "
            "command once more when a daemon runs the group.");
    if (r->ctl->dry_run)
        sheet_say(sheet, "", "Nothing was changed (--dry-run).");
    int code = ctl_show(r->ctl, sheet, read_nothing ? CTL_DIFFERENT : 0);
    sheet_free(sheet);
    return code;
}

static int check(const struct ctl *c)
{
    if (!c->stats.group || !ctl_is_group(c->stats.group)) {
        ctl_say("replay needs --group integration, monitoring or external");
        return EX_USAGE;
    }
    if (c->stats.from_ledger && c->stats.from) {
        ctl_say("--from is a time in Kafka: it cannot be had with --from-ledger");
        return EX_USAGE;
    }
    if (c->stats.from_ledger && strcmp(c->stats.group, "monitoring") == 0) {
        ctl_say("the group \"%s\" has counted nothing that the ledger could correct", c->stats.group);
        return EX_USAGE;
    }
    return 0;
}

int ctl_replay(struct ctl *c)
{
    struct replay r = {.ctl = c};
    struct pg_params params = ctl_session(c, "anubisctl replay");

    params.writes = true;
    params.statement_timeout_usec = 0;
    int code = check(c);
    if (!code)
        code = ctl_connect(c, &params, &r.pg);
    if (code)
        return code;
    if (c->stats.from)
        code = find_from(&r);
    int res = code ? PG_DONE : rebuild(&r);
    if (!code)
        code = res == PG_DONE ? show(&r) : ctl_refused(res, "rebuild what was counted", &r.err);
    free(r.from);
    pg_result_free(r.places);
    pg_close(r.pg);
    return code;
}
