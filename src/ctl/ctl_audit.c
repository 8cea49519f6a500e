/* anubisctl audit: what the audit log is, and the proof that an event is in it, for others to check. */
#include <inttypes.h>
#include <string.h>
#include <sysexits.h>

#include "audit/audit_proof.h"
#include "crypto/ids.h"
#include "ctl/ctl.h"
#include "sql/statements.h"

/* The last checkpoint. */
struct head {
    struct pg_result *rows;
    int64_t id, created_at, age_usec, count;
    const char *note;      /* NULL = there is none */
    const char *signed_by; /* the public key, "" = nobody */
    struct audit_tree_state *trees;
    size_t tree_count;
    bool is_foreign; /* no note of this installation */
};

struct inquiry {
    struct ctl *ctl;
    struct audit audit;
    struct head head;
    struct sheet *sheet;
    int64_t event;
    const char *event_id; /* NULL = it is named by its number */
    int code;
};

static void head_free(struct head *h)
{
    pg_result_free(h->rows);
    free(h->trees);
}

/* That checkpoint, 0 = the last one. */
static int read_head(struct audit *a, int64_t id, struct head *h)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    head_free(h);
    *h = (struct head){0};
    pg_arg_i64(&args, id);
    int r = pg_query(a->pg, &sql_audit_last_checkpoint, &args, &h->rows, &a->err);
    if (r != PG_DONE || pg_rows(h->rows) == 0)
        return r;
    struct pg_row row = {h->rows, 0, 0};
    h->id = pg_next_i64(&row);
    h->note = pg_next_text(&row);
    h->created_at = pg_next_time(&row);
    h->age_usec = pg_next_i64(&row);
    h->count = pg_next_i64(&row);
    h->signed_by = pg_next_text(&row);
    h->is_foreign = !audit_note_owner(a, h->note, &h->trees, &h->tree_count);
    return PG_DONE;
}

/* What the checkpoint says of a tree, or NULL. */
static const struct audit_tree_state *find_state(const struct head *h, const struct audit_tree *tree)
{
    for (size_t i = 0; i < h->tree_count; i++)
        if (h->trees[i].partition == tree->state.partition &&
            strcmp(h->trees[i].topic, tree->state.topic) == 0)
            return &h->trees[i];
    return NULL;
}

static struct value value_hash(const struct merkle_hash *hash)
{
    char digits[2 * SHA256_BYTES + 1];

    *put_hex(digits, hash->bytes, SHA256_BYTES) = '\0';
    return value_text(digits);
}

/* --- head ------------------------------------------------------------------------------------- */

static void add_trees(struct inquiry *q)
{
    static const struct table_column columns[] = {
        {"topic", "TOPIC", false}, {"partition", "PART", true},
        {"size", "LEAVES", true},  {"in_checkpoint", "IN CHECKPOINT", true},
        {"root", "ROOT", false},
    };
    struct table *t = sheet_table(q->sheet, "trees", "Trees", "none", columns, ARRAY_SIZE(columns));

    for (size_t i = 0; i < q->audit.count; i++) {
        const struct audit_tree *tree = &q->audit.trees[i];
        const struct audit_tree_state *state = find_state(&q->head, tree);
        table_add(t, value_text(tree->state.topic));
        table_add(t, value_i64(tree->state.partition));
        table_add(t, value_i64((int64_t) tree->state.size));
        table_add(t, value_i64(state ? (int64_t) state->size : 0));
        table_add(t, value_hash(&tree->state.root));
    }
}

static void add_checkpoint(struct inquiry *q)
{
    const struct head *h = &q->head;

    sheet_add(q->sheet, "checkpoints", "checkpoints", value_i64(h->count));
    sheet_add(q->sheet, "checkpoint", "last checkpoint", value_i64_or_null(h->id, 0));
    sheet_add(q->sheet, "checkpoint_at", "written", h->note ? value_time(h->created_at) : value_null());
    CLEANUP(freep) char *age = duration_words(h->age_usec);
    struct value seconds = value_i64(h->age_usec / 1000000);
    sheet_add(q->sheet, "checkpoint_age", "age", h->note ? value_words(seconds, "%s", age) : seconds);
    sheet_add(q->sheet, "signed_by", "signed by",
              h->signed_by && *h->signed_by ? value_text(h->signed_by) : value_words(value_null(), "nobody"));
    sheet_add(q->sheet, "note", NULL, value_text(h->note));
}

static int show_head(struct inquiry *q)
{
    int64_t leaves = 0;

    for (size_t i = 0; i < q->audit.count; i++)
        leaves += (int64_t) q->audit.trees[i].state.size;
    sheet_add(q->sheet, "installation", "installation", value_text(q->audit.installation));
    sheet_add(q->sheet, "leaves", "leaves", value_i64(leaves));
    add_checkpoint(q);
    sheet_empty_line(q->sheet);
    add_trees(q);
    return PG_DONE;
}

/* --- prove ------------------------------------------------------------------------------------ */

/* A leaf, and how it stands in the tree. */
struct evidence {
    const struct audit_tree *tree;
    uint64_t leaf;
    unsigned char event_id[16];
    struct strbuf entry;
    struct merkle_hash hash;
    const struct audit_tree_state *promised;
    struct merkle_hash path[MERKLE_PATH_MAX];
    size_t path_count;
};

static void say_verdict(struct inquiry *q, const char *verdict, int code, const char *fmt, ...) PRINTF(4, 5);
static void say_verdict(struct inquiry *q, const char *verdict, int code, const char *fmt, ...)
{
    CLEANUP(strbuf_free) struct strbuf words = STRBUF_INIT(4096);
    va_list args;

    va_start(args, fmt);
    strbuf_addv(&words, fmt, args);
    va_end(args);
    sheet_say(q->sheet, NULL, "%s", strbuf_str(&words));
    sheet_add(q->sheet, "verdict", NULL, value_text(verdict));
    sheet_add(q->sheet, "why", NULL, value_text(strbuf_str(&words)));
    q->code = code;
}

/* Other programs read these, so they are whole: entry, path and note are what is hashed. */
static void add_evidence(struct inquiry *q, const struct evidence *e)
{
    CLEANUP(strbuf_free) struct strbuf path = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    char event_id[IDS_UUID_TEXT];

    strbuf_addc(&path, '[');
    for (size_t i = 0; i < e->path_count; i++) {
        strbuf_adds(&path, i ? ",\"" : "\"");
        strbuf_add_hex(&path, e->path[i].bytes, SHA256_BYTES);
        strbuf_addc(&path, '"');
    }
    strbuf_addc(&path, ']');
    ids_print_uuid(e->event_id, event_id);
    sheet_add(q->sheet, "event_id", "event_id", value_text(event_id));
    sheet_add(q->sheet, "topic", "topic", value_text(e->tree->state.topic));
    sheet_add(q->sheet, "partition", "partition", value_i64(e->tree->state.partition));
    sheet_add(q->sheet, "leaf", "leaf", value_i64((int64_t) e->leaf));
    sheet_add(q->sheet, "hash", "its hash", value_hash(&e->hash));
    sheet_add(q->sheet, "entry", NULL, value_text(strbuf_str(&e->entry)));
    if (!e->promised)
        return;
    sheet_add(q->sheet, "size", "of so many leaves", value_i64((int64_t) e->promised->size));
    sheet_add(q->sheet, "root", "their root", value_hash(&e->promised->root));
    sheet_add(q->sheet, "path", "hashes on the way",
              value_words(value_json(strbuf_str(&path)), "%zu", e->path_count));
    sheet_add(q->sheet, "checkpoint", "checkpoint", value_i64(q->head.id));
    sheet_add(q->sheet, "checkpoint_at", "written", value_time(q->head.created_at));
    sheet_add(q->sheet, "note", NULL, value_text(q->head.note));
}

/* Without its salt a leaf proves that there was an event, and says nothing of a person. */
static void add_salt(struct inquiry *q, struct bytes salt)
{
    CLEANUP(strbuf_free) struct strbuf digits = STRBUF_INIT(4096);

    strbuf_add_hex(&digits, (const unsigned char *) salt.p, salt.len);
    sheet_add(q->sheet, "salt", NULL, value_text(salt.p ? strbuf_str(&digits) : NULL));
    if (!salt.p)
        sheet_say(q->sheet, NULL,
                  "erased: the salt is gone, so nobody can prove any more what the message said");
}

static int find_path(struct inquiry *q, struct evidence *e)
{
    const struct audit_tree_state *promised = find_state(&q->head, e->tree);

    if (!promised || promised->size <= e->leaf || promised->size > e->tree->state.size)
        return PG_DONE;
    int count = audit_path(&q->audit, e->tree, e->leaf, promised->size, e->path);
    if (count < 0)
        return count;
    e->path_count = (size_t) count;
    e->promised = promised;
    return PG_DONE;
}

static void judge(struct inquiry *q, const struct evidence *e)
{
    if (q->head.is_foreign)
        say_verdict(q, "wrong", CTL_DIFFERENT,
                    "WRONG: checkpoint %" PRId64 " is no note of this installation", q->head.id);
    else if (!e->promised)
        say_verdict(q, "not yet", CTL_BEHIND,
                    "not yet: the last checkpoint does not have it; a checkpoint is written each minute");
    else if (!merkle_proves_inclusion(q->audit.sha256, &e->hash, e->leaf, e->promised->size, e->path,
                                      e->path_count, &e->promised->root))
        say_verdict(
            q, "wrong", CTL_DIFFERENT,
            "WRONG: the leaf does not lead to the root of the checkpoint; run \"anubisctl verify --audit "
            "--full\", which names what was changed");
    else
        say_verdict(q, "proven", 0,
                    "proven: the checkpoint has this event; --json gives the proof to others");
}

static int prove_leaf(struct inquiry *q, struct pg_row *row)
{
    struct evidence e = {.tree = q->audit.trees, .entry = STRBUF_INIT(4096)};
    struct audit_entry entry;
    const struct audit_tree *end = q->audit.trees + q->audit.count;
    int64_t id = pg_next_i64(row);

    for (; e.tree < end && e.tree->id != id; e.tree++)
        ;
    if (e.tree == end) {
        say_verdict(q, "wrong", CTL_DIFFERENT, "WRONG: the tree of its leaf is gone");
        return PG_DONE;
    }
    e.leaf = (uint64_t) pg_next_i64(row);
    audit_entry_read(&q->audit, e.tree, e.leaf, row, &entry);
    memcpy(e.event_id, entry.event_id, sizeof(e.event_id));
    struct bytes salt = pg_next_blob(row);
    e.hash = audit_leaf(q->audit.sha256, &entry, &e.entry);
    /* A leaf of before this was a copy stands in another name than the checkpoints since then. */
    const struct audit_past *past = audit_past_of(&q->audit, e.tree, e.leaf);
    int r = past ? read_head(&q->audit, past->checkpoint, &q->head) : PG_DONE;
    if (r == PG_DONE)
        r = find_path(q, &e);
    if (r == PG_DONE) {
        add_evidence(q, &e);
        add_salt(q, salt);
        judge(q, &e);
    }
    strbuf_free(&e.entry);
    return r;
}

/* Of an event that the ledger has, and the log has not. */
static int show_reason(struct inquiry *q)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    pg_arg_i64(&args, q->event);
    int r = pg_query(q->audit.pg, &sql_audit_find_reason, &args, &rows, &q->audit.err);
    if (r != PG_DONE)
        return r;
    struct pg_row row = {rows, 0, 0};
    bool is_adopted = pg_next_bool(&row), is_handled = pg_next_bool(&row),
         is_put_aside = !pg_next_is_null(&row);
    int64_t letter = pg_next_i64(&row);
    if (is_adopted)
        say_verdict(q, "unknown", CTL_DIFFERENT,
                    "unknown: the event is of before the adoption, and such events are not published");
    else if (is_handled)
        say_verdict(q, "wrong", CTL_DIFFERENT,
                    "WRONG: the event was in the log, and its leaf is gone; run \"anubisctl verify --audit "
                    "--full\", which names what was changed");
    else if (is_put_aside && pg_next_bool(&row))
        say_verdict(q, "not yet", CTL_BEHIND,
                    "not yet: its message is dead letter %" PRId64 "; \"anubisctl dead-letters show %" PRId64
                    "\" says why, and \"anubisctl dead-letters replay %" PRId64 "\" has it come into the log",
                    letter, letter, letter);
    else if (is_put_aside)
        say_verdict(q, "discarded", CTL_DIFFERENT,
                    "discarded: its message is dead letter %" PRId64
                    ", which was discarded, so the log does not have it",
                    letter);
    else
        say_verdict(q, "not yet", CTL_BEHIND,
                    "not yet: the event has not come back from Kafka; \"anubisctl status\" shows how far the "
                    "group monitoring is");
    return PG_DONE;
}

static int show_proof(struct inquiry *q)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    pg_arg_i64(&args, q->event);
    pg_arg_text(&args, q->event_id);
    int r = pg_query(q->audit.pg, &sql_audit_find_event, &args, &rows, &q->audit.err);
    if (r != PG_DONE)
        return r;
    struct pg_row row = {rows, 0, 0};
    bool known = pg_next_bool(&row);
    sheet_add(q->sheet, "event", "event", value_i64(q->event));
    if (!pg_next_is_null(&row))
        return prove_leaf(q, &row);
    if (known)
        return show_reason(q);
    say_verdict(q, "unknown", CTL_DIFFERENT,
                "unknown: neither the ledger nor the audit log has such an event");
    return PG_DONE;
}

/* --- the command ------------------------------------------------------------------------------ */

static int inquire(struct ctl *c, int (*show)(struct inquiry *q), int64_t event, const char *event_id)
{
    struct inquiry q = {.ctl = c, .event = event, .event_id = event_id};
    struct pg_params params = ctl_session(c, "anubisctl audit");
    struct pg *pg = NULL;

    int code = ctl_connect(c, &params, &pg);
    if (code)
        return code;
    sheet_new(&q.sheet);
    int r = audit_open(&q.audit, pg);
    if (r == PG_DONE)
        r = read_head(&q.audit, 0, &q.head);
    if (r == PG_DONE)
        r = show(&q);
    code = r == PG_DONE ? ctl_show(c, q.sheet, q.code) : ctl_refused(r, "read the audit log", &q.audit.err);
    sheet_free(q.sheet);
    head_free(&q.head);
    audit_close(&q.audit);
    pg_close(pg);
    return code;
}

/* An event_id ends with the event's number in the ledger, below 2^62; the two bits above are the variant. */
static int64_t number_in(const unsigned char event_id[16])
{
    uint64_t number = 0;

    for (size_t i = 8; i < 16; i++)
        number = number << 8 | event_id[i];
    return (int64_t) (number & ((UINT64_C(1) << 62) - 1));
}

static int prove(struct ctl *c, const char *name)
{
    unsigned char event_id[16];
    int64_t event;

    if (ids_read_uuid(name, strlen(name), event_id))
        return inquire(c, show_proof, number_in(event_id), name);
    if (parse_i64(name, 1, INT64_MAX, &event) == 0)
        return inquire(c, show_proof, event, NULL);
    ctl_say("an event is named by its number in the ledger or by its event_id, a UUID, not by \"%s\"", name);
    return EX_USAGE;
}

int ctl_audit(struct ctl *c)
{
    if (strcmp(c->args[0], "head") == 0 && c->arg_count == 1)
        return inquire(c, show_head, 0, NULL);
    if (strcmp(c->args[0], "prove") == 0 && c->arg_count == 2)
        return prove(c, c->args[1]);
    if (strcmp(c->args[0], "head") == 0)
        ctl_say("there is an argument too many: \"%s\"", c->args[1]);
    else if (strcmp(c->args[0], "prove") == 0)
        ctl_say(
            "an event is missing after \"prove\": its number in the ledger, which \"explain\" shows, or its "
            "event_id");
    else
        ctl_say("the audit log has \"head\" and \"prove EVENT\", not \"%s\"", c->args[0]);
    return EX_USAGE;
}
