/* Signatures of Standard Webhooks. See signature.h. */
#include "crypto/signature.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <string.h>

#include "base/strbuf.h"

#define PREFIX "whsec_"
#define PREFIX_LEN (sizeof(PREFIX) - 1)
#define SECRETS_MAX 2
#define KEY_MIN 24
#define KEY_MAX 64
#define BASE64_MAX 88 /* characters of KEY_MAX bytes */
#define DIGEST 32     /* bytes of SHA-256 */
#define SIGNED_MAX 256

struct signer {
    EVP_MAC_CTX *macs[SECRETS_MAX]; /* with the key in them */
    int count;
};

/* Aborts without memory only, or where OpenSSL's configuration has no HMAC: no signature is better than a
 * wrong one. */
static void must(bool done)
{
    if (!done)
        abort();
}

/* --- secrets ---------------------------------------------------------------------------------- */

/* Letters in groups of four, the last one with up to two '='. EVP_DecodeBlock() takes more than that. */
static bool is_base64(struct bytes text)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t padding = 0;

    while (padding < 2 && padding < text.len && text.p[text.len - 1 - padding] == '=')
        padding++;
    for (size_t i = 0; i < text.len - padding; i++)
        if (!text.p[i] || !strchr(letters, text.p[i]))
            return false;
    return text.len % 4 == 0;
}

/* What keeps a word from being a secret, or NULL with its key. */
static const char *decode(struct bytes word, unsigned char ret[BASE64_MAX], size_t *ret_len)
{
    if (word.len < PREFIX_LEN || memcmp(word.p, PREFIX, PREFIX_LEN) != 0)
        return "must be " PREFIX " and base64";
    const struct bytes text = {word.p + PREFIX_LEN, word.len - PREFIX_LEN};
    if (!is_base64(text))
        return "must have base64 behind " PREFIX ", in groups of four and with its '='";
    int len = text.len <= BASE64_MAX ? EVP_DecodeBlock(ret, (const unsigned char *) text.p, (int) text.len)
                                     : BASE64_MAX;
    for (size_t i = text.len; i > 0 && text.p[i - 1] == '='; i--)
        len--; /* EVP_DecodeBlock() counts the padding */
    if (len < KEY_MIN || len > KEY_MAX)
        return "must have 24 to 64 bytes in base64 behind " PREFIX;
    *ret_len = (size_t) len;
    return NULL;
}

static void add_key(struct signer *s, const unsigned char *key, size_t len)
{
    char digest[] = "SHA256";
    const OSSL_PARAM parameters[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
                                     OSSL_PARAM_construct_end()};
    EVP_MAC *hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    EVP_MAC_CTX *mac = hmac ? EVP_MAC_CTX_new(hmac) : NULL;

    must(mac && EVP_MAC_init(mac, key, len, parameters) == 1);
    EVP_MAC_free(hmac);
    s->macs[s->count++] = mac;
}

static void signer_freep(struct signer **s)
{
    signer_free(*s);
}

int signer_new(struct signer **ret, const char *secrets, struct error *err)
{
    CLEANUP(signer_freep) struct signer *s = xcalloc(1, sizeof(*s));
    const char *fault = NULL;

    for (const char *p = secrets; !fault && *(p += strspn(p, " "));) {
        unsigned char key[BASE64_MAX];
        size_t key_len = 0;
        const struct bytes word = {p, strcspn(p, " ")};

        fault = s->count < SECRETS_MAX ? decode(word, key, &key_len) : "must be one secret, or two";
        if (!fault)
            add_key(s, key, key_len);
        explicit_bzero(key, sizeof(key));
        p += word.len;
    }
    if (!fault && s->count == 0)
        fault = "must be " PREFIX " and base64";
    if (fault) {
        error_set(err, "%s", fault);
        return -EINVAL;
    }
    *ret = TAKE_PTR(s);
    return 0;
}

void signer_free(struct signer *s)
{
    if (!s)
        return;
    for (int i = 0; i < s->count; i++)
        EVP_MAC_CTX_free(s->macs[i]); /* wipes its key */
    free(s);
}

/* --- signatures ------------------------------------------------------------------------------- */

void signer_sign(struct signer *s, const char *id, int64_t timestamp, struct bytes body,
                 char ret[SIGNATURE_TEXT])
{
    char text[SIGNED_MAX];
    struct strbuf head = {.data = text, .capacity = sizeof(text), .max = sizeof(text) - 1};
    unsigned char hash[DIGEST];
    size_t len;

    strbuf_adds(&head, id);
    strbuf_addc(&head, '.');
    strbuf_add_i64(&head, timestamp);
    strbuf_addc(&head, '.');
    must(!head.overflowed);
    for (int i = 0; i < s->count; i++) {
        must(EVP_MAC_init(s->macs[i], NULL, 0, NULL) == 1 && /* the same key again */
             EVP_MAC_update(s->macs[i], (const unsigned char *) head.data, head.len) == 1 &&
             EVP_MAC_update(s->macs[i], (const unsigned char *) body.p, body.len) == 1 &&
             EVP_MAC_final(s->macs[i], hash, &len, sizeof(hash)) == 1 && len == sizeof(hash));
        if (i > 0)
            *ret++ = ' ';
        memcpy(ret, "v1,", 3);
        ret += 3 + EVP_EncodeBlock((unsigned char *) ret + 3, hash, DIGEST);
    }
}
