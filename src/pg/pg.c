/* Blocking sessions with a deadline. See pg.h.
 *
 * libpq's own blocking calls are never used: with a stopped backend neither statement_timeout nor keepalives
 * end them. Everything waits in poll(2) on the socket and the stop descriptor. */
#include "pg/pg.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/timeutil.h"
#include "pg/pg_conninfo.h"
#include "pg/pg_internal.h"

/* How much longer than the server's statement_timeout we wait before the connection counts as dead. */
#define MARGIN_USEC (5 * USEC_PER_SEC)
#define POOL_USEC (3 * USEC_PER_SEC) /* a pooler has a connection for us, or none */

struct pg {
    PGconn *conn;
    int stop_fd;
    uint64_t query_timeout_usec;
    struct pg_prepared prepared;
    char sqlstate[6];
    bool broken, writes;
    int64_t server; /* see pg_is_elsewhere() */
    void (*remark)(void *userdata, const char *sqlstate, const char *words);
    void (*under_way)(void *userdata);
    void *userdata;
};

/* --- waiting ---------------------------------------------------------------------------------- */

/* Waits for the socket. PG_DONE, -ECANCELED, or -ETIMEDOUT. */
static int wait_socket(PGconn *conn, int stop_fd, short events, uint64_t deadline_usec)
{
    for (;;) {
        struct pollfd fds[2] = {{.fd = PQsocket(conn), .events = events}, {.fd = stop_fd, .events = POLLIN}};
        int timeout_ms = -1;
        if (deadline_usec != USEC_INFINITY) {
            uint64_t now = now_monotonic_usec();
            if (now >= deadline_usec)
                return -ETIMEDOUT;
            timeout_ms = (int) MIN((deadline_usec - now) / 1000 + 1, (uint64_t) 60000);
        }
        int n = poll(fds, 2, timeout_ms);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0 && fds[1].revents)
            return -ECANCELED;
        if (n > 0 && fds[0].revents)
            return PG_DONE;
    }
}

static int broken(struct pg *pg, int r, struct error *err)
{
    pg->broken = true;
    if (r == -ECANCELED) {
        error_set(err, "stopping");
        return -ECANCELED;
    }
    if (r == -ETIMEDOUT)
        error_set(err, "no answer from the database in time");
    else
        pg_words(err, pg->conn, NULL);
    return -ECONNRESET;
}

/* Sends what is queued and reads until a result can be had without blocking. */
static int wait_result(struct pg *pg, uint64_t deadline_usec, struct error *err)
{
    int unsent = PQflush(pg->conn);
    for (;;) {
        if (unsent < 0)
            return broken(pg, -ECONNRESET, err);
        if (!unsent && !PQisBusy(pg->conn))
            return PG_DONE;
        uint64_t until =
            pg->under_way ? MIN(deadline_usec, now_monotonic_usec() + USEC_PER_SEC) : deadline_usec;
        int r = wait_socket(pg->conn, pg->stop_fd, (short) (POLLIN | (unsent ? POLLOUT : 0)), until);
        if (r == -ETIMEDOUT && until < deadline_usec) {
            pg->under_way(pg->userdata);
            continue;
        }
        if (r != PG_DONE)
            return broken(pg, r, err);
        if (!PQconsumeInput(pg->conn))
            return broken(pg, -ECONNRESET, err);
        if (unsent)
            unsent = PQflush(pg->conn);
    }
}

/* Reads results until none is left; the last one that carries news stays in *ret. */
static int drain(struct pg *pg, uint64_t deadline_usec, PGresult **ret, struct error *err)
{
    PGresult *last = NULL;
    for (;;) {
        int r = wait_result(pg, deadline_usec, err);
        PGresult *next = r == PG_DONE ? PQgetResult(pg->conn) : NULL;
        if (r != PG_DONE) {
            PQclear(last);
            return r;
        }
        if (!next) {
            *ret = last;
            return PG_DONE;
        }
        /* Of several statements the first refusal ends the list, so the last result is the telling one. */
        PQclear(last);
        last = next;
    }
}

static int judge(struct pg *pg, PGresult *result, struct error *err)
{
    if (pg_result_is_good(result))
        return PG_DONE;
    pg_words(err, pg->conn, result);
    snprintf(pg->sqlstate, sizeof(pg->sqlstate), "%s", pg_sqlstate(result));
    if (PQstatus(pg->conn) != CONNECTION_OK || (pg->writes && pg_result_is_read_only(result)) ||
        pg_result_is_foreign(result)) {
        pg->broken = true;
        return -ECONNRESET;
    }
    return strncmp(pg->sqlstate, "42501", 5) == 0 ? -EPERM : -EBADMSG;
}

static uint64_t query_deadline(const struct pg *pg)
{
    return pg->query_timeout_usec == USEC_INFINITY ? USEC_INFINITY
                                                   : now_monotonic_usec() + pg->query_timeout_usec;
}

static int finish(struct pg *pg, bool sent, struct pg_result **ret, struct error *err)
{
    PGresult *result = NULL;
    if (!sent)
        return broken(pg, -ECONNRESET, err);
    int r = drain(pg, query_deadline(pg), &result, err);
    if (r == PG_DONE)
        r = judge(pg, result, err);
    if (r == PG_DONE && ret)
        *ret = TAKE_PTR(result);
    PQclear(result);
    return r;
}

/* --- opening ---------------------------------------------------------------------------------- */

static PGconn *start_connect(const struct pg_params *params)
{
    /* expand_dbname lets dbname be the whole conninfo; what follows it wins over what is in it. */
    const char *keywords[] = {"target_session_attrs", "dbname", "application_name", "client_encoding", NULL};
    const char *values[] = {"read-write", params->conninfo, params->application_name, "UTF8", NULL};
    /* With one host our own words say it better. */
    bool choose =
        params->writes && pg_conninfo_has_hosts(params->conninfo) && !getenv("PGTARGETSESSIONATTRS");
    return PQconnectStartParams(keywords + !choose, values + !choose, 1);
}

static int wait_connected(struct pg *pg, uint64_t deadline_usec, struct error *err)
{
    PostgresPollingStatusType status = PGRES_POLLING_WRITING;
    while (PQstatus(pg->conn) != CONNECTION_BAD) {
        /* The socket may be another one after each call (several addresses, SSL refused). */
        int r = wait_socket(pg->conn, pg->stop_fd, status == PGRES_POLLING_READING ? POLLIN : POLLOUT,
                            deadline_usec);
        if (r != PG_DONE)
            return broken(pg, r, err);
        status = PQconnectPoll(pg->conn);
        if (status == PGRES_POLLING_OK)
            return PG_DONE;
        if (status == PGRES_POLLING_FAILED)
            break;
    }
    pg_words(err, pg->conn, NULL);
    pg->broken = true;
    return -ECONNRESET;
}

/* What the server remarks is not for the journal: refusals arrive as errors. */
static void ignore_notice(void *userdata, const PGresult *result)
{
    (void) userdata;
    (void) result;
}

static void pass_notice_on(void *userdata, const PGresult *result)
{
    struct pg *pg = userdata;
    struct error words;

    pg_words(&words, NULL, result);
    pg->remark(pg->userdata, pg_sqlstate(result), words.text);
}

static int set_up_session(struct pg *pg, const struct pg_params *params, struct error *err)
{
    CLEANUP(strbuf_free) struct strbuf sql = STRBUF_INIT(4096);
    char *schema = PQescapeIdentifier(pg->conn, params->schema, strlen(params->schema));
    if (!schema)
        return broken(pg, -ECONNRESET, err);
    pg_settings_write(&sql, params, schema, PQserverVersion(pg->conn));
    PQfreemem(schema);
    return pg_execute(pg, sql.data, err);
}

static int judge_server(struct pg *pg, const struct pg_params *params, int64_t *ret_server, struct error *err)
{
    static const struct pg_statement facts = {
        "", "select pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', "
            "(extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint"};
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    int r = pg_query(pg, &facts, NULL, &result, err);
    if (r != PG_DONE)
        return r;
    if (params->writes && (pg_get_bool(result, 0, 0) || pg_get_bool(result, 0, 1))) {
        error_set(err, "%s",
                  pg_get_bool(result, 0, 0)
                      ? "the server is a standby; database.conninfo is to name the primary"
                      : "default_transaction_read_only is on for the server, the database or the role");
        return -EROFS;
    }
    int version = PQserverVersion(pg->conn) / 10000;
    if (version < 13) {
        error_set(err, "the server is PostgreSQL %d: 13 or later is needed", version);
        return -EPERM;
    }
    if (params->writes)
        *ret_server = pg_get_i64(result, 0, 2);
    return PG_DONE;
}

static void pg_closep(struct pg **pg)
{
    pg_close(*pg);
}

/* A connection, without a session's settings. */
static int connect_to(struct pg **ret, const struct pg_params *params, struct error *err)
{
    CLEANUP(pg_closep) struct pg *pg = xcalloc(1, sizeof(*pg));
    uint64_t deadline = now_monotonic_usec() + params->connect_timeout_usec;

    pg->stop_fd = params->stop_fd;
    pg->writes = params->writes;
    /* Until the session stands, every statement has what is left of the time to connect, roughly. */
    pg->query_timeout_usec = params->connect_timeout_usec;
    pg->conn = start_connect(params);
    if (!pg->conn || PQstatus(pg->conn) == CONNECTION_BAD)
        return broken(pg, -ECONNRESET, err);
    int r = wait_connected(pg, deadline, err);
    if (r != PG_DONE)
        return r;
    pg->remark = params->remark;
    pg->under_way = params->under_way;
    pg->userdata = params->userdata;
    PQsetNoticeReceiver(pg->conn, pg->remark ? pass_notice_on : ignore_notice, pg);
    if (PQsetnonblocking(pg->conn, 1) != 0)
        return broken(pg, -ECONNRESET, err);
    *ret = TAKE_PTR(pg);
    return PG_DONE;
}

/* The id of its process that a pooler tells is its own: no fault, but a reason to look closer. */
static int find_pooler(struct pg *pg, bool *ret, struct error *err)
{
    static const struct pg_statement ask = {"", "select pg_catalog.pg_backend_pid()"};
    struct error why = {.text = ""};
    int64_t pid;
    int r = pg_query_i64(pg, &ask, NULL, &pid, &why);

    *ret = r == PG_DONE && pid != PQbackendPID(pg->conn);
    error_set(err, "%s%s", why.text, r == -ECONNRESET ? "; if through a pooler, its pool may be full" : "");
    return r;
}

/* False also when there is no answer: the other transaction has the only connection of the pool. */
static bool keeps_setting(struct pg *pg, const char *value)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;
    static const struct pg_statement ask = {"", "select pg_catalog.current_setting('anubisd.session', true)"};

    return pg_query(pg, &ask, NULL, &result, NULL) == PG_DONE &&
           strcmp(pg_get_text(result, 0, 0), value) == 0;
}

/* Does the setting get lost as soon as another connection begins a transaction? PgBouncer gives that one the
 * server's connection that was used last or, by round robin, longest ago: then a later round meets it. */
static bool is_mixed(struct pg *pg, struct pg *other, const char *value, struct error *err)
{
    for (int round = 0; round < 3; round++) {
        if (pg_execute(other, "begin; select 1", err) != PG_DONE)
            /* Where each session has a connection of its own they may be used up: no answer in time. */
            return strstr(err->text, "statement pooling");
        if (!keeps_setting(pg, value))
            return true;
        if (pg_execute(other, "commit", err) != PG_DONE)
            return false;
    }
    return false;
}

/* Before settings are made that would matter to others. */
static int refuse_transaction_pool(struct pg *pg, const struct pg_params *params, struct error *err)
{
    CLEANUP(pg_closep) struct pg *other = NULL;
    char value[24], set[64];

    snprintf(value, sizeof(value), "%" PRIx64, random_u64());
    snprintf(set, sizeof(set), "set anubisd.session = '%s'", value);
    int r = pg_execute(pg, set, err);
    if (r == PG_DONE)
        r = connect_to(&other, params, err);
    if (r != PG_DONE)
        return r;
    pg->query_timeout_usec = other->query_timeout_usec = POOL_USEC;
    bool mixed = is_mixed(pg, other, value, err);
    pg->query_timeout_usec = params->connect_timeout_usec;
    if (!mixed)
        return PG_DONE;
    error_set(err,
              "the connection goes through a pooler in transaction mode, in which locks of a session, LISTEN "
              "and prepared statements get lost: set pool_mode = session for this database in pgbouncer.ini, "
              "or let database.conninfo name Postgres itself");
    return -EPERM;
}

int pg_open(struct pg **ret, const struct pg_params *params, struct error *err)
{
    CLEANUP(pg_closep) struct pg *pg = NULL;
    bool pooled = false;
    int64_t server = 0;
    int r = connect_to(&pg, params, err);

    if (r == PG_DONE)
        r = find_pooler(pg, &pooled, err);
    if (r == PG_DONE && pooled)
        r = refuse_transaction_pool(pg, params, err);
    if (r == PG_DONE)
        r = set_up_session(pg, params, err);
    if (r == PG_DONE)
        r = judge_server(pg, params, &server, err);
    if (r == PG_DONE && params->ret_is_here)
        *params->ret_is_here = !pg_is_elsewhere(server, err);
    if (r == PG_DONE && params->admit)
        r = params->admit(pg, params, server, err);
    if (r == PG_DONE && !pg_come_to_server(server, err))
        r = -ECONNRESET;
    if (r != PG_DONE)
        return r;
    pg->server = server;
    pg->query_timeout_usec =
        params->statement_timeout_usec ? params->statement_timeout_usec + MARGIN_USEC : USEC_INFINITY;
    *ret = TAKE_PTR(pg);
    return PG_DONE;
}

void pg_close(struct pg *pg)
{
    if (!pg)
        return;
    PQfinish(pg->conn);
    free(pg->prepared.items);
    free(pg);
}

PGconn *pg_release(struct pg *pg, int64_t *ret_server)
{
    PGconn *conn = TAKE_PTR(pg->conn);
    *ret_server = pg->server;
    pg_close(pg);
    return conn;
}

bool pg_usable(const struct pg *pg)
{
    return pg && !pg->broken;
}

const char *pg_error_sqlstate(const struct pg *pg)
{
    return pg->sqlstate;
}

/* --- statements ------------------------------------------------------------------------------- */

static int begin(struct pg *pg, struct error *err)
{
    pg->sqlstate[0] = '\0';
    if (pg->broken)
        error_set(err, "the connection to the database is lost");
    else if (pg_is_elsewhere(pg->server, err))
        pg->broken = true;
    return pg->broken ? -ECONNRESET : PG_DONE;
}

int pg_query(struct pg *pg, const struct pg_statement *statement, const struct pg_args *args,
             struct pg_result **ret, struct error *err)
{
    bool preparing = true;
    int r = begin(pg, err);

    while (r == PG_DONE && preparing) {
        bool sent = pg_send(pg->conn, &pg->prepared, statement, args, &preparing);
        r = finish(pg, sent, preparing ? NULL : ret, err);
        if (r == PG_DONE && preparing)
            pg_prepared_add(&pg->prepared, statement);
    }
    return r;
}

int pg_query_i64(struct pg *pg, const struct pg_statement *statement, const struct pg_args *args,
                 int64_t *ret, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    int r = pg_query(pg, statement, args, &result, err);
    if (r == PG_DONE)
        *ret = pg_rows(result) ? pg_get_i64(result, 0, 0) : 0;
    return r;
}

int pg_query_bool(struct pg *pg, const struct pg_statement *statement, const struct pg_args *args, bool *ret,
                  struct error *err)
{
    int64_t value = 0;

    int r = pg_query_i64(pg, statement, args, &value, err);
    if (r == PG_DONE)
        *ret = value;
    return r;
}

int pg_execute(struct pg *pg, const char *sql, struct error *err)
{
    int r = begin(pg, err);

    return r == PG_DONE ? finish(pg, PQsendQuery(pg->conn, sql), NULL, err) : r;
}

/* The server refuses the statement itself, or waits for the rows. */
static int begin_copy(struct pg *pg, const char *sql, struct error *err)
{
    int r = begin(pg, err);

    if (r != PG_DONE)
        return r;
    if (!PQsendQuery(pg->conn, sql))
        return broken(pg, -ECONNRESET, err);
    r = wait_result(pg, query_deadline(pg), err);
    if (r != PG_DONE)
        return r;
    PGresult *first = PQgetResult(pg->conn), *rest = NULL;
    if (PQresultStatus(first) != PGRES_COPY_IN) {
        r = judge(pg, first, err);
        if (drain(pg, query_deadline(pg), &rest, NULL) != PG_DONE)
            r = -ECONNRESET;
    }
    PQclear(first);
    PQclear(rest);
    return r;
}

int pg_copy(struct pg *pg, const char *sql, struct strbuf *rows, struct error *err)
{
    pg_copy_row(rows, -1);
    assert(!rows->overflowed && rows->len <= INT_MAX);
    int r = begin_copy(pg, sql, err);
    if (r != PG_DONE)
        return r;
    /* libpq keeps what the socket does not take yet. */
    bool sent =
        PQputCopyData(pg->conn, rows->data, (int) rows->len) == 1 && PQputCopyEnd(pg->conn, NULL) == 1;
    return finish(pg, sent, NULL, err);
}
