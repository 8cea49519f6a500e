/* Fields, lists and tables, for people or as JSON. See sheet.h. */
#include "ctl/sheet.h"

#include <assert.h>
#include <string.h>

#include "base/json.h"
#include "base/timeutil.h"

/* A value in both forms. */
struct cell {
    char *words;
    char *json;
};

struct table {
    const struct table_column *columns;
    size_t column_count;
    struct cell *cells;
    size_t count, capacity;
};

enum kind { KIND_FIELD, KIND_LINE, KIND_LIST, KIND_TABLE };

struct entry {
    enum kind kind;
    char *key, *label; /* of a table the label is its title */
    char *empty;
    struct cell cell;
    char **items;
    size_t item_count;
    struct table table;
};

struct sheet {
    /* Each of its own, because callers hold tables while more is added. */
    struct entry **entries;
    size_t count;
};

/* --- cells ------------------------------------------------------------------------------------ */

static struct cell cell_null(void)
{
    return (struct cell){xstrdup(""), xstrdup("null")};
}

static struct cell cell_text(const char *value)
{
    CLEANUP(strbuf_free) struct strbuf json = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    if (!value)
        return cell_null();
    json_add_string(&json, value, strlen(value));
    return (struct cell){xstrdup(value), strbuf_take(&json)};
}

static struct cell cell_i64(int64_t value)
{
    CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(64);

    strbuf_add_i64(&text, value);
    return (struct cell){xstrdup(strbuf_str(&text)), strbuf_take(&text)};
}

static struct cell cell_bool(bool value)
{
    return (struct cell){xstrdup(value ? "yes" : "no"), xstrdup(value ? "true" : "false")};
}

/* For people to the second and in UTC, as all the rest of anubisd speaks. */
static struct cell cell_time(int64_t usec)
{
    CLEANUP(strbuf_free) struct strbuf json = STRBUF_INIT(64), words = STRBUF_INIT(64);

    if (usec == INT64_MIN || usec == INT64_MAX)
        return cell_null();
    strbuf_addc(&json, '"');
    strbuf_add_timestamp(&json, usec);
    strbuf_addc(&json, '"');
    strbuf_add_timestamp_sec(&words, usec);
    char *t = strchr(words.data, 'T');
    if (t)
        *t = ' ';
    return (struct cell){strbuf_take(&words), strbuf_take(&json)};
}

static void cell_free(struct cell *c)
{
    free(c->words);
    free(c->json);
}

/* --- sheets ----------------------------------------------------------------------------------- */

void sheet_new(struct sheet **ret)
{
    *ret = xcalloc(1, sizeof(**ret));
}

static void entry_free(struct entry *e)
{
    free(e->key);
    free(e->label);
    free(e->empty);
    cell_free(&e->cell);
    for (size_t i = 0; i < e->item_count; i++)
        free(e->items[i]);
    free(e->items);
    for (size_t i = 0; i < e->table.count; i++)
        cell_free(&e->table.cells[i]);
    free(e->table.cells);
    free(e);
}

void sheet_free(struct sheet *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->count; i++)
        entry_free(s->entries[i]);
    free(s->entries);
    free(s);
}

void sheet_freep(struct sheet **s)
{
    sheet_free(*s);
}

static struct entry *add_entry(struct sheet *s, enum kind kind, const char *key, const char *label)
{
    struct entry *e = xcalloc(1, sizeof(*e));

    e->kind = kind;
    e->key = xstrdup(key);
    e->label = xstrdup(label);
    s->entries = xreallocarray(s->entries, s->count + 1, sizeof(*s->entries));
    s->entries[s->count++] = e;
    return e;
}

void sheet_text(struct sheet *s, const char *key, const char *label, const char *value)
{
    add_entry(s, KIND_FIELD, key, label)->cell = cell_text(value);
}

void sheet_i64(struct sheet *s, const char *key, const char *label, int64_t value)
{
    add_entry(s, KIND_FIELD, key, label)->cell = cell_i64(value);
}

void sheet_bool(struct sheet *s, const char *key, const char *label, bool value)
{
    add_entry(s, KIND_FIELD, key, label)->cell = cell_bool(value);
}

void sheet_time(struct sheet *s, const char *key, const char *label, int64_t usec)
{
    add_entry(s, KIND_FIELD, key, label)->cell = cell_time(usec);
}

void sheet_both(struct sheet *s, const char *key, const char *label, const char *words, const char *json)
{
    add_entry(s, KIND_FIELD, key, label)->cell = (struct cell){xstrdup(words), xstrdup(json)};
}

void sheet_line(struct sheet *s, const char *text)
{
    add_entry(s, KIND_LINE, NULL, text);
}

static struct entry *find_list(const struct sheet *s, const char *key)
{
    for (size_t i = 0; i < s->count; i++)
        if (s->entries[i]->kind == KIND_LIST && strcmp(s->entries[i]->key, key) == 0)
            return s->entries[i];
    return NULL;
}

void sheet_list(struct sheet *s, const char *key)
{
    if (!find_list(s, key))
        add_entry(s, KIND_LIST, key, NULL);
}

void sheet_item(struct sheet *s, const char *key, const char *text)
{
    sheet_list(s, key);
    struct entry *list = find_list(s, key);

    list->items = xreallocarray(list->items, list->item_count + 1, sizeof(*list->items));
    list->items[list->item_count++] = xstrdup(text);
}

/* --- tables ----------------------------------------------------------------------------------- */

struct table *sheet_table(struct sheet *s, const char *key, const char *title, const char *empty,
                          const struct table_column *columns, size_t count)
{
    struct entry *e = add_entry(s, KIND_TABLE, key, title);

    e->empty = xstrdup(empty);
    e->table.columns = columns;
    e->table.column_count = count;
    return &e->table;
}

static void add_cell(struct table *t, struct cell cell)
{
    if (t->count == t->capacity) {
        t->capacity = MAX(t->capacity * 2, (size_t) 64);
        t->cells = xreallocarray(t->cells, t->capacity, sizeof(*t->cells));
    }
    t->cells[t->count++] = cell;
}

void table_text(struct table *t, const char *value)
{
    add_cell(t, cell_text(value));
}

void table_i64(struct table *t, int64_t value)
{
    add_cell(t, cell_i64(value));
}

void table_bool(struct table *t, bool value)
{
    add_cell(t, cell_bool(value));
}

void table_time(struct table *t, int64_t usec)
{
    add_cell(t, cell_time(usec));
}

void table_null(struct table *t)
{
    add_cell(t, cell_null());
}

void table_both(struct table *t, const char *words, const char *json)
{
    add_cell(t, (struct cell){xstrdup(words), xstrdup(json)});
}

/* --- for people ------------------------------------------------------------------------------- */

/* Control characters (C1's, which come as C2 80 to C2 9F, included) could drive a terminal. */
static void add_harmless(struct strbuf *out, const char *text)
{
    const unsigned char *p = (const unsigned char *) text;

    for (; *p; p++) {
        bool c1 = p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f;
        strbuf_addc(out, *p < 0x20 || *p == 0x7f || c1 ? '?' : (char) *p);
        p += c1;
    }
}

static void add_padded(struct strbuf *out, const char *text, size_t to, bool right, bool last)
{
    CLEANUP(strbuf_free) struct strbuf clean = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    add_harmless(&clean, text);
    size_t used = utf8_width(strbuf_str(&clean));
    size_t gap = to > used ? to - used : 0;
    for (size_t i = 0; right && i < gap; i++)
        strbuf_addc(out, ' ');
    strbuf_adds(out, strbuf_str(&clean));
    for (size_t i = 0; !right && !last && i < gap; i++)
        strbuf_addc(out, ' ');
}

static void add_row(struct strbuf *out, const struct table *t, const size_t *widths, const struct cell *row)
{
    size_t filled = t->column_count;

    /* No white space at the end of a line. */
    while (filled > 1 && (!t->columns[filled - 1].title || (row && !*row[filled - 1].words)))
        filled--;
    for (size_t c = 0; c < filled; c++) {
        const struct table_column *column = &t->columns[c];
        if (!column->title)
            continue;
        strbuf_adds(out, "  ");
        add_padded(out, row ? row[c].words : column->title, widths[c], column->right, c + 1 == filled);
    }
    strbuf_addc(out, '\n');
}

static void add_table_words(struct strbuf *out, const struct table *t)
{
    CLEANUP(freep) size_t *widths = xcalloc(t->column_count, sizeof(*widths));

    for (size_t c = 0; c < t->column_count; c++)
        widths[c] = t->columns[c].title ? utf8_width(t->columns[c].title) : 0;
    for (size_t i = 0; i < t->count; i++)
        widths[i % t->column_count] = MAX(widths[i % t->column_count], utf8_width(t->cells[i].words));
    add_row(out, t, widths, NULL);
    for (size_t i = 0; i < t->count; i += t->column_count)
        add_row(out, t, widths, &t->cells[i]);
}

static size_t label_width(const struct sheet *s)
{
    size_t widest = 0;

    for (size_t i = 0; i < s->count; i++)
        if (s->entries[i]->kind == KIND_FIELD && s->entries[i]->label)
            widest = MAX(widest, utf8_width(s->entries[i]->label));
    return widest;
}

static void add_entry_words(struct strbuf *out, const struct entry *e, size_t labels)
{
    switch (e->kind) {
    case KIND_FIELD:
        if (!e->label)
            return;
        add_padded(out, e->label, labels + 2, false, false);
        add_harmless(out, *e->cell.words ? e->cell.words : "-");
        strbuf_addc(out, '\n');
        return;
    case KIND_LINE:
        add_harmless(out, e->label);
        strbuf_addc(out, '\n');
        return;
    case KIND_LIST:
        for (size_t i = 0; i < e->item_count; i++) {
            strbuf_adds(out, "  ");
            add_harmless(out, e->items[i]);
            strbuf_addc(out, '\n');
        }
        return;
    case KIND_TABLE:
        if (!e->table.count && !e->empty)
            return;
        strbuf_addf(out, "%s%s%s\n", e->label ? e->label : "", e->table.count ? "" : ": ",
                    e->table.count ? "" : e->empty);
        if (e->table.count)
            add_table_words(out, &e->table);
        return;
    }
}

void sheet_add_words(const struct sheet *s, struct strbuf *out)
{
    size_t labels = label_width(s);

    for (size_t i = 0; i < s->count; i++)
        add_entry_words(out, s->entries[i], labels);
}

/* --- JSON ------------------------------------------------------------------------------------- */

static void add_key(struct strbuf *out, const char *key)
{
    json_add_string(out, key, strlen(key));
    strbuf_adds(out, ": ");
}

static void add_table_json(struct strbuf *out, const struct table *t)
{
    assert(t->count % t->column_count == 0);
    strbuf_addc(out, '[');
    for (size_t i = 0; i < t->count; i++) {
        size_t c = i % t->column_count;
        strbuf_adds(out, c ? ", " : i ? ",\n    {" : "\n    {");
        add_key(out, t->columns[c].key);
        strbuf_adds(out, t->cells[i].json);
        if (c + 1 == t->column_count)
            strbuf_addc(out, '}');
    }
    strbuf_adds(out, t->count ? "\n  ]" : "]");
}

static void add_list_json(struct strbuf *out, const struct entry *e)
{
    strbuf_addc(out, '[');
    for (size_t i = 0; i < e->item_count; i++) {
        strbuf_adds(out, i ? ", " : "");
        json_add_string(out, e->items[i], strlen(e->items[i]));
    }
    strbuf_addc(out, ']');
}

void sheet_add_json(const struct sheet *s, struct strbuf *out)
{
    const char *separator = "{\n  ";

    for (size_t i = 0; i < s->count; i++) {
        const struct entry *e = s->entries[i];
        if (!e->key)
            continue;
        strbuf_adds(out, separator);
        separator = ",\n  ";
        add_key(out, e->key);
        if (e->kind == KIND_TABLE)
            add_table_json(out, &e->table);
        else if (e->kind == KIND_LIST)
            add_list_json(out, e);
        else
            strbuf_adds(out, e->cell.json);
    }
    strbuf_adds(out, *separator == '{' ? "{}\n" : "\n}\n");
}
