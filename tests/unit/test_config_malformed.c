/* Thousands of damaged configuration files: each is refused with the line, or is still right, and nothing
 * breaks.
 *
 * The damage is drawn from a generator of its own with a fixed seed, so that a failure happens again. */
#include <ctype.h>
#include <errno.h>

#include "config_fixture.h"

static uint64_t seed;

static size_t draw(size_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (size_t) (seed >> 11) % n;
}

static size_t position_of_line(const char *text, unsigned line)
{
    const char *p = text;

    while (--line > 0)
        p = strchr(p, '\n') + 1;
    return (size_t) (p - text);
}

static unsigned count_lines(const char *text)
{
    unsigned n = 0;

    for (; *text; text++)
        n += *text == '\n';
    return n;
}

/* "path:LINE: words"; LINE must exist in the text, the line behind the last included. */
static void assert_problem_lines(const struct fixture *f, unsigned lines)
{
    size_t path_len = strlen(f->path);

    for (const char *p = strbuf_str(&f->problems); *p; p = strchr(p, '\n') + 1) {
        unsigned long line;
        char *end;

        assert_memory_equal(p, f->path, path_len);
        assert_int_equal(p[path_len], ':');
        line = strtoul(p + path_len + 1, &end, 10);
        assert_in_range(line, 1, lines + 1);
        assert_memory_equal(end, ": ", 2);
        assert_true(strchr(end, '\n') - end > 10);
    }
}

static bool names_line(const struct fixture *f, unsigned line)
{
    CLEANUP(freep) char *place = xasprintf("%s:%u: ", f->path, line);

    return strstr(strbuf_str(&f->problems), place) != NULL;
}

/* --- damage that must always be found in its own line ----------------------------------------- */

/* A list may be empty: damaged to another one it is right. */
static bool is_list_line(const char *line)
{
    size_t len = strcspn(line, "\n");

    return len > 4 && memcmp(line + len - 4, "( );", 4) == 0;
}

static bool is_key_line(const char *p)
{
    p += strspn(p, " ");
    return islower((unsigned char) *p) && strstr(p, " = ") && strstr(p, " = ") < strchr(p, '\n');
}

static void replace(struct strbuf *out, const char *text, size_t from, size_t len, const char *with)
{
    strbuf_add(out, text, from);
    strbuf_adds(out, with);
    strbuf_adds(out, text + from + len);
}

/* The key's name gets a letter more, less, or another one. */
static void damage_name(struct strbuf *out, const char *text, size_t at)
{
    size_t start = at + strspn(text + at, " "), len = strcspn(text + start, " "), where = start + draw(len);
    char other[2] = {(char) ('A' + draw(26)), '\0'};

    replace(out, text, where, draw(2), other);
}

static void damage_value(struct strbuf *out, const char *text, size_t at)
{
    static const char *const values[] = {
        "[ ]",
        "( )",
        "[ 1, 2 ]",
        "{ }",
        "-99999999999",
        "99999999999999999999999",
        "\"\\x07\"",
        "0x7FFFFFFFFFFFFFFF",
        "\"\xff\xfe\"",
        "1e400",
        "\"file:relative\"",
        "\"credential:a/b\"",
        "\"env:\"",
        "\"file:/nonexistent\"",
        "\"credential:x\"",
        "-1e400",
        "(((1)))",
        "[ \"a\" ]",
    };
    size_t start = (size_t) (strstr(text + at, " = ") + 3 - text), len = strcspn(text + start, ";");

    replace(out, text, start, len, values[draw(ARRAY_SIZE(values))]);
}

static void test_damaged_keys_are_found_in_their_line(void **state)
{
    CLEANUP(strbuf_free) struct strbuf shipped = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    struct fixture *f = *state;
    unsigned lines;
    int done = 0;

    fixture_shipped(&shipped);
    lines = count_lines(shipped.data);
    seed = 20261124;
    while (done < 1500) {
        CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(STRBUF_MAX_DEFAULT);
        unsigned line = 1 + (unsigned) draw(lines);
        size_t at = position_of_line(shipped.data, line);

        if (!is_key_line(shipped.data + at) || is_list_line(shipped.data + at))
            continue;
        if (draw(2))
            damage_name(&text, shipped.data, at);
        else
            damage_value(&text, shipped.data, at);
        fixture_load(f, text.data);
        assert_true(f->result == -EINVAL || f->result == -EAGAIN); /* a secret that is not there */
        assert_problem_lines(f, lines);
        if (!names_line(f, line))
            fail_msg("line %u is not named: %s", line, f->problems.data);
        done++;
    }
}

/* --- damage anywhere -------------------------------------------------------------------------- */

static void damage_anywhere(struct strbuf *out, const char *text, size_t len)
{
    static const char bytes[] = "\"\"\"{}[]();;==:,#/*\\@-+.0123456789LeExX\n\t \x01\x7f\x80\xffqa_";
    size_t at = draw(len), span = draw(40);
    char byte[2] = {bytes[draw(sizeof(bytes) - 1)], '\0'};

    span = span < len - at ? span : len - at;
    switch (draw(6)) {
    case 0: /* one byte in */
        replace(out, text, at, 0, byte);
        break;
    case 1: /* one byte instead */
        replace(out, text, at, 1, byte);
        break;
    case 2: /* a piece out */
        replace(out, text, at, span, "");
        break;
    case 3: /* cut off */
        strbuf_add(out, text, at);
        break;
    case 4: /* a piece twice */
        strbuf_add(out, text, at + span);
        strbuf_adds(out, text + at);
        break;
    default: /* a piece elsewhere */
        strbuf_add(out, text + at, span);
        strbuf_adds(out, text);
        break;
    }
}

static void test_damage_anywhere_never_breaks_us(void **state)
{
    CLEANUP(strbuf_free) struct strbuf shipped = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    struct fixture *f = *state;
    int malformed = 0;

    fixture_shipped(&shipped);
    seed = 17;
    for (int i = 0; i < 3000; i++) {
        CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(STRBUF_MAX_DEFAULT);

        damage_anywhere(&text, shipped.data, shipped.len);
        for (size_t more = draw(3); more > 0 && text.len > 0; more--) {
            CLEANUP(strbuf_free) struct strbuf worse = STRBUF_INIT(STRBUF_MAX_DEFAULT);

            damage_anywhere(&worse, text.data, text.len);
            strbuf_clear(&text);
            strbuf_add(&text, strbuf_str(&worse), worse.len);
        }
        fixture_load_bytes(f, strbuf_str(&text), text.len);
        assert_problem_lines(f, count_lines(strbuf_str(&text)));
        malformed += f->result != 0;
    }
    assert_true(malformed >= 1000);
}

static void test_any_bytes_are_survived(void **state)
{
    struct fixture *f = *state;

    seed = 4711;
    for (int i = 0; i < 500; i++) {
        static const char syntax[] = "{}[]()=:;,\"\\#/*@ \nab_1.-+eLx\0";
        char bytes[400];

        for (size_t j = 0; j < sizeof(bytes); j++)
            bytes[j] = i % 2 ? (char) draw(256) : syntax[draw(sizeof(syntax))];
        fixture_load_bytes(f, bytes, draw(sizeof(bytes)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FIXTURE(test_damaged_keys_are_found_in_their_line),
        WITH_FIXTURE(test_damage_anywhere_never_breaks_us),
        WITH_FIXTURE(test_any_bytes_are_survived),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
