/* Why libconfig does not understand a file: what is written in another program's way, with the right form.
 *
 * Main thread, at load only; asked when the library has refused the text, of which it tells the line and
 * little else. Words of the file are quoted only where they are no secret. */
#include <ctype.h>
#include <string.h>

#include "config/config_internal.h"

struct name {
    const char *text;
    size_t len;
    unsigned line;
    int group; /* the index of the name of the group that it stands in, -1 = none */
};

struct syntax {
    struct config_loader *loader;
    const char *p;
    unsigned line;
    struct name *names;
    size_t count;
    bool found; /* the cause: reported */
};

static void PRINTF(3, 4) report(struct syntax *s, unsigned line, const char *fmt, ...)
{
    CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    va_list args;

    va_start(args, fmt);
    strbuf_addv(&text, fmt, args);
    va_end(args);
    config_problem_line(s->loader, line, "%s", strbuf_str(&text));
    s->found = true;
}

static bool is_name_start(char c)
{
    return isalpha((unsigned char) c) || c == '*' || c == '_';
}

static size_t name_length(const char *p)
{
    size_t len = 0;

    while (is_name_start(p[len]) || isdigit((unsigned char) p[len]) || p[len] == '-')
        len++;
    return len;
}

static void move(struct syntax *s, const char *to)
{
    for (; s->p < to; s->p++)
        s->line += *s->p == '\n';
}

/* Comments end: config_source_prepare() has seen to it. */
static void skip_blank(struct syntax *s)
{
    for (;;) {
        const char *end = s->p + strspn(s->p, " \t\r\n\f\v");
        if (*end == '#' || strncmp(end, "//", 2) == 0)
            end += strcspn(end, "\n");
        else if (strncmp(end, "/*", 2) == 0)
            end = strstr(end, "*/") + 2;
        if (end == s->p)
            return;
        move(s, end);
    }
}

static void skip_string(struct syntax *s)
{
    const char *end = s->p + 1;

    while (*end && *end != '"')
        end += *end == '\\' && end[1] ? 2 : 1;
    move(s, end + (*end == '"'));
}

/* An array or a list. */
static void skip_brackets(struct syntax *s)
{
    int depth = 0;

    do {
        if (*s->p == '"') {
            skip_string(s);
        } else {
            depth += strchr("([{", *s->p) != NULL;
            depth -= strchr(")]}", *s->p) != NULL;
            move(s, s->p + 1);
        }
        skip_blank(s);
    } while (*s->p && depth > 0);
}

static bool is_same(const struct name *a, const struct name *b)
{
    return a->group == b->group && a->len == b->len && strncasecmp(a->text, b->text, a->len) == 0;
}

static void add_name(struct syntax *s, const struct name *name, struct strbuf *out)
{
    if (name->group >= 0) {
        add_name(s, &s->names[name->group], out);
        strbuf_addc(out, '.');
    }
    strbuf_add(out, name->text, name->len);
}

/* False after a duplicate is reported. */
static bool note_name(struct syntax *s, const struct name *name)
{
    CLEANUP(strbuf_free) struct strbuf full = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    for (size_t i = 0; i < s->count; i++) {
        if (!is_same(&s->names[i], name))
            continue;
        add_name(s, name, &full);
        report(s, name->line,
               "\"%s\" is set a second time; it stands in line %u already: keep one of the two",
               strbuf_str(&full), s->names[i].line);
        return false;
    }
    s->names = xreallocarray(s->names, s->count + 1, sizeof(*s->names));
    s->names[s->count++] = *name;
    return true;
}

/* May a message quote the value of this name? */
static bool is_quotable(const struct syntax *s, const struct name *name, const char *value)
{
    CLEANUP(freep) char *text = xstrndup(name->text, name->len);
    CLEANUP(freep) char *group = xstrdup("");

    if (name->group >= 0) {
        free(group);
        group = xstrndup(s->names[name->group].text, s->names[name->group].len);
    }
    const struct config_key *key = config_key_find(group, text);
    return key && !(key->flags & (KEY_SECRET | KEY_CONNINFO)) && !strstr(value, "://");
}

static bool is_one_of(const char *word, const char *const *words)
{
    for (; *words; words++)
        if (strcasecmp(word, *words) == 0)
            return true;
    return false;
}

/* `word` is no value: neither a string nor a number, nor true or false. */
static void report_word(struct syntax *s, const struct name *name, const char *word)
{
    static const char *const positive[] = {"yes", "on", "enabled", NULL};
    static const char *const negative[] = {"no", "off", "disabled", NULL};
    static const char *const nothing[] = {"null", "nil", "none", "~", NULL};
    int len = (int) name->len;
    bool yes = is_one_of(word, positive);

    if (yes || is_one_of(word, negative))
        report(s, s->line, "syntax error; \"%s\" is no value here: write  %.*s = %s;", word, len, name->text,
               yes ? "true" : "false");
    else if (!*word)
        report(s, s->line, "syntax error; the value of \"%.*s\" is missing: a key is written  name = value;",
               len, name->text);
    else if (is_one_of(word, nothing))
        report(s, s->line, "syntax error; to have no value is written  %.*s = \"\";", len, name->text);
    else
        report(s, s->line, "syntax error; a text stands in double quotes: write  %.*s = \"%s\";", len,
               name->text, is_quotable(s, name, word) ? word : "…");
}

/* A value without quotes, up to the end of the line. */
static void read_word(struct syntax *s, const struct name *name)
{
    size_t len = strcspn(s->p, ";\n#}");
    const char *slashes = memmem(s->p, len, " //", 3);

    if (slashes)
        len = (size_t) (slashes - s->p);
    while (len && strchr(" \t\r", s->p[len - 1]))
        len--;
    bool single = len >= 2 && *s->p == '\'' && s->p[len - 1] == '\'';
    CLEANUP(freep) char *word = xstrndup(s->p + single, len - (single ? 2 : 0));

    if (strcasecmp(word, "true") != 0 && strcasecmp(word, "false") != 0) {
        if (s->line > name->line && name_length(s->p) > 0)
            report(s, name->line, "syntax error; a group is written  %.*s: { … };", (int) name->len,
                   name->text);
        else
            report_word(s, name, word);
    }
    move(s, s->p + len);
}

/* The number itself, or a word that begins with one, such as 30s. */
static void read_number(struct syntax *s, const struct name *name)
{
    const char *end = s->p + 1;

    if (s->p[0] == '0' && (s->p[1] | 0x20) == 'x')
        end++;
    while (isxdigit((unsigned char) *end) || (*end && strchr(".+-L", *end)))
        end++;
    bool is_number = s->p[1] == 'x' || strspn(s->p, "0123456789+-.eEL") == (size_t) (end - s->p);
    if (is_number && (!*end || strchr(" \t\r\n;,#/})]", *end)))
        move(s, end);
    else
        read_word(s, name);
}

static void read_settings(struct syntax *s, int group);

static void read_value(struct syntax *s, const struct name *name)
{
    unsigned line = s->line;

    if (*s->p == '{') {
        int group = (int) s->count - 1;
        move(s, s->p + 1);
        read_settings(s, group);
        if (!s->found && *s->p != '}')
            report(s, line, "the group \"%.*s\" that starts here has no end; close it with };",
                   (int) name->len, name->text);
        else if (!s->found)
            move(s, s->p + 1);
    } else if (*s->p == '"') {
        while (*s->p == '"') {
            skip_string(s);
            skip_blank(s);
        }
    } else if (*s->p == '(' || *s->p == '[') {
        skip_brackets(s);
    } else if (isdigit((unsigned char) *s->p) ||
               ((*s->p == '-' || *s->p == '+') && isdigit((unsigned char) s->p[1]))) {
        read_number(s, name);
    } else {
        read_word(s, name);
    }
}

static void read_setting(struct syntax *s, int group)
{
    const struct name name = {s->p, name_length(s->p), s->line, group};
    int len = (int) name.len;

    move(s, s->p + name.len);
    skip_blank(s);
    if (*s->p == '{')
        report(s, name.line, "syntax error; a group is written  %.*s: { … };  with a colon", len, name.text);
    else if (*s->p != '=' && *s->p != ':')
        report(s, name.line,
               "syntax error; there is no \"=\" behind \"%.*s\": a key is written  name = value;", len,
               name.text);
    else if (note_name(s, &name)) {
        move(s, s->p + 1 + (s->p[0] == '=' && s->p[1] == '>'));
        skip_blank(s);
        read_value(s, &name);
    }
}

/* What stands where a name should. */
static void report_place(struct syntax *s)
{
    unsigned line = s->line;

    if (*s->p == '[') {
        report(s, line, "syntax error; a group is written  name: { … };  and not  [name]");
    } else if (*s->p == '{') {
        report(s, line,
               "syntax error; there is no bracket around the whole, and a group is written  name: { … };");
    } else if (*s->p == '"' || *s->p == '\'') {
        skip_string(s);
        skip_blank(s);
        if (*s->p == ':' || *s->p == '=')
            report(s, line, "syntax error; a name stands without quotes: a key is written  name = value;");
        else
            report(s, line,
                   "syntax error; several values of one key are one string, with commas in it: \"a,b\"");
    }
}

/* Up to a closing bracket, or the end of the text. */
static void read_settings(struct syntax *s, int group)
{
    for (skip_blank(s); *s->p && *s->p != '}' && !s->found; skip_blank(s)) {
        if (*s->p == ';' || *s->p == ',') {
            move(s, s->p + 1);
        } else if (is_name_start(*s->p)) {
            read_setting(s, group);
        } else {
            report_place(s);
            return;
        }
    }
}

bool config_syntax_explain(struct config_loader *l, const char *text)
{
    struct syntax s = {.loader = l, .p = text, .line = 1};

    read_settings(&s, -1);
    if (!s.found && *s.p == '}')
        report(&s, s.line,
               "syntax error; this bracket closes nothing: one too many, or a \"{\" is missing above");
    free(s.names);
    return s.found;
}
