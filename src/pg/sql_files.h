/* The files of sql/, embedded when the programs are built, in the order of their numbers. */
#pragma once

#include <stddef.h>

struct sql_file {
    const char *name; /* 001_schema.sql */
    const char *text;
};
extern const struct sql_file sql_files[];
extern const size_t sql_files_count;
