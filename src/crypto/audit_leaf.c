/* Entries of the audit log. See audit_leaf.h. */
#include "crypto/audit_leaf.h"

#include <string.h>

#include "base/timeutil.h"
#include "crypto/ids.h"

void audit_commit(struct sha256 *sha256, const unsigned char salt[AUDIT_SALT_BYTES],
                  const unsigned char value_hash[SHA256_BYTES], unsigned char ret[SHA256_BYTES])
{
    struct bytes parts[] = {{(const char *) salt, AUDIT_SALT_BYTES},
                            {(const char *) value_hash, SHA256_BYTES}};

    sha256_digest(sha256, parts, ARRAY_SIZE(parts), ret);
}

static const char head[] = "anubisd audit leaf 1";

static char *put_line(char *to, const char *text, size_t len)
{
    memcpy(to, text, len);
    to[len] = '\n';
    return to + len + 1;
}

static char *put_number(char *to, int64_t number)
{
    to = put_i64(to, number);
    *to++ = '\n';
    return to;
}

/* What an entry takes besides its texts: numbers, UUID, time and commitment, with their newlines. */
#define PLAIN_BYTES (5 * (I64_TEXT + 1) + IDS_UUID_TEXT + TIMESTAMP_TEXT + 1 + 2 * SHA256_BYTES + 1)

void audit_entry_print(const struct audit_entry *entry, struct strbuf *out)
{
    size_t installation = strlen(entry->installation), topic = strlen(entry->topic),
           type = strlen(entry->event_type);
    char *begin = strbuf_reserve(out, sizeof(head) + installation + topic + type + 3 + PLAIN_BYTES),
         *to = begin;

    if (!begin)
        return;
    to = put_line(to, head, sizeof(head) - 1);
    to = put_line(to, entry->installation, installation);
    to = put_line(to, entry->topic, topic);
    to = put_number(to, entry->partition);
    to = put_number(to, entry->offset);
    to = put_number(to, entry->sequence);
    ids_print_uuid(entry->event_id, to); /* its NUL is where the newline goes */
    to[IDS_UUID_TEXT - 1] = '\n';
    to = put_line(to + IDS_UUID_TEXT, entry->event_type, type);
    to = put_number(to, entry->subscription_id);
    to = put_number(to, entry->integration_id);
    to = put_timestamp(to, entry->created_at);
    *to++ = '\n';
    to = put_hex(to, entry->commitment, SHA256_BYTES);
    *to++ = '\n';
    *to = '\0';
    out->len += (size_t) (to - begin);
}

struct merkle_hash audit_leaf(struct sha256 *sha256, const struct audit_entry *entry, struct strbuf *scratch)
{
    strbuf_clear(scratch);
    audit_entry_print(entry, scratch);
    return merkle_leaf(sha256, (struct bytes){scratch->data, scratch->len});
}
