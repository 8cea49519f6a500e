/* What a command of anubisctl shows: fields, lists and tables in the order they were added, for people or as
 * one JSON object.
 *
 * Pure. Text from the database is not trusted: control characters never reach a
 * terminal. Everything is copied. */
#pragma once

#include "base/strbuf.h"

struct sheet; /* the whole answer */
struct table; /* a table within it */

struct table_column {
    const char *key;   /* in JSON */
    const char *title; /* above the column; NULL = not for people */
    bool right;        /* numbers */
};

void sheet_new(struct sheet **ret);
void sheet_free(struct sheet *s); /* NULL is legal */
void sheet_freep(struct sheet **s);

/* "label: value". A `label` of NULL leaves it to JSON, a `key` of NULL to people. */
void sheet_text(struct sheet *s, const char *key, const char *label, const char *value); /* NULL = null */
void sheet_i64(struct sheet *s, const char *key, const char *label, int64_t value);
void sheet_bool(struct sheet *s, const char *key, const char *label, bool value);
/* As pg_get_time() gives them; the infinities are null. */
void sheet_time(struct sheet *s, const char *key, const char *label, int64_t usec);
/* A value that people read in other words than programs; `json` is a JSON value. */
void sheet_both(struct sheet *s, const char *key, const char *label, const char *words, const char *json);
/* A line of its own, for people only: headings and remarks. "" is an empty line. */
void sheet_line(struct sheet *s, const char *text);

/* One more item of the list `key`, which begins with its first item: lines for people, an array of strings in
 * JSON. sheet_list() alone makes an empty array. */
void sheet_list(struct sheet *s, const char *key);
void sheet_item(struct sheet *s, const char *key, const char *text);

/* The sheet owns the table. `columns` must live as long. An empty table shows `empty` instead (NULL =
 * nothing). */
struct table *sheet_table(struct sheet *s, const char *key, const char *title, const char *empty,
                          const struct table_column *columns, size_t count);
/* Cells, row after row, column after column. */
void table_text(struct table *t, const char *value); /* NULL = null, shown as nothing */
void table_i64(struct table *t, int64_t value);
void table_bool(struct table *t, bool value); /* yes, no */
void table_time(struct table *t, int64_t usec);
void table_null(struct table *t);
void table_both(struct table *t, const char *words, const char *json);

void sheet_add_words(const struct sheet *s, struct strbuf *out);
void sheet_add_json(const struct sheet *s, struct strbuf *out);
