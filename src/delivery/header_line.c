/* A line of a request's header. See header_line.h. */
#include "delivery/header_line.h"

#include <string.h>

char *header_line(const char *name, const char *prefix, const char *value)
{
    const char *const parts[] = {name, ": ", prefix, value};
    size_t len = 0;

    for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
        len += strlen(parts[i]);
    char *line = xmalloc(len + 1), *end = line; /* once: what grows leaves copies behind */
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
        end = stpcpy(end, parts[i]);
    return line;
}
