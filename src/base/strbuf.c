/* The growing byte buffer. Owns its memory, runs on any thread, never logs. */
#include "base/strbuf.h"

#include <stdio.h>
#include <string.h>

#define FIRST_CAPACITY 64

void strbuf_free(struct strbuf *sb)
{
    free(sb->data);
    sb->data = NULL;
    sb->len = sb->capacity = 0;
    sb->overflowed = false;
}

void strbuf_wipe(struct strbuf *sb)
{
    if (sb->data)
        explicit_bzero(sb->data, sb->capacity);
    strbuf_free(sb);
}

void strbuf_clear(struct strbuf *sb)
{
    sb->len = 0;
    sb->overflowed = false;
    if (sb->data)
        sb->data[0] = '\0';
}

const char *strbuf_str(const struct strbuf *sb)
{
    return sb->data ? sb->data : "";
}

char *strbuf_take(struct strbuf *sb)
{
    char *s = sb->data ? TAKE_PTR(sb->data) : xstrdup("");

    sb->len = sb->capacity = 0;
    sb->overflowed = false;
    return s;
}

char *strbuf_reserve(struct strbuf *sb, size_t len)
{
    size_t wanted;

    if (sb->len > sb->max || len > sb->max - sb->len || sb->max == SIZE_MAX) {
        sb->overflowed = true;
        return NULL;
    }
    wanted = sb->len + len + 1;
    if (wanted > sb->capacity) {
        /* Doubling keeps appends linear; the maximum is never passed by it. */
        size_t capacity = MAX(sb->capacity, (size_t) FIRST_CAPACITY);

        while (capacity < wanted)
            capacity = capacity > sb->max / 2 ? sb->max + 1 : capacity * 2;
        sb->data = xreallocarray(sb->data, MAX(capacity, wanted), 1);
        sb->capacity = MAX(capacity, wanted);
        sb->data[sb->len] = '\0';
    }
    return sb->data + sb->len;
}

void strbuf_add(struct strbuf *sb, const void *bytes, size_t len)
{
    char *to = strbuf_reserve(sb, len);

    if (!to)
        return;
    if (len > 0)
        memcpy(to, bytes, len);
    to[len] = '\0';
    sb->len += len;
}

void strbuf_adds(struct strbuf *sb, const char *s)
{
    strbuf_add(sb, s, strlen(s));
}

void strbuf_addc(struct strbuf *sb, char c)
{
    strbuf_add(sb, &c, 1);
}

void strbuf_addv(struct strbuf *sb, const char *fmt, va_list args)
{
    va_list again;
    char *to;
    int n;

    va_copy(again, args);
    n = vsnprintf(NULL, 0, fmt, args);
    if (n < 0 || !(to = strbuf_reserve(sb, (size_t) n))) {
        sb->overflowed = true;
    } else {
        vsnprintf(to, (size_t) n + 1, fmt, again);
        sb->len += (size_t) n;
    }
    va_end(again);
}

void strbuf_addf(struct strbuf *sb, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    strbuf_addv(sb, fmt, args);
    va_end(args);
}

void strbuf_add_hex(struct strbuf *sb, const unsigned char *bytes, size_t len)
{
    char *to = strbuf_reserve(sb, 2 * len);

    if (!to)
        return;
    put_hex(to, bytes, len);
    sb->len += 2 * len;
    sb->data[sb->len] = '\0';
}

void strbuf_add_i64(struct strbuf *sb, int64_t value)
{
    char digits[I64_TEXT];

    strbuf_add(sb, digits, (size_t) (put_i64(digits, value) - digits));
}
