/* JSON: a strict check, reading, and writing.
 *
 * Payloads and responses never pass through cJSON and back: it loses digits of large numbers, cuts strings at
 * \u0000 and accepts what Postgres refuses. */
#pragma once

#include "base/utf8.h"

/* True when text[0..len) is exactly one RFC 8259 value in valid UTF-8 (surrounding white space allowed, no
 * BOM, lone surrogate escapes refused, no raw control characters, at most `max_depth` levels). Linear, no
 * recursion, no allocation. */
bool json_is_valid(const char *text, size_t len, int max_depth);
#define JSON_MAX_DEPTH 512

enum json_type {
    JSON_NULL = 1,
    JSON_BOOLEAN,
    JSON_NUMBER,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT,
};
/* A value where it stands in its text, which must outlive it. */
struct json_value {
    enum json_type type;
    const char *p; /* its first byte */
    size_t len;    /* of the value, brackets or quotes included */
};
/* The value that text[0..len) is, or false: json_is_valid() tells. Like it, what follows neither allocates
 * (but for strings with escapes) nor recurses. */
bool json_read(const char *text, size_t len, struct json_value *ret);
/* The value at a JSON pointer (RFC 6901; "" is the whole); false: there is none. Of names that come twice the
 * first counts. Linear in the length of the text. */
bool json_find(const struct json_value *in, const char *pointer, struct json_value *ret);
bool json_is_pointer(const char *pointer);
/* Walks over the elements of an array, or the members of an object; over nothing else:
 *     for (struct json_walk w = json_walk(&v); json_next(&w, &name, &element);) */
struct json_walk {
    const char *p, *end;
    bool is_object;
};
struct json_walk json_walk(const struct json_value *container);
bool json_next(struct json_walk *w, struct json_value *ret_name,
               struct json_value *ret); /* name: of members */
/* Appends a string's characters; anything else as it is written (1.50, true, null). */
void json_add_text(struct strbuf *sb, const struct json_value *value);
bool json_is_text(const struct json_value *value, const char *text); /* the same text */

/* Appends a JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD; NUL becomes \u0000. */
void json_add_string(struct strbuf *sb, const char *text, size_t len);
