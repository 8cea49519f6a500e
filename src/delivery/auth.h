/* How requests say that they are ours: delivery_settings.auth, headers and signing_secret, read.
 *
 * Pure; one thread at a time. A zeroed one is that of no settings: the integration's auth_token, if there is
 * one. */
#pragma once

#include "base/util.h"
#include "crypto/signature.h"
#include "delivery/oauth.h"

#define AUTH_HEADERS_MAX 32

enum auth_type {
    AUTH_BEARER, /* with integrations.auth_token */
    AUTH_BASIC,  /* RFC 7617 */
    AUTH_HEADER,
    AUTH_OAUTH2, /* by a token that a server gives */
    AUTH_MTLS,   /* by the client's certificate (struct settings_way) */
    AUTH_NONE,
};

struct auth {
    enum auth_type type;
    char *line;                      /* "Name: value", of the types that have one */
    char *headers[AUTH_HEADERS_MAX]; /* "Name: value" */
    size_t header_count;
    bool has_content_type;       /* among the headers */
    struct signer *signer;       /* NULL = requests are not signed */
    struct oauth_client *client; /* of AUTH_OAUTH2, else NULL */
};

void auth_free(struct auth *a); /* what it holds, not `a`; wipes secrets */
