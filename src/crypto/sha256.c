/* SHA-256 by libcrypto. See sha256.h. */
#include "crypto/sha256.h"

#include <openssl/evp.h>

struct sha256 {
    EVP_MD *algorithm; /* found once: a search by name for each digest costs more than the digest */
    EVP_MD_CTX *context;
};

static void must(bool done)
{
    if (!done)
        abort();
}

struct sha256 *sha256_new(void)
{
    struct sha256 *s = xcalloc(1, sizeof(*s));

    s->algorithm = EVP_MD_fetch(NULL, "SHA256", NULL);
    s->context = EVP_MD_CTX_new();
    must(s->algorithm && s->context && EVP_DigestInit_ex2(s->context, s->algorithm, NULL) == 1);
    return s;
}

void sha256_free(struct sha256 *s)
{
    if (!s)
        return;
    EVP_MD_CTX_free(s->context);
    EVP_MD_free(s->algorithm);
    free(s);
}

void sha256_freep(struct sha256 **s)
{
    sha256_free(*s);
    *s = NULL;
}

void sha256_digest(struct sha256 *s, const struct bytes *parts, size_t count, unsigned char ret[SHA256_BYTES])
{
    must(EVP_DigestInit_ex2(s->context, NULL, NULL) == 1);
    for (size_t i = 0; i < count; i++)
        must(EVP_DigestUpdate(s->context, parts[i].p, parts[i].len) == 1);
    must(EVP_DigestFinal_ex(s->context, ret, NULL) == 1);
}
