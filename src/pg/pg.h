/* One Postgres connection, for threads that may wait: bounded by a deadline and by the stop descriptor, never
 * by libpq.
 *
 * One thread at a time. pg.c and pg_async.c are the only files that include libpq. Every session runs with
 * TimeZone=UTC, the schema as its search_path, jit off, server-side keepalives and an application_name; a
 * schema that does not fit this program and a pooler in transaction mode are refused when the session opens.
 */
#pragma once

#include "base/strbuf.h"

struct pg;
struct pg_result; /* libpq's own tag of PGresult, so that none has to be wrapped */

struct pg_params {
    const char *conninfo; /* keywords or URL, with the password */
    const char *schema;
    const char *application_name;
    const char *daemon; /* its name, which others see by this session; NULL = none */
    uint64_t connect_timeout_usec;
    uint64_t statement_timeout_usec; /* the server's limit; ours is a little above; 0 = none */
    uint64_t lock_timeout_usec;      /* the server's limit on waiting for a lock; 0 = none */
    bool
        writes; /* a server that takes none (a standby, a frozen database) is refused, and left when it becomes so; of
                  * several hosts the first that does is taken unless conninfo says otherwise */
    int stop_fd;          /* readable = give up at once; -1 = none */
    bool keep_to_indexes; /* plans for queues: never a sequential scan because the table was small when
                                planned */
    /* Asked once the session stands; NULL lets every session in. `server`: when it was started (microseconds
     * since 1970), 0 = the session does not write. 0, PG_SCHEMA_MISFIT with *err, or an error of pg_query().
     */
    int (*admit)(struct pg *pg, const struct pg_params *params, int64_t server, struct error *err);
    /* What the server remarks besides, at level notice and above; NULL = of no interest. Called on the
     * session's thread; the strings live as long as the call. */
    void (*remark)(void *userdata, const char *sqlstate, const char *words);
    /* Called each second while a statement is under way; NULL = not wanted. */
    void (*under_way)(void *userdata);
    void *userdata; /* of both */
    /* Gets whether the session came to the server that this process works on, also where it is not admitted;
     * NULL = of no interest. */
    bool *ret_is_here;
};

/* Outcomes of pg_open() and pg_query(). */
enum {
    PG_DONE = 0,
    PG_SCHEMA_MISFIT = 1, /* pg_open() only: *err says which command repairs it */
};
/* Errors: -ECANCELED (stop_fd became readable; the connection is unusable), -ECONNRESET (connection lost or
 * past our deadline: reopen), -EROFS (pg_open() only: it takes no writes), -EPERM (login or permission),
 * -EBADMSG (the server refused the statement: see pg_error_sqlstate(), the connection goes on). *err is set
 * for all of them. */
int pg_open(struct pg **ret, const struct pg_params *params, struct error *err);
void pg_close(struct pg *pg); /* NULL is legal; never blocks */
bool pg_usable(const struct pg *pg);
/* The five letters of the last refused statement's SQLSTATE, "" when it has none. */
const char *pg_error_sqlstate(const struct pg *pg);

/* Does this SQLSTATE (undefined table, function or schema) say that the session finds nothing of what it
 * found before? Its role was dropped and made anew, or lost its rights for a while: another session may find
 * it. No sooner than half a minute after it was opened (monotonic). */
bool pg_is_blind(const char *sqlstate, uint64_t opened_at);

/* Is a value in a row to blame for this SQLSTATE? Classes 22 (data exception), 23 (integrity constraint
 * violation) and 54 (program limit exceeded). All else (the database is away, a deadlock, a missing table or
 * permission) may pass, and is no row's fault. */
bool pg_blames_value(const char *sqlstate);
/* The same, or an error that a trigger of the application has raised (class P0), which usually looks at the
 * row. The server's words may then quote the row, so they belong to no log of ours. Or our own triggers
 * refuse what a trigger of the application has made of our change. */
bool pg_blames_row(const char *sqlstate);
/* Raised by subscription_unlike() of sql/: its words quote nothing, and name what helps. */
#define PG_SQLSTATE_UNLIKE "P0ANB"
/* object_in_use, raised by subscription_changed_by_others() and subscription_change_refused() */
#define PG_SQLSTATE_BEING_SENT "55006"

/* A statement is a constant with an address of its own (sql/statements/): prepared on its first use in each
 * session. */
struct pg_statement {
    const char *name; /* unique in the program; "" = not prepared, one shot */
    const char *sql;
};

/* Parameters of one execution: built by the calls below, freed by pg_args_free(). All are passed in binary.
 * Copies everything. */
#define PG_ARGS_MAX 32
struct pg_args {
    struct strbuf bytes;
    int count;
    unsigned types[PG_ARGS_MAX];
    size_t offsets[PG_ARGS_MAX];
    int lengths[PG_ARGS_MAX]; /* -1 = NULL */
};
#define PG_ARGS_INIT ((struct pg_args){.bytes = {.max = STRBUF_MAX_DEFAULT}})
void pg_args_clear(struct pg_args *a); /* keeps the memory */
void pg_args_free(struct pg_args *a);
void pg_arg_i64(struct pg_args *a, int64_t value);
void pg_arg_i32(struct pg_args *a, int32_t value);
void pg_arg_bool(struct pg_args *a, bool value);
void pg_arg_text(struct pg_args *a, const char *value);             /* NULL = NULL; valid UTF-8 without NUL */
void pg_arg_blob(struct pg_args *a, const void *bytes, size_t len); /* bytea */
/* One-dimensional arrays: begin, then the elements. */
enum pg_element {
    PG_BOOL,
    PG_INT4,
    PG_INT8,
    PG_TEXT,
    PG_BYTEA,
    PG_TIMESTAMPTZ /* by pg_array_i64(), as Postgres counts */
};
void pg_array_begin(struct pg_args *a, enum pg_element type);
void pg_array_i64(struct pg_args *a, int64_t value);
void pg_array_i32(struct pg_args *a, int32_t value);
void pg_array_bool(struct pg_args *a, bool value);
void pg_array_bytes(struct pg_args *a, const char *value, size_t len); /* text or bytea; NULL = NULL */
void pg_array_null(struct pg_args *a);
/* One column of an array of structs as an array parameter: `first` is that field of the first struct,
 * `stride` the size of a struct. */
void pg_arg_i64s(struct pg_args *a, const int64_t *first, size_t stride, size_t count);
void pg_arg_i32s(struct pg_args *a, const int32_t *first, size_t stride, size_t count);
/* timestamptz; ours are microseconds since 1970, INT64_MIN and INT64_MAX the infinities. */
void pg_arg_times(struct pg_args *a, const int64_t *first, size_t stride, size_t count);
void pg_arg_texts(struct pg_args *a, const char *const *first, size_t stride, size_t count); /* no NULL */
/* PG_TEXT or PG_BYTEA; absent bytes are NULL. */
void pg_arg_bytes(struct pg_args *a, enum pg_element type, const struct bytes *first, size_t stride,
                  size_t count);

/* Executes and waits: at most statement_timeout and a margin. `args` NULL = none. Results come in binary;
 * *ret (NULL = not wanted) is the caller's to pg_result_free(). PG_DONE or an error from above.
 */
int pg_query(struct pg *pg, const struct pg_statement *statement, const struct pg_args *args,
             struct pg_result **ret, struct error *err);
/* The same for the first column of the only row: 0 and false when there is no row. */
int pg_query_i64(struct pg *pg, const struct pg_statement *statement, const struct pg_args *args,
                 int64_t *ret, struct error *err);
int pg_query_bool(struct pg *pg, const struct pg_statement *statement, const struct pg_args *args, bool *ret,
                  struct error *err);
/* Several statements in text without parameters, as one simple query: BEGIN, COMMIT, migrations. */
int pg_execute(struct pg *pg, const char *sql, struct error *err);

/* Rows by COPY: cheaper than INSERT, in time and in WAL. `sql` is COPY … FROM STDIN (FORMAT BINARY), a
 * constant; the rows are built by the calls below, in the order of its columns: begin, then for each row its
 * number of columns and the columns. PG_DONE or an error from above. */
void pg_copy_begin(struct strbuf *rows);
void pg_copy_row(struct strbuf *rows, int16_t columns);
void pg_copy_i32(struct strbuf *rows, int32_t value);
void pg_copy_i64(struct strbuf *rows, int64_t value);
void pg_copy_bytes(struct strbuf *rows, const void *value, size_t len); /* text, bytea, uuid */
void pg_copy_null(struct strbuf *rows);
int pg_copy(struct pg *pg, const char *sql, struct strbuf *rows, struct error *err);

void pg_result_free(struct pg_result *r);
void pg_result_freep(struct pg_result **r);
int pg_rows(const struct pg_result *r);
int64_t pg_affected(const struct pg_result *r);
bool pg_is_null(const struct pg_result *r, int row, int column);
/* NULL values read as 0, false, "". Integers of 2, 4 and 8 bytes are all read by pg_get_i64(). */
int64_t pg_get_i64(const struct pg_result *r, int row, int column);
bool pg_get_bool(const struct pg_result *r, int row, int column);
/* Text, bytea, uuid: NUL-terminated bytes that live as long as the result. */
const char *pg_get_bytes(const struct pg_result *r, int row, int column, size_t *ret_len);
const char *pg_get_text(const struct pg_result *r, int row, int column);
/* A row whose columns are read in order: {result, row} stands before the first. Each call reads one column
 * and goes on to the next, as the functions above; pg_next_is_null() stays. pg_next_i64_array() reads a
 * bigint[] without NULLs into a new array, which the caller frees. */
struct pg_row {
    const struct pg_result *result;
    int row, column;
};
bool pg_next_is_null(const struct pg_row *row);
int64_t pg_next_i64(struct pg_row *row);
bool pg_next_bool(struct pg_row *row);
const char *pg_next_text(struct pg_row *row);
const char *pg_next_bytes(struct pg_row *row, size_t *ret_len);
struct bytes pg_next_blob(struct pg_row *row); /* p NULL = NULL */
size_t pg_next_i64_array(struct pg_row *row, int64_t **ret);
/* timestamptz as microseconds since 1970; INT64_MIN and INT64_MAX are the infinities, and NULL reads as
 * INT64_MIN. */
int64_t pg_next_time(struct pg_row *row);
