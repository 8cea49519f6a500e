/* UTF-8: where characters begin and end, and how bytes become a text that Postgres and JSON take. Pure. */
#pragma once

#include "base/strbuf.h"

#define UTF8_REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

/* Bytes of the well-formed sequence at p (Unicode, table 3-7), or 0. p < end. */
size_t utf8_sequence(const unsigned char *p, const unsigned char *end);
/* The longest length of at most `max` bytes that cuts no character of text[0..len) in two. */
size_t utf8_cut(const char *text, size_t len, size_t max);
/* Bytes of the first `chars` characters of text[0..len). */
size_t utf8_first(const char *text, size_t len, size_t chars);
/* Characters of a NUL-terminated text. */
size_t utf8_width(const char *text);
/* Appends bytes as valid UTF-8 that Postgres's text takes: invalid sequences and NULs become U+FFFD. */
void strbuf_add_utf8(struct strbuf *sb, const char *bytes, size_t len);
/* The code of the sequence of n bytes at p when it must not reach a terminal or a log as it is: a control
 * character, one that turns the direction of what follows (Unicode, annex 9), a separator of lines or
 * paragraphs. Else 0. */
unsigned utf8_harmful(const unsigned char *p, size_t n);
/* Appends text as people may see it: valid UTF-8 on one line. White space is a blank, and a '?' stands for
 * each other harmful character. */
void strbuf_add_harmless(struct strbuf *sb, const char *text, size_t len);
