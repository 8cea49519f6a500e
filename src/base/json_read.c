/* Values of a JSON text, where they stand in it. See json.h.
 *
 * All texts have passed json_is_valid(), so nothing here looks for what cannot be. */
#include <string.h>

#include "base/json_scan.h"

static enum json_type type_of(unsigned char first)
{
    switch (first) {
    case '{':
        return JSON_OBJECT;
    case '[':
        return JSON_ARRAY;
    case '"':
        return JSON_STRING;
    case 't':
    case 'f':
        return JSON_BOOLEAN;
    case 'n':
        return JSON_NULL;
    default:
        return JSON_NUMBER;
    }
}

/* The value that comes next; the scanner stands behind it afterwards. */
static struct json_value take_value(struct json_scanner *s)
{
    json_skip_space(s);
    const unsigned char *begin = s->p;
    (void) json_scan_document(s);
    return (struct json_value){type_of(*begin), (const char *) begin, (size_t) (s->p - begin)};
}

bool json_read(const char *text, size_t len, struct json_value *ret)
{
    if (!json_is_valid(text, len, JSON_MAX_DEPTH))
        return false;
    struct json_scanner s = json_scanner_at(text, len, JSON_MAX_DEPTH);
    *ret = take_value(&s);
    return true;
}

/* To the next element, or the next member's name. False: there are no more. */
static bool to_next(struct json_scanner *s)
{
    json_skip_space(s);
    if (s->p < s->end && *s->p == ',') {
        s->p++;
        json_skip_space(s);
    }
    return s->p < s->end && *s->p != ']' && *s->p != '}';
}

/* A member's name; to its value. */
static struct json_value take_name(struct json_scanner *s)
{
    struct json_value name = {JSON_STRING, (const char *) s->p, 0};

    s->p++;
    (void) json_scan_string(s);
    name.len = (size_t) ((const char *) s->p - name.p);
    json_skip_space(s);
    s->p++;
    json_skip_space(s);
    return name;
}

struct json_walk json_walk(const struct json_value *container)
{
    struct json_walk w = {.p = container->p, .end = container->p + container->len};

    w.is_object = container->type == JSON_OBJECT;
    w.p = w.is_object || container->type == JSON_ARRAY ? w.p + 1 : w.end;
    return w;
}

bool json_next(struct json_walk *w, struct json_value *ret_name, struct json_value *ret)
{
    struct json_scanner s = json_scanner_at(w->p, (size_t) (w->end - w->p), JSON_MAX_DEPTH);

    if (w->p == w->end || !to_next(&s))
        return false;
    if (w->is_object)
        *ret_name = take_name(&s);
    *ret = take_value(&s);
    w->p = (const char *) s.p;
    return true;
}

/* Of a pointer's token: ~1 stands for /, ~0 for ~. Returns the rest of the pointer. */
static const char *take_token(const char *pointer, struct strbuf *token)
{
    strbuf_clear(token);
    for (pointer++; *pointer && *pointer != '/'; pointer++) {
        bool escaped = *pointer == '~' && (pointer[1] == '0' || pointer[1] == '1');
        if (escaped)
            pointer++;
        strbuf_addc(token, !escaped ? *pointer : *pointer == '1' ? '/' : '~');
    }
    return pointer;
}

/* From the opening bracket to the value that a token names. */
static bool step_into(struct json_scanner *s, const char *token)
{
    bool is_object = *s->p == '{';
    int64_t index = 0, wanted = 0;

    if (!is_object && (*s->p != '[' || (token[0] == '0' && token[1]) || token[0] == '-' ||
                       parse_i64(token, 0, INT64_MAX, &wanted) != 0))
        return false;
    for (s->p++; to_next(s); index++) {
        if (is_object) {
            struct json_value name = take_name(s);
            if (json_is_text(&name, token))
                return true;
        } else if (index == wanted) {
            return true;
        }
        (void) json_scan_document(s);
    }
    return false;
}

bool json_find(const struct json_value *in, const char *pointer, struct json_value *ret)
{
    CLEANUP(strbuf_free) struct strbuf token = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    struct json_scanner s = json_scanner_at(in->p, in->len, JSON_MAX_DEPTH);

    while (*pointer) {
        pointer = take_token(pointer, &token);
        if (!step_into(&s, strbuf_str(&token)))
            return false;
    }
    *ret = take_value(&s);
    return true;
}

bool json_is_pointer(const char *pointer)
{
    if (*pointer && *pointer != '/')
        return false;
    for (const char *p = pointer; (p = strchr(p, '~')); p++)
        if (p[1] != '0' && p[1] != '1')
            return false;
    return true;
}

static void add_code(struct strbuf *sb, unsigned code)
{
    if (code < 0x80)
        strbuf_addc(sb, (char) code);
    else if (code < 0x800)
        strbuf_add(sb, (char[]){(char) (0xC0 | code >> 6), (char) (0x80 | (code & 63))}, 2);
    else if (code < 0x10000)
        strbuf_add(sb,
                   (char[]){(char) (0xE0 | code >> 12), (char) (0x80 | (code >> 6 & 63)),
                            (char) (0x80 | (code & 63))},
                   3);
    else
        strbuf_add(sb,
                   (char[]){(char) (0xF0 | code >> 18), (char) (0x80 | (code >> 12 & 63)),
                            (char) (0x80 | (code >> 6 & 63)), (char) (0x80 | (code & 63))},
                   4);
}

/* Behind the backslash. */
static void add_unescaped(struct strbuf *sb, struct json_scanner *s)
{
    static const char forms[] = "bfnrt", meanings[] = "\b\f\n\r\t";
    unsigned char c = *s->p++;
    const char *form = strchr(forms, c);

    if (c != 'u') {
        strbuf_addc(sb, form ? meanings[form - forms] : (char) c);
        return;
    }
    unsigned code = (unsigned) json_scan_hex4(s);
    if (code >= 0xD800 && code <= 0xDBFF) {
        s->p += 2;
        code = 0x10000 + ((code - 0xD800) << 10) + ((unsigned) json_scan_hex4(s) - 0xDC00);
    }
    add_code(sb, code);
}

void json_add_text(struct strbuf *sb, const struct json_value *value)
{
    if (value->type != JSON_STRING) {
        strbuf_add(sb, value->p, value->len);
        return;
    }
    struct json_scanner s = json_scanner_at(value->p + 1, value->len - 2, 0);
    while (s.p < s.end) {
        const unsigned char *run = s.p, *escape = memchr(s.p, '\\', (size_t) (s.end - s.p));
        s.p = escape ? escape : s.end;
        strbuf_add(sb, run, (size_t) (s.p - run));
        if (s.p++ < s.end)
            add_unescaped(sb, &s);
    }
}

bool json_is_text(const struct json_value *value, const char *text)
{
    bool is_string = value->type == JSON_STRING;
    const char *p = value->p + is_string;
    size_t len = value->len - 2 * (size_t) is_string;

    if (is_string && memchr(p, '\\', len)) {
        CLEANUP(strbuf_free) struct strbuf plain = STRBUF_INIT(STRBUF_MAX_DEFAULT);
        json_add_text(&plain, value);
        return plain.len == strlen(text) && memcmp(strbuf_str(&plain), text, plain.len) == 0;
    }
    return len == strlen(text) && memcmp(p, text, len) == 0;
}
