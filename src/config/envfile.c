/* Environment files: anubisctl sees the same variables as the daemon. Lines that are no assignment are passed
 * over, as systemd does. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "config/config_internal.h"

#define FILE_MAX ((size_t) 1 << 20)

struct assignment {
    char *name, *value;
};

struct parser {
    const char *p;
    struct assignment *items;
    size_t count;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* A backslash before the end of a line joins it with the next one, in a comment too. */
static void skip_line(struct parser *s)
{
    while (*s->p && *s->p != '\n')
        s->p += s->p[0] == '\\' && s->p[1] ? 2 : 1;
}

static void read_single_quoted(struct parser *s, struct strbuf *value)
{
    for (s->p++; *s->p && *s->p != '\''; s->p++)
        strbuf_addc(value, *s->p);
    s->p += *s->p == '\'';
}

/* Within double quotes a backslash stands for itself but before these. */
static void read_double_quoted(struct parser *s, struct strbuf *value)
{
    for (s->p++; *s->p && *s->p != '"'; s->p++) {
        bool escape = s->p[0] == '\\' && s->p[1] && strchr("\"\\`$\n", s->p[1]);
        s->p += escape;
        if (!escape || *s->p != '\n')
            strbuf_addc(value, *s->p);
    }
    s->p += *s->p == '"';
}

/* Up to the end of the line or to a quote that begins the value's next piece. White space around what is not
 * quoted does not count. */
static void read_plain(struct parser *s, struct strbuf *value)
{
    size_t solid = value->len;

    while (*s->p && *s->p != '\n') {
        bool escape = s->p[0] == '\\' && s->p[1];
        s->p += escape;
        if (!escape || *s->p != '\n')
            strbuf_addc(value, *s->p);
        if (escape || !is_blank(*s->p))
            solid = value->len;
        s->p++;
    }
    if (value->data) {
        value->len = solid;
        value->data[solid] = '\0';
    }
}

static char *read_value(struct parser *s)
{
    CLEANUP(strbuf_wipe) struct strbuf value = STRBUF_INIT(FILE_MAX);

    for (;;) {
        while (is_blank(*s->p))
            s->p++;
        if (*s->p == '\'')
            read_single_quoted(s, &value);
        else if (*s->p == '"')
            read_double_quoted(s, &value);
        else
            break;
    }
    read_plain(s, &value);
    return xstrdup(strbuf_str(&value));
}

static bool is_name(const char *name, size_t len)
{
    if (len == 0 || isdigit((unsigned char) *name))
        return false;
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char) name[i]) && name[i] != '_')
            return false;
    return true;
}

static void read_assignment(struct parser *s)
{
    const char *name = s->p;
    size_t len = strcspn(name, "=\n");

    s->p += len;
    if (*s->p != '=')
        return;
    s->p++;
    while (len && is_blank(name[len - 1]))
        len--;
    char *value = read_value(s);
    if (!is_name(name, len)) {
        free_secret(value);
        return;
    }
    s->items = xreallocarray(s->items, s->count + 1, sizeof(*s->items));
    s->items[s->count++] = (struct assignment){xstrndup(name, len), value};
}

static void parse(struct parser *s)
{
    while (*s->p) {
        if (is_blank(*s->p) || *s->p == '\n')
            s->p++;
        else if (*s->p == '#' || *s->p == ';')
            skip_line(s);
        else
            read_assignment(s);
    }
}

static int read_file(const char *path, bool needed, struct strbuf *text, struct error *err)
{
    CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    int r = fd < 0 ? -errno : config_read_all(fd, FILE_MAX, text);

    if (r == -ENOENT && !needed)
        return 0;
    if (r < 0)
        error_set(err, "could not read \"%s\": %s", path, strerror(-r));
    return r;
}

int envfile_load(const char *path, bool needed, struct error *err)
{
    CLEANUP(strbuf_wipe) struct strbuf text = STRBUF_INIT(2 * FILE_MAX);
    struct parser parser = {0};

    int r = read_file(path, needed, &text, err);
    if (r < 0)
        return r;
    strbuf_addc(&text, '\n');
    parser.p = strbuf_str(&text);
    parse(&parser);
    /* From the end: the last assignment counts, and variables that were set before stay. */
    for (size_t i = parser.count; i-- > 0;) {
        setenv(parser.items[i].name, parser.items[i].value, 0);
        free(parser.items[i].name);
        free_secret(parser.items[i].value);
    }
    free(parser.items);
    return 0;
}
