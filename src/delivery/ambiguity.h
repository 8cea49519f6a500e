/* What becomes of a subscription that the institution may have received without saying so: delivery_settings'
 * on_ambiguous, idempotency and lookup.
 *
 * Pure; one thread at a time. A zeroed one is the default: it is sent again with the same key, for as long as
 * institutions keep keys. */
#pragma once

#include "base/json.h"
#include "http/http.h"

struct ambiguity {
    bool holds;           /* on_ambiguous = hold */
    bool knows_no_keys;   /* idempotency.window = none */
    bool new_key;         /* idempotency.stored_errors = new_key */
    uint64_t window_usec; /* of idempotency; 0 = a day */
    char *lookup_url;     /* with its {…}; NULL = the institution cannot be asked */
};

/* Keys' values: 0, or -EINVAL with words behind the key's name. */
int ambiguity_read_on_ambiguous(struct ambiguity *a, const struct json_value *value, struct error *why);
int ambiguity_read_idempotency(struct ambiguity *a, const struct json_value *value, struct error *why);
int ambiguity_read_lookup(struct ambiguity *a, const struct json_value *value, struct error *why);
void ambiguity_free(struct ambiguity *a); /* what it holds, not `a` */

/* Why a row that an institution may have is left to a person, rather than sent again: the name of the
 * setting, or NULL. `age_usec`: since the first attempt after which the institution may have it. */
const char *ambiguity_holds(const struct ambiguity *a, uint64_t age_usec);

/* What the URL of the lookup stands for. */
struct ambiguity_row {
    const char *order_id; /* "" = none */
    int64_t id;
    const char *key;
};
bool ambiguity_can_ask(const struct ambiguity *a, const char *order_id);
/* Appends the URL by which the institution is asked for the row. False: it cannot be asked for this one. */
bool ambiguity_add_url(const struct ambiguity *a, const struct ambiguity_row *row, struct strbuf *url);

enum lookup_answer {
    LOOKUP_FOUND = 1,
    LOOKUP_ABSENT,
    LOOKUP_UNDECIDED, /* it is asked again later */
};
enum lookup_answer ambiguity_looked_up(const struct http_result *result);
