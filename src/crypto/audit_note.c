/* Checkpoints of the audit log. See audit_note.h. */
#include "crypto/audit_note.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char head[] = "anubisd audit checkpoint 1\n";

void audit_note_begin(struct strbuf *out, const char *installation)
{
    strbuf_addf(out, "%s%s\n", head, installation);
}

void audit_note_add(struct strbuf *out, const struct audit_tree_state *tree)
{
    strbuf_addf(out, "%s %" PRId32 " %" PRIu64 " ", tree->topic, tree->partition, tree->size);
    strbuf_add_hex(out, tree->root.bytes, SHA256_BYTES);
    strbuf_addc(out, '\n');
}

char *audit_note_signer(const char *installation)
{
    return xasprintf("anubisd/%s", installation);
}

/* A number without sign, at *p, and the blank behind it. */
static bool take_number(const char **p, int64_t max, int64_t *ret)
{
    const char *end = strchr(*p, ' ');
    char digits[20];

    if (!end || end - *p >= (ptrdiff_t) sizeof(digits) || !isdigit((unsigned char) **p))
        return false;
    memcpy(digits, *p, (size_t) (end - *p));
    digits[end - *p] = '\0';
    *p = end + 1;
    return parse_i64(digits, 0, max, ret) == 0;
}

static bool take_hash(const char *p, struct merkle_hash *ret)
{
    char again[2 * SHA256_BYTES];

    if (!get_hex(p, ret->bytes, SHA256_BYTES))
        return false;
    put_hex(again, ret->bytes, SHA256_BYTES);
    return memcmp(again, p, sizeof(again)) == 0 && p[sizeof(again)] == '\n';
}

/* A line; *p is moved behind it. */
static bool take_tree(const char **p, struct audit_tree_state *ret)
{
    const char *at = *p, *end = strchr(at, '\n'), *blank = strchr(at, ' ');
    int64_t partition, size;

    if (!end || !blank || blank > end || blank - at > AUDIT_TOPIC_MAX)
        return false;
    *ret = (struct audit_tree_state){0};
    memcpy(ret->topic, at, (size_t) (blank - at));
    at = blank + 1;
    if (!take_number(&at, INT32_MAX, &partition) || !take_number(&at, INT64_MAX, &size) || at > end ||
        end - at != (ptrdiff_t) (2 * SHA256_BYTES) || !take_hash(at, &ret->root))
        return false;
    ret->partition = (int32_t) partition;
    ret->size = (uint64_t) size;
    *p = end + 1;
    return true;
}

int audit_note_read(const char *note, const char *installation, struct audit_tree_state **ret,
                    size_t *ret_count)
{
    CLEANUP(freep) struct audit_tree_state *trees = NULL;
    size_t len = strlen(installation), count = 0;
    const char *p = note;

    if (strncmp(p, head, sizeof(head) - 1) != 0)
        return -EINVAL;
    p += sizeof(head) - 1;
    if (strncmp(p, installation, len) != 0 || p[len] != '\n')
        return -EINVAL;
    for (p += len + 1; *p && *p != '\n'; count++) { /* signatures follow an empty line */
        trees = xreallocarray(trees, count + 1, sizeof(*trees));
        if (!take_tree(&p, &trees[count]))
            return -EINVAL;
    }
    *ret = TAKE_PTR(trees);
    *ret_count = count;
    return 0;
}
