/* Origins of values, and the lines that report problems and notices with their place.
 *
 * Main thread, at load only. Never logs: the lines go to the caller's buffers. */
#include "config/config_internal.h"

struct config_origin *config_origin(const struct config *c, const struct config_key *key)
{
    return &c->origins->keys[key - config_keys];
}

static void add_place(const struct config_loader *l, const struct config_origin *where, struct strbuf *out)
{
    if (where->source == SOURCE_ENVIRONMENT)
        strbuf_addf(out, "environment %s: ", where->environment);
    else if (where->line > 0)
        strbuf_addf(out, "%s:%u: ", l->path, where->line);
    else
        strbuf_addf(out, "%s: ", l->path);
}

static void PRINTF(4, 0) add_line(const struct config_loader *l, struct strbuf *out,
                                  const struct config_origin *where, const char *fmt, va_list args)
{
    CLEANUP(strbuf_free) struct strbuf line = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    /* Whole lines or nothing: `out` has a maximum of the caller's. */
    add_place(l, where, &line);
    strbuf_addv(&line, fmt, args);
    strbuf_addc(&line, '\n');
    strbuf_add(out, line.data, line.len);
}

void config_problem(struct config_loader *l, const struct config_origin *where, const char *fmt, ...)
{
    va_list args;

    if (l->n_problems++ >= CONFIG_PROBLEMS_MAX)
        return;
    va_start(args, fmt);
    add_line(l, l->problems, where, fmt, args);
    va_end(args);
}

void config_notice(struct config_loader *l, const struct config_origin *where, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    add_line(l, l->notices, where, fmt, args);
    va_end(args);
}
