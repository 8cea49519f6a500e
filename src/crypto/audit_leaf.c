/* Entries of the audit log. See audit_leaf.h. */
#include "crypto/audit_leaf.h"

#include "base/timeutil.h"
#include "crypto/ids.h"

void audit_commit(struct sha256 *sha256, const unsigned char salt[AUDIT_SALT_BYTES],
                  const unsigned char value_hash[SHA256_BYTES], unsigned char ret[SHA256_BYTES])
{
    struct bytes parts[] = {{(const char *) salt, AUDIT_SALT_BYTES},
                            {(const char *) value_hash, SHA256_BYTES}};

    sha256_digest(sha256, parts, ARRAY_SIZE(parts), ret);
}

static void add_line(struct strbuf *out, const char *text)
{
    strbuf_adds(out, text);
    strbuf_addc(out, '\n');
}

static void add_number(struct strbuf *out, int64_t number)
{
    strbuf_add_i64(out, number);
    strbuf_addc(out, '\n');
}

void audit_entry_print(const struct audit_entry *entry, struct strbuf *out)
{
    char uuid[IDS_UUID_TEXT];

    ids_print_uuid(entry->event_id, uuid);
    add_line(out, "anubisd audit leaf 1");
    add_line(out, entry->installation);
    add_line(out, entry->topic);
    add_number(out, entry->partition);
    add_number(out, entry->offset);
    add_number(out, entry->sequence);
    add_line(out, uuid);
    add_line(out, entry->event_type);
    add_number(out, entry->subscription_id);
    add_number(out, entry->integration_id);
    strbuf_add_timestamp(out, entry->created_at);
    strbuf_addc(out, '\n');
    strbuf_add_hex(out, entry->commitment, SHA256_BYTES);
    strbuf_addc(out, '\n');
}

struct merkle_hash audit_leaf(struct sha256 *sha256, const struct audit_entry *entry, struct strbuf *scratch)
{
    strbuf_clear(scratch);
    audit_entry_print(entry, scratch);
    return merkle_leaf(sha256, (struct bytes){scratch->data, scratch->len});
}
