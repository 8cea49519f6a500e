/* Times as a person writes them: --since, --until, --from. See ctl.h. The day and the hour are read here; a
 * displacement, and whether there is a zone of a name, is the server's to know. */
#include <ctype.h>
#include <inttypes.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "base/timeutil.h"
#include "ctl/ctl.h"
#include "sql/statements.h"

#define DIGITS "0123456789"

/* Of a day and an hour that there are: what follows on them; NULL: it does not begin so. */
static const char *behind_the_hour(const char *text)
{
    struct tm tm = {0};
    const char *rest = strptime(text, "%Y-%m-%d", &tm);
    int day = tm.tm_mday;

    if (!rest || tm.tm_year < 70 || timegm(&tm) < 0 || tm.tm_mday != day)
        return NULL;
    if (*rest == '\0')
        return rest;
    if (*rest != ' ' && *rest != 'T')
        return NULL;
    rest = strptime(rest + 1, "%H:%M", &tm);
    if (rest && *rest == ':')
        rest = strptime(rest, ":%S", &tm);
    return rest;
}

/* A fraction of the second, then a zone, or nothing. To Postgres another word there may be the whole time
 * ("infinity", "epoch", "tomorrow"), and some words and signs are nothing. *ret_zone: the zone's name, in
 * `rest`; NULL = it has none. */
static bool ends_as_a_time(const char *rest, const char **ret_zone)
{
    size_t len;

    *ret_zone = NULL;
    if (*rest == '.') {
        len = strspn(rest + 1, DIGITS);
        if (len == 0)
            return false;
        rest += 1 + len;
    }
    rest += strspn(rest, " ");
    if (*rest == '+' || *rest == '-') {
        len = strspn(rest + 1, DIGITS ":");
        return len > 0 && rest[1 + len] == '\0';
    }
    if (*rest == '\0')
        return true;
    *ret_zone = rest;
    for (len = 0; isalnum((unsigned char) rest[len]) || (rest[len] && strchr("_/+-", rest[len])); len++)
        ;
    return isalpha((unsigned char) *rest) && rest[len] == '\0';
}

int ctl_read_time(const char *text, const char *option, char **ret)
{
    uint64_t usec;

    if (!text)
        return 0;
    if (parse_duration(text, &usec) == 0) {
        *ret = xasprintf("-%" PRIu64 " milliseconds", usec / USEC_PER_MSEC);
        return 0;
    }
    const char *rest = behind_the_hour(text), *zone;
    if (!rest || !ends_as_a_time(rest, &zone)) {
        ctl_say("%s takes a duration such as 2h, or a time such as \"2026-11-24 08:00\", not \"%s\"", option,
                text);
        return EX_USAGE;
    }
    *ret = xstrdup(text);
    return 0;
}

int ctl_read_part(const struct ctl *c, const char *since, const char *until, struct pg_args *args)
{
    CLEANUP(freep) char *from = NULL;
    CLEANUP(freep) char *to = NULL;
    int64_t id = 0;

    int code = ctl_read_time(c->choice.since ? c->choice.since : since, "--since", &from);
    if (!code)
        code = ctl_read_time(c->choice.until ? c->choice.until : until, "--until", &to);
    if (!code && c->choice.integration && parse_i64(c->choice.integration, 1, INT64_MAX, &id) < 0) {
        ctl_say("--integration takes a positive whole number, not \"%s\"", c->choice.integration);
        code = EX_USAGE;
    }
    if (code)
        return code;
    pg_arg_text(args, from);
    pg_arg_text(args, to);
    pg_arg_i64(args, id);
    return 0;
}

/* What a time as ctl_read_time() gives it says of its zone. Outcomes and errors of pg_query(). */
static int ask_zone(struct pg *pg, const char *time, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    const char *rest = time && *time != '-' ? behind_the_hour(time) : NULL, *zone = NULL;

    if (!rest || !ends_as_a_time(rest, &zone) || !zone)
        return PG_DONE;
    pg_arg_text(&args, zone);
    return pg_query(pg, &sql_zone_asked, &args, NULL, err);
}

int ctl_check_order(struct pg *pg, const char *first, const char *since, const char *last, const char *until)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    struct error err;

    if (!since && !until)
        return 0;
    pg_arg_text(&args, since);
    pg_arg_text(&args, until);
    int r = ask_zone(pg, since, &err);
    if (r == PG_DONE)
        r = ask_zone(pg, until, &err);
    if (r == PG_DONE)
        r = pg_query(pg, &sql_times_disordered, &args, &rows, &err);
    /* Which zones and displacements there are, the server knows. */
    if (r < 0 && pg_blames_value(pg_error_sqlstate(pg))) {
        ctl_say("a time cannot be read: %s", err.text);
        return EX_USAGE;
    }
    if (r != PG_DONE)
        return ctl_refused(r, "compare the times", &err);
    if (pg_rows(rows) == 0)
        return 0;
    struct pg_row row = {rows, 0, 0};
    CLEANUP(freep) char *from = time_words(pg_next_time(&row));
    CLEANUP(freep) char *to = time_words(pg_next_time(&row));
    ctl_say("%s is %s, which is after %s, %s: there is nothing between them", first, from, last, to);
    return EX_USAGE;
}

int ctl_check_part(const struct ctl *c, struct pg *pg, const char *since, const char *until)
{
    CLEANUP(freep) char *from = NULL;
    CLEANUP(freep) char *to = NULL;

    int code = ctl_read_time(c->choice.since ? c->choice.since : since, "--since", &from);
    if (!code)
        code = ctl_read_time(c->choice.until ? c->choice.until : until, "--until", &to);
    return code ? code : ctl_check_order(pg, "--since", from, to ? "--until" : "now", to);
}
