/* Derived ids. Pure, any thread. Owns nothing. */
#include "crypto/ids.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#define NAME_MAX_LEN 64

void ids_uuid_v5(const unsigned char name_space[16], const void *name, size_t len, unsigned char ret[16])
{
    unsigned char in[16 + NAME_MAX_LEN], digest[EVP_MAX_MD_SIZE];

    if (len > NAME_MAX_LEN)
        abort();
    memcpy(in, name_space, 16);
    memcpy(in + 16, name, len);
    /* Without memory only, or where a policy forbids SHA-1 altogether: no id is better than a wrong one. */
    if (EVP_Digest(in, 16 + len, digest, NULL, EVP_sha1(), NULL) != 1)
        abort();
    memcpy(ret, digest, 16);
    ret[6] = (unsigned char) ((ret[6] & 0x0f) | 0x50);
    ret[8] = (unsigned char) ((ret[8] & 0x3f) | 0x80);
}

static char *add_hex(char *to, const unsigned char *bytes, size_t len)
{
    static const char hex[] = "0123456789abcdef";

    for (size_t i = 0; i < len; i++) {
        *to++ = hex[bytes[i] >> 4];
        *to++ = hex[bytes[i] & 15];
    }
    return to;
}

void ids_uuid_text(const unsigned char uuid[16], char ret[IDS_UUID_TEXT])
{
    static const unsigned char groups[] = {4, 2, 2, 2, 6};

    for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
        if (i > 0)
            *ret++ = '-';
        ret = add_hex(ret, uuid, groups[i]);
        uuid += groups[i];
    }
    *ret = '\0';
}

void ids_idempotency_key(const unsigned char name_space[16], int64_t subscription_id, int payload_version,
                         char ret[IDS_UUID_TEXT])
{
    char name[NAME_MAX_LEN];
    unsigned char uuid[16];
    int len = snprintf(name, sizeof(name), "%" PRId64 ":%d", subscription_id, payload_version);

    ids_uuid_v5(name_space, name, (size_t) len, uuid);
    ids_uuid_text(uuid, ret);
}

void ids_traceparent(const unsigned char name_space[16], int64_t subscription_id, uint64_t span,
                     char ret[IDS_TRACEPARENT_TEXT])
{
    unsigned char in[16 + NAME_MAX_LEN], trace[EVP_MAX_MD_SIZE], bytes[8];
    int len = snprintf((char *) in + 16, NAME_MAX_LEN, "trace:%" PRId64, subscription_id);

    memcpy(in, name_space, 16);
    /* SHA-256, which SQL has too: the view of the messages computes the same. */
    if (EVP_Digest(in, 16 + (size_t) len, trace, NULL, EVP_sha256(), NULL) != 1)
        abort();
    if (span == 0)
        span = 1; /* zero is no span */
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char) (span >> (56 - 8 * i));
    memcpy(ret, "00-", 3);
    char *p = add_hex(ret + 3, trace, 16);
    *p++ = '-';
    p = add_hex(p, bytes, sizeof(bytes));
    memcpy(p, "-01", 4);
}

/* Lower-case hexadecimal digits only; *ret_zero when all of them are '0'. */
static bool is_hex(const char *text, size_t len, bool *ret_zero)
{
    *ret_zero = true;
    for (size_t i = 0; i < len; i++) {
        if (!(text[i] >= '0' && text[i] <= '9') && !(text[i] >= 'a' && text[i] <= 'f'))
            return false;
        if (text[i] != '0')
            *ret_zero = false;
    }
    return true;
}

bool ids_is_traceparent(const char *text, size_t len)
{
    bool zero;

    if (len != IDS_TRACEPARENT_TEXT - 1 || text[2] != '-' || text[35] != '-' || text[52] != '-')
        return false;
    return is_hex(text, 2, &zero) && memcmp(text, "ff", 2) != 0 && is_hex(text + 3, 32, &zero) && !zero &&
           is_hex(text + 36, 16, &zero) && !zero && is_hex(text + 53, 2, &zero);
}
