/* Memory, errors, small numbers, randomness and wake-ups.
 *
 * Owns nothing, runs on any thread, never logs. The only functions here that end the process are those that
 * cannot go on: no memory, no randomness, no descriptors at start. */
#include "base/util.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

void write_if_it_can_be(const char *text)
{
    struct pollfd ready = {.fd = STDERR_FILENO, .events = POLLOUT};

    if (poll(&ready, 1, 0) == 1 && write(STDERR_FILENO, text, strlen(text)) < 0)
        return; /* there is no other place for it */
}

static _Noreturn void die(const char *line)
{
    write_if_it_can_be(line);
    abort();
}

static void *must(void *p)
{
    if (!p)
        die("error: out of memory\n");
    return p;
}

void *xmalloc(size_t size)
{
    return must(malloc(size ? size : 1));
}

void *xcalloc(size_t count, size_t size)
{
    return must(count && size ? calloc(count, size) : calloc(1, 1));
}

void *xreallocarray(void *p, size_t count, size_t size)
{
    return must(count && size ? reallocarray(p, count, size) : realloc(p, 1));
}

char *xstrdup(const char *s)
{
    return s ? must(strdup(s)) : NULL;
}

char *xstrndup(const char *s, size_t len)
{
    return must(strndup(s, len));
}

char *xasprintf(const char *fmt, ...)
{
    va_list args;
    char *s;
    int n;

    va_start(args, fmt);
    n = vasprintf(&s, fmt, args);
    va_end(args);
    if (n < 0)
        die("error: out of memory\n");
    return s;
}

void freep(void *pointer_to_pointer)
{
    void *p;

    /* Through memcpy, since the variable's own type is unknown here. */
    memcpy(&p, pointer_to_pointer, sizeof(p));
    free(p);
}

void closep(int *fd)
{
    int saved = errno;

    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    errno = saved;
}

void free_secret(char *s)
{
    if (!s)
        return;
    explicit_bzero(s, strlen(s));
    free(s);
}

void error_set(struct error *err, const char *fmt, ...)
{
    va_list args;

    if (!err)
        return;
    va_start(args, fmt);
    vsnprintf(err->text, sizeof(err->text), fmt, args);
    va_end(args);
}

int parse_i64(const char *s, int64_t min, int64_t max, int64_t *ret)
{
    long long value;
    char *end;

    /* strtoll skips white space and takes a plus sign; a number in a file or a header has neither. */
    if (s[0] != '-' && (s[0] < '0' || s[0] > '9'))
        return -EINVAL;
    errno = 0;
    value = strtoll(s, &end, 10);
    if (end == s || *end != '\0')
        return -EINVAL;
    if (errno == ERANGE || value < min || value > max)
        return -ERANGE;
    *ret = value;
    return 0;
}

bool parse_digits(const char *text, size_t len, int64_t max, int64_t *ret)
{
    int64_t value = 0;

    if (len == 0 || len > 19)
        return false;
    for (size_t i = 0; i < len; i++) {
        int digit = text[i] - '0';
        if (digit < 0 || digit > 9 || value > (max - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *ret = value;
    return true;
}

/* Longer words than ours are no misspelling of them. */
#define WORD_MAX_LEN 40

unsigned words_distance(const char *a, const char *b)
{
    unsigned rows[3][WORD_MAX_LEN + 1];
    unsigned *before = rows[0], *above = rows[1], *row = rows[2];
    size_t len_a = strlen(a), len_b = strlen(b);

    if (len_a > WORD_MAX_LEN || len_b > WORD_MAX_LEN)
        return WORD_MAX_LEN;
    for (size_t j = 0; j <= len_b; j++)
        row[j] = (unsigned) j;
    for (size_t i = 1; i <= len_a; i++) {
        unsigned *recycled = before;

        before = above;
        above = row;
        row = recycled;
        row[0] = (unsigned) i;
        for (size_t j = 1; j <= len_b; j++) {
            bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];

            row[j] = MIN(above[j] + 1, row[j - 1] + 1);
            row[j] = MIN(row[j], above[j - 1] + (a[i - 1] != b[j - 1]));
            if (swapped)
                row[j] = MIN(row[j], before[j - 2] + 1);
        }
    }
    return row[len_b];
}

char *put_hex(char *to, const unsigned char *bytes, size_t len)
{
    static const char hex[] = "0123456789abcdef";

    for (size_t i = 0; i < len; i++) {
        *to++ = hex[bytes[i] >> 4];
        *to++ = hex[bytes[i] & 15];
    }
    return to;
}

bool get_hex(const char *from, unsigned char *ret, size_t len)
{
    for (size_t i = 0; i < 2 * len; i++) {
        unsigned char c = (unsigned char) from[i];
        if (!isxdigit(c))
            return false;
        unsigned value = (unsigned) (isdigit(c) ? c - '0' : (c | 0x20) - 'a' + 10);
        ret[i / 2] = (unsigned char) (i % 2 ? ret[i / 2] << 4 | value : value);
    }
    return true;
}

char *put_i64(char *to, int64_t value)
{
    char digits[I64_TEXT];
    char *p = digits + sizeof(digits);
    uint64_t rest = value < 0 ? 0 - (uint64_t) value : (uint64_t) value;

    do
        *--p = (char) ('0' + rest % 10);
    while ((rest /= 10) > 0);
    if (value < 0)
        *--p = '-';
    size_t len = (size_t) (digits + sizeof(digits) - p);
    memcpy(to, p, len);
    return to + len;
}

unsigned words_tolerance(const char *word)
{
    return MAX(1U, MIN(4U, (unsigned) strlen(word) / 3));
}

void random_bytes(void *ret, size_t len)
{
    for (char *to = ret; len > 0;) {
        ssize_t n = getrandom(to, len, 0);
        if (n < 0 && errno != EINTR)
            die("error: the kernel gives no random numbers\n");
        to += MAX(n, 0);
        len -= (size_t) MAX(n, 0);
    }
}

uint64_t random_u64(void)
{
    uint64_t value;

    random_bytes(&value, sizeof(value));
    return value;
}

double random_unit(void)
{
    /* 53 bits: what a double holds exactly, so that 1.0 is never reached by rounding. */
    return (double) (random_u64() >> 11) * 0x1p-53;
}

void fill_standard_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        /* open(2) takes the lowest free number. */
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
            abort();
}

int wakefd_new(void)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

    if (fd < 0)
        die("error: no descriptor left for an eventfd\n");
    return fd;
}

void wakefd_raise(int fd)
{
    int saved = errno;
    uint64_t one = 1;
    ssize_t ignored = write(fd, &one, sizeof(one));

    /* EAGAIN means the counter is at its end: it is raised already. */
    (void) ignored;
    errno = saved;
}

void wakefd_clear(int fd)
{
    uint64_t count;
    ssize_t ignored = read(fd, &count, sizeof(count));

    (void) ignored;
}
