/* The configuration file as text: reading it with care, and rewriting what libconfig would misread.
 *
 * Main thread. The scanner here knows just enough of libconfig's syntax (comments, strings, names, numbers,
 * brackets) to find mistakes that the library ignores: integers that do not fit, comments without an end,
 * @include, NUL bytes. Line numbers stay the same. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/config_internal.h"

#define DEPTH_MAX 16

int config_read_all(int fd, size_t max, struct strbuf *ret)
{
    /* One byte more than the maximum shows that the file is too long, even when it grows meanwhile. */
    while (ret->len <= max) {
        char *to = strbuf_reserve(ret, max + 1 - ret->len);
        ssize_t n;

        if (!to)
            return -EFBIG;
        n = read(fd, to, max + 1 - ret->len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return 0;
        to[n] = '\0';
        ret->len += (size_t) n;
    }
    return -EFBIG;
}

int config_file_read(const char *path, size_t max, struct strbuf *ret, struct strbuf *why)
{
    /* O_NONBLOCK: opening a FIFO would wait for its writer. */
    CLEANUP(closep) int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    struct stat st;
    int r;

    if (fd < 0 || fstat(fd, &st) < 0) {
        r = -errno;
        strbuf_addf(why, "could not open the file: %s", strerror(-r));
        return r;
    }
    if (!S_ISREG(st.st_mode)) {
        strbuf_adds(why, S_ISDIR(st.st_mode) ? "is a directory" : "is not a regular file");
        return S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
    }
    r = config_read_all(fd, max, ret);
    if (r == -EFBIG)
        strbuf_addf(why, "is longer than %zu KiB, the most that is accepted", max >> 10);
    else if (r < 0)
        strbuf_addf(why, "could not read the file: %s", strerror(-r));
    return r;
}

struct source {
    struct config_loader *loader;
    const char *p, *end;
    struct strbuf *out;
    unsigned line, depth;
    unsigned open_string; /* first string with a line feed in it */
    bool refused;
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_name_start(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '*' || c == '_';
}

static bool is_name(char c)
{
    return is_name_start(c) || is_digit(c) || c == '-';
}

static void refuse(struct source *s, unsigned line, const char *what)
{
    config_problem_line(s->loader, line, "%s", what);
    s->refused = true;
}

static void take(struct source *s, const char *to)
{
    for (const char *p = s->p; p < to; p++)
        s->line += *p == '\n';
    strbuf_add(s->out, s->p, (size_t) (to - s->p));
    s->p = to;
}

static void take_line_comment(struct source *s)
{
    const char *to = memchr(s->p, '\n', (size_t) (s->end - s->p));

    /* Left out: at the end of a file, libconfig wants a line feed behind it. */
    s->p = to ? to : s->end;
}

static void take_block_comment(struct source *s)
{
    const char *to = memmem(s->p + 2, (size_t) (s->end - s->p - 2), "*/", 2);

    if (!to)
        refuse(s, s->line, "the comment that starts here has no end; close it with */");
    take(s, to ? to + 2 : s->end);
}

static void take_string(struct source *s)
{
    unsigned line = s->line;
    const char *to = s->p + 1;

    while (to < s->end && *to != '"')
        to += *to == '\\' && to + 1 < s->end ? 2 : 1;
    /* One missing quote turns strings and what is between them about, up to the end of the file: the first
     * string with a line feed in it is where that began. */
    if (to >= s->end && s->open_string > 0)
        refuse(s, s->open_string,
               "the string that starts here runs over several lines: is its closing quote missing?");
    else if (to >= s->end)
        refuse(s, line, "the string that starts here has no closing quote");
    take(s, to < s->end ? to + 1 : s->end);
    if (s->line > line && s->open_string == 0)
        s->open_string = line;
}

/* librdkafka's names have dots, libconfig's must not. */
static void take_name(struct source *s)
{
    while (s->p < s->end && is_name(*s->p)) {
        strbuf_addc(s->out, *s->p++);
        if (s->end - s->p >= 2 && *s->p == '.' && is_name(s->p[1])) {
            strbuf_addc(s->out, '_');
            s->p++;
        }
    }
}

static const char *skip_digits(const char *p, const char *end, bool hex)
{
    while (p < end && (is_digit(*p) || (hex && ((*p | 0x20) >= 'a' && (*p | 0x20) <= 'f'))))
        p++;
    return p;
}

/* Clamped to 64 bits, whose ends config_tree.c takes for "too big". */
static long long parse_integer(const char *start, const char *to, bool hex)
{
    CLEANUP(freep) char *digits = xstrndup(start, (size_t) (to - start));

    return strtoll(digits, NULL, hex ? 16 : 10);
}

/* libconfig reads an integer of more than 32 bits as another number unless an L follows. */
static void take_number(struct source *s)
{
    const char *start = s->p, *p = start + (*start == '-' || *start == '+');
    bool hex = s->end - p > 2 && p[0] == '0' && (p[1] | 0x20) == 'x';
    const char *to = skip_digits(hex ? p + 2 : p, s->end, hex);
    bool is_float = to < s->end && !hex && (*to == '.' || (*to | 0x20) == 'e');
    long long value = is_float ? 0 : parse_integer(start, to, hex);

    if (value <= INT32_MAX && value >= INT32_MIN) {
        take(s, to);
        return;
    }
    strbuf_add_i64(s->out, value);
    strbuf_addc(s->out, 'L');
    s->p = to;
    for (int i = 0; i < 2 && s->p < s->end && *s->p == 'L'; i++)
        s->p++;
}

static void take_bracket(struct source *s)
{
    if (strchr("{([", *s->p)) {
        if (++s->depth == DEPTH_MAX + 1)
            refuse(s, s->line, "brackets are nested too deeply here; no key needs more than three levels");
    } else if (s->depth > 0) {
        s->depth--;
    }
    take(s, s->p + 1);
}

static void take_token(struct source *s)
{
    const char *p = s->p;
    char c = *p, next = p + 1 < s->end ? p[1] : '\0';

    if (c == '#' || (c == '/' && next == '/')) {
        take_line_comment(s);
    } else if (c == '/' && next == '*') {
        take_block_comment(s);
    } else if (c == '"') {
        take_string(s);
    } else if (is_name_start(c)) {
        take_name(s);
    } else if (is_digit(c) || ((c == '-' || c == '+') && is_digit(next))) {
        take_number(s);
    } else if (strchr("{}()[]", c)) {
        take_bracket(s);
    } else {
        if (c == '@')
            refuse(s, s->line,
                   "cannot use @include here: the configuration is one file; copy the settings into it");
        take(s, p + 1);
    }
}

int config_source_prepare(struct config_loader *l, const struct strbuf *source, struct strbuf *ret,
                          unsigned *ret_open_string)
{
    struct source s = {
        .loader = l,
        .p = strbuf_str(source),
        .end = strbuf_str(source) + source->len,
        .out = ret,
        .line = 1,
    };

    if (source->len >= 3 && memcmp(s.p, "\xEF\xBB\xBF", 3) == 0)
        s.p += 3; /* the byte order mark of some editors */
    while (s.p < s.end && !s.refused) {
        if (*s.p == '\0')
            refuse(&s, s.line, "a NUL byte stands here; the configuration is a text file");
        else
            take_token(&s);
    }
    *ret_open_string = s.open_string;
    return s.refused ? -EINVAL : 0;
}
