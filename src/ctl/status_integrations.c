/* The integrations of "anubisctl status". See status_integrations.h. */
#include "ctl/status_integrations.h"

#include <inttypes.h>
#include <string.h>

#include "base/timeutil.h"
#include "ctl/circuit_words.h"
#include "ctl/ctl.h"

/* More integrations than this do not fit one screen: people do not see those that have nothing to do. */
#define ROWS_MAX 40
/* A subscription that is tried again rarely waits longer. */
#define LONG_WAIT_USEC (2 * 3600 * USEC_PER_SEC)
/* So many attempts in a row are no chance; fewer are none when they last. */
#define FAILING_ENOUGH 5
#define FAILING_FEW 3
#define FAILING_LASTED_USEC ((int64_t) (60 * USEC_PER_SEC))

/* --- what is read ----------------------------------------------------------------------------- */

static bool is_failing(const struct store_integration *i, const struct store_health *h)
{
    bool lasts = h->failed_in_row >= FAILING_FEW && h->failed_at - h->failing_since >= FAILING_LASTED_USEC;

    return h->failed_in_row >= FAILING_ENOUGH || lasts || (!i->sent && i->failed >= FAILING_ENOUGH);
}

static enum fleet_state state_of(const struct fleet_row *r)
{
    const struct store_integration *i = &r->i;
    bool has_results = r->h.failed_in_row || r->h.sent_at != INT64_MIN;

    if (!i->enabled)
        return FLEET_DISABLED;
    if (i->paused_until != INT64_MIN)
        return FLEET_PAUSED;
    if (is_failing(i, &r->h))
        return FLEET_FAILING;
    if (!circuit_is_closed(&i->circuit))
        return FLEET_CIRCUIT;
    if (i->backoff_until != INT64_MIN)
        return FLEET_WAITS;
    return has_results || i->waiting || i->in_flight || i->held ? FLEET_OK : FLEET_IDLE;
}

/* Whether claims look at it. */
static bool can_send(const struct store_integration *i)
{
    return i->enabled && i->paused_until == INT64_MIN && i->backoff_until == INT64_MIN &&
           circuit_is_closed(&i->circuit);
}

static int by_trouble(const void *a, const void *b)
{
    const struct fleet_row *x = a, *y = b;

    if (x->state != y->state)
        return x->state < y->state ? -1 : 1;
    if (x->i.waiting != y->i.waiting)
        return x->i.waiting > y->i.waiting ? -1 : 1;
    return (x->i.id > y->i.id) - (x->i.id < y->i.id);
}

/* Both are in the order of ids. */
static void merge(struct fleet *f)
{
    int at = 0, rows = pg_rows(f->health);
    struct store_health h;

    for (size_t n = 0; n < f->count; n++) {
        struct fleet_row *r = &f->rows[n];
        store_integration_row(f->integrations, (int) n, f->limit, &r->i);
        r->h = (struct store_health){.sent_at = INT64_MIN,
                                     .failing_since = INT64_MIN,
                                     .failed_at = INT64_MIN,
                                     .same_since = INT64_MIN,
                                     .error = ""};
        for (; at < rows; at++) {
            store_health_row(f->health, at, &h);
            f->window_began_at = h.window_began_at;
            if (h.integration_id < r->i.id)
                continue;
            if (h.integration_id == r->i.id)
                r->h = h;
            break;
        }
        r->state = state_of(r);
    }
}

int fleet_read(struct fleet *f, struct pg *pg, const struct config *config, struct error *err)
{
    /* retry.max_delay and the quarter that chance may add; more when that is short, because the daemon may
     * have had another configuration. */
    uint64_t longest_wait_usec = MAX(config->retry.max_delay_usec / 4 * 5, LONG_WAIT_USEC);

    int r = store_integrations(pg, f->limit, longest_wait_usec, &f->integrations, err);
    if (r == PG_DONE)
        r = store_health(pg, &f->health, err);
    if (r != PG_DONE)
        return r;
    f->count = (size_t) pg_rows(f->integrations);
    f->window_began_at = INT64_MIN;
    f->rows = xcalloc(MAX(f->count, (size_t) 1), sizeof(*f->rows));
    merge(f);
    qsort(f->rows, f->count, sizeof(*f->rows), by_trouble);
    return PG_DONE;
}

void fleet_free(struct fleet *f)
{
    free(f->rows);
    pg_result_free(f->integrations);
    pg_result_free(f->health);
}

/* --- the backlog ------------------------------------------------------------------------------ */

/* Sums over the integrations. */
struct sums {
    int64_t due, held, doubtful, in_flight, oldest, recent_done, feasible;
    bool due_is_least;
    int64_t states[FLEET_STATES];
    /* What would be due if anything could be sent to its integration. */
    struct {
        int64_t rows, integrations, oldest;
        bool is_least;
    } blocked;
};

static void add_blocked(struct sums *s, const struct store_integration *i)
{
    s->blocked.rows += i->due;
    s->blocked.integrations += i->due > 0;
    s->blocked.is_least |= i->due_is_least;
    if (i->due > 0 && i->oldest != INT64_MIN)
        s->blocked.oldest = MIN(s->blocked.oldest, i->oldest);
}

static struct sums add_up(const struct fleet *f)
{
    struct sums s = {.oldest = INT64_MAX, .blocked.oldest = INT64_MAX};

    for (size_t n = 0; n < f->count; n++) {
        const struct fleet_row *r = &f->rows[n];
        s.states[r->state]++;
        s.held += r->i.held;
        s.doubtful += r->i.failed_ambiguous;
        s.in_flight += r->i.in_flight;
        s.recent_done += r->h.recent_sent;
        if (!can_send(&r->i)) {
            add_blocked(&s, &r->i);
            continue;
        }
        s.due += r->i.due;
        s.due_is_least |= r->i.due_is_least;
        s.feasible += r->state == FLEET_FAILING ? 0 : r->i.due;
        if (r->i.oldest != INT64_MIN)
            s.oldest = MIN(s.oldest, r->i.oldest);
    }
    return s;
}

/* A number that is exact or a least value. */
static struct value value_count(int64_t count, bool is_least)
{
    return value_words(value_i64(count), "%" PRId64 "%s", count, is_least ? "+" : "");
}

/* How long the successes were counted for that are recent: the ledger may be younger. */
static int64_t recent_seconds(const struct fleet *f)
{
    if (f->window_began_at == INT64_MIN)
        return STORE_RECENT_SECONDS;
    int64_t age = (f->now - f->window_began_at) / (int64_t) USEC_PER_SEC;
    return MAX(MIN(STORE_RECENT_SECONDS, age), 1);
}

/* "120, the longest for 3 min"; `oldest` INT64_MAX = nobody knows. */
static struct value value_waiting(const struct fleet *f, int64_t count, bool is_least, int64_t oldest,
                                  const char *where)
{
    CLEANUP(freep) char *longest = oldest == INT64_MAX ? NULL : duration_words(f->now - oldest);

    return value_words(value_i64(count), "%" PRId64 "%s%s%s%s", count, is_least ? "+" : "", where,
                       longest ? ", the longest for " : "", longest ? longest : "");
}

static void add_blocked_rows(const struct fleet *f, struct sheet *sheet, const struct sums *s)
{
    CLEANUP(freep)
    char *where = xasprintf(" in %" PRId64 " integration%s to which nothing can be sent now",
                            s->blocked.integrations, plural(s->blocked.integrations));

    sheet_add(sheet, "blocked", s->blocked.rows ? "BLOCKED" : NULL,
              value_waiting(f, s->blocked.rows, s->blocked.is_least, s->blocked.oldest, where));
    sheet_add(sheet, "blocked_is_least", NULL, value_bool(s->blocked.is_least));
    sheet_add(sheet, "oldest_blocked_at", NULL, value_time(s->blocked.oldest));
}

static void add_pace(const struct fleet *f, struct sheet *sheet, const struct sums *s, bool daemons_wait)
{
    int64_t seconds = recent_seconds(f);
    int64_t eta = s->feasible && s->recent_done && !daemons_wait ? s->feasible * seconds / s->recent_done : 0;
    CLEANUP(freep) char *period = duration_words(seconds * (int64_t) USEC_PER_SEC);
    CLEANUP(freep) char *left = duration_words(eta * (int64_t) USEC_PER_SEC);

    sheet_add(sheet, "recent_seconds", NULL, value_i64(seconds));
    sheet_add(sheet, "recent_sent", NULL, value_i64(s->recent_done));
    sheet_add(sheet, "eta_seconds", NULL, eta ? value_i64(eta) : value_null());
    sheet_say(sheet, "sent", "%.1f a second in the last %s%s%s", (double) s->recent_done / (double) seconds,
              period,
              eta               ? s->due_is_least ? "; done in more than " : "; what is due is done in about "
              : s->feasible > 0 ? "; what is due waits"
                                : "",
              eta ? left : "");
}

void fleet_add_backlog(const struct fleet *f, struct sheet *sheet, bool daemons_wait)
{
    const struct sums s = add_up(f);

    sheet_add(sheet, "failing", s.states[FLEET_FAILING] ? "FAILING" : NULL,
              value_words(value_i64(s.states[FLEET_FAILING]), "%" PRId64 " of %zu integrations",
                          s.states[FLEET_FAILING], f->count));
    sheet_add(sheet, "due", "due now", value_waiting(f, s.due, s.due_is_least, s.oldest, ""));
    sheet_add(sheet, "due_is_least", NULL, value_bool(s.due_is_least));
    sheet_add(sheet, "oldest_due_at", NULL, value_time(s.oldest));
    add_blocked_rows(f, sheet, &s);
    add_pace(f, sheet, &s, daemons_wait);
    sheet_add(sheet, "in_flight", "in flight", value_i64(s.in_flight));
    sheet_add(sheet, "held", "held", value_i64(s.held));
    sheet_add(sheet, "failed_ambiguous", "failed, may be taken", value_i64(s.doubtful));
}

/* --- the table -------------------------------------------------------------------------------- */

/* Why nothing is sent to it, or how an attempt ended that is made again. The caller frees; NULL = no reason.
 * */
static char *reason_of(const struct fleet_row *r)
{
    const struct store_integration *i = &r->i;

    if (i->paused_until != INT64_MIN)
        return *i->pause_reason ? xstrdup(i->pause_reason) : NULL;
    if (i->backoff_until != INT64_MIN)
        return xstrdup(i->backoff_reason);
    CLEANUP(freep) char *error = ctl_error_class(i->retry_error, i->retry_status);
    return error && i->enabled ? xasprintf("retrying: %s", error) : NULL;
}

static const char *state_word(const struct fleet_row *r)
{
    static const char *const words[] = {
        [FLEET_FAILING] = "failing", [FLEET_WAITS] = "waits", [FLEET_PAUSED] = "paused",
        [FLEET_OK] = "ok",           [FLEET_IDLE] = "idle",   [FLEET_DISABLED] = "disabled"};

    return r->state == FLEET_CIRCUIT ? circuit_state_word(&r->i.circuit) : words[r->state];
}

static void add_until(struct strbuf *out, int64_t until, int64_t now)
{
    CLEANUP(freep) char *at = time_words(until), *in = duration_words(until - now);

    strbuf_addf(out, " until %s (in %s)", at, in);
}

/* Since when, the last error, the last success. */
static void add_failing(struct strbuf *out, const struct fleet *f, const struct fleet_row *r)
{
    const struct store_health *h = &r->h;

    if (!h->failed_in_row) {
        strbuf_adds(out, "it has never accepted a subscription");
        return;
    }
    CLEANUP(freep)
    char *since = time_words(h->failing_since), *lasts = duration_words(f->now - h->failing_since);
    CLEANUP(freep)
    char *ago = duration_words(f->now - h->failed_at), *error = ctl_error_class(h->error, h->http_status);
    strbuf_addf(out, "%" PRId64 " attempts in a row since %s (%s), the last one %s ago: %s", h->failed_in_row,
                since, lasts, ago, error ? error : "no reason given");
    if (h->same_since > h->failing_since) {
        CLEANUP(freep) char *same = time_words(h->same_since);
        strbuf_addf(out, " since %s, and otherwise before", same);
    }
    strbuf_adds(out, "; ");
    if (h->sent_at != INT64_MIN) {
        CLEANUP(freep) char *sent = time_words(h->sent_at);
        strbuf_addf(out, "last success %s", sent);
    } else if (!r->i.sent) {
        strbuf_adds(out, "never a success");
    } else {
        CLEANUP(freep) char *began = time_words(f->window_began_at);
        strbuf_addf(out, "no success since %s", began);
    }
}

/* What people read below its row. */
static void add_remark(struct table *t, const struct fleet *f, const struct fleet_row *r, const char *reason)
{
    CLEANUP(strbuf_free) struct strbuf words = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    if (r->state == FLEET_FAILING)
        add_failing(&words, f, r);
    if (r->i.enabled && !circuit_is_closed(&r->i.circuit)) {
        strbuf_adds(&words, words.len ? "; its " : "its ");
        circuit_add_words(&words, &r->i.circuit, f->now);
    }
    if (r->i.enabled && r->i.paused_until == INT64_MIN && r->i.backoff_until != INT64_MIN) {
        strbuf_adds(&words, words.len ? "; waits" : "waits");
        add_until(&words, r->i.backoff_until, f->now);
    }
    if (r->state == FLEET_PAUSED && r->i.paused_until != INT64_MAX)
        add_until(&words, r->i.paused_until, f->now);
    if (reason && r->state != FLEET_FAILING)
        strbuf_addf(&words, "%s%s", !words.len ? "" : r->state == FLEET_CIRCUIT ? "; " : ": ", reason);
    if (r->state == FLEET_PAUSED && r->i.paused_until == INT64_MAX)
        strbuf_addf(&words, "%s\"anubisctl resume %" PRId64 "\" ends that", words.len ? "; " : "", r->i.id);
    if (!can_send(&r->i) && r->i.due)
        strbuf_addf(&words, "%s%" PRId64 "%s blocked", words.len ? "; " : "", r->i.due,
                    r->i.due_is_least ? "+" : "");
    if (words.len)
        table_remark(t, "%s", strbuf_str(&words) + strspn(strbuf_str(&words), " "));
}

static struct value value_share(const struct store_health *h)
{
    int64_t all = h->recent_sent + h->recent_errors;

    if (!all)
        return value_null();
    /* 100 % and 0 % are what they say. */
    int64_t percent = (100 * h->recent_errors + all / 2) / all;
    percent = h->recent_errors == all ? 100 : h->recent_errors ? MIN(MAX(percent, 1), 99) : 0;
    return value_words(value_i64(percent), "%" PRId64 "%%", percent);
}

static struct value value_per_minute(const struct fleet *f, const struct store_health *h)
{
    if (!h->recent_sent)
        return value_words(value_i64(0), "%s", h->recent_errors ? "0" : "");
    return value_words(value_i64(h->recent_sent), "%.*f", h->recent_sent * 60 < 10 * recent_seconds(f),
                       (double) h->recent_sent * 60 / (double) recent_seconds(f));
}

static void add_hidden(struct table *t, const struct fleet_row *r)
{
    const struct store_integration *i = &r->i;
    CLEANUP(freep) char *error = ctl_error_class(r->h.error, r->h.http_status);

    table_add(t, value_count(i->waiting, i->waiting_is_least));
    table_add(t, value_i64(i->in_flight));
    table_add(t, value_text(i->paused_until != INT64_MIN && *i->pause_reason ? i->pause_reason : NULL));
    table_add(t, value_time(i->oldest));
    table_add(t, value_i64(i->held));
    table_add(t, value_bool(i->enabled));
    table_add(t, value_bool(i->paused_until != INT64_MIN));
    table_add(t, value_time(i->paused_until));
    table_add(t, value_text(i->circuit.state));
    table_add(t, value_time(i->backoff_until));
    table_add(t, value_i64(i->failed_ambiguous));
    table_add(t, value_i64(r->h.failed_in_row));
    table_add(t, value_time(r->h.failing_since));
    table_add(t, value_time(r->h.sent_at));
    table_add(t, value_time(r->h.failed_at));
    table_add(t, value_text(error));
    table_add(t, value_i64(r->h.recent_errors));
    table_add(t, value_time(r->h.same_since));
    table_add(t, value_time(circuit_is_closed(&i->circuit) ? INT64_MIN : i->circuit.until));
}

static void add_integration(struct table *t, const struct fleet *f, const struct fleet_row *r)
{
    const struct store_integration *i = &r->i;
    CLEANUP(freep) char *reason = reason_of(r);
    CLEANUP(freep) char *longest = i->oldest != INT64_MIN ? duration_words(f->now - i->oldest) : NULL;

    table_add(t, value_i64(i->id));
    table_add(t, value_text(i->name));
    table_add(t, value_text(state_word(r)));
    /* As in the sum of add_up(): where nothing can be sent, nothing is due. */
    table_add(t, value_count(can_send(i) ? i->due : 0, can_send(i) && i->due_is_least));
    table_add(t, value_count(can_send(i) ? 0 : i->due, !can_send(i) && i->due_is_least));
    table_add(t, value_text(longest ? longest : ""));
    table_add(t, value_share(&r->h));
    table_add(t, value_per_minute(f, &r->h));
    table_add(t, value_i64(i->sent));
    table_add(t, value_i64(i->failed));
    table_add(t, value_text(reason));
    add_hidden(t, r);
    add_remark(t, f, r, reason);
}

void fleet_add(const struct fleet *f, struct sheet *sheet, bool all)
{
    static const struct table_column columns[] = {
        {"id", "ID", true},
        {"name", "NAME", false},
        {"state", "STATE", false},
        {"due", "DUE", true},
        {"blocked", NULL, true},
        {"longest_waiting", "LONGEST", true},
        {"recent_error_percent", "ERRORS", true},
        {"recent_sent", "PER MIN", true},
        {"successful_sends", "SENT", true},
        {"failed_sends", "FAILED", true},
        {"reason", NULL, false},
        {"waiting", NULL, true},
        {"in_flight", NULL, true},
        {"pause_reason", NULL, false},
        {"oldest_due_at", NULL, false},
        {"held", NULL, false},
        {"enabled", NULL, false},
        {"paused", NULL, false},
        {"paused_until", NULL, false},
        {"circuit_state", NULL, false},
        {"backoff_until", NULL, false},
        {"failed_ambiguous", NULL, false},
        {"failed_in_row", NULL, false},
        {"failing_since", NULL, false},
        {"last_sent_at", NULL, false},
        {"last_failed_at", NULL, false},
        {"last_error", NULL, false},
        {"recent_errors", NULL, false},
        {"last_error_since", NULL, false},
        {"next_probe_at", NULL, false},
    };
    size_t left_out = 0;
    const char *title = f->count ? "Integrations, those in trouble first" : "Integrations";
    struct table *t = sheet_table(sheet, "integrations", title, f->count ? "none has anything to do" : "none",
                                  columns, ARRAY_SIZE(columns));

    table_make_elastic(t, "name");
    for (size_t n = 0; n < f->count; n++) {
        const struct fleet_row *r = &f->rows[n];
        bool quiet = r->state == FLEET_IDLE ||
                     (r->state == FLEET_OK && !r->i.waiting && !r->i.in_flight && !r->i.held);
        if (!all && f->count > ROWS_MAX && quiet)
            left_out++;
        else
            add_integration(t, f, r);
    }
    if (left_out)
        sheet_say(sheet, NULL, "  %zu integration%s nothing to do (--json lists them)", left_out,
                  left_out == 1 ? " has" : "s have");
}
