/* Anchors of the audit log. See anchors.h. */
#include "ctl/anchors.h"

#include <errno.h>
#include <string.h>
#include <sysexits.h>

#include "base/json.h"
#include "ctl/ctl.h"

#define ANCHORS_BYTES_MAX ((size_t) 256 << 20)
#define KEYS_BYTES_MAX ((size_t) 1 << 20)

static const char note_head[] = "anubisd audit checkpoint 1";
static const char signature_head[] = "\u2014 ";

/* The lines of a text, and what stands there. */
struct reader {
    struct anchors *anchors;
    size_t number; /* of the line */
    struct strbuf note;
    size_t note_line; /* where it begins, 0 = none is under way */
    bool is_signed;   /* its signatures have begun */
    bool is_empty;    /* the line before was empty */
};

void anchors_done(struct anchors *a)
{
    for (size_t i = 0; i < a->count; i++)
        free(a->items[i].note);
    free(a->items);
    free(a->keys);
    *a = (struct anchors){0};
}

static struct audit_anchor *add(struct anchors *a, size_t line)
{
    a->items = xreallocarray(a->items, a->count + 1, sizeof(*a->items));
    a->items[a->count] = (struct audit_anchor){.line = line};
    return &a->items[a->count++];
}

static bool begins_with(const char *line, size_t len, const char *head)
{
    return len >= strlen(head) && memcmp(line, head, strlen(head)) == 0;
}

/* --- digests ---------------------------------------------------------------------------------- */

/* As the journal has it: "audit log: checkpoint of N leaves, SHA-256 …". */
static const char words_of[] = "checkpoint of ", words_sha256[] = " leaves, SHA-256 ";

static bool take_digest(struct reader *r, const char *line, size_t len)
{
    CLEANUP(freep) char *text = xstrndup(line, len);
    const char *of = strstr(text, words_of),
               *sha256 = of ? strstr(of + strlen(words_of), words_sha256) : NULL;
    struct audit_anchor anchor = {.line = r->number};

    if (!sha256)
        return false;
    of += strlen(words_of);
    CLEANUP(freep) char *leaves = xstrndup(of, (size_t) (sha256 - of));
    sha256 += strlen(words_sha256);
    if (parse_i64(leaves, 0, INT64_MAX, &anchor.leaves) < 0 || strlen(sha256) < 2UL * SHA256_BYTES ||
        !get_hex(sha256, anchor.digest, SHA256_BYTES))
        return false;
    *add(r->anchors, r->number) = anchor;
    return true;
}

/* --- notes in lines --------------------------------------------------------------------------- */

static void end_note(struct reader *r)
{
    if (r->note_line)
        add(r->anchors, r->note_line)->note = strbuf_take(&r->note);
    r->note_line = 0;
}

/* TOPIC PARTITION SIZE ROOT */
static bool is_tree_line(const char *line, size_t len)
{
    unsigned char hash[SHA256_BYTES];
    size_t blanks = 0;

    for (size_t i = 0; i < len; i++)
        blanks += line[i] == ' ';
    return blanks == 3 && len > 2UL * SHA256_BYTES && line[len - 2UL * SHA256_BYTES - 1] == ' ' &&
           get_hex(line + len - 2UL * SHA256_BYTES, hash, SHA256_BYTES);
}

/* Does the line go on with the note? */
static bool continue_note(struct reader *r, const char *line, size_t len)
{
    bool is_second = r->number == r->note_line + 1;
    bool is_signature = begins_with(line, len, signature_head) && (r->is_empty || r->is_signed);

    if (len == 0 && !r->is_signed && !r->is_empty) {
        r->is_empty = true;
        return true;
    }
    if (!is_signature && (r->is_empty || r->is_signed || !(is_second || is_tree_line(line, len))))
        return false;
    if (is_signature && !r->is_signed)
        strbuf_addc(&r->note, '\n');
    r->is_signed = is_signature;
    r->is_empty = false;
    strbuf_add(&r->note, line, len);
    strbuf_addc(&r->note, '\n');
    return true;
}

/* --- lines ------------------------------------------------------------------------------------ */

static bool take_json(struct reader *r, const char *line, size_t len)
{
    static const char *const members[] = {"/payload", "/note", "/MESSAGE"};
    CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(ANCHORS_BYTES_MAX);
    struct json_value whole, member;

    if (!json_is_valid(line, len, JSON_MAX_DEPTH) || !json_read(line, len, &whole))
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(members) && text.len == 0; i++)
        if (json_find(&whole, members[i], &member) && member.type == JSON_STRING)
            json_add_text(&text, &member);
    if (!begins_with(strbuf_str(&text), text.len, note_head))
        return take_digest(r, strbuf_str(&text), text.len);
    add(r->anchors, r->number)->note = strbuf_take(&text);
    return true;
}

static bool take_line(struct reader *r, const char *line, size_t len)
{
    if (r->note_line && continue_note(r, line, len))
        return true;
    end_note(r);
    if (len == strlen(note_head) && begins_with(line, len, note_head)) {
        r->note_line = r->number;
        r->is_signed = r->is_empty = false;
        strbuf_add(&r->note, line, len);
        strbuf_addc(&r->note, '\n');
        return true;
    }
    if (len == strspn(line, " \t") || begins_with(line, len, "--") || begins_with(line, len, "#"))
        return true;
    return *line == '{' ? take_json(r, line, len) : take_digest(r, line, len);
}

static bool take_lines(struct reader *r, const char *text)
{
    for (const char *line = text; *line;) {
        size_t len = strcspn(line, "\n"), whole = len;
        r->number++;
        if (len > 0 && line[len - 1] == '\r')
            len--;
        if (!take_line(r, line, len))
            return false;
        line += whole + (line[whole] == '\n');
    }
    end_note(r);
    return true;
}

int anchors_parse(const char *text, size_t len, struct anchors *ret, size_t *ret_line)
{
    struct reader r = {.anchors = ret, .number = 1, .note = STRBUF_INIT(ANCHORS_BYTES_MAX)};
    bool is_right = *text == '{' && take_json(&r, text, len); /* of several lines, perhaps */

    if (!is_right) {
        r.number = 0;
        is_right = take_lines(&r, text);
    }
    strbuf_free(&r.note);
    *ret_line = is_right ? 0 : r.number;
    return is_right && ret->count > 0 ? 0 : -EINVAL;
}

/* --- files ------------------------------------------------------------------------------------ */

static int read_anchors(const char *path, struct anchors *ret)
{
    CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(2 * ANCHORS_BYTES_MAX);
    size_t line;
    int code = ctl_read_file(path, ANCHORS_BYTES_MAX, &text);

    if (code || anchors_parse(strbuf_str(&text), text.len, ret, &line) == 0)
        return code;
    if (line)
        ctl_say(
            "%s, line %zu: this is no checkpoint: neither a note nor a line of the journal with its SHA-256",
            path, line);
    else
        ctl_say("%s has no checkpoint in it", path);
    return EX_DATAERR;
}

static int read_keys(const char *path, struct anchors *ret)
{
    CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(2 * KEYS_BYTES_MAX);
    struct error err;
    int code = ctl_read_file(path, KEYS_BYTES_MAX, &text);

    if (code)
        return code;
    int count = note_publics_read(strbuf_str(&text), &ret->keys, &err);
    if (count < 0) {
        ctl_say("%s %s", path, err.text);
        return EX_DATAERR;
    }
    ret->key_count = (size_t) count;
    return 0;
}

int anchors_read(const char *anchor_path, const char *key_path, struct anchors *ret)
{
    int code = anchor_path ? read_anchors(anchor_path, ret) : 0;

    return code || !key_path ? code : read_keys(key_path, ret);
}
