/* Tokens by OAuth 2 client credentials (RFC 6749, section 4.4): what is asked, what is kept of the answer.
 *
 * Pure; main thread. Times are of the boot-time clock: a token ages while the machine sleeps. */
#pragma once

#include "base/util.h"

struct oauth_client {
    uint64_t number;                       /* no two have the same */
    char *token_url, *id, *secret, *scope; /* scope: NULL = none */
    bool
        in_body; /* id and secret go into the body; else they are HTTP Basic, as all servers should know it */
    bool is_known; /* this form was accepted */
    struct {
        char *line; /* "Authorization: Bearer …", NULL = none */
        unsigned serial;
        uint64_t refresh_at, ends_at;
    } token;
    struct {
        int count;       /* one after the other */
        uint64_t ask_at; /* not asked again before, but for a probe */
    } failures;
};

struct oauth_client *oauth_client_new(void);
void oauth_client_free(struct oauth_client *c); /* NULL is legal; wipes secrets */

/* The header with which a token is asked for, or NULL; the body. Both for free_secret(). */
char *oauth_authorization(const struct oauth_client *c);
char *oauth_body(const struct oauth_client *c);

/* Takes the token from an answer to a request of `asked_at`. 0, or -EINVAL with words that continue "its
 * token endpoint" and hold nothing of the answer. */
int oauth_take_token(struct oauth_client *c, struct bytes answer, uint64_t asked_at, struct error *why);
/* No token came: when to ask again. */
void oauth_failed(struct oauth_client *c, uint64_t now, double unit);
/* The institution refuses the token. */
void oauth_drop_token(struct oauth_client *c);
/* The header of a token that is good for a while yet, or NULL. */
const char *oauth_line(const struct oauth_client *c, uint64_t now);
/* There is no such token, or it has lived for four fifths of its time, or ends within a minute. */
bool oauth_wants_token(const struct oauth_client *c, uint64_t now);
