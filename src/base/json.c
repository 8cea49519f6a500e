/* JSON: the strict check (RFC 8259) and writing strings.
 *
 * On the path of each response and each Kafka message: one pass, no recursion, no allocation in the check.
 * Owns nothing, runs on any thread, never logs. */
#include "base/json_scan.h"

#include <string.h>

/* What a byte may be inside a string. */
enum { PLAIN = 0, QUOTE, BACKSLASH, CONTROL, MULTIBYTE };

static const unsigned char string_class[256] = {
    [0x00 ... 0x1f] = CONTROL,
    ['"'] = QUOTE,
    ['\\'] = BACKSLASH,
    [0x80 ... 0xff] = MULTIBYTE,
};

static bool is_digit(unsigned char c)
{
    return c >= '0' && c <= '9';
}

/* True when none of eight bytes is a quote, a backslash, a control character or above ASCII. The subtraction
 * sets a byte's high bit when that byte is zero (or below 0x20); borrows only ever make the answer too
 * careful. */
static bool eight_plain(const unsigned char *p)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), highs = ones * 0x80;
    uint64_t w, quote, backslash;

    memcpy(&w, p, sizeof(w));
    quote = w ^ (ones * '"');
    backslash = w ^ (ones * '\\');
    return !((w | (w - ones * 0x20) | (quote - ones) | (backslash - ones)) & highs);
}

static const unsigned char *skip_plain(const unsigned char *p, const unsigned char *end)
{
    while (end - p >= 8 && eight_plain(p))
        p += 8;
    while (p < end && string_class[*p] == PLAIN)
        p++;
    return p;
}

int json_scan_hex4(struct json_scanner *s)
{
    int value = 0;

    if (s->end - s->p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        unsigned char c = *s->p++, lower = c | 0x20;

        if (is_digit(c))
            value = value * 16 + (c - '0');
        else if (lower >= 'a' && lower <= 'f')
            value = value * 16 + (lower - 'a' + 10);
        else
            return -1;
    }
    return value;
}

/* After "\u": one code unit, or a whole surrogate pair. */
static bool scan_unicode_escape(struct json_scanner *s)
{
    int unit = json_scan_hex4(s);

    if (unit < 0 || (unit >= 0xDC00 && unit <= 0xDFFF))
        return false;
    if (unit < 0xD800 || unit > 0xDBFF)
        return true;
    if (s->end - s->p < 2 || s->p[0] != '\\' || s->p[1] != 'u')
        return false;
    s->p += 2;
    unit = json_scan_hex4(s);
    return unit >= 0xDC00 && unit <= 0xDFFF;
}

static bool scan_escape(struct json_scanner *s)
{
    unsigned char c;

    if (s->p >= s->end)
        return false;
    c = *s->p++;
    if (c == 'u')
        return scan_unicode_escape(s);
    return c != '\0' && strchr("\"\\/bfnrt", c) != NULL;
}

bool json_scan_string(struct json_scanner *s)
{
    for (;;) {
        size_t n;

        s->p = skip_plain(s->p, s->end);
        if (s->p >= s->end)
            return false;
        switch (string_class[*s->p]) {
        case QUOTE:
            s->p++;
            return true;
        case BACKSLASH:
            s->p++;
            if (!scan_escape(s))
                return false;
            break;
        case MULTIBYTE:
            n = utf8_sequence(s->p, s->end);
            if (n == 0)
                return false;
            s->p += n;
            break;
        default:
            return false;
        }
    }
}

static bool scan_digits(struct json_scanner *s)
{
    const unsigned char *start = s->p;

    while (s->p < s->end && is_digit(*s->p))
        s->p++;
    return s->p > start;
}

static bool scan_number(struct json_scanner *s)
{
    if (*s->p == '-')
        s->p++;
    if (s->p < s->end && *s->p == '0')
        s->p++; /* a leading zero stands alone */
    else if (!scan_digits(s))
        return false;
    if (s->p < s->end && *s->p == '.') {
        s->p++;
        if (!scan_digits(s))
            return false;
    }
    if (s->p < s->end && (*s->p | 0x20) == 'e') {
        s->p++;
        if (s->p < s->end && (*s->p == '+' || *s->p == '-'))
            s->p++;
        return scan_digits(s);
    }
    return true;
}

static bool scan_word(struct json_scanner *s, const char *word)
{
    size_t len = strlen(word);

    if ((size_t) (s->end - s->p) < len || memcmp(s->p, word, len) != 0)
        return false;
    s->p += len;
    return true;
}

void json_skip_space(struct json_scanner *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\t' || *s->p == '\r'))
        s->p++;
}

static bool in_object(const struct json_scanner *s)
{
    int level = s->depth - 1;

    return s->in_object[level / 64] >> (level % 64) & 1;
}

static bool open_level(struct json_scanner *s, bool object)
{
    uint64_t bit = UINT64_C(1) << (s->depth % 64);

    if (s->depth >= s->max_depth)
        return false;
    if (object)
        s->in_object[s->depth / 64] |= bit;
    else
        s->in_object[s->depth / 64] &= ~bit;
    s->depth++;
    s->p++;
    return true;
}

/* A scalar, or the opening of an object or array; an empty one is left to what follows. */
static bool scan_value(struct json_scanner *s, bool *ret_opened)
{
    *ret_opened = false;
    if (s->p >= s->end)
        return false;
    switch (*s->p) {
    case '{':
    case '[':
        *ret_opened = true;
        return open_level(s, *s->p == '{');
    case '"':
        s->p++;
        return json_scan_string(s);
    case 't':
        return scan_word(s, "true");
    case 'f':
        return scan_word(s, "false");
    case 'n':
        return scan_word(s, "null");
    default:
        return (*s->p == '-' || is_digit(*s->p)) && scan_number(s);
    }
}

/* A member's name and colon. */
static bool scan_name(struct json_scanner *s)
{
    json_skip_space(s);
    if (s->p >= s->end || *s->p++ != '"' || !json_scan_string(s))
        return false;
    json_skip_space(s);
    return s->p < s->end && *s->p++ == ':';
}

/* The closing bracket of the innermost level, if it comes next. */
static bool close_level(struct json_scanner *s)
{
    json_skip_space(s);
    if (s->p >= s->end || *s->p != (in_object(s) ? '}' : ']'))
        return false;
    s->p++;
    s->depth--;
    return true;
}

/* After a value: closes what ends here, then takes the comma and the next member's name.
 * Returns false when something else stands there; depth 0 afterwards means the whole value is read. */
static bool scan_to_next_value(struct json_scanner *s)
{
    while (s->depth > 0 && close_level(s))
        ;
    if (s->depth == 0)
        return true;
    if (s->p >= s->end || *s->p++ != ',')
        return false;
    return !in_object(s) || scan_name(s);
}

/* Behind an opening bracket: either the level is empty, or its first value (and name) must follow. */
static bool scan_first(struct json_scanner *s, bool *ret_empty)
{
    *ret_empty = close_level(s);
    return *ret_empty || !in_object(s) || scan_name(s);
}

bool json_scan_document(struct json_scanner *s)
{
    do {
        bool opened, empty = true;

        json_skip_space(s);
        if (!scan_value(s, &opened))
            return false;
        if (opened && !scan_first(s, &empty))
            return false;
        if (opened && !empty)
            continue; /* depth is above 0: the first value comes next */
        if (!scan_to_next_value(s))
            return false;
    } while (s->depth > 0);
    return true;
}

struct json_scanner json_scanner_at(const char *text, size_t len, int max_depth)
{
    return (struct json_scanner){
        .p = (const unsigned char *) text,
        .end = len > 0 ? (const unsigned char *) text + len : NULL,
        .max_depth = MIN(max_depth, JSON_MAX_DEPTH),
    };
}

bool json_is_valid(const char *text, size_t len, int max_depth)
{
    struct json_scanner s = json_scanner_at(text, len, max_depth);

    if (len == 0 || !json_scan_document(&s))
        return false;
    json_skip_space(&s);
    return s.p == s.end;
}

static void add_escape(struct strbuf *sb, unsigned char c)
{
    static const char short_forms[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    const char *hex = "0123456789abcdef";

    for (const char *f = short_forms; *f; f += 2) {
        if ((unsigned char) f[0] == c) {
            strbuf_add(sb, (char[]){'\\', f[1]}, 2);
            return;
        }
    }
    strbuf_add(sb, (char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
}

void json_add_string(struct strbuf *sb, const char *text, size_t len)
{
    const unsigned char *p = (const unsigned char *) text, *end = len > 0 ? p + len : p;

    strbuf_addc(sb, '"');
    while (p < end) {
        const unsigned char *run = p;
        size_t n;

        p = skip_plain(p, end);
        strbuf_add(sb, run, (size_t) (p - run));
        if (p >= end)
            break;
        if (*p < 0x80) {
            add_escape(sb, *p++);
            continue;
        }
        n = utf8_sequence(p, end);
        if (n > 0)
            strbuf_add(sb, p, n);
        else
            strbuf_adds(sb, UTF8_REPLACEMENT);
        p += MAX(n, (size_t) 1);
    }
    strbuf_addc(sb, '"');
}
