/* The header traceparent. See traceparent.h. */
#include "crypto/traceparent.h"

#include <string.h>

#include "base/strbuf.h"

#define NAME_MAX_LEN 64

void traceparent_derive(struct ids *ids, const unsigned char name_space[16], int64_t subscription_id,
                        uint64_t span, char ret[TRACEPARENT_TEXT])
{
    unsigned char hash[SHA256_BYTES], bytes[8];
    char text[NAME_MAX_LEN];
    struct strbuf name = {.data = text, .capacity = sizeof(text), .max = sizeof(text) - 1};

    /* In SQL too: the view of the messages computes the same. Once for each event, so without printf. */
    strbuf_adds(&name, "trace:");
    strbuf_add_i64(&name, subscription_id);
    ids_digest(ids, name_space, (struct bytes){name.data, name.len}, (struct bytes){0}, hash);
    if (span == 0)
        span = 1; /* zero is no span */
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char) (span >> (56 - 8 * i));
    memcpy(ret, "00-", 3);
    char *p = put_hex(ret + 3, hash, 16);
    *p++ = '-';
    p = put_hex(p, bytes, sizeof(bytes));
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

bool traceparent_is_valid(const char *text, size_t len)
{
    bool zero;

    if (len != TRACEPARENT_TEXT - 1 || text[2] != '-' || text[35] != '-' || text[52] != '-')
        return false;
    return is_hex(text, 2, &zero) && memcmp(text, "ff", 2) != 0 && is_hex(text + 3, 32, &zero) && !zero &&
           is_hex(text + 36, 16, &zero) && !zero && is_hex(text + 53, 2, &zero);
}
