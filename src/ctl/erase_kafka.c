/* Messages cannot be taken out of Kafka: they go when their time is over. See erase_kafka.h. */
#include "ctl/erase_kafka.h"

#include <stdlib.h>
#include <string.h>

#include "base/timeutil.h"
#include "kafka/kafka_retention.h"
#include "sql/statements.h"

#define ASK_MS 5000

struct held {
    char **names;
    const char **topics;
    struct kafka_retention *retention;
    size_t count;
};

static void held_free(struct held *h)
{
    for (size_t i = 0; i < h->count; i++)
        free(h->names[i]);
    free(h->names);
    free(h->topics);
    free(h->retention);
}

static int ask(const struct ctl *c, struct held *h, struct error *err)
{
    CLEANUP(config_unrefp) struct config *config = NULL;

    if (ctl_load_kafka(c, &config, err) < 0)
        return -1;
    return kafka_retention_ask(config, h->topics, h->count, ASK_MS, h->retention, err);
}

static void take_topics(const struct ctl *c, const struct pg_result *rows, struct held *h)
{
    h->count = (size_t) pg_rows(rows);
    h->names = xcalloc(h->count, sizeof(*h->names));
    h->topics = xcalloc(h->count, sizeof(*h->topics));
    h->retention = xcalloc(h->count, sizeof(*h->retention));
    for (size_t i = 0; i < h->count; i++) {
        int row = (int) i;
        const char *prefix =
            pg_is_null(rows, row, 2) ? c->config->kafka.topic_prefix : pg_get_text(rows, row, 2);
        h->topics[i] = h->names[i] = xasprintf("%s%s", prefix, pg_get_text(rows, row, 0));
    }
}

static struct value value_until(const struct kafka_retention *r, int64_t erased_at)
{
    int64_t from = erased_at == INT64_MIN ? (int64_t) now_realtime_usec() : erased_at;

    if (!r->known)
        return value_words(value_null(), "not known: %s", r->why.text);
    if (r->for_ever)
        return value_words(value_null(), "for ever: the topic's settings delete nothing by time");
    return value_time(from + (int64_t) r->usec);
}

static void add_topics(const struct pg_result *rows, const struct held *h, struct sheet *sheet)
{
    static const struct table_column columns[] = {{"topic", "TOPIC", false},
                                                  {"messages", "MESSAGES", true},
                                                  {"until", "AT THE LATEST UNTIL", false},
                                                  {"for_ever", NULL, false}};
    struct table *t =
        sheet_table(sheet, "kafka", "What Kafka was given", "nothing", columns, ARRAY_SIZE(columns));

    for (size_t i = 0; i < h->count; i++) {
        struct pg_row row = {rows, (int) i, 3};
        table_add(t, value_text(h->names[i]));
        table_add(t, value_i64(pg_get_i64(rows, (int) i, 1)));
        table_add(t, value_until(&h->retention[i], pg_next_time(&row)));
        table_add(t, h->retention[i].known ? value_bool(h->retention[i].for_ever) : value_null());
    }
}

int erase_add_kafka(const struct ctl *c, struct pg *pg, const struct erase_given *given, struct sheet *sheet,
                    struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    CLEANUP(held_free) struct held h = {0};
    struct error why;

    pg_arg_i64s(&args, given->ids, sizeof(*given->ids), given->count);
    pg_arg_i64s(&args, given->letters, sizeof(*given->letters), given->letters_count);
    int r = pg_query(pg, &sql_erase_published, &args, &rows, err);
    if (r != PG_DONE)
        return r;
    take_topics(c, rows, &h);
    if (h.count > 0 && ask(c, &h, &why) < 0) {
        for (size_t i = 0; i < h.count; i++)
            h.retention[i].why = why;
        sheet_add(sheet, "kafka_error", NULL, value_text(why.text));
    } else {
        sheet_add(sheet, "kafka_error", NULL, value_null());
    }
    sheet_empty_line(sheet);
    add_topics(rows, &h, sheet);
    if (h.count > 0)
        sheet_say(sheet, "",
                  "Messages cannot be taken out of Kafka. Whoever reads these topics may have them, too.");
    return PG_DONE;
}
