/* What filters say to a payload. See filters.h. */
#include "ctl/filters.h"

#include <inttypes.h>

#include "sql/statements.h"

/* Sentences of filters that an explanation holds. */
#define EXPLAINED_MAX 12

struct filter {
    int64_t id;
    const char *name;
    int64_t integration_id;
    const char *integration;
    bool enabled;
    int64_t position;
    const char *origin; /* NULL = any */
    const char *criteria;
    enum filter_verdict verdict;
    const char *path, *want; /* the criterion that is missed */
    bool is_other;           /* the payload has another value there; false = none */
};

static struct filter read_filter(const struct pg_result *filters, int number)
{
    struct pg_row row = {filters, number, 0};
    struct filter f = {.id = pg_next_i64(&row)};

    f.name = pg_next_text(&row);
    f.integration_id = pg_next_i64(&row);
    f.integration = pg_next_text(&row);
    f.enabled = pg_next_bool(&row);
    f.position = pg_next_i64(&row);
    bool any = pg_next_is_null(&row);
    const char *origin = pg_next_text(&row);
    f.origin = any ? NULL : origin;
    f.criteria = pg_next_text(&row);
    f.verdict = (enum filter_verdict) pg_next_i64(&row);
    f.path = pg_next_text(&row);
    f.want = pg_next_text(&row);
    f.is_other = pg_next_bool(&row);
    return f;
}

int filters_judge(struct pg *pg, const char *payload, const char *origin, struct pg_result **ret,
                  struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, payload);
    pg_arg_text(&args, origin);
    return pg_query(pg, &sql_filters_judge, &args, ret, err);
}

int filters_deciding(const struct pg_result *filters)
{
    for (int i = 0; i < pg_rows(filters); i++)
        if (read_filter(filters, i).verdict == FILTER_TAKES)
            return i;
    return -1;
}

/* The caller frees. */
static char *reason(const struct filter *f)
{
    switch (f->verdict) {
    case FILTER_TAKES:
        return xstrdup("it takes it");
    case FILTER_DISABLED:
        return xstrdup("it is disabled");
    case FILTER_NO_CRITERIA:
        return xstrdup("it has no criteria (NULL); {} would take every payload");
    case FILTER_ORIGIN:
        return xasprintf("it takes the origin \"%s\" only", f->origin);
    case FILTER_NO_INTEGRATION:
        return xasprintf("its integration %" PRId64 " does not exist", f->integration_id);
    case FILTER_CRITERIA:
        break;
    }
    if (!*f->path)
        return xstrdup("the payload is no JSON object");
    return xasprintf("it wants \"%s\" to be %s, and the payload has %s", f->path, f->want,
                     f->is_other ? "something else there" : "no such key");
}

void filters_explain(const struct pg_result *filters, struct sentences *ret)
{
    int count = pg_rows(filters);

    if (count == 0)
        sentences_add(ret, "there are no filters (integration_filters)");
    for (int i = 0; i < count && i < EXPLAINED_MAX; i++) {
        struct filter f = read_filter(filters, i);
        CLEANUP(freep) char *why = reason(&f);
        sentences_add(ret, "filter %" PRId64 "%s%s%s: %s", f.id, *f.name ? " \"" : "", f.name,
                      *f.name ? "\"" : "",
                      f.verdict == FILTER_TAKES ? "it takes it: a daemon will route it within seconds" : why);
    }
    if (count > EXPLAINED_MAX)
        sentences_add(ret, "and %d more filters: see \"anubisctl filters test\"", count - EXPLAINED_MAX);
}

void filters_show(const struct pg_result *filters, struct sheet *sheet)
{
    static const struct table_column columns[] = {
        {"id", "ID", true},
        {"name", "NAME", false},
        {"integration_id", NULL, true},
        {"integration_name", "INTEGRATION", false},
        {"position", "POSITION", true},
        {"enabled", NULL, false},
        {"origin", NULL, false},
        {"criteria", NULL, false},
        {"takes", NULL, false},
        {"reason", "WHAT IT SAYS", false},
    };
    struct table *t = sheet_table(sheet, "filters", "Filters", "none", columns, ARRAY_SIZE(columns));
    int deciding = filters_deciding(filters);

    table_make_elastic(t, "name");
    for (int i = 0; i < pg_rows(filters); i++) {
        struct filter f = read_filter(filters, i);
        bool later = f.verdict == FILTER_TAKES && i != deciding;
        CLEANUP(freep) char *why = later ? xstrdup("it would take it, but comes later") : reason(&f);
        table_add(t, value_i64(f.id));
        table_add(t, value_text_or_null(f.name));
        table_add(t, value_i64(f.integration_id));
        table_add(t, value_text_or_null(f.integration));
        table_add(t, value_i64(f.position));
        table_add(t, value_bool(f.enabled));
        table_add(t, value_text(f.origin));
        table_add(t, value_text_or_null(f.criteria));
        table_add(t, value_bool(i == deciding));
        table_add(t, value_text(why));
    }
}
