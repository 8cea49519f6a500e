/* Derived ids. See ids.h. */
#include "crypto/ids.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "base/strbuf.h"

#define DIGEST 32 /* bytes of SHA-256 */
#define NAME_MAX_LEN 64

struct ids {
    EVP_MD *sha256; /* found once: a search by name for each id costs more than the digest */
    EVP_MD_CTX *context;
};

/* Aborts without memory only, or where OpenSSL's configuration has no SHA-256: no id is better than a wrong
 * one. */
static void must(bool done)
{
    if (!done)
        abort();
}

struct ids *ids_new(void)
{
    struct ids *ids = xcalloc(1, sizeof(*ids));

    ids->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    ids->context = EVP_MD_CTX_new();
    must(ids->sha256 && ids->context && EVP_DigestInit_ex2(ids->context, ids->sha256, NULL) == 1);
    return ids;
}

void ids_free(struct ids *ids)
{
    if (!ids)
        return;
    EVP_MD_CTX_free(ids->context);
    EVP_MD_free(ids->sha256);
    free(ids);
}

/* SHA-256 of name space, name and the rest, which may be empty. */
static void digest(struct ids *ids, const unsigned char name_space[16], struct bytes name, struct bytes rest,
                   unsigned char ret[DIGEST])
{
    must(EVP_DigestInit_ex2(ids->context, NULL, NULL) == 1 &&
         EVP_DigestUpdate(ids->context, name_space, 16) == 1 &&
         EVP_DigestUpdate(ids->context, name.p, name.len) == 1 &&
         EVP_DigestUpdate(ids->context, rest.p, rest.len) == 1 &&
         EVP_DigestFinal_ex(ids->context, ret, NULL) == 1);
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

void ids_print_uuid(const unsigned char uuid[16], char ret[IDS_UUID_TEXT])
{
    static const unsigned char groups[] = {4, 2, 2, 2, 6};
    char *to = ret;

    for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
        if (i > 0)
            *to++ = '-';
        to = add_hex(to, uuid, groups[i]);
        uuid += groups[i];
    }
    *to = '\0';
}

void ids_uuid(struct ids *ids, const unsigned char name_space[16], struct bytes name, struct bytes rest,
              char ret[IDS_UUID_TEXT])
{
    unsigned char hash[DIGEST];

    digest(ids, name_space, name, rest, hash);
    hash[6] = (unsigned char) ((hash[6] & 0x0f) | 0x80);
    hash[8] = (unsigned char) ((hash[8] & 0x3f) | 0x80);
    ids_print_uuid(hash, ret);
}

void ids_idempotency_key(struct ids *ids, const struct ids_message *m, char ret[IDS_UUID_TEXT])
{
    char name[NAME_MAX_LEN];
    int len = snprintf(name, sizeof(name), "%" PRId64 ":%s:", m->subscription_id, m->seed);

    must(len > 0 && len < NAME_MAX_LEN);
    ids_uuid(ids, m->name_space, (struct bytes){name, (size_t) len}, m->payload, ret);
}

void ids_traceparent(struct ids *ids, const unsigned char name_space[16], int64_t subscription_id,
                     uint64_t span, char ret[IDS_TRACEPARENT_TEXT])
{
    unsigned char hash[DIGEST], bytes[8];
    char text[NAME_MAX_LEN];
    struct strbuf name = {.data = text, .capacity = sizeof(text), .max = sizeof(text) - 1};

    /* In SQL too: the view of the messages computes the same. Once for each event, so without printf. */
    strbuf_adds(&name, "trace:");
    strbuf_add_i64(&name, subscription_id);
    digest(ids, name_space, (struct bytes){name.data, name.len}, (struct bytes){0}, hash);
    if (span == 0)
        span = 1; /* zero is no span */
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char) (span >> (56 - 8 * i));
    memcpy(ret, "00-", 3);
    char *p = add_hex(ret + 3, hash, 16);
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
