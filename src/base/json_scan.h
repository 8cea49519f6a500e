/* What the check and the reading of JSON share. Pure. */
#pragma once

#include "base/json.h"

struct json_scanner {
    const unsigned char *p, *end;
    uint64_t in_object[JSON_MAX_DEPTH / 64]; /* a bit for each open level: object or array */
    int depth, max_depth;
};
struct json_scanner json_scanner_at(const char *text, size_t len, int max_depth);

/* Each stands behind what it has read; false (-1) where something else stands. */
void json_skip_space(struct json_scanner *s);
bool json_scan_document(struct json_scanner *s); /* one value with all that is in it, and the blanks before */
bool json_scan_string(struct json_scanner *s);   /* from behind the opening quote to behind the closing one */
int json_scan_hex4(struct json_scanner *s);      /* four hexadecimal digits */
