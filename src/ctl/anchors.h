/* Checkpoints of the audit log that were kept outside of the database, and public keys, in files. */
#pragma once

#include "audit/audit_proof.h"

struct anchors {
    struct audit_anchor *items;
    size_t count;
    struct note_public *keys;
    size_t key_count;
};
void anchors_done(struct anchors *a); /* frees what it holds; for CLEANUP, too */

/* What a text of checkpoints holds: notes as they are, or as strings of JSON ("payload" as kcat writes it,
 * "note" as audit head does, "MESSAGE" as journalctl does), and lines of the journal with a SHA-256. 0, or
 * -EINVAL with the line that is none of these, 0 = there is no checkpoint in it. */
int anchors_parse(const char *text, size_t len, struct anchors *ret, size_t *ret_line);

/* Reads files, each NULL = none. 0, or an exit code after it said why not. */
int anchors_read(const char *anchor_path, const char *key_path, struct anchors *ret);
