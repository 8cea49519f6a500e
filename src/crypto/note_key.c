/* Signatures of checkpoints. See note_key.h. */
#include "crypto/note_key.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <string.h>

#include "crypto/base64.h"
#include "crypto/sha256.h"

#define KEY_BYTES NOTE_KEY_BYTES
#define SIGNATURE_BYTES 64
#define NUMBER_BYTES 4
#define KIND_ED25519 0x01

static const char dash[] = "\n\u2014 ";

struct note_key {
    EVP_PKEY *key;
    unsigned char public[1 + KEY_BYTES]; /* the kind first */
};

static void must(bool done)
{
    if (!done)
        abort(); /* no signature is better than a wrong one */
}

/* --- keys ------------------------------------------------------------------------------------- */

/* Nobody is asked for a passphrase. */
static int no_passphrase(char *buffer, int size, int writing, void *userdata)
{
    (void) buffer, (void) size, (void) writing;
    *(bool *) userdata = true;
    return -1;
}

static EVP_PKEY *read_key(const char *pem, bool public, bool *ret_locked)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);

    must(bio != NULL);
    EVP_PKEY *key = public ? PEM_read_bio_PUBKEY(bio, NULL, no_passphrase, ret_locked)
                           : PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, ret_locked);
    BIO_free(bio);
    ERR_clear_error();
    return key;
}

static const char *fault_of(const char *pem, const EVP_PKEY *key, bool is_locked)
{
    if (is_locked)
        return "must have no passphrase: a credential of systemd keeps it (systemd-creds(1))";
    if (!key) {
        EVP_PKEY *public = read_key(pem, true, &is_locked);
        bool is_public = public != NULL;
        EVP_PKEY_free(public);
        return is_public
                   ? "must be the private key, not the public one"
                   : "must be an Ed25519 private key in PEM, as \"openssl genpkey -algorithm ed25519\" makes it";
    }
    return EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519
               ? NULL
               : "must be an Ed25519 key, as \"openssl genpkey -algorithm ed25519\" makes it, not one of another kind";
}

int note_key_new(struct note_key **ret, const char *pem, struct error *err)
{
    bool is_locked = false;
    size_t len = KEY_BYTES;
    EVP_PKEY *key = read_key(pem, false, &is_locked);
    const char *fault = fault_of(pem, key, is_locked);

    if (fault) {
        EVP_PKEY_free(key);
        error_set(err, "%s", fault);
        return -EINVAL;
    }
    struct note_key *k = xcalloc(1, sizeof(*k));
    k->key = key;
    k->public[0] = KIND_ED25519;
    must(EVP_PKEY_get_raw_public_key(key, k->public + 1, &len) == 1 && len == KEY_BYTES);
    *ret = k;
    return 0;
}

void note_key_free(struct note_key *k)
{
    if (!k)
        return;
    EVP_PKEY_free(k->key); /* wipes it */
    free(k);
}

void note_key_freep(struct note_key **k)
{
    note_key_free(*k);
}

/* The first bytes of SHA-256(name, newline, kind and key). */
static void number_of(const char *name, const unsigned char public[1 + KEY_BYTES],
                      unsigned char ret[NUMBER_BYTES])
{
    CLEANUP(sha256_freep) struct sha256 *sha256 = sha256_new();
    const struct bytes parts[] = {{name, strlen(name)}, {"\n", 1}, {(const char *) public, 1 + KEY_BYTES}};
    unsigned char digest[SHA256_BYTES];

    sha256_digest(sha256, parts, ARRAY_SIZE(parts), digest);
    memcpy(ret, digest, NUMBER_BYTES);
}

static char *write_public(const char *name, const unsigned char public[1 + KEY_BYTES])
{
    CLEANUP(freep) char *text = base64_encode((struct bytes){(const char *) public, 1 + KEY_BYTES});
    unsigned char number[NUMBER_BYTES];
    char digits[2 * NUMBER_BYTES + 1];

    number_of(name, public, number);
    *put_hex(digits, number, NUMBER_BYTES) = '\0';
    return xasprintf("%s+%s+%s", name, digits, text);
}

char *note_key_public(const struct note_key *k, const char *name)
{
    return write_public(name, k->public);
}

/* --- signatures ------------------------------------------------------------------------------- */

void note_key_sign(const struct note_key *k, const char *name, struct strbuf *note)
{
    unsigned char bytes[NUMBER_BYTES + SIGNATURE_BYTES];
    size_t len = SIGNATURE_BYTES;
    EVP_MD_CTX *context = EVP_MD_CTX_new();

    number_of(name, k->public, bytes);
    must(context && EVP_DigestSignInit(context, NULL, NULL, NULL, k->key) == 1 &&
         EVP_DigestSign(context, bytes + NUMBER_BYTES, &len, (const unsigned char *) note->data, note->len) ==
             1 &&
         len == SIGNATURE_BYTES);
    EVP_MD_CTX_free(context);
    CLEANUP(freep) char *text = base64_encode((struct bytes){(const char *) bytes, sizeof(bytes)});
    strbuf_addf(note, "%s%s %s\n", dash, name, text);
}

/* Exactly `len` bytes. */
static bool decode(const char *text, size_t text_len, unsigned char *ret, size_t len)
{
    unsigned char bytes[3 * (NUMBER_BYTES + SIGNATURE_BYTES)];

    if (text_len != (len + 2) / 3 * 4 || text_len > sizeof(bytes))
        return false;
    int decoded = EVP_DecodeBlock(bytes, (const unsigned char *) text, (int) text_len);
    if (decoded < (int) len)
        return false;
    memcpy(ret, bytes, len);
    return true;
}

static bool read_public(const char *name, const char *text, unsigned char ret[1 + KEY_BYTES])
{
    size_t name_len = strlen(name), head = name_len + 2 + 2 * (size_t) NUMBER_BYTES;

    if (strlen(text) <= head || !decode(text + head, strlen(text + head), ret, 1 + KEY_BYTES))
        return false;
    CLEANUP(freep) char *again = write_public(name, ret);
    return ret[0] == KIND_ED25519 && strcmp(again, text) == 0;
}

static bool holds(const unsigned char *public, struct bytes text, const unsigned char *signature)
{
    EVP_PKEY *key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, public, KEY_BYTES);
    EVP_MD_CTX *context = EVP_MD_CTX_new();

    must(context != NULL);
    bool right =
        key && EVP_DigestVerifyInit(context, NULL, NULL, NULL, key) == 1 &&
        EVP_DigestVerify(context, signature, SIGNATURE_BYTES, (const unsigned char *) text.p, text.len) == 1;
    EVP_MD_CTX_free(context);
    EVP_PKEY_free(key);
    ERR_clear_error();
    return right;
}

bool note_is_signed(const char *note, const char *name, const char *public_key)
{
    unsigned char public[1 + KEY_BYTES], number[NUMBER_BYTES], bytes[NUMBER_BYTES + SIGNATURE_BYTES];
    const char *end = strstr(note, "\n\n");
    size_t name_len = strlen(name), dash_len = sizeof(dash) - 2; /* without the newline before it */

    if (!end || !read_public(name, public_key, public))
        return false;
    const struct bytes text = {note, (size_t) (end + 1 - note)};
    number_of(name, public, number);
    for (const char *line = end + 2; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        size_t len = strcspn(line, "\n");
        if (len < dash_len + name_len + 1 || strncmp(line, dash + 1, dash_len) != 0 ||
            strncmp(line + dash_len, name, name_len) != 0 || line[dash_len + name_len] != ' ')
            continue;
        const char *value = line + dash_len + name_len + 1;
        if (decode(value, len - (size_t) (value - line), bytes, sizeof(bytes)) &&
            memcmp(bytes, number, NUMBER_BYTES) == 0 && holds(public + 1, text, bytes + NUMBER_BYTES))
            return true;
    }
    return false;
}

/* --- keys of others --------------------------------------------------------------------------- */

/* The next PEM block. False: there is none, or not of such a key. */
static bool read_block(BIO *bio, struct note_public *ret)
{
    size_t len = KEY_BYTES;
    bool is_locked = false;
    EVP_PKEY *key = PEM_read_bio_PUBKEY(bio, NULL, no_passphrase, &is_locked);
    bool right = key && EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519 &&
                 EVP_PKEY_get_raw_public_key(key, ret->bytes, &len) == 1 && len == KEY_BYTES;

    EVP_PKEY_free(key);
    ERR_clear_error();
    return right;
}

/* The last part of NAME+NUMBER+BASE64: base64 has "+" among its digits, but as many as there are. */
static bool read_line(const char *line, size_t len, struct note_public *ret)
{
    unsigned char bytes[1 + KEY_BYTES];
    const size_t digits = (sizeof(bytes) + 2) / 3 * 4;

    if (len <= digits || line[len - digits - 1] != '+' ||
        !decode(line + len - digits, digits, bytes, sizeof(bytes)) || bytes[0] != KIND_ED25519)
        return false;
    memcpy(ret->bytes, bytes + 1, KEY_BYTES);
    return true;
}

static size_t count_blocks(const char *text)
{
    size_t count = 0;

    for (const char *p = text; (p = strstr(p, "-----BEGIN ")); p++)
        count++;
    return count;
}

static int read_blocks(const char *text, struct note_public *ret, size_t count)
{
    BIO *bio = BIO_new_mem_buf(text, -1);
    size_t read = 0;

    must(bio != NULL);
    while (read < count && read_block(bio, &ret[read]))
        read++;
    BIO_free(bio);
    return read == count ? (int) count : -EINVAL;
}

static int read_lines(const char *text, struct note_public *ret)
{
    int count = 0;

    for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        size_t len = strcspn(line, "\n");
        if (len == strspn(line, " \t\r"))
            continue;
        if (!read_line(line, len, &ret[count++]))
            return -EINVAL;
    }
    return count;
}

int note_publics_read(const char *text, struct note_public **ret, struct error *err)
{
    size_t blocks = count_blocks(text), most = blocks;
    int count;

    for (const char *p = text; *p; p++)
        most += *p == '\n';
    struct note_public *keys = xcalloc(most + 1, sizeof(*keys));
    count = blocks > 0 ? read_blocks(text, keys, blocks) : read_lines(text, keys);
    if (count <= 0) {
        free(keys);
        error_set(
            err,
            "must hold public Ed25519 keys in PEM, as \"openssl pkey -pubout\" writes them, or in lines as "
            "\"anubisctl audit head\" shows them");
        return -EINVAL;
    }
    *ret = keys;
    return count;
}

char *note_public_write(const struct note_public *key, const char *name)
{
    unsigned char public[1 + KEY_BYTES] = {KIND_ED25519};

    memcpy(public + 1, key->bytes, KEY_BYTES);
    return write_public(name, public);
}
