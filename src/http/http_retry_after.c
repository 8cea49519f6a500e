/* Retry-After, as a stranger wrote it. Owns nothing, runs on any thread, never logs. */
#include "http/http_retry_after.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define USEC INT64_C(1000000)

/* strptime(3) reads English names as long as nobody calls setlocale(); the daemon does not. */
static const char *const date_formats[] = {
    "%a, %d %b %Y %H:%M:%S GMT", /* IMF-fixdate */
    "%A, %d-%b-%y %H:%M:%S GMT", /* RFC 850, obsolete */
    "%a %b %d %H:%M:%S %Y",      /* asctime(), obsolete */
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Any number of digits: beyond the maximum only the maximum counts. Some servers send decimals, which the RFC
 * has not: a part of a second is a whole one. */
static int parse_seconds(const char *text, int64_t *ret)
{
    int64_t seconds = 0;

    for (; is_digit(*text); text++)
        seconds = MIN(seconds * 10 + (*text - '0'), HTTP_RETRY_AFTER_MAX_SEC);
    if (*text == '.' && is_digit(text[1])) {
        size_t zeros = strspn(text + 1, "0"), digits = strspn(text + 1, "0123456789");
        seconds += zeros < digits;
        text += 1 + digits;
    }
    if (*text)
        return -EINVAL;
    *ret = MIN(seconds, HTTP_RETRY_AFTER_MAX_SEC);
    return 0;
}

static int parse_date(const char *text, int64_t now_usec, int64_t *ret)
{
    for (size_t i = 0; i < ARRAY_SIZE(date_formats); i++) {
        struct tm tm = {0};
        const char *end = strptime(text, date_formats[i], &tm);
        int64_t seconds;

        if (!end || *end)
            continue;
        seconds = (int64_t) timegm(&tm) - now_usec / USEC; /* years end at 9999: no overflow */
        *ret = MAX(0, MIN(seconds, HTTP_RETRY_AFTER_MAX_SEC));
        return 0;
    }
    return -EINVAL;
}

int http_parse_retry_after(const char *value, size_t len, int64_t now_usec, int64_t *ret_sec)
{
    char text[64]; /* far longer than any date; seconds beyond it are no honest answer */

    for (; len > 0 && is_blank(value[0]); len--)
        value++;
    while (len > 0 && is_blank(value[len - 1]))
        len--;
    if (len == 0 || len >= sizeof(text) || memchr(value, '\0', len))
        return -EINVAL;
    memcpy(text, value, len);
    text[len] = '\0';
    return is_digit(text[0]) ? parse_seconds(text, ret_sec) : parse_date(text, now_usec, ret_sec);
}
