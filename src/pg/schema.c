/* Does the schema fit this program? See schema.h. */
#include "pg/schema.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "base/timeutil.h"
#include "pg/sql_files.h"
#include "sql/statements.h"

int schema_file_version(const char *name)
{
    size_t digits = strspn(name, "0123456789");
    int64_t version;
    CLEANUP(freep) char *number = xstrndup(name, digits);

    if (name[digits] != '_' || parse_i64(number, 0, 999999, &version) < 0)
        return -EINVAL;
    return (int) version;
}

char *schema_file_header(const char *text, const char *name)
{
    size_t name_len = strlen(name);

    while (strncmp(text, "--", 2) == 0) {
        const char *words = text + 2 + strspn(text + 2, " ");
        size_t len = strcspn(words, "\n");
        if (len > name_len && strncmp(words, name, name_len) == 0 && words[name_len] == ':') {
            const char *value = words + name_len + 1;
            value += strspn(value, " ");
            return xstrndup(value, len - (size_t) (value - words));
        }
        text = words + len + (words[len] == '\n');
    }
    return NULL;
}

int schema_file_oldest_daemon(const char *text)
{
    CLEANUP(freep) char *value = schema_file_header(text, "oldest daemon");
    int64_t oldest = 0;

    if (value)
        (void) parse_i64(value, 0, 999999, &oldest);
    return (int) oldest;
}

int schema_known(void)
{
    int known = 0;

    for (size_t i = 0; i < sql_files_count; i++)
        known = MAX(known, schema_file_version(sql_files[i].name));
    return known;
}

#define MIGRATE "run \"anubisctl migrate\""

/* Triggers and functions name their schema. 0, or PG_SCHEMA_MISFIT with *err. */
static int judge_name(const struct pg_result *r, struct error *err)
{
    if (pg_is_null(r, 0, 6))
        return 0;
    const char *is_named = pg_get_text(r, 0, 6), *was_named = pg_get_text(r, 0, 7);
    /* Where two have changed their names, the other's daemon tells how that one goes on. */
    if (pg_get_bool(r, 0, 8))
        error_set(
            err,
            "the schema \"%s\" was renamed to \"%s\", and another one is named \"%s\" now; nothing is sent "
            "until their names are back: run \"alter schema %s rename to %s_other; alter schema %s "
            "rename to %s\"",
            was_named, is_named, was_named, was_named, was_named, is_named, was_named);
    else
        error_set(
            err,
            "the schema \"%s\" was renamed to \"%s\", and its functions name it as before: run \"alter schema "
            "%s rename to %s\"; database.schema is \"%s\" then",
            was_named, is_named, is_named, was_named, was_named);
    return PG_SCHEMA_MISFIT;
}

/* 0 when the table of migrations is there to be read, PG_SCHEMA_MISFIT with *err when not. */
static int judge_place(const struct pg_result *r, struct error *err)
{
    const char *schema = pg_get_text(r, 0, 0), *role = pg_get_text(r, 0, 5);

    if (!pg_get_bool(r, 0, 1))
        error_set(err, "the database has no schema \"%s\": " MIGRATE ", or fix database.schema", schema);
    else if (!pg_get_bool(r, 0, 3))
        error_set(err, "anubisd's tables are not in the schema \"%s\" yet: " MIGRATE, schema);
    else if (!pg_get_bool(r, 0, 2) || !pg_get_bool(r, 0, 4))
        error_set(err,
                  "role \"%s\" may not use the schema \"%s\": let the role that migrated it run \"select "
                  "%s.anubisd_grant('%s')\", or fix database.conninfo",
                  role, schema, schema, role);
    else
        return 0;
    return PG_SCHEMA_MISFIT;
}

static int judge_versions(const struct pg_result *r, struct error *err)
{
    if (pg_rows(r) == 0) {
        error_set(err,
                  "anubisd's tables lack their rows, as in a database made from a schema dump: " MIGRATE);
        return PG_SCHEMA_MISFIT;
    }
    int64_t version = pg_get_i64(r, 0, 0), oldest = pg_get_i64(r, 0, 2);
    if (version < SCHEMA_NEEDED) {
        error_set(err, "the database's schema is version %d, this program needs %d: " MIGRATE, (int) version,
                  SCHEMA_NEEDED);
        return PG_SCHEMA_MISFIT;
    }
    if (oldest > schema_known()) {
        error_set(
            err,
            "the database's schema is version %d (migrated by %s) and needs an anubisd built with version "
            "%d or later, this program knows %d: install the later anubisd on this host",
            (int) version, pg_get_text(r, 0, 1), (int) oldest, schema_known());
        return PG_SCHEMA_MISFIT;
    }
    return 0;
}

static int schema_check(struct pg *pg, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *place = NULL, *versions = NULL;

    int r = pg_query(pg, &sql_find_schema, NULL, &place, err);
    if (r == 0)
        r = judge_name(place, err);
    if (r == 0)
        r = judge_place(place, err);
    if (r == 0)
        r = pg_query(pg, &sql_read_versions, NULL, &versions, err);
    return r == 0 ? judge_versions(versions, err) : r;
}

int schema_check_for_work(struct pg *pg, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *refused = NULL;
    int r = schema_check(pg, err);

    if (r == 0)
        r = pg_query(pg, &sql_work_refused, NULL, &refused, err);
    if (r != 0 || pg_is_null(refused, 0, 0))
        return r;
    error_set(err, "%s", pg_get_text(refused, 0, 0));
    return PG_SCHEMA_MISFIT;
}

/* --- admission -------------------------------------------------------------------------------- */

/* The sessions of a daemon open together, each on a thread, and the look at a schema takes the server longer
 * than all else of it. So one looks while the others wait for what it finds: that the schema fits holds for a
 * moment, and what is wrong for those that wait. */
#define LOOK_HOLDS_USEC USEC_PER_SEC
#define LOOK_WAIT_SEC 5

static pthread_mutex_t look_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    int64_t server; /* 0 = there was no look that told */
    uint64_t at;    /* monotonic */
    int r;
    struct error err;
} found;

static int look_once(struct pg *pg, int64_t server, struct error *err)
{
    uint64_t asked = now_monotonic_usec();
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += LOOK_WAIT_SEC;
    if (server == 0 || pthread_mutex_clocklock(&look_lock, CLOCK_MONOTONIC, &until) != 0)
        return schema_check_for_work(pg, err);
    bool holds = found.server == server && now_monotonic_usec() < found.at + LOOK_HOLDS_USEC;
    if (!holds || (found.r != 0 && found.at < asked)) {
        found.r = schema_check_for_work(pg, &found.err);
        found.server = found.r >= 0 ? server : 0;
        found.at = now_monotonic_usec();
    }
    int r = found.r;
    if (r != 0)
        *err = found.err;
    pthread_mutex_unlock(&look_lock);
    return r;
}

void schema_doubt(void)
{
    pthread_mutex_lock(&look_lock);
    found.server = 0;
    pthread_mutex_unlock(&look_lock);
}

int schema_admit_daemon(struct pg *pg, const struct pg_params *params, int64_t server, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    int r = look_once(pg, server, err);

    pg_arg_text(&args, params->daemon);
    return r == 0 ? pg_query(pg, &sql_be_there, &args, NULL, err) : r;
}

int schema_admit_ctl(struct pg *pg, const struct pg_params *params, int64_t server, struct error *err)
{
    (void) params;
    (void) server;
    return schema_check(pg, err);
}

int schema_admit_migration(struct pg *pg, const struct pg_params *params, int64_t server, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *place = NULL;
    (void) params;
    (void) server;
    int r = pg_query(pg, &sql_find_schema, NULL, &place, err);

    return r == 0 ? judge_name(place, err) : r;
}
