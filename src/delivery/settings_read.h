/* Reading what delivery_settings hold: texts, secrets, objects of them. For the parsers of settings.h. */
#pragma once

#include "delivery/settings.h"

enum settings_kind {
    SETTINGS_TEXT,   /* no secret: never a credential */
    SETTINGS_SECRET, /* the text itself, or credential:NAME */
    SETTINGS_PEM,    /* the same, of several lines */
};
struct settings_member {
    const char *name;
    enum settings_kind kind;
    bool required;
    char **ret; /* for free_secret(); stays as it is when the member is missing */
};

/* A string, or what its credential holds; no end of a line at its end, no control characters. 0, or -EINVAL
 * with words that continue a sentence about the value. */
int settings_read_text(const struct json_value *value, enum settings_kind kind, char **ret,
                       struct error *why);
/* An object of such members, of which `skip` (NULL = none) is passed over. */
int settings_read_members(const struct json_value *object, const char *skip,
                          const struct settings_member *members, size_t count, struct error *why);
/* The value of a header: not blank, ASCII; blanks around it are taken away. */
int settings_check_header_value(char *value, struct error *why);

/* The parsers of keys that more than one file has. */
settings_parser settings_read_auth, settings_read_headers, settings_read_signing_secret, settings_read_tls,
    settings_read_proxy;
/* Of what the parsers have read. 0, or -EINVAL with words behind "auth". */
int settings_make_way(struct settings *s, struct error *why);
void settings_way_free(struct settings_way *w); /* what it holds, not `w`; wipes secrets */
