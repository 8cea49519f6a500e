/* anubisctl filters test: which filter would take a payload, and why not the others. Changes nothing. */
#include <string.h>
#include <sysexits.h>

#include "base/json.h"
#include "ctl/ctl.h"
#include "ctl/filters.h"

#define PAYLOAD_MAX (16 * 1024 * 1024)

static int read_payload(const char *path, struct strbuf *ret)
{
    int code = ctl_read_file(path, PAYLOAD_MAX, ret);

    if (!code && !json_is_valid(strbuf_str(ret), ret->len, JSON_MAX_DEPTH)) {
        ctl_say("%s holds no JSON value in UTF-8", strcmp(path, "-") == 0 ? "the standard input" : path);
        return EX_DATAERR;
    }
    return code;
}

static void fill(struct sheet *sheet, const struct pg_result *filters)
{
    int row = filters_deciding(filters);

    if (row < 0) {
        sheet_add(sheet, "filter_id", NULL, value_null());
        sheet_add(sheet, "integration_id", NULL, value_null());
        sheet_say(sheet, NULL, "No filter takes it: it would wait unrouted.");
    } else {
        sheet_add(sheet, "filter_id", "filter", value_i64(pg_get_i64(filters, row, 0)));
        sheet_add(sheet, "integration_id", "integration", value_i64(pg_get_i64(filters, row, 2)));
    }
    sheet_empty_line(sheet);
    filters_show(filters, sheet);
}

static int work(struct ctl *c, const char *payload)
{
    CLEANUP(pg_result_freep) struct pg_result *filters = NULL;
    struct pg_params params = ctl_session(c, "anubisctl filters");
    struct pg *pg = NULL;
    struct error err;

    int code = ctl_connect(c, &params, &pg);
    if (code)
        return code;
    int r = filters_judge(pg, payload, c->sample.origin, &filters, &err);
    pg_close(pg);
    if (r != PG_DONE)
        return ctl_refused(r, "read the filters", &err);
    struct sheet *sheet;
    sheet_new(&sheet);
    fill(sheet, filters);
    code = ctl_show(c, sheet, filters_deciding(filters) < 0 ? CTL_DIFFERENT : 0);
    sheet_free(sheet);
    return code;
}

int ctl_filters(struct ctl *c)
{
    CLEANUP(strbuf_free) struct strbuf payload = {.max = PAYLOAD_MAX * 2UL};

    if (strcmp(c->args[0], "test") != 0) {
        ctl_say("filters can be tested: \"filters test\", not \"filters %s\"", c->args[0]);
        return EX_USAGE;
    }
    if (!c->sample.payload) {
        ctl_say("filters test needs --payload FILE, or - for the standard input");
        return EX_USAGE;
    }
    int code = read_payload(c->sample.payload, &payload);
    return code ? code : work(c, strbuf_str(&payload));
}
