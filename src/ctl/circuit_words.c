/* The circuit of an integration in words: "status", "integrations" and "explain" say the same. See
 * circuit_words.h. Pure, on any thread. */
#include "ctl/circuit_words.h"

#include <string.h>

#include "ctl/sheet.h"

bool circuit_is_closed(const struct store_circuit_view *c)
{
    return strcmp(c->state, "closed") == 0;
}

const char *circuit_state_word(const struct store_circuit_view *c)
{
    return strcmp(c->state, "open") == 0 ? "circuit open" : "half open";
}

/* From `until` on, the next claim sends one subscription of it. */
static void add_probe(struct strbuf *out, const struct store_circuit_view *c, int64_t now)
{
    if (strcmp(c->state, "half_open") == 0 && c->until > now) {
        strbuf_adds(out, "one subscription is being tried");
    } else if (c->until <= now) {
        strbuf_adds(out, "one subscription is tried as soon as one is due");
    } else {
        CLEANUP(freep) char *at = time_words(c->until), *in = duration_words(c->until - now);
        strbuf_addf(out, "one subscription is tried at %s (in %s)", at, in);
    }
}

void circuit_add_words(struct strbuf *out, const struct store_circuit_view *c, int64_t now)
{
    bool refused = strcmp(c->reason, "authentication") == 0;
    CLEANUP(freep) char *since = c->since == INT64_MIN ? NULL : time_words(c->since);

    strbuf_addf(out, "circuit %s%s (%s%s%s); ", since ? "has been open since " : "is open",
                since ? since : "", refused ? "its credentials are refused or missing" : "its requests fail",
                refused && *c->why ? ": " : "", refused ? c->why : "");
    add_probe(out, c, now);
    if (refused)
        strbuf_adds(out, ", and at once when they are exchanged, or their files and \"systemctl reload "
                         "anubisd\"");
}
