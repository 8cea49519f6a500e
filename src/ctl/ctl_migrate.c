/* anubisctl migrate: the files of sql/ that the database does not have yet, all in one transaction: first the
 * steps, then the repeatable files that changed.
 *
 * Two hosts may run it at once: the second waits for the first and then finds nothing to do. Locks on the
 * application's tables are taken before anything else and given back when they are not had at once, because
 * everybody who comes after a waiting migration waits behind it. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "base/timeutil.h"
#include "base/version.h"
#include "ctl/ctl.h"
#include "ctl/store_migrate.h"
#include "pg/schema.h"
#include "pg/sql_files.h"
#include "sql/statements.h"

#define PLACEHOLDER "@extschema@"
#define PROGRAM "anubisctl " ANUBIS_VERSION
/* About a minute in all. */
#define LOCK_TRIES 40
#define LOCK_PAUSE_USEC (700 * USEC_PER_MSEC)

/* object_not_in_prerequisite_state: so the files mark what keeps them from being applied. */
#define OBSTACLE "55000"

/* Outcomes of a step beside pg.h's: it has said what is wrong, and `code` is set. */
enum { STEP_FAILED = 50 };

struct migration {
    struct ctl *ctl;
    struct pg *pg;
    const char *schema;
    struct store_place place;
    struct pg_result *applied;
    int applied_count;
    const struct sql_file *pending[1000];
    size_t pending_count;
    bool mended;                    /* it was made from a schema dump, and got the rows that it lacked */
    struct pg_result *brought_back; /* what else was lost, a line for each; NULL = was not looked for */
    bool is_later;                  /* the schema has a step that this program does not know */
    struct strbuf blockers;         /* the sessions that we waited for last */
    struct error err;
    const char *doing; /* for "could not …" */
    int code;
};

static void show_remark(void *userdata, const char *sqlstate, const char *words)
{
    (void) userdata;
    ctl_say("%s: %s", strcmp(sqlstate, OBSTACLE) == 0 ? "in the way" : "warning", words);
}

static int failed(struct migration *m, int code)
{
    m->code = code;
    return STEP_FAILED;
}

/* --- what there is and what is to be done ----------------------------------------------------- */

static int find_place(struct migration *m)
{
    struct store_place *p = &m->place;

    m->doing = "look at the schema";
    int r = store_migrate_place(m->pg, m->schema, p, &m->err);
    if (r != PG_DONE)
        return r;
    for (const char *line = p->lacks; *line; line += strspn(line, "\n")) {
        size_t len = strcspn(line, "\n");
        ctl_say("%.*s", (int) len, line);
        line += len;
    }
    if (*p->lacks)
        return failed(m, EX_NOPERM);
    if (p->beside)
        ctl_say(
            "notice: the schema \"public\" has tables \"integrations\" and \"subscriptions\": to adopt them, set "
            "schema = \"public\" in the group database; \"%s\" gets tables of its own",
            m->schema);
    if (p->exists)
        return PG_DONE;
    m->doing = "create the schema";
    CLEANUP(freep) char *create = xasprintf("create schema %s", p->quoted);
    return pg_execute(m->pg, create, &m->err);
}

/* 0 when no step was applied. */
static int last_version(const struct migration *m)
{
    return m->applied_count ? store_applied_row(m->applied, m->applied_count - 1).version : 0;
}

static bool find_applied(const struct migration *m, int version, struct store_applied *ret)
{
    for (int i = 0; i < m->applied_count; i++) {
        *ret = store_applied_row(m->applied, i);
        if (ret->version == version)
            return true;
    }
    return false;
}

/* A file that was applied must be the one we have: two histories of one schema cannot be told apart later. */
static int compare_applied(struct migration *m, const struct sql_file *file,
                           const struct store_applied *applied)
{
    CLEANUP(freep) char *checksum = NULL;

    m->doing = "compare the files";
    int r = store_migrate_checksum(m->pg, file->text, &checksum, &m->err);
    if (r != PG_DONE)
        return r;
    if (strcmp(checksum, applied->checksum) == 0 && strcmp(file->name, applied->name) == 0)
        return PG_DONE;
    ctl_say(
        "\"%s\" was applied (as \"%s\", by %s) with another content than it has in this program: checksum "
        "%.12s… there, %.12s… here",
        file->name, applied->name, applied->applied_by, applied->checksum, checksum);
    ctl_say("nothing was changed; migrate with the program that made this schema, or one built from the same "
            "sources");
    return failed(m, EX_UNAVAILABLE);
}

/* A schema dump (Rails' structure.sql) holds the tables, but no row that says what was applied. */
static int mend(struct migration *m)
{
    bool can = false;

    m->doing = "look for a schema dump";
    int r = pg_query_bool(m->pg, &sql_migrate_can_mend, NULL, &can, &m->err);
    m->doing = "bring back the rows that a schema dump lacks";
    return r == PG_DONE && can ? store_migrate_mend(m->pg, PROGRAM, &m->mended, &m->err) : r;
}

static int find_pending_steps(struct migration *m)
{
    m->doing = "read the migrations";
    int r = store_migrate_read(m->pg, m->schema, &m->applied, &m->err);
    m->applied_count = m->applied ? pg_rows(m->applied) : 0;
    for (size_t i = 0; r == PG_DONE && i < sql_files_count; i++) {
        const struct sql_file *file = &sql_files[i];
        int version = schema_file_version(file->name);
        struct store_applied applied;
        if (version < 0)
            continue;
        if (find_applied(m, version, &applied))
            r = compare_applied(m, file, &applied);
        else if (m->pending_count < ARRAY_SIZE(m->pending))
            m->pending[m->pending_count++] = file;
    }
    return r;
}

/* The database may have been migrated by a later program. */
static int check_later(struct migration *m)
{
    if (last_version(m) <= schema_known())
        return PG_DONE;
    m->is_later = true;
    const struct store_applied last = store_applied_row(m->applied, m->applied_count - 1);
    if (m->pending_count) {
        ctl_say(
            "the schema has \"%s\" (by %s), which is later than this program, but not \"%s\": migrate with the "
            "later program",
            last.name, last.applied_by, m->pending[0]->name);
        return failed(m, EX_UNAVAILABLE);
    }
    ctl_say("the schema has been migrated by a later program: \"%s\" (by %s); this one knows version %d",
            last.name, last.applied_by, schema_known());
    return PG_DONE;
}

/* --- doing it --------------------------------------------------------------------------------- */

static int pause_before_retry(struct migration *m)
{
    struct pollfd fd = {.fd = m->ctl->stop_fd, .events = POLLIN};
    uint64_t usec = LOCK_PAUSE_USEC + (uint64_t) (random_unit() * LOCK_PAUSE_USEC);

    return poll(&fd, 1, (int) (usec / USEC_PER_MSEC)) > 0 ? -ECANCELED : PG_DONE;
}

/* Names the sessions that we wait for, unless they are those named last: the seconds in their description go
 * on. */
static int name_blockers(struct migration *m, const char *tables)
{
    CLEANUP(strbuf_free) struct strbuf now = STRBUF_INIT(4096);

    int r = store_migrate_blockers(m->pg, m->schema, tables, &now, &m->err);
    if (r != PG_DONE || now.len == 0)
        return r;
    if (strncmp(strbuf_str(&m->blockers), strbuf_str(&now), strcspn(strbuf_str(&now), "(")) != 0)
        ctl_say("waiting for %s", strbuf_str(&now));
    strbuf_clear(&m->blockers);
    strbuf_adds(&m->blockers, strbuf_str(&now));
    return PG_DONE;
}

/* Waits, as long as it takes, until no other migration of this schema runs. */
static int take_turn(struct migration *m)
{
    bool ours = false;

    m->doing = "wait for another migration";
    int r = store_migrate_try_turn(m->pg, m->schema, &ours, &m->err);
    while (r == PG_DONE && !ours) {
        r = name_blockers(m, NULL);
        if (r == PG_DONE)
            r = pause_before_retry(m);
        if (r == PG_DONE)
            r = store_migrate_try_turn(m->pg, m->schema, &ours, &m->err);
    }
    return r;
}

static int say_locked(struct migration *m)
{
    ctl_say("could not lock the tables: %s would not let go of them",
            m->blockers.len ? m->blockers.data : "other sessions");
    ctl_say(
        "nothing was changed; end those transactions (select pg_terminate_backend(SESSION)) or wait for them, "
        "then run \"anubisctl migrate\" again");
    return failed(m, EX_UNAVAILABLE);
}

static int lock_tables(struct migration *m, const char *tables)
{
    bool busy = false;

    m->doing = "lock the tables";
    for (int i = 0; i < LOCK_TRIES; i++) {
        /* Applications that take the tables in one order would never let us take them in the other. */
        int r = store_migrate_lock(m->pg, m->schema, tables, i % 2 == 1, &busy, &m->err);
        if (r == PG_DONE && busy)
            r = name_blockers(m, tables);
        if (r == PG_DONE && busy)
            r = pause_before_retry(m);
        if (r != PG_DONE || !busy)
            return r;
    }
    return say_locked(m);
}

static char *fill_in(const char *text, const char *schema)
{
    CLEANUP(strbuf_free) struct strbuf out = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    for (const char *next; (next = strstr(text, PLACEHOLDER)); text = next + strlen(PLACEHOLDER)) {
        strbuf_add(&out, text, (size_t) (next - text));
        strbuf_adds(&out, schema);
    }
    strbuf_adds(&out, text);
    return strbuf_take(&out);
}

static int apply(struct migration *m, const struct sql_file *file)
{
    CLEANUP(freep) char *sql = fill_in(file->text, m->place.quoted);
    CLEANUP(freep) char *tables = schema_file_header(file->text, "locks");

    ctl_progress("applying %s …", file->name);
    int r = tables ? lock_tables(m, tables) : PG_DONE;
    m->doing = file->name;
    if (r == PG_DONE)
        r = pg_execute(m->pg, sql, &m->err);
    return r == PG_DONE ? store_migrate_record(m->pg, file, PROGRAM, &m->err) : r;
}

/* After the steps, whose tables they need. */
static int apply_repeatables(struct migration *m)
{
    m->doing = "look at the functions";
    int r = m->is_later ? PG_DONE : pg_query(m->pg, &sql_migrate_forget_changed, NULL, NULL, &m->err);

    for (size_t i = 0; r == PG_DONE && i < sql_files_count && !m->is_later; i++) {
        bool is_applied = true;
        if (schema_file_version(sql_files[i].name) < 0)
            r = store_migrate_is_applied(m->pg, &sql_files[i], &is_applied, &m->err);
        if (is_applied || m->pending_count == ARRAY_SIZE(m->pending))
            continue;
        m->pending[m->pending_count++] = &sql_files[i];
        r = apply(m, &sql_files[i]);
    }
    return r;
}

/* Administrators detach partitions, empty tables, and put copies in their place. What only a person can mend
 * is named; the rest is brought back, here or by the files that are applied again. */
static int mend_tables(struct migration *m)
{
    m->doing = "bring back rows, tables and partitions";
    int r = pg_query(m->pg, &sql_migrate_mend_tables, NULL, &m->brought_back, &m->err);
    if (r == PG_DONE)
        r = ctl_check_tables(m->pg, &m->err);
    if (r == -ENODATA) {
        ctl_say("%s", m->err.text);
        return failed(m, EX_UNAVAILABLE);
    }
    return r == PG_DONE ? pg_query(m->pg, &sql_migrate_forget, NULL, NULL, &m->err) : r;
}

static int note(struct migration *m)
{
    m->doing = "note what was applied";
    return m->pending_count && !m->is_later ? pg_query(m->pg, &sql_migrate_note, NULL, NULL, &m->err)
                                            : PG_DONE;
}

static int finish(struct migration *m)
{
    bool keep = !m->ctl->dry_run;

    m->doing = keep ? "commit the migration" : "undo the dry run";
    return pg_execute(m->pg, keep ? "commit" : "rollback", &m->err);
}

static int migrate(struct migration *m)
{
    m->doing = "begin the migration";
    int r = store_migrate_begin(m->pg, m->ctl->utc, &m->err);
    if (r == PG_DONE)
        r = take_turn(m);
    if (r == PG_DONE)
        r = find_place(m);
    if (r == PG_DONE)
        r = mend(m);
    if (r == PG_DONE)
        r = find_pending_steps(m);
    if (r == PG_DONE)
        r = check_later(m);
    for (size_t i = 0; r == PG_DONE && i < m->pending_count; i++)
        r = apply(m, m->pending[i]);
    if (r == PG_DONE)
        r = apply_repeatables(m);
    if (r == PG_DONE)
        r = mend_tables(m);
    if (r == PG_DONE)
        r = apply_repeatables(m);
    if (r == PG_DONE)
        r = note(m);
    return r == PG_DONE ? finish(m) : r;
}

/* --- around it -------------------------------------------------------------------------------- */

static int say_done(struct migration *m)
{
    const char *verb = m->ctl->dry_run ? "would apply" : "applied";

    ctl_progress(NULL);
    if (m->mended)
        printf("%s the rows that the schema dump of this database lacked, as a new installation\n",
               m->ctl->dry_run ? "would bring back" : "brought back");
    int brought_back = m->brought_back ? pg_rows(m->brought_back) : 0;
    for (int i = 0; i < brought_back; i++)
        printf("%s %s\n", m->ctl->dry_run ? "would bring back" : "brought back",
               pg_get_text(m->brought_back, i, 0));
    for (size_t i = 0; i < m->pending_count; i++)
        printf("%s %s\n", verb, m->pending[i]->name);
    if (!m->pending_count)
        printf("schema \"%s\" is up to date: version %d\n", m->schema, last_version(m));
    else if (m->ctl->dry_run)
        printf(
            "all of it worked in schema \"%s\" of database \"%s\" and was rolled back: nothing was changed\n",
            m->schema, m->place.database);
    else
        printf("schema \"%s\" is now version %d\n", m->schema, schema_known());
    return 0;
}

static int say_failed(struct migration *m, int r)
{
    if (r == STEP_FAILED)
        return m->code;
    if (r == -ECANCELED) {
        ctl_say("interrupted; nothing was changed");
        return EX_UNAVAILABLE;
    }
    CLEANUP(freep)
    char *what = strchr(m->doing, '.') ? xasprintf("apply \"%s\"", m->doing) : xstrdup(m->doing);
    int code = ctl_refused(r, what, &m->err);
    if (strncmp(m->doing, "commit", 6) == 0)
        ctl_say("whether it was applied is not known: run \"anubisctl migrate\" again to see");
    else
        ctl_say("nothing was changed");
    return code;
}

int ctl_migrate(struct ctl *c)
{
    struct migration m = {
        .ctl = c,
        .schema = c->config->database.schema,
        .blockers = STRBUF_INIT(4096),
    };
    struct pg_params params = ctl_session(c, "anubisctl migrate");
    params.writes = true;

    params.admit = schema_admit_migration;
    params.remark = show_remark;
    params.statement_timeout_usec = 0;
    int code = ctl_connect(c, &params, &m.pg);
    if (code == 0) {
        int r = migrate(&m);
        code = r == PG_DONE ? say_done(&m) : say_failed(&m, r);
    }
    pg_close(m.pg);
    pg_result_free(m.applied);
    pg_result_free(m.brought_back);
    pg_result_free(m.place.result);
    strbuf_free(&m.blockers);
    return code;
}
