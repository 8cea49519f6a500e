/* Retry-After (RFC 9110, 10.2.3). Pure; any thread. */
#pragma once

#include "base/util.h"

/* No answer makes anybody wait longer than a year. */
#define HTTP_RETRY_AFTER_MAX_SEC INT64_C(31536000)

/* Reads a field value of `len` bytes (surrounding blanks allowed): a number of seconds or an HTTP date in any
 * of the three forms of RFC 9110, 5.6.7. `now_usec`: wall clock, since 1970. *ret_sec is from now, rounded
 * up, 0 for a date in the past, at most HTTP_RETRY_AFTER_MAX_SEC. 0, or -EINVAL for anything else. */
int http_parse_retry_after(const char *value, size_t len, int64_t now_usec, int64_t *ret_sec);
