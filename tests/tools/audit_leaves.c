/* How many leaves of the audit log a thread makes in a second: commitment, entry, hash and tree, without a
 * database.
 *
 * usage: audit_leaves COUNT */
#include <stdio.h>
#include <string.h>

#include "base/timeutil.h"
#include "crypto/audit_leaf.h"

int main(int argc, char **argv)
{
    CLEANUP(sha256_freep) struct sha256 *sha256 = sha256_new();
    CLEANUP(strbuf_free) struct strbuf scratch = STRBUF_INIT(4096);
    struct merkle_range range = {0};
    unsigned char salt[AUDIT_SALT_BYTES] = {1}, value_hash[SHA256_BYTES] = {2};
    struct audit_entry entry = {.installation = "7a1d2c3b-0000-8000-8000-000000000001",
                                .topic = "anubis.subscriptions.created",
                                .event_type = "created",
                                .created_at = 1764068379123456};
    int64_t count;

    if (argc != 2 || parse_i64(argv[1], 1, INT64_C(1000000000), &count) < 0) {
        fputs("usage: audit_leaves COUNT\n", stderr);
        return 64;
    }
    uint64_t began = now_monotonic_usec();
    for (int64_t i = 0; i < count; i++) {
        memcpy(salt, &i, sizeof(i));
        audit_commit(sha256, salt, value_hash, entry.commitment);
        entry.offset = entry.sequence = entry.subscription_id = i;
        struct merkle_hash leaf = audit_leaf(sha256, &entry, &scratch);
        merkle_append(sha256, &range, &leaf, NULL, NULL);
    }
    uint64_t took = now_monotonic_usec() - began;
    printf("%.0f\n", (double) count * 1e6 / (double) (took ? took : 1));
    return 0;
}
