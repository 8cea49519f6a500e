/* Memory, errors and small numbers: what every other file may use.
 *
 * Out of memory is fatal (see xmalloc): Postgres holds the truth and systemd starts us again. */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* CLEANUP(freep) char *s = …;  frees s when it goes out of scope. */
#define CLEANUP(f) __attribute__((cleanup(f)))
#define PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* Hands a pointer over: the variable becomes NULL, its cleanup does nothing. */
#define TAKE_PTR(p)                                                                                          \
    ({                                                                                                       \
        __typeof__(p) taken_ = (p);                                                                          \
        (p) = NULL;                                                                                          \
        taken_;                                                                                              \
    })

/* Bytes that somebody else owns, not NUL-terminated. */
struct bytes {
    const char *p; /* NULL = absent */
    size_t len;
};

/* Allocation that never returns NULL; on exhaustion writes one line to stderr and aborts. */
void *xmalloc(size_t size);
void *xcalloc(size_t count, size_t size);
void *xreallocarray(void *p, size_t count, size_t size);
char *xstrdup(const char *s); /* NULL gives NULL */
char *xstrndup(const char *s, size_t len);
char *xasprintf(const char *fmt, ...) PRINTF(1, 2);

/* To stderr, if it takes something now: plain poll(2) and write(2), for when nothing else works any more. */
void write_if_it_can_be(const char *text);

/* For CLEANUP on any pointer variable. */
void freep(void *pointer_to_pointer);
/* For CLEANUP on an int that holds a descriptor or -1. */
void closep(int *fd);
/* Wipes a secret (explicit_bzero) and frees it; NULL is legal. */
void free_secret(char *s);

/* Words for the caller, who decides whether to log them: one sentence without a final full stop. Functions
 * that take a struct error * set it exactly when they return a negative value (or the positive value their
 * comment names); NULL is legal where the caller does not care. */
struct error {
    char text[1024];
};
void error_set(struct error *err, const char *fmt, ...) PRINTF(2, 3);

/* Whole-string decimal integer within [min, max]. 0, or -EINVAL (not a number) or -ERANGE; *ret untouched
 * then. */
int parse_i64(const char *s, int64_t min, int64_t max, int64_t *ret);

/* The same of text[0..len) in digits alone: no sign, no space. False = it is none, or above `max`. */
bool parse_digits(const char *text, size_t len, int64_t max, int64_t *ret);

/* The end of a word that counts `n` things. */
static inline const char *plural(int64_t n)
{
    return n == 1 ? "" : "s";
}

/* Two digits for each byte, lower case; returns their end. */
char *put_hex(char *to, const unsigned char *bytes, size_t len);
/* So many bytes from twice as many digits of either case. False where one is none, and nothing behind it is
 * read. */
bool get_hex(const char *from, unsigned char *ret, size_t len);
/* Decimal digits, at most so many bytes without a NUL, without printf's cost; returns their end. */
#define I64_TEXT 20
char *put_i64(char *to, int64_t value);

/* How many letters differ: insertions, deletions, substitutions and swaps of neighbours each count one
 * (optimal string alignment). Words longer than 40 bytes are far from everything. */
unsigned words_distance(const char *a, const char *b);
/* The distance up to which "did you mean" makes sense for a word. */
unsigned words_tolerance(const char *word);

/* From getrandom(2); never fails. */
uint64_t random_u64(void);
/* The same, as many as are asked for; a cryptographic key may be made of them. */
void random_bytes(void *ret, size_t len);
/* Uniform in [0, 1). */
double random_unit(void);

/* Opens /dev/null in place of standard descriptors (0 to 2) that are closed: no socket or file of ours may
 * land where others read or write. Call first in main(). */
void fill_standard_descriptors(void);

/* Wake-ups across threads: eventfd(2), non-blocking, close-on-exec. */
int wakefd_new(void);      /* descriptor; fatal when the system has none left */
void wakefd_raise(int fd); /* async-signal-safe */
void wakefd_clear(int fd);
