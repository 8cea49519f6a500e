/* Signatures of checkpoints, as signed notes have them (C2SP signed-note): Ed25519 over the text of the note,
 * in a line behind an empty one.
 *
 *     — NAME BASE64            of the key's number, 4 bytes, and of the signature
 *
 * A public key is written NAME+NUMBER+BASE64: the number in hexadecimal digits, in base64 a byte 1 and the
 * key.
 *
 * Pure. A `struct note_key` belongs to one thread at a time. */
#pragma once

#include "base/strbuf.h"

struct note_key;

/* `pem` is a private key without passphrase. 0, or -EINVAL with *err, which continues a sentence that begins
 * with the name of the setting, says what would be right, and holds nothing of the key. */
int note_key_new(struct note_key **ret, const char *pem, struct error *err);
void note_key_free(struct note_key *k); /* wipes the key; NULL is legal */
void note_key_freep(struct note_key **k);

/* The public key; `name` has no blank and no "+". The caller frees. */
char *note_key_public(const struct note_key *k, const char *name);
/* Adds the empty line and the signature. */
void note_key_sign(const struct note_key *k, const char *name, struct strbuf *note);

/* Public keys of others: of a text of PEM blocks, or of lines in the form above, whatever the name in them.
 * *ret is the caller's to free. Returns how many, or -EINVAL with *err when there is something else in the
 * text: the words continue a sentence that begins with the name of a file. */
#define NOTE_KEY_BYTES 32
struct note_public {
    unsigned char bytes[NOTE_KEY_BYTES];
};
int note_publics_read(const char *text, struct note_public **ret, struct error *err);
/* As note_key_public() writes it; the caller frees. */
char *note_public_write(const struct note_public *key, const char *name);

/* Does the note have a signature by this public key, under this name, that holds? */
bool note_is_signed(const char *note, const char *name, const char *public_key);
