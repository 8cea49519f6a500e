/* Parameters going out and results coming back, both in Postgres's binary format. See pg.h.
 *
 * Any thread; no connection is touched here but for its last words. */
#include <assert.h>
#include <endian.h>
#include <string.h>

#include "base/timeutil.h"
#include "pg/pg_internal.h"

#define BLIND_USEC (30 * USEC_PER_SEC)

/* Type OIDs are part of Postgres's protocol in practice: pg_type.dat has never changed these. */
enum {
    OID_BOOL = 16,
    OID_BYTEA = 17,
    OID_INT8 = 20,
    OID_INT4 = 23,
    OID_TEXT = 25,
    OID_INT8_ARRAY = 1016,
};

static const struct {
    unsigned type, array;
} elements[] = {
    [PG_BOOL] = {OID_BOOL, 1000}, [PG_INT4] = {OID_INT4, 1007},   [PG_INT8] = {OID_INT8, OID_INT8_ARRAY},
    [PG_TEXT] = {OID_TEXT, 1009}, [PG_BYTEA] = {OID_BYTEA, 1001}, [PG_TIMESTAMPTZ] = {1184, 1185},
};

/* --- parameters ------------------------------------------------------------------------------- */

void pg_args_clear(struct pg_args *a)
{
    strbuf_clear(&a->bytes);
    a->count = 0;
}

void pg_args_free(struct pg_args *a)
{
    strbuf_free(&a->bytes);
    pg_args_clear(a);
}

static void add_arg(struct pg_args *a, unsigned type, const void *bytes, size_t len)
{
    assert(a->count < PG_ARGS_MAX && len <= INT32_MAX);
    a->types[a->count] = type;
    a->offsets[a->count] = a->bytes.len;
    a->lengths[a->count++] = bytes ? (int) len : -1;
    if (bytes)
        strbuf_add(&a->bytes, bytes, len);
    assert(!a->bytes.overflowed);
}

void pg_arg_i64(struct pg_args *a, int64_t value)
{
    uint64_t wire = htobe64((uint64_t) value);
    add_arg(a, OID_INT8, &wire, sizeof(wire));
}

void pg_arg_i32(struct pg_args *a, int32_t value)
{
    uint32_t wire = htobe32((uint32_t) value);
    add_arg(a, OID_INT4, &wire, sizeof(wire));
}

void pg_arg_bool(struct pg_args *a, bool value)
{
    add_arg(a, OID_BOOL, value ? "\1" : "\0", 1);
}

void pg_arg_text(struct pg_args *a, const char *value)
{
    add_arg(a, OID_TEXT, value, value ? strlen(value) : 0);
}

void pg_arg_blob(struct pg_args *a, const void *bytes, size_t len)
{
    add_arg(a, OID_BYTEA, bytes, len);
}

/* Array header (array_recv): dimensions, has-NULLs, element type, then length and lower bound of the one
 * dimension. Each element is counted there as it comes. */
struct array_header {
    uint32_t dimensions, nulls, type, count, lower_bound;
};

void pg_array_begin(struct pg_args *a, enum pg_element type)
{
    const struct array_header header = {
        .dimensions = htobe32(1), .type = htobe32(elements[type].type), .lower_bound = htobe32(1)};
    add_arg(a, elements[type].array, &header, sizeof(header));
}

void pg_array_bytes(struct pg_args *a, const char *value, size_t len)
{
    uint32_t wire_len = htobe32(value ? (uint32_t) len : UINT32_MAX);
    struct array_header header;
    char *at = a->bytes.data + a->offsets[a->count - 1];

    memcpy(&header, at, sizeof(header));
    header.count = htobe32(be32toh(header.count) + 1);
    header.nulls |= htobe32(value == NULL);
    memcpy(at, &header, sizeof(header));
    strbuf_add(&a->bytes, &wire_len, sizeof(wire_len));
    strbuf_add(&a->bytes, value, value ? len : 0);
    assert(!a->bytes.overflowed);
    a->lengths[a->count - 1] = (int) (a->bytes.len - a->offsets[a->count - 1]);
}

void pg_array_i64(struct pg_args *a, int64_t value)
{
    uint64_t wire = htobe64((uint64_t) value);
    pg_array_bytes(a, (const char *) &wire, sizeof(wire));
}

void pg_array_i32(struct pg_args *a, int32_t value)
{
    uint32_t wire = htobe32((uint32_t) value);
    pg_array_bytes(a, (const char *) &wire, sizeof(wire));
}

void pg_array_bool(struct pg_args *a, bool value)
{
    pg_array_bytes(a, value ? "\1" : "\0", 1);
}

void pg_array_null(struct pg_args *a)
{
    pg_array_bytes(a, NULL, 0);
}

static const void *field(const void *first, size_t stride, size_t i)
{
    return (const char *) first + i * stride;
}

/* All at once: batches have tens of thousands of them. */
static void add_i64s(struct pg_args *a, enum pg_element type, const int64_t *first, size_t stride,
                     size_t count, int64_t epoch)
{
    const uint32_t wire_len = htobe32(sizeof(int64_t)), wire_count = htobe32((uint32_t) count);

    pg_array_begin(a, type);
    char *to = strbuf_reserve(&a->bytes, count * (sizeof(wire_len) + sizeof(int64_t)));
    assert(to);
    for (size_t i = 0; i < count; i++) {
        int64_t value = *(const int64_t *) field(first, stride, i);
        bool is_infinite = epoch != 0 && (value == INT64_MIN || value == INT64_MAX);
        uint64_t wire = htobe64((uint64_t) (is_infinite ? value : value - epoch));
        memcpy(to, &wire_len, sizeof(wire_len));
        memcpy(to + sizeof(wire_len), &wire, sizeof(wire));
        to += sizeof(wire_len) + sizeof(wire);
    }
    a->bytes.len = (size_t) (to - a->bytes.data);
    char *header = a->bytes.data + a->offsets[a->count - 1];
    memcpy(header + offsetof(struct array_header, count), &wire_count, sizeof(wire_count));
    a->lengths[a->count - 1] = (int) (a->bytes.len - a->offsets[a->count - 1]);
}

void pg_arg_i64s(struct pg_args *a, const int64_t *first, size_t stride, size_t count)
{
    add_i64s(a, PG_INT8, first, stride, count, 0);
}

void pg_arg_times(struct pg_args *a, const int64_t *first, size_t stride, size_t count)
{
    add_i64s(a, PG_TIMESTAMPTZ, first, stride, count, PG_EPOCH_USEC);
}

void pg_arg_i32s(struct pg_args *a, const int32_t *first, size_t stride, size_t count)
{
    pg_array_begin(a, PG_INT4);
    for (size_t i = 0; i < count; i++)
        pg_array_i32(a, *(const int32_t *) field(first, stride, i));
}

void pg_arg_texts(struct pg_args *a, const char *const *first, size_t stride, size_t count)
{
    pg_array_begin(a, PG_TEXT);
    for (size_t i = 0; i < count; i++) {
        const char *const *text = field(first, stride, i);
        pg_array_bytes(a, *text, strlen(*text));
    }
}

void pg_arg_bytes(struct pg_args *a, enum pg_element type, const struct bytes *first, size_t stride,
                  size_t count)
{
    pg_array_begin(a, type);
    for (size_t i = 0; i < count; i++) {
        const struct bytes *bytes = field(first, stride, i);
        pg_array_bytes(a, bytes->p, bytes->len);
    }
}

/* --- rows of COPY ----------------------------------------------------------------------------- */

void pg_copy_begin(struct strbuf *rows)
{
    /* Signature, flags, length of the header's extension. */
    static const char header[] = "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0";

    strbuf_add(rows, header, sizeof(header));
}

void pg_copy_row(struct strbuf *rows, int16_t columns)
{
    uint16_t wire = htobe16((uint16_t) columns);
    strbuf_add(rows, &wire, sizeof(wire));
}

void pg_copy_bytes(struct strbuf *rows, const void *value, size_t len)
{
    uint32_t wire = htobe32((uint32_t) len);
    strbuf_add(rows, &wire, sizeof(wire));
    strbuf_add(rows, value, len);
}

void pg_copy_i32(struct strbuf *rows, int32_t value)
{
    uint32_t wire = htobe32((uint32_t) value);
    pg_copy_bytes(rows, &wire, sizeof(wire));
}

void pg_copy_i64(struct strbuf *rows, int64_t value)
{
    uint64_t wire = htobe64((uint64_t) value);
    pg_copy_bytes(rows, &wire, sizeof(wire));
}

void pg_copy_null(struct strbuf *rows)
{
    strbuf_add(rows, "\377\377\377\377", 4);
}

/* --- sending ---------------------------------------------------------------------------------- */

static bool is_prepared(const struct pg_prepared *p, const struct pg_statement *statement)
{
    for (size_t i = 0; i < p->count; i++)
        if (p->items[i] == statement)
            return true;
    return false;
}

void pg_prepared_add(struct pg_prepared *p, const struct pg_statement *statement)
{
    p->items = xreallocarray(p->items, p->count + 1, sizeof(*p->items));
    p->items[p->count++] = statement;
}

bool pg_send(PGconn *conn, const struct pg_prepared *prepared, const struct pg_statement *s,
             const struct pg_args *args, bool *ret_preparing)
{
    static const struct pg_args none;
    const struct pg_args *a = args ? args : &none;
    const char *values[PG_ARGS_MAX];
    int formats[PG_ARGS_MAX];

    for (int i = 0; i < a->count; i++) {
        values[i] = a->lengths[i] < 0 ? NULL : a->bytes.data + a->offsets[i];
        formats[i] = 1;
    }
    *ret_preparing = s->name[0] && !is_prepared(prepared, s);
    if (*ret_preparing)
        return PQsendPrepare(conn, s->name, s->sql, a->count, a->types);
    if (s->name[0])
        return PQsendQueryPrepared(conn, s->name, a->count, values, a->lengths, formats, 1);
    return PQsendQueryParams(conn, s->sql, a->count, a->types, values, a->lengths, formats, 1);
}

/* --- refusals --------------------------------------------------------------------------------- */

bool pg_blames_value(const char *sqlstate)
{
    return strncmp(sqlstate, "22", 2) == 0 || strncmp(sqlstate, "23", 2) == 0 ||
           strncmp(sqlstate, "54", 2) == 0;
}

bool pg_blames_row(const char *sqlstate)
{
    return pg_blames_value(sqlstate) || strncmp(sqlstate, "P0", 2) == 0 ||
           strcmp(sqlstate, PG_SQLSTATE_BEING_SENT) == 0;
}

/* --- results ---------------------------------------------------------------------------------- */

void pg_words(struct error *err, PGconn *conn, const PGresult *result)
{
    const char *text = result ? PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY) : NULL;
    const char *hint = result ? PQresultErrorField(result, PG_DIAG_MESSAGE_HINT) : NULL;
    if (!text || !*text)
        text = conn ? PQerrorMessage(conn) : NULL;
    if (!text || !*text)
        text = "the connection to the database is lost";
    const char *state = pg_sqlstate(result);
    /* The server guesses another column; ours are all there when nobody has changed the tables. */
    if (strcmp(state, "42703") == 0 || strcmp(state, "42P01") == 0)
        hint =
            "Has somebody changed the tables? \"anubisctl migrate\" names what is missing, or brings it back";
    if (!hint && strcmp(state, "42501") == 0)
        hint =
            "The role that migrated the schema grants what is needed with \"select SCHEMA.anubisd_grant('ROLE')\"; "
            "row security takes the attribute BYPASSRLS";
    error_set(err, "%s%s%s", text, hint ? ". " : "", hint ? hint : "");
    if (!err)
        return;
    size_t len = strlen(err->text);
    while (len && (err->text[len - 1] == '\n' || err->text[len - 1] == ' '))
        err->text[--len] = '\0';
    for (char *p = err->text; *p; p++)
        if (*p == '\n' || *p == '\t')
            *p = ' ';
}

const char *pg_sqlstate(const PGresult *result)
{
    const char *state = result ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;
    return state ? state : "";
}

bool pg_result_is_read_only(const PGresult *result)
{
    return strcmp(pg_sqlstate(result), "25006") == 0;
}

bool pg_result_is_foreign(const PGresult *result)
{
    const char *sqlstate = pg_sqlstate(result);

    return strcmp(sqlstate, "26000") == 0 || strcmp(sqlstate, "42P05") == 0;
}

bool pg_is_blind(const char *sqlstate, uint64_t opened_at)
{
    return (strcmp(sqlstate, "42P01") == 0 || strcmp(sqlstate, "42883") == 0 ||
            strcmp(sqlstate, "3F000") == 0) &&
           now_monotonic_usec() - opened_at > BLIND_USEC;
}

bool pg_result_is_good(const PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);

    return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK || status == PGRES_EMPTY_QUERY;
}

void pg_result_free(struct pg_result *r)
{
    PQclear(r);
}

void pg_result_freep(struct pg_result **r)
{
    PQclear(*r);
}

int pg_rows(const struct pg_result *r)
{
    return PQntuples(r);
}

int64_t pg_affected(const struct pg_result *r)
{
    /* PQcmdTuples() takes a non-const result for historical reasons and changes nothing. */
    union {
        const PGresult *in;
        PGresult *out;
    } pun = {.in = r};
    int64_t n = 0;
    (void) parse_i64(PQcmdTuples(pun.out), 0, INT64_MAX, &n);
    return n;
}

bool pg_is_null(const struct pg_result *r, int row, int column)
{
    return PQgetisnull(r, row, column);
}

static int64_t read_int(const char *bytes, int len)
{
    uint64_t v64;
    uint32_t v32;
    uint16_t v16;
    switch (len) {
    case 1:
        return *bytes;
    case 8:
        memcpy(&v64, bytes, sizeof(v64));
        return (int64_t) be64toh(v64);
    case 4:
        memcpy(&v32, bytes, sizeof(v32));
        return (int32_t) be32toh(v32);
    case 2:
        memcpy(&v16, bytes, sizeof(v16));
        return (int16_t) be16toh(v16);
    default:
        return 0;
    }
}

int64_t pg_get_i64(const struct pg_result *r, int row, int column)
{
    return read_int(PQgetvalue(r, row, column), PQgetlength(r, row, column));
}

bool pg_get_bool(const struct pg_result *r, int row, int column)
{
    return PQgetlength(r, row, column) == 1 && PQgetvalue(r, row, column)[0];
}

const char *pg_get_bytes(const struct pg_result *r, int row, int column, size_t *ret_len)
{
    *ret_len = (size_t) PQgetlength(r, row, column);
    return PQgetvalue(r, row, column);
}

const char *pg_get_text(const struct pg_result *r, int row, int column)
{
    return PQgetvalue(r, row, column);
}

bool pg_next_is_null(const struct pg_row *row)
{
    return pg_is_null(row->result, row->row, row->column);
}

int64_t pg_next_i64(struct pg_row *row)
{
    return pg_get_i64(row->result, row->row, row->column++);
}

bool pg_next_bool(struct pg_row *row)
{
    return pg_get_bool(row->result, row->row, row->column++);
}

const char *pg_next_text(struct pg_row *row)
{
    return pg_get_text(row->result, row->row, row->column++);
}

const char *pg_next_bytes(struct pg_row *row, size_t *ret_len)
{
    return pg_get_bytes(row->result, row->row, row->column++, ret_len);
}

struct bytes pg_next_blob(struct pg_row *row)
{
    struct bytes b = {0};
    bool absent = pg_next_is_null(row);
    const char *p = pg_next_bytes(row, &b.len);

    b.p = absent ? NULL : p;
    return b;
}

int64_t pg_next_time(struct pg_row *row)
{
    int64_t t = pg_next_is_null(row) ? INT64_MIN : pg_get_i64(row->result, row->row, row->column);

    row->column++;
    if (t == INT64_MAX || t == INT64_MIN)
        return t;
    /* The last months that Postgres knows are beyond what counts from 1970. */
    return MIN(t, INT64_MAX - 1 - PG_EPOCH_USEC) + PG_EPOCH_USEC;
}

size_t pg_next_i64_array(struct pg_row *row, int64_t **ret)
{
    size_t len;
    const char *p = pg_next_bytes(row, &len), *end = p + len;
    struct array_header header;

    *ret = NULL;
    if (len < sizeof(header))
        return 0;
    memcpy(&header, p, sizeof(header));
    if (be32toh(header.dimensions) != 1 || be32toh(header.type) != OID_INT8)
        return 0;
    int64_t count = be32toh(header.count);
    p += sizeof(header);
    if (count <= 0 || count * 12 != end - p)
        return 0;
    *ret = xcalloc((size_t) count, sizeof(**ret));
    for (int64_t i = 0; i < count; i++, p += 12)
        (*ret)[i] = read_int(p + 4, 8);
    return (size_t) count;
}
