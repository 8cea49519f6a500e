/* The steps of sql/ in the order of their numbers, then the repeatable files of sql/repeatable/ in the order
 * of their names; embedded when the programs are built. */
#pragma once

#include <stddef.h>

struct sql_file {
    const char *name; /* 002_tables.sql, repeatable/01_values.sql */
    const char *text;
};
extern const struct sql_file sql_files[];
extern const size_t sql_files_count;
