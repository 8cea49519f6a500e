/* A checkpoint of the audit log: what all of its trees were at a time. Text, so that it can be kept anywhere:
 *
 *     anubisd audit checkpoint 1
 *     INSTALLATION
 *     TOPIC PARTITION SIZE ROOT         a line for each tree, the root in hexadecimal digits
 *
 * Signatures may follow, see note_key.h.
 * Pure. */
#pragma once

#include "base/strbuf.h"
#include "crypto/merkle.h"

#define AUDIT_TOPIC_MAX 249 /* bytes of the name of a topic, as Kafka has it */

struct audit_tree_state {
    char topic[AUDIT_TOPIC_MAX + 1];
    int32_t partition;
    uint64_t size;
    struct merkle_hash root;
};

void audit_note_begin(struct strbuf *out, const char *installation);
void audit_note_add(struct strbuf *out, const struct audit_tree_state *tree);

/* Under what name an installation signs its notes, see note_key.h: "anubisd/INSTALLATION". The caller frees.
 */
char *audit_note_signer(const char *installation);

/* Reads the trees of a note; the caller frees *ret. 0, or -EINVAL when it is none of this installation's. */
int audit_note_read(const char *note, const char *installation, struct audit_tree_state **ret,
                    size_t *ret_count);
