/* Clocks, durations and timestamps. Units are in the names: _usec microseconds, _ms milliseconds.
 *
 * Deadlines and durations use the monotonic clock; wall time is only for what people or other systems read.
 */
#pragma once

#include "base/strbuf.h"

#define USEC_PER_MSEC UINT64_C(1000)
#define USEC_PER_SEC UINT64_C(1000000)
#define USEC_INFINITY UINT64_MAX

uint64_t now_monotonic_usec(void); /* CLOCK_MONOTONIC */
uint64_t now_boottime_usec(void);  /* CLOCK_BOOTTIME: goes on while the machine sleeps */
int64_t now_realtime_usec(void);   /* microseconds since 1970-01-01 UTC */

/* Postgres's binary timestamps count microseconds from 2000-01-01 UTC. */
#define PG_EPOCH_USEC INT64_C(946684800000000)

/* Appends ISO 8601 / RFC 3339 in UTC: 2026-11-24T10:59:39.123456Z (six digits always).
 * `usec` is microseconds since 1970; years 0001 to 9999, others are clamped to those ends (infinity
 * included). */
void strbuf_add_timestamp(struct strbuf *sb, int64_t usec);
/* The same, TIMESTAMP_TEXT bytes without a NUL; returns their end. */
#define TIMESTAMP_TEXT (sizeof("9999-12-31T23:59:59.999999Z") - 1)
char *put_timestamp(char *to, int64_t usec);
/* The same to the second with a trailing Z. */
void strbuf_add_timestamp_sec(struct strbuf *sb, int64_t usec);

/* Reads what strbuf_add_timestamp() writes, and no other form. 0 or -EINVAL. */
int parse_timestamp(const char *s, size_t len, int64_t *ret_usec);
/* Reads any time of RFC 3339 (2026-11-24T07:59:39.5-03:00) in the years 0001 to 9999; of the fraction, which
 * may have nine digits, the microseconds count; a leap second is the next one. 0 or -EINVAL. */
int parse_rfc3339(const char *s, size_t len, int64_t *ret_usec);

/* "250ms", "30s", "5m", "2h", "3d": one non-negative integer and one unit. 0, -EINVAL or -ERANGE. */
int parse_duration(const char *s, uint64_t *ret_usec);
/* The largest unit that loses nothing: 90 s gives "90s", 120 s gives "2m". */
void strbuf_add_duration(struct strbuf *sb, uint64_t usec);
/* For people: "3.2 s", "4 min", "2 h 5 min", "3 d". */
void strbuf_add_duration_human(struct strbuf *sb, uint64_t usec);

/* "64KiB", "16MiB", "1GiB", "512B". 0, -EINVAL or -ERANGE. */
int parse_size(const char *s, uint64_t *ret_bytes);
void strbuf_add_size(struct strbuf *sb, uint64_t bytes);
