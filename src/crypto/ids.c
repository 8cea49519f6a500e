/* Derived UUIDs. See ids.h. */
#include "crypto/ids.h"

#include <ctype.h>
#include <stdlib.h>

struct ids {
    struct sha256 *sha256;
};

struct ids *ids_new(void)
{
    struct ids *ids = xcalloc(1, sizeof(*ids));

    ids->sha256 = sha256_new();
    return ids;
}

void ids_free(struct ids *ids)
{
    if (!ids)
        return;
    sha256_free(ids->sha256);
    free(ids);
}

void ids_digest(struct ids *ids, const unsigned char name_space[16], struct bytes name, struct bytes rest,
                unsigned char ret[SHA256_BYTES])
{
    struct bytes parts[] = {{(const char *) name_space, 16}, name, rest};

    sha256_digest(ids->sha256, parts, ARRAY_SIZE(parts), ret);
}

void ids_print_uuid(const unsigned char uuid[16], char ret[IDS_UUID_TEXT])
{
    static const unsigned char groups[] = {4, 2, 2, 2, 6};
    char *to = ret;

    for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
        if (i > 0)
            *to++ = '-';
        to = put_hex(to, uuid, groups[i]);
        uuid += groups[i];
    }
    *to = '\0';
}

static bool is_uuid(const char *text, size_t len)
{
    static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

    if (len != sizeof(form) - 1)
        return false;
    for (size_t i = 0; i < len; i++)
        if (form[i] == '-' ? text[i] != '-' : !isxdigit((unsigned char) text[i]))
            return false;
    return true;
}

static unsigned hex_value(char c)
{
    return (unsigned) (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
}

bool ids_read_uuid(const char *text, size_t len, unsigned char ret[16])
{
    if (!is_uuid(text, len))
        return false;
    for (size_t i = 0, n = 0; n < 16; n++, i += 2) {
        i += text[i] == '-';
        ret[n] = (unsigned char) (hex_value(text[i]) << 4 | hex_value(text[i + 1]));
    }
    return true;
}

void ids_uuid(struct ids *ids, const unsigned char name_space[16], struct bytes name, struct bytes rest,
              char ret[IDS_UUID_TEXT])
{
    unsigned char hash[SHA256_BYTES];

    ids_digest(ids, name_space, name, rest, hash);
    hash[6] = (unsigned char) ((hash[6] & 0x0f) | 0x80);
    hash[8] = (unsigned char) ((hash[8] & 0x3f) | 0x80);
    ids_print_uuid(hash, ret);
}
