/* Facts, lists and tables, for people or as JSON. See sheet.h. */
#include "ctl/sheet.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <string.h>

#include "base/timeutil.h"
#include "base/utf8.h"

struct table {
    const char *title, *empty;
    const struct table_column *columns;
    size_t column_count;
    struct value *cells;
    size_t count;
    cJSON *rows, *row; /* all of them, and the last one */
};

/* For people: a field, a line (without a label) or a table. */
struct entry {
    const char *label;
    struct value value;
    struct table *table;
};

struct sheet {
    cJSON *json; /* owns the json of all values */
    struct entry *entries;
    size_t count;
};

/* --- values ----------------------------------------------------------------------------------- */

static char *repair(const char *text)
{
    CLEANUP(strbuf_free) struct strbuf repaired = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    strbuf_add_utf8(&repaired, text, strlen(text));
    return xstrdup(strbuf_str(&repaired));
}

static char *format(const char *fmt, va_list args) PRINTF(1, 0);
static char *format(const char *fmt, va_list args)
{
    CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    strbuf_addv(&text, fmt, args);
    return repair(strbuf_str(&text));
}

struct value value_null(void)
{
    return (struct value){.json = cJSON_CreateNull()};
}

struct value value_bool(bool value)
{
    return (struct value){.json = cJSON_CreateBool(value)};
}

/* cJSON's own numbers are doubles, which would lose digits. */
struct value value_i64(int64_t value)
{
    CLEANUP(strbuf_free) struct strbuf digits = STRBUF_INIT(32);

    strbuf_add_i64(&digits, value);
    return (struct value){.json = cJSON_CreateRaw(strbuf_str(&digits))};
}

struct value value_i64_or_null(int64_t value, int64_t null)
{
    return value == null ? value_null() : value_i64(value);
}

struct value value_text(const char *text)
{
    if (!text)
        return value_null();
    CLEANUP(freep) char *repaired = repair(text);
    return (struct value){.json = cJSON_CreateString(repaired)};
}

struct value value_text_or_null(const char *text)
{
    return value_text(text && *text ? text : NULL);
}

struct value value_time(int64_t usec)
{
    CLEANUP(strbuf_free) struct strbuf json = STRBUF_INIT(64);

    if (usec == INT64_MIN || usec == INT64_MAX)
        return value_null();
    char *words = time_words(usec);
    *strchr(words, 'T') = ' ';
    strbuf_add_timestamp(&json, usec);
    return (struct value){cJSON_CreateString(strbuf_str(&json)), words};
}

char *time_words(int64_t usec)
{
    struct strbuf out = STRBUF_INIT(128);

    strbuf_add_timestamp_sec(&out, usec);
    return strbuf_take(&out);
}

char *duration_words(int64_t usec)
{
    struct strbuf out = STRBUF_INIT(128);

    strbuf_add_duration_human(&out, (uint64_t) MAX(usec, 0));
    return strbuf_take(&out);
}

struct value value_words(struct value value, const char *fmt, ...)
{
    va_list args;

    free(value.words);
    va_start(args, fmt);
    value.words = format(fmt, args);
    va_end(args);
    return value;
}

static const char *shown(const struct value *value)
{
    if (value->words)
        return value->words;
    if (cJSON_IsBool(value->json))
        return cJSON_IsTrue(value->json) ? "yes" : "no";
    return value->json->valuestring ? value->json->valuestring : "";
}

/* --- sheets ----------------------------------------------------------------------------------- */

void sheet_new(struct sheet **ret)
{
    /* So cJSON never runs out of memory, and its functions return no NULL. */
    cJSON_InitHooks(&(cJSON_Hooks){xmalloc, free});
    *ret = xcalloc(1, sizeof(**ret));
    (*ret)->json = cJSON_CreateObject();
}

static void table_free(struct table *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->count; i++)
        free(t->cells[i].words);
    free(t->cells);
    free(t);
}

void sheet_free(struct sheet *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->count; i++) {
        free(s->entries[i].value.words);
        table_free(s->entries[i].table);
    }
    free(s->entries);
    cJSON_Delete(s->json);
    free(s);
}

static void add_entry(struct sheet *s, struct entry entry)
{
    s->entries = xreallocarray(s->entries, s->count + 1, sizeof(*s->entries));
    s->entries[s->count++] = entry;
}

void sheet_add(struct sheet *s, const char *key, const char *label, struct value value)
{
    cJSON_AddItemToObjectCS(s->json, key, value.json);
    if (label)
        add_entry(s, (struct entry){label, value, NULL});
    else
        free(value.words);
}

void sheet_add_known(struct sheet *s, const char *key, const char *label, struct value value)
{
    sheet_add(s, key, cJSON_IsNull(value.json) ? NULL : label, value);
}

void sheet_say(struct sheet *s, const char *label, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    add_entry(s, (struct entry){label, {NULL, format(fmt, args)}, NULL});
    va_end(args);
}

void sheet_empty_line(struct sheet *s)
{
    sheet_say(s, NULL, "%s", "");
}

void sentences_add(struct sentences *s, const char *fmt, ...)
{
    va_list args;

    s->items = xreallocarray(s->items, s->count + 1, sizeof(*s->items));
    va_start(args, fmt);
    s->items[s->count++] = format(fmt, args);
    va_end(args);
}

void sentences_free(struct sentences *s)
{
    for (size_t i = 0; i < s->count; i++)
        free(s->items[i]);
    free(s->items);
}

void sheet_list(struct sheet *s, const char *key, const struct sentences *sentences)
{
    cJSON *list = cJSON_AddArrayToObject(s->json, key);

    for (size_t i = 0; i < sentences->count; i++) {
        cJSON_AddItemToArray(list, value_text(sentences->items[i]).json);
        sheet_say(s, NULL, "  %s", sentences->items[i]);
    }
}

struct table *sheet_table(struct sheet *s, const char *key, const char *title, const char *empty,
                          const struct table_column *columns, size_t count)
{
    struct table *t = xcalloc(1, sizeof(*t));

    t->title = title;
    t->empty = empty;
    t->columns = columns;
    t->column_count = count;
    t->rows = cJSON_AddArrayToObject(s->json, key);
    add_entry(s, (struct entry){.table = t});
    return t;
}

void table_add(struct table *t, struct value value)
{
    size_t column = t->count % t->column_count;

    if (column == 0) {
        t->row = cJSON_CreateObject();
        cJSON_AddItemToArray(t->rows, t->row);
        t->cells = xreallocarray(t->cells, t->count + t->column_count, sizeof(*t->cells));
    }
    cJSON_AddItemToObjectCS(t->row, t->columns[column].key, value.json);
    t->cells[t->count++] = value;
}

/* --- for people ------------------------------------------------------------------------------- */

/* Control characters could drive a terminal; those of C1 come as C2 80 to C2 9F. */
static bool is_c1(const char *p)
{
    return (unsigned char) p[0] == 0xc2 && (unsigned char) p[1] >= 0x80 && (unsigned char) p[1] <= 0x9f;
}

static void add_harmless(struct strbuf *out, const char *text)
{
    for (const char *p = text; *p; p += is_c1(p) ? 2 : 1)
        strbuf_addc(out, (unsigned char) *p < 0x20 || *p == 0x7f || is_c1(p) ? '?' : *p);
}

static void add_blanks(struct strbuf *out, size_t count)
{
    while (count-- > 0)
        strbuf_addc(out, ' ');
}

static void add_row(struct strbuf *out, const struct table *t, const size_t *widths, const struct value *row)
{
    size_t filled = t->column_count;

    /* No white space at the end of a line. */
    while (filled > 1 && (!t->columns[filled - 1].title || (row && !*shown(&row[filled - 1]))))
        filled--;
    for (size_t c = 0; c < filled; c++) {
        const struct table_column *column = &t->columns[c];
        if (!column->title)
            continue;
        const char *text = row ? shown(&row[c]) : column->title;
        size_t gap = widths[c] - utf8_width(text);
        add_blanks(out, 2 + (column->right ? gap : 0));
        add_harmless(out, text);
        add_blanks(out, column->right || c + 1 == filled ? 0 : gap);
    }
    strbuf_addc(out, '\n');
}

static void add_table(struct strbuf *out, const struct table *t)
{
    CLEANUP(freep) size_t *widths = xcalloc(t->column_count, sizeof(*widths));

    assert(t->count % t->column_count == 0);
    if (!t->count) {
        strbuf_addf(out, "%s: %s\n", t->title, t->empty);
        return;
    }
    strbuf_addf(out, "%s\n", t->title);
    for (size_t c = 0; c < t->column_count; c++)
        widths[c] = t->columns[c].title ? utf8_width(t->columns[c].title) : 0;
    for (size_t i = 0; i < t->count; i++)
        widths[i % t->column_count] = MAX(widths[i % t->column_count], utf8_width(shown(&t->cells[i])));
    add_row(out, t, widths, NULL);
    for (size_t i = 0; i < t->count; i += t->column_count)
        add_row(out, t, widths, &t->cells[i]);
}

void sheet_add_words(const struct sheet *s, struct strbuf *out)
{
    size_t labels = 0;

    for (size_t i = 0; i < s->count; i++)
        labels = MAX(labels, s->entries[i].label ? utf8_width(s->entries[i].label) : 0);
    for (size_t i = 0; i < s->count; i++) {
        const struct entry *e = &s->entries[i];
        if (e->table) {
            add_table(out, e->table);
            continue;
        }
        if (e->label) {
            strbuf_adds(out, e->label);
            add_blanks(out, labels + 2 - utf8_width(e->label));
        }
        const char *text = shown(&e->value);
        add_harmless(out, e->label && !*text ? "-" : text);
        strbuf_addc(out, '\n');
    }
}

/* --- JSON ------------------------------------------------------------------------------------- */

/* cJSON escapes the control characters below 20 alone, and adds line feeds and tabs of its own. */
void sheet_add_json(const struct sheet *s, struct strbuf *out)
{
    CLEANUP(freep) char *text = cJSON_Print(s->json);

    assert(text);
    for (const char *p = text; *p; p += is_c1(p) ? 2 : 1)
        if (*p == 0x7f || is_c1(p))
            strbuf_addf(out, "\\u%04x", (unsigned) (unsigned char) p[is_c1(p)]);
        else
            strbuf_addc(out, *p);
    strbuf_addc(out, '\n');
}
