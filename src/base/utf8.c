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
