/* UTF-8. See utf8.h. */
#include "base/utf8.h"

static bool is_continuation(unsigned char c)
{
    return (c & 0xC0) == 0x80;
}

size_t utf8_sequence(const unsigned char *p, const unsigned char *end)
{
    size_t left = (size_t) (end - p);
    unsigned char c = p[0];

    if (c < 0x80)
        return 1;
    if (c < 0xC2 || left < 2 || !is_continuation(p[1]))
        return 0;
    if (c < 0xE0)
        return 2;
    /* Overlong forms, surrogates and what lies above U+10FFFF show in the second byte. */
    if (left < 3 || !is_continuation(p[2]) || (c == 0xE0 && p[1] < 0xA0) || (c == 0xED && p[1] > 0x9F))
        return 0;
    if (c < 0xF0)
        return 3;
    if (left < 4 || !is_continuation(p[3]) || (c == 0xF0 && p[1] < 0x90) || (c == 0xF4 && p[1] > 0x8F) ||
        c > 0xF4)
        return 0;
    return 4;
}

size_t utf8_cut(const char *text, size_t len, size_t max)
{
    if (len <= max)
        return len;
    while (max > 0 && is_continuation((unsigned char) text[max]))
        max--;
    return max;
}

size_t utf8_first(const char *text, size_t len, size_t chars)
{
    if (len <= chars)
        return len;
    for (size_t i = 0; i < len; i++)
        if (!is_continuation((unsigned char) text[i]) && chars-- == 0)
            return i;
    return len;
}

size_t utf8_width(const char *text)
{
    size_t n = 0;

    for (const char *p = text; *p; p++)
        n += !is_continuation((unsigned char) *p);
    return n;
}

void strbuf_add_utf8(struct strbuf *sb, const char *bytes, size_t len)
{
    const unsigned char *p = (const unsigned char *) bytes, *end = len > 0 ? p + len : p, *run = p;

    while (p < end) {
        size_t n = *p == '\0' ? 0 : utf8_sequence(p, end);

        if (n > 0) {
            p += n;
            continue;
        }
        strbuf_add(sb, run, (size_t) (p - run));
        strbuf_adds(sb, UTF8_REPLACEMENT);
        run = ++p;
    }
    strbuf_add(sb, run, (size_t) (p - run));
}

unsigned utf8_harmful(const unsigned char *p, size_t n)
{
    unsigned code = n <= 1   ? p[0]
                    : n == 2 ? (p[0] & 0x1FU) << 6 | (p[1] & 0x3FU)
                    : n == 3 ? (p[0] & 0x0FU) << 12 | (p[1] & 0x3FU) << 6 | (p[2] & 0x3FU)
                             : 0;
    bool control = n <= 2 && (code < 0x20 || (code >= 0x7F && code < 0xA0));
    bool turns = n >= 2 && (code == 0x061C || code == 0x200E || code == 0x200F ||
                            (code >= 0x2028 && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069));

    return (n > 0 && control) || turns ? code : 0;
}

void strbuf_add_harmless(struct strbuf *sb, const char *text, size_t len)
{
    const unsigned char *p = (const unsigned char *) text, *end = len > 0 ? p + len : p;

    for (size_t n; p < end; p += MAX(n, (size_t) 1)) {
        n = utf8_sequence(p, end);
        if (n == 0)
            strbuf_adds(sb, UTF8_REPLACEMENT);
        else if (*p == '\n' || *p == '\r' || *p == '\t')
            strbuf_addc(sb, ' ');
        else if (utf8_harmful(p, n))
            strbuf_addc(sb, '?');
        else
            strbuf_add(sb, p, n);
    }
}
