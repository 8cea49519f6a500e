/* The answer of a command of anubisctl: facts, lists and tables in the order in which they were added, for
 * people or as one JSON object.
 *
 * Pure. Text from the database is not trusted: bytes that are not UTF-8 are replaced, and control characters
 * never reach a terminal. Keys, labels, titles and columns must live as long as the sheet; all else is
 * copied. */
#pragma once

#include "base/sentences.h"
#include "base/strbuf.h"

struct sheet; /* the whole answer */
struct table; /* a table within it */

/* A fact in both forms. The function that adds a value owns it from then on. */
struct value {
    struct cJSON *json;
    /* NULL = people read the same text or number; true and false as yes and no, null as nothing. */
    char *words;
};
struct value value_null(void);
struct value value_bool(bool value);
struct value value_i64(int64_t value);
struct value value_i64_or_null(int64_t value, int64_t null); /* null when both are the same */
struct value value_text(const char *text);                   /* NULL = null */
struct value value_text_or_null(const char *text);           /* NULL and "" = null */
struct value value_json(const char *json);                   /* JSON text that is no stranger's */
/* As pg_next_time() reads it; the infinities are null. People see it to the second, in UTC. */
struct value value_time(int64_t usec);
/* For words: a time as people see it everywhere, "2026-11-24 10:59:39Z", and a duration (less than 0 is
 * none). The caller frees. */
char *time_words(int64_t usec);
char *duration_words(int64_t usec);
/* The same value, which people read in these words. */
struct value value_words(struct value value, const char *fmt, ...) PRINTF(2, 3);

void sheet_new(struct sheet **ret);
void sheet_free(struct sheet *s); /* NULL is legal */

/* "label: value" for people, a member of the object in JSON. A `label` of NULL leaves the fact to JSON. */
void sheet_add(struct sheet *s, const char *key, const char *label, struct value value);
/* The same, but people do not see null. */
void sheet_add_known(struct sheet *s, const char *key, const char *label, struct value value);
/* For people alone. A `label` of NULL makes a line of its own: a heading or a remark. */
void sheet_say(struct sheet *s, const char *label, const char *fmt, ...) PRINTF(3, 4);
void sheet_empty_line(struct sheet *s);

/* A line for each; an array of strings in JSON. */
void sheet_list(struct sheet *s, const char *key, const struct sentences *sentences);

struct table_column {
    const char *key;   /* in JSON */
    const char *title; /* above the column; NULL = not for people */
    bool right;        /* numbers */
};
/* The sheet owns the table. An empty table shows "title: empty" instead. */
struct table *sheet_table(struct sheet *s, const char *key, const char *title, const char *empty,
                          const struct table_column *columns, size_t count);
/* Row after row, column after column; rows must be complete. */
void table_add(struct table *t, struct value value);
/* Texts of this column are cut where the table would be too wide. */
void table_make_elastic(struct table *t, const char *key);
/* People see this column's text in a line above the rows that have it in common. */
void table_make_sections(struct table *t, const char *key);
/* For people: a line below the row that was completed last. */
void table_remark(struct table *t, const char *fmt, ...) PRINTF(2, 3);

/* `width`: columns of a line, into which sentences are broken; 0 = as many as there are. */
void sheet_add_words(const struct sheet *s, size_t width, struct strbuf *out);
void sheet_add_json(const struct sheet *s, struct strbuf *out);
