/* anubisctl dead-letters: messages that no consumer could handle. See dead_letters.sql. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/timeutil.h"
#include "base/utf8.h"
#include "ctl/letters.h"
#include "sql/statements.h"

#define LISTED_MAX 1000

/* --- list ------------------------------------------------------------------------------------- */

static void add_reasons(struct sheet *sheet, const struct pg_result *rows)
{
    static const struct table_column columns[] = {
        {"group", "GROUP", false}, {"count", "COUNT", true}, {"since", "SINCE", false},
        {"last", "LAST", false},   {"reason", "WHY", false},
    };
    struct table *t =
        sheet_table(sheet, "reasons", "Open dead letters", "none", columns, ARRAY_SIZE(columns));

    for (int i = 0; i < pg_rows(rows); i++) {
        struct pg_row row = {rows, i, 0};
        const char *group = pg_next_text(&row), *reason = pg_next_text(&row);
        table_add(t, value_text(group));
        table_add(t, value_i64(pg_next_i64(&row)));
        table_add(t, value_time(pg_next_time(&row)));
        table_add(t, value_time(pg_next_time(&row)));
        table_add(t, value_text(reason));
    }
    table_make_elastic(t, "reason");
}

/* Bytes as a text; what is no text is repaired. */
static struct value value_of_bytes(struct pg_row *row)
{
    CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    struct bytes b = pg_next_blob(row);

    if (!b.p)
        return value_null();
    strbuf_add_utf8(&text, b.p, b.len);
    return value_text(strbuf_str(&text));
}

static void add_letter(struct table *t, struct pg_row row)
{
    table_add(t, value_i64(pg_next_i64(&row)));
    table_add(t, value_text(pg_next_text(&row)));
    table_add(t, value_text(pg_next_text(&row)));
    table_add(t, value_i64(pg_next_i64(&row)));
    table_add(t, value_i64(pg_next_i64(&row)));
    table_add(t, value_of_bytes(&row));
    table_add(t, value_text(pg_next_text(&row)));
    table_add(t, value_time(pg_next_time(&row)));
    table_add(t, value_i64(pg_next_i64(&row)));
    int64_t replayed_at = pg_next_time(&row), discarded_at = pg_next_time(&row);
    table_add(t, value_text(replayed_at != INT64_MIN    ? "handled"
                            : discarded_at != INT64_MIN ? "discarded"
                                                        : "open"));
}

static void add_letters(struct sheet *sheet, const struct pg_result *rows)
{
    static const struct table_column columns[] = {
        {"id", "ID", true},          {"group", "GROUP", false},  {"topic", "TOPIC", false},
        {"partition", "PART", true}, {"offset", "OFFSET", true}, {"key", "KEY", false},
        {"reason", "WHY", false},    {"since", "SINCE", false},  {"replays", "REPLAYS", true},
        {"state", "STATE", false},
    };
    struct table *t =
        sheet_table(sheet, "dead_letters", "Dead letters", "none", columns, ARRAY_SIZE(columns));

    for (int i = 0; i < pg_rows(rows); i++)
        add_letter(t, (struct pg_row){rows, i, 0});
    table_make_elastic(t, "reason");
    if (pg_rows(rows) > 0 && pg_get_i64(rows, 0, 11) > LISTED_MAX)
        sheet_say(sheet, "", "The first %d of %" PRId64 ".", LISTED_MAX, pg_get_i64(rows, 0, 11));
}

static int list(struct ctl *c)
{
    struct pg_params params = ctl_session(c, "anubisctl dead-letters");
    CLEANUP(pg_args_free) struct pg_args group = PG_ARGS_INIT, args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *reasons = NULL, *letters = NULL, *stops = NULL;
    struct pg *pg = NULL;
    struct error err;

    int code = ctl_connect(c, &params, &pg);
    if (code)
        return code;
    pg_arg_text(&group, c->stats.group);
    pg_arg_text(&args, c->stats.group);
    pg_arg_bool(&args, c->choice.all);
    pg_arg_i64(&args, LISTED_MAX);
    int r = pg_query(pg, &sql_letters_reasons, &group, &reasons, &err);
    if (r == PG_DONE)
        r = pg_query(pg, &sql_letters_list, &args, &letters, &err);
    if (r == PG_DONE)
        r = pg_query(pg, &sql_letters_stops, NULL, &stops, &err);
    pg_close(pg);
    if (r != PG_DONE)
        return ctl_refused(r, "read the dead letters", &err);
    struct sheet *sheet;
    sheet_new(&sheet);
    letters_add_stops(sheet, stops);
    add_reasons(sheet, reasons);
    if (pg_rows(letters) > 0 || c->json)
        add_letters(sheet, letters);
    code = ctl_show(c, sheet, 0);
    sheet_free(sheet);
    return code;
}

/* --- show ------------------------------------------------------------------------------------- */

static void add_whole(struct sheet *s, struct pg_row row)
{
    sheet_add(s, "id", "dead letter", value_i64(pg_next_i64(&row)));
    sheet_add(s, "consumer_group", "group", value_text(pg_next_text(&row)));
    sheet_add(s, "topic", "topic", value_text(pg_next_text(&row)));
    sheet_add(s, "partition", "partition", value_i64(pg_next_i64(&row)));
    sheet_add(s, "offset", "offset", value_i64(pg_next_i64(&row)));
    sheet_add(s, "key", "key", value_of_bytes(&row));
    const char *headers = pg_next_text(&row);
    sheet_add(s, "headers", "headers", value_words(value_json(headers), "%s", headers));
    sheet_add(s, "value", "value", value_of_bytes(&row));
    sheet_add(s, "error", "why", value_text(pg_next_text(&row)));
    sheet_add(s, "created_at", "first failed", value_time(pg_next_time(&row)));
    sheet_add(s, "failed_at", "last failed", value_time(pg_next_time(&row)));
    sheet_add(s, "replays", "replays", value_i64(pg_next_i64(&row)));
    sheet_add_known(s, "last_error", "why, the last time", value_text_or_null(pg_next_text(&row)));
    sheet_add_known(s, "replayed_at", "handled", value_time(pg_next_time(&row)));
    sheet_add_known(s, "discarded_at", "discarded", value_time(pg_next_time(&row)));
    sheet_add_known(s, "discard_reason", "because", value_text_or_null(pg_next_text(&row)));
    sheet_add_known(s, "published_at", "published", value_time(pg_next_time(&row)));
    if (pg_next_bool(&row))
        sheet_add(s, "discard_only", "replay", value_words(value_bool(true), "no: it can only be discarded"));
}

static int show(struct ctl *c)
{
    struct pg_params params = ctl_session(c, "anubisctl dead-letters");
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    struct pg *pg = NULL;
    struct error err;
    int64_t id;

    if (c->arg_count != 2) {
        ctl_say("show needs one dead letter's id");
        return EX_USAGE;
    }
    int code = ctl_read_id(c->args[1], "a dead letter's", &id);
    if (!code)
        code = ctl_connect(c, &params, &pg);
    if (code)
        return code;
    pg_arg_i64(&args, id);
    int r = pg_query(pg, &sql_letter_show, &args, &rows, &err);
    pg_close(pg);
    if (r != PG_DONE)
        return ctl_refused(r, "read the dead letter", &err);
    if (pg_rows(rows) == 0) {
        ctl_say("there is no dead letter %" PRId64, id);
        return CTL_DIFFERENT;
    }
    struct sheet *sheet;
    sheet_new(&sheet);
    add_whole(sheet, (struct pg_row){rows, 0, 0});
    code = ctl_show(c, sheet, 0);
    sheet_free(sheet);
    return code;
}

/* --- discard ---------------------------------------------------------------------------------- */

static int give_up(struct ctl *c, struct pg *pg, const int64_t *ids, size_t count)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(freep) char *user = ctl_operator();
    CLEANUP(freep) char *reason = xasprintf("%s (%s)", c->reason, user);
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    struct error err;

    pg_arg_i64s(&args, ids, sizeof(*ids), count);
    pg_arg_text(&args, reason);
    int r = ctl_change(c, pg, &sql_letters_discard, &args, &rows, &err);
    if (r != PG_DONE)
        return ctl_refused(r, "discard dead letters", &err);
    struct sheet *sheet;
    sheet_new(&sheet);
    sheet_add(sheet, "discarded", "discarded", value_i64(pg_get_i64(rows, 0, 0)));
    if (c->dry_run)
        sheet_say(sheet, "", "Nothing was changed (--dry-run).");
    int code = ctl_show(c, sheet, 0);
    sheet_free(sheet);
    return code;
}

static int discard(struct ctl *c)
{
    struct pg_params params = ctl_session(c, "anubisctl dead-letters");
    CLEANUP(freep) int64_t *ids = NULL;
    struct pg *pg = NULL;
    size_t count = 0;

    if (!c->reason || !*c->reason || strlen(c->reason) > CTL_REASON_MAX) {
        ctl_say("discard needs --reason TEXT, of at most %d bytes: who comes after you reads it",
                CTL_REASON_MAX);
        return EX_USAGE;
    }
    params.writes = true;
    int code = ctl_connect(c, &params, &pg);
    if (!code)
        code = letters_choose(c, pg, &ids, &count);
    if (!code)
        code = give_up(c, pg, ids, count);
    pg_close(pg);
    return code;
}

/* --- the command ------------------------------------------------------------------------------ */

/* What an action takes; some of them would do more than was meant without. 0 or EX_USAGE. */
static int check(const struct ctl *c, bool works)
{
    if (c->stats.group && !ctl_is_group(c->stats.group)) {
        ctl_say("--group takes integration, monitoring or external, not \"%s\"", c->stats.group);
        return EX_USAGE;
    }
    if (works && (c->arg_count > 1) == c->choice.all) {
        ctl_say("%s needs the ids of dead letters, or --all", c->args[0]);
        return EX_USAGE;
    }
    return 0;
}

int ctl_dead_letters(struct ctl *c)
{
    static const struct {
        const char *name;
        bool works; /* on those that are chosen */
        int (*run)(struct ctl *c);
    } actions[] = {{"list", false, list},
                   {"show", false, show},
                   {"replay", true, letters_replay},
                   {"discard", true, discard}};
    const char *name = c->arg_count > 0 ? c->args[0] : "list";

    for (size_t i = 0; i < ARRAY_SIZE(actions); i++)
        if (strcmp(actions[i].name, name) == 0) {
            int code = check(c, actions[i].works);
            return code ? code : actions[i].run(c);
        }
    ctl_say("dead-letters takes list, show ID, replay ID ... or discard ID ..., not \"%s\"", name);
    return EX_USAGE;
}
