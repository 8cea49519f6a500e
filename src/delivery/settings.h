/* The delivery_settings of an integration: how the institution's API differs from the ordinary one.
 *
 * The database refuses what is malformed when it is written (sql/repeatable/13_settings.sql); what stands
 * there all the same (a row that was adopted, a trigger that was disabled) becomes the integration's problem,
 * and nothing is sent. A key has a member of struct settings, a function in the table of settings.c, and its
 * words in the manual (anubisd(8), DELIVERY SETTINGS).
 *
 * Pure; one thread at a time. A zeroed one is that of "{}". */
#pragma once

#include "delivery/ambiguity.h"
#include "delivery/answer_rules.h"
#include "delivery/auth.h"
#include "http/http.h"

/* How connections to the institution are made, where that differs. */
struct settings_way {
    char *certificate, *key; /* of auth's type "mtls": PEM */
    char *proxy;
    const char *min_tls; /* a constant */
    bool legacy_renegotiation;
    bool said;             /* that it is weak; who says so sets it */
    struct http_way *http; /* NULL = it does not differ */
};
/* TLS is less than what all others get. */
bool settings_way_is_weak(const struct settings_way *w);

struct settings {
    char *text;            /* as the database has it, with its secrets; NULL = "{}" */
    char *problem;         /* why nothing can be sent, or NULL; holds nothing of a secret */
    bool lacks_credential; /* the problem may be what a credential holds: with another content it is over */
    bool is_stale;         /* to be read again, though it is the same: it names credentials */
    struct auth auth;
    struct settings_way way;
    struct answer_rules outcomes;
    struct ambiguity ambiguity;
};

/* Takes what a claim has brought ("" is "{}"). It is only read when it is another text than before, had a
 * problem, or is stale. */
void settings_take(struct settings *s, const char *text);
/* Credentials may be others now. */
void settings_forget_credentials(struct settings *s);
void settings_free(struct settings *s); /* what it holds, not `s` */

/* Reads a key's value into its member. 0, or -EINVAL with what is wrong with it ("is no string"): no value
 * in these words, it may be a secret. */
typedef int settings_parser(struct settings *s, const struct json_value *value, struct error *why);
