/* The entry of one event in the audit log, whose hash is a leaf of a Merkle tree. Pure.
 *
 * It is text, so that anybody can compute it: these lines, each ended by a newline.
 *
 *     anubisd audit leaf 1
 *     INSTALLATION        its UUID; in a copy of a database that of before, for leaves of before
 *     TOPIC               then partition and offset, of the message
 *     PARTITION
 *     OFFSET
 *     SEQUENCE            subscription_events.id
 *     EVENT ID
 *     EVENT TYPE
 *     SUBSCRIPTION
 *     INTEGRATION         0 = none
 *     TIME                of the event, as in its header "timestamp"
 *     COMMITMENT          in hexadecimal digits
 *
 * The commitment is SHA-256(salt, SHA-256(the message's value)): whoever has the message and the salt can
 * prove what it said; once the salt is destroyed, nobody can find out by trying. */
#pragma once

#include "base/strbuf.h"
#include "crypto/merkle.h"

#define AUDIT_SALT_BYTES 32
#define AUDIT_CHUNK 32 /* subscriptions whose salts are drawn and kept together, see audit_salts */

struct audit_entry {
    const char *installation, *topic, *event_type;
    int32_t partition;
    int64_t offset, sequence, subscription_id, integration_id;
    int64_t created_at; /* microseconds since 1970 */
    unsigned char event_id[16];
    unsigned char commitment[SHA256_BYTES];
};

void audit_commit(struct sha256 *sha256, const unsigned char salt[AUDIT_SALT_BYTES],
                  const unsigned char value_hash[SHA256_BYTES], unsigned char ret[SHA256_BYTES]);
void audit_entry_print(const struct audit_entry *entry, struct strbuf *out);
/* `scratch` is cleared first. */
struct merkle_hash audit_leaf(struct sha256 *sha256, const struct audit_entry *entry, struct strbuf *scratch);
