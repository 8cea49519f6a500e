/* Base64. See base64.h. */
#include "crypto/base64.h"

#include <limits.h>
#include <openssl/evp.h>

char *base64_encode(struct bytes bytes)
{
    if (bytes.len > INT_MAX / 2)
        abort();
    char *text = xmalloc((bytes.len + 2) / 3 * 4 + 1);

    EVP_EncodeBlock((unsigned char *) text, (const unsigned char *) bytes.p, (int) bytes.len);
    return text;
}
