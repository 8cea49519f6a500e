/* Base64 (RFC 4648, section 4). Pure; any thread. */
#pragma once

#include "base/util.h"

/* The text of some bytes, padded; the caller frees. */
char *base64_encode(struct bytes bytes);
