/* JSON: a strict check, and writing.
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

/* Appends a JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD; NUL becomes \u0000. */
void json_add_string(struct strbuf *sb, const char *text, size_t len);
