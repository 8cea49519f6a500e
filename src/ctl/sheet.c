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
    char **remarks; /* below each row; NULL = none */
    const char *elastic, *section;
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

struct value value_json(const char *json)
{
    return (struct value){.json = cJSON_CreateRaw(json)};
}

struct value value_time(int64_t usec)
{
    CLEANUP(strbuf_free) struct strbuf json = STRBUF_INIT(64);

    if (usec == INT64_MIN || usec == INT64_MAX)
        return value_null();
    char *words = time_words(usec);
    strbuf_add_timestamp(&json, usec);
    return (struct value){cJSON_CreateString(strbuf_str(&json)), words};
}

char *time_words(int64_t usec)
{
    struct strbuf out = STRBUF_INIT(128);

    strbuf_add_timestamp_sec(&out, usec);
    char *words = strbuf_take(&out), *t = strchr(words, 'T');
    if (t)
        *t = ' ';
    return words;
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
    for (size_t i = 0; i < t->count / t->column_count; i++)
        free(t->remarks[i]);
    free(t->remarks);
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
        t->remarks = xreallocarray(t->remarks, t->count / t->column_count + 1, sizeof(*t->remarks));
        t->remarks[t->count / t->column_count] = NULL;
    }
    cJSON_AddItemToObjectCS(t->row, t->columns[column].key, value.json);
    t->cells[t->count++] = value;
}

void table_make_elastic(struct table *t, const char *key)
{
    t->elastic = key;
}

void table_make_sections(struct table *t, const char *key)
{
    t->section = key;
}

void table_remark(struct table *t, const char *fmt, ...)
{
    char **remark = &t->remarks[t->count / t->column_count - 1];
    va_list args;

    free(*remark);
    va_start(args, fmt);
    *remark = format(fmt, args);
    va_end(args);
}

/* --- for people ------------------------------------------------------------------------------- */

/* Characters that people see of a text, so that a name of a megabyte hides nothing else. */
#define LINE_MAX_CHARS 1000
#define LAST_CELL_MAX_CHARS 200
#define CELL_MAX_CHARS 60

static size_t cut_width(const char *text, size_t most)
{
    return MIN(utf8_width(text), most);
}

static void add_cut(struct strbuf *out, const char *text, size_t most)
{
    size_t len = strlen(text);
    bool cut = utf8_width(text) > most;

    strbuf_add_harmless(out, text, cut ? utf8_first(text, len, most - 1) : len);
    strbuf_adds(out, cut ? "\xE2\x80\xA6" : "");
}

static void add_blanks(struct strbuf *out, size_t count)
{
    while (count-- > 0)
        strbuf_addc(out, ' ');
}

/* Is it one of those that stand side by side? */
static bool is_shown(const struct table *t, size_t column)
{
    const struct table_column *c = &t->columns[column];

    return c->title && !(t->section && strcmp(c->key, t->section) == 0);
}

/* Nothing stands to the right of the last one. */
static size_t cell_max(const struct table *t, size_t column)
{
    for (size_t c = column + 1; c < t->column_count; c++)
        if (is_shown(t, c))
            return CELL_MAX_CHARS;
    return LAST_CELL_MAX_CHARS;
}

/* A text from column `at` on; further lines begin at column `indent`. Broken at blanks, unless `width` is 0.
 */
static void add_wrapped(struct strbuf *out, const char *text, size_t at, size_t indent, size_t width)
{
    CLEANUP(strbuf_free) struct strbuf line = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    bool first = true;

    add_cut(&line, text, LINE_MAX_CHARS);
    text = strbuf_str(&line);
    while (*text) {
        size_t len = strcspn(text, " ");
        CLEANUP(freep) char *word = xstrndup(text, len);
        size_t wide = utf8_width(word);
        if (!first && width && at + 1 + wide > width) {
            strbuf_addc(out, '\n');
            add_blanks(out, indent);
            at = indent;
        } else if (!first) {
            strbuf_addc(out, ' ');
            at++;
        }
        strbuf_adds(out, word);
        at += wide;
        first = false;
        text += len + (text[len] == ' ');
    }
    strbuf_addc(out, '\n');
}

static void add_row(struct strbuf *out, const struct table *t, const size_t *widths, const struct value *row)
{
    size_t filled = t->column_count;

    /* No white space at the end of a line. */
    while (filled > 1 && (!is_shown(t, filled - 1) || (row && !*shown(&row[filled - 1]))))
        filled--;
    for (size_t c = 0; c < filled; c++) {
        const struct table_column *column = &t->columns[c];
        if (!is_shown(t, c))
            continue;
        const char *text = row ? shown(&row[c]) : column->title;
        size_t most = MIN(cell_max(t, c), widths[c]), gap = widths[c] - cut_width(text, most);
        add_blanks(out, 2 + (column->right ? gap : 0));
        add_cut(out, text, most);
        add_blanks(out, column->right || c + 1 == filled ? 0 : gap);
    }
    strbuf_addc(out, '\n');
}

#define ELASTIC_MIN 12

static void measure(const struct table *t, size_t width, size_t *widths)
{
    size_t all = 0;

    for (size_t c = 0; c < t->column_count; c++)
        widths[c] = is_shown(t, c) ? utf8_width(t->columns[c].title) : 0;
    for (size_t i = 0; i < t->count; i++) {
        size_t c = i % t->column_count;
        widths[c] = MAX(widths[c], cut_width(shown(&t->cells[i]), cell_max(t, c)));
    }
    for (size_t c = 0; c < t->column_count; c++)
        all += is_shown(t, c) ? 2 + widths[c] : 0;
    for (size_t c = 0; c < t->column_count && t->elastic && width && all > width; c++)
        if (strcmp(t->columns[c].key, t->elastic) == 0 && widths[c] > ELASTIC_MIN)
            widths[c] -= MIN(all - width, widths[c] - ELASTIC_MIN);
}

/* Above the rows that have it in common. */
static void add_section(struct strbuf *out, const struct table *t, size_t row)
{
    for (size_t c = 0; c < t->column_count && t->section; c++) {
        const struct value *cell = &t->cells[row + c];
        if (strcmp(t->columns[c].key, t->section) != 0 ||
            (row > 0 && strcmp(shown(cell), shown(cell - t->column_count)) == 0))
            continue;
        add_blanks(out, 2);
        add_cut(out, shown(cell), LAST_CELL_MAX_CHARS);
        strbuf_adds(out, ":\n");
    }
}

static void add_table(struct strbuf *out, const struct table *t, size_t width)
{
    CLEANUP(freep) size_t *widths = xcalloc(t->column_count, sizeof(*widths));

    assert(t->count % t->column_count == 0);
    if (!t->count) {
        strbuf_addf(out, "%s: %s\n", t->title, t->empty);
        return;
    }
    strbuf_addf(out, "%s\n", t->title);
    measure(t, width, widths);
    add_row(out, t, widths, NULL);
    for (size_t i = 0; i < t->count; i += t->column_count) {
        const char *remark = t->remarks[i / t->column_count];
        add_section(out, t, i);
        add_row(out, t, widths, &t->cells[i]);
        if (!remark)
            continue;
        add_blanks(out, 6);
        add_wrapped(out, remark, 6, 6, width);
    }
}

void sheet_add_words(const struct sheet *s, size_t width, struct strbuf *out)
{
    size_t labels = 0;

    for (size_t i = 0; i < s->count; i++)
        labels = MAX(labels, s->entries[i].label ? utf8_width(s->entries[i].label) : 0);
    for (size_t i = 0; i < s->count; i++) {
        const struct entry *e = &s->entries[i];
        if (e->table) {
            add_table(out, e->table, width);
            continue;
        }
        const char *text = shown(&e->value);
        size_t indent = e->label ? labels + 2 : strspn(text, " ");
        if (e->label) {
            strbuf_adds(out, e->label);
            add_blanks(out, labels + 2 - utf8_width(e->label));
        } else {
            add_blanks(out, indent);
            text += indent;
        }
        add_wrapped(out, e->label && !*text ? "-" : text, indent, indent + (e->label ? 0 : 2), width);
    }
}

/* --- JSON ------------------------------------------------------------------------------------- */

/* cJSON escapes the control characters below 20 alone, and adds line feeds and tabs of its own. Texts are
 * valid UTF-8 since they became values. */
void sheet_add_json(const struct sheet *s, struct strbuf *out)
{
    CLEANUP(freep) char *text = cJSON_Print(s->json);

    assert(text);
    const unsigned char *p = (const unsigned char *) text, *end = p + strlen(text);
    for (size_t n; p < end; p += n) {
        n = utf8_sequence(p, end);
        assert(n > 0);
        if (utf8_harmful(p, n) >= 0x20)
            strbuf_addf(out, "\\u%04x", utf8_harmful(p, n));
        else
            strbuf_add(out, p, n);
    }
    strbuf_addc(out, '\n');
}
