/* A list of sentences. See sentences.h. */
#include "base/sentences.h"

#include <stdarg.h>
#include <stdlib.h>

#include "base/strbuf.h"

void sentences_add(struct sentences *s, const char *fmt, ...)
{
    struct strbuf text = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    va_list args;

    va_start(args, fmt);
    strbuf_addv(&text, fmt, args);
    va_end(args);
    s->items = xreallocarray(s->items, s->count + 1, sizeof(*s->items));
    s->items[s->count++] = strbuf_take(&text);
}

void sentences_free(struct sentences *s)
{
    for (size_t i = 0; i < s->count; i++)
        free(s->items[i]);
    free(s->items);
}
