/* UUIDs that are derived, not stored: the same input gives the same one on every daemon, for ever.
 *
 * `name_space` is the 16 bytes of the installation's UUID. */
#pragma once

#include "base/util.h"
#include "crypto/sha256.h"

#define IDS_UUID_TEXT 37 /* bytes of a UUID in text, with its NUL */

struct ids; /* of one thread at a time */

struct ids *ids_new(void);
void ids_free(struct ids *ids); /* NULL is legal */

/* A UUID in text, lower case. */
void ids_print_uuid(const unsigned char uuid[16], char ret[IDS_UUID_TEXT]);
/* The bytes of a UUID in the text form of RFC 9562, upper or lower case; false: it is none. */
bool ids_read_uuid(const char *text, size_t len, unsigned char ret[16]);

/* SHA-256 of name space, name and the rest, which may be empty. */
void ids_digest(struct ids *ids, const unsigned char name_space[16], struct bytes name, struct bytes rest,
                unsigned char ret[SHA256_BYTES]);

/* RFC 9562, version 8 as in its appendix B.2: from that digest. Lower case. */
void ids_uuid(struct ids *ids, const unsigned char name_space[16], struct bytes name, struct bytes rest,
              char ret[IDS_UUID_TEXT]);
