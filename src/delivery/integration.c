/* The integrations that this process has claimed for. See integration.h. */
#include "delivery/integration.h"
#include "delivery/header_line.h"

#include <limits.h>
#include <search.h>
#include <string.h>

#include "base/timeutil.h"
#include "config/config.h"

/* So many claimed rows slow a look down by a tenth of a millisecond, when none of their entries can be
 * removed. */
#define NEAR_CLAIMED_MIN 100
/* How far before the furthest claim a look begins: rows are seldom committed in the order of their ids. */
#define NEAR_IDS 300
#define NEAR_USEC ((int64_t) USEC_PER_SEC)

struct integrations {
    void *tree; /* tsearch(3), by id */
    struct store_load *loads;
    size_t load_count, load_capacity;
    struct store_place *places;
    size_t place_count, place_capacity;
    uint64_t next_end;
};

static int by_id(const void *a, const void *b)
{
    int64_t x = ((const struct integration *) a)->id, y = ((const struct integration *) b)->id;
    return (x > y) - (x < y);
}

struct integrations *integrations_new(void)
{
    return xcalloc(1, sizeof(struct integrations));
}

static void integration_free(void *node)
{
    struct integration *i = node;
    free(i->name);
    free(i->endpoint_url);
    free_secret(i->token.text);
    free_secret(i->token.line);
    free(i->token.problem);
    free_secret(i->asking.body);
    settings_free(&i->settings);
    free(i);
}

void integrations_free(struct integrations *all)
{
    if (!all)
        return;
    tdestroy(all->tree, integration_free);
    free(all->loads);
    free(all->places);
    free(all);
}

/* Blanks around a field's value do not belong to it (RFC 9110, 5.5). */
static struct bytes without_blanks(const struct strbuf *text)
{
    struct bytes t = {strbuf_str(text), text->len};

    for (; t.len && *t.p == ' '; t.p++)
        t.len--;
    while (t.len && t.p[t.len - 1] == ' ')
        t.len--;
    return t;
}

/* What keeps a token from being the value of a header, or NULL. The database refuses the same when a token is
 * written (integration_check). */
static const char *token_fault(struct bytes token)
{
    if (!token.len)
        return "it is blank";
    for (size_t i = 0; i < token.len; i++) {
        if ((unsigned char) token.p[i] < ' ' || token.p[i] == 0x7f)
            return "it holds control characters";
        if ((unsigned char) token.p[i] >= 0x80)
            return "it holds characters that are not ASCII";
    }
    return NULL;
}

static bool names_credential(const char *text)
{
    return strncmp(text, "credential:", strlen("credential:")) == 0;
}

static void take_token(struct integration *i, const char *auth_token)
{
    CLEANUP(strbuf_wipe) struct strbuf secret = STRBUF_INIT(2 * CONFIG_SECRET_MAX);
    struct error err;
    const char *fault = err.text;

    free_secret(TAKE_PTR(i->token.line));
    free(TAKE_PTR(i->token.problem));
    i->token.lacks_credential = false;
    if (!*auth_token)
        return;
    (void) strbuf_reserve(&secret, CONFIG_SECRET_MAX + 2); /* no copy is left behind where it grew */
    int r = config_database_secret(auth_token, &secret, &err);
    struct bytes token = without_blanks(&secret);
    if (r == 0)
        fault = token_fault(token);
    if (fault) {
        i->token.problem = xasprintf("its auth_token cannot be used: %s", fault);
        i->token.lacks_credential = names_credential(auth_token);
        return;
    }
    secret.data[token.p + token.len - secret.data] = '\0';
    i->token.line = header_line("Authorization", "Bearer ", token.p);
}

static void take_settings(struct integration *i, const struct store_claimed *row)
{
    i->request.timeout_usec = row->timeout_usec;
    i->request.max_attempts = row->max_attempts;
    if (i->fingerprint != row->fingerprint) {
        i->pace = (struct pace){0};
        burst_begin_anew(&i->burst);
    }
    burst_took(&i->burst, row->taken_usec, now_monotonic_usec());
    if (i->burst.turn != row->turn)
        outage_paused(&i->outage);
    burst_claimed(&i->burst, row->turn, row->is_refusing);
    i->fingerprint = row->fingerprint;
    circuit_enter(&i->circuit, row->generation, row->has_failures);
    if (strcmp(i->name, row->name) != 0) {
        free(i->name);
        i->name = xstrdup(row->name);
    }
    if (row->recovers)
        pace_recover(&i->pace, now_monotonic_usec());
    if (strcmp(i->endpoint_url, row->endpoint_url) != 0) {
        free(i->endpoint_url);
        i->endpoint_url = xstrdup(row->endpoint_url);
    }
    settings_take(&i->settings, row->settings);
    /* A credential that was of no use is read again: it may have been repaired. */
    if (i->token.text && !i->token.problem && strcmp(i->token.text, row->auth_token) == 0)
        return;
    free_secret(i->token.text);
    i->token.text = xstrdup(row->auth_token);
    take_token(i, row->auth_token);
}

const char *integration_problem(const struct integration *i, bool *ret_lacks_credential)
{
    const struct settings *s = &i->settings;
    bool token_matters = !s->problem && s->auth.type == AUTH_BEARER;

    *ret_lacks_credential = token_matters ? i->token.lacks_credential : s->lacks_credential;
    return token_matters ? i->token.problem : s->problem;
}

const char *integration_authorization(const struct integration *i)
{
    const struct auth *a = &i->settings.auth;

    return a->type == AUTH_BEARER ? i->token.line : a->client ? a->client->token.line : a->line;
}

bool integration_is_held(const struct integration *i, uint64_t now)
{
    return i->circuit.holds || i->circuit.probe_at > 0 || burst_holds(&i->burst, now) || now < i->pace.ends;
}

struct integration *integrations_find(struct integrations *all, int64_t id)
{
    struct integration key = {.id = id};
    struct integration **found = tfind(&key, &all->tree, by_id);

    return found ? *found : NULL;
}

void integrations_circuit_stored(struct integrations *all, int64_t id, uint64_t probe_at)
{
    struct integration *i = integrations_find(all, id);

    if (!i)
        return;
    i->circuit.holds = false;
    i->circuit.probe_at = probe_at;
}

struct probe_walk {
    uint64_t now, next;
};

static void next_probe(const void *node, VISIT visit, void *closure)
{
    const struct integration *i = *(struct integration *const *) node;
    struct probe_walk *w = closure;

    if ((visit == postorder || visit == leaf) && i->circuit.probe_at > w->now)
        w->next = MIN(w->next, i->circuit.probe_at);
}

uint64_t integrations_next_probe(const struct integrations *all, uint64_t now)
{
    struct probe_walk w = {now, USEC_INFINITY};

    twalk_r(all->tree, next_probe, &w);
    return w.next;
}

struct each {
    void (*visit)(struct integration *i, void *userdata);
    void *userdata;
};

static void visit_one(const void *node, VISIT visit, void *closure)
{
    const struct each *each = closure;

    if (visit == postorder || visit == leaf)
        each->visit(*(struct integration *const *) node, each->userdata);
}

void integrations_each(struct integrations *all, void (*visit)(struct integration *i, void *userdata),
                       void *userdata)
{
    twalk_r(all->tree, visit_one, &(struct each){visit, userdata});
}

struct reach_walk {
    struct reach_count *count;
    uint64_t now;
};

static void count_reach(const void *node, VISIT visit, void *closure)
{
    const struct integration *i = *(struct integration *const *) node;
    const struct reach_walk *w = closure;

    if (visit == postorder || visit == leaf)
        reach_count(w->count, &i->reach, w->now);
}

void integrations_count_reach(const struct integrations *all, uint64_t now, struct reach_count *ret)
{
    twalk_r(all->tree, count_reach, &(struct reach_walk){ret, now});
}

uint64_t integrations_next_end(const struct integrations *all)
{
    return all->next_end;
}

static void forget_credential(const void *node, VISIT visit, void *closure)
{
    struct integration *i = *(struct integration *const *) node;

    (void) closure;
    if (visit != postorder && visit != leaf)
        return;
    settings_forget_credentials(&i->settings);
    if (i->token.text && names_credential(i->token.text))
        free_secret(TAKE_PTR(i->token.text));
}

void integrations_forget_credentials(struct integrations *all)
{
    twalk_r(all->tree, forget_credential, NULL);
}

/* The rows of a claim come in the order of subscriptions_due. */
static void note_place(struct integration *i, const struct store_claimed *row)
{
    i->places.claimed++;
    if (row->due == INT64_MIN) {
        i->places.last.fresh_id = row->id;
        i->places.far.fresh_id = MAX(i->places.far.fresh_id, row->id);
        return;
    }
    i->places.last.due = row->due;
    i->places.last.id = row->id;
    i->places.far.due = MAX(i->places.far.due, row->due);
}

struct integration *integrations_note(struct integrations *all, const struct store_claimed *row)
{
    struct integration *i = integrations_find(all, row->integration_id);
    if (!i) {
        i = xcalloc(1, sizeof(*i));
        i->id = row->integration_id;
        i->name = xstrdup("");
        i->endpoint_url = xstrdup("");
        i->places.last = i->places.far = STORE_PLACE_START(i->id);
        if (!tsearch(i, &all->tree, by_id))
            abort();
    }
    if (row->has_integration) {
        take_settings(i, row);
        i->used = row->used;
        i->places.slot_freed = false;
        i->places.asked = false;
    }
    note_place(i, row);
    return i;
}

static void add_place(struct integrations *all, const struct store_place *place)
{
    if (all->place_count == all->place_capacity) {
        all->place_capacity = all->place_capacity ? 2 * all->place_capacity : 64;
        all->places = xreallocarray(all->places, all->place_capacity, sizeof(*all->places));
    }
    all->places[all->place_count++] = *place;
}

struct place_walk {
    struct integrations *all;
    uint64_t now;
};

/* Those of a rate_limit may have used up the times that could be taken, and not the slots: they are asked for
 * more once. When that gives nothing because the slots are taken, the next one that is freed counts. */
static void take_place(const void *node, VISIT visit, void *closure)
{
    struct integration *i = *(struct integration *const *) node;
    const struct place_walk *w = closure;
    bool has_slot = i->places.slot_freed || i->in_flight + i->held == 0;
    bool has_time = i->rate.interval_nsec > 0 && i->used == STORE_USED_ALL && !i->places.asked;

    if ((visit != postorder && visit != leaf) || i->used == STORE_USED_NONE || !(has_slot || has_time) ||
        rate_claim_at(&i->rate, w->now) > 0)
        return;
    add_place(w->all, &i->places.last);
    i->places.asked = true;
    if (has_slot)
        i->used = STORE_USED_NONE;
}

size_t integrations_take_places(struct integrations *all, uint64_t now, const struct store_place **ret)
{
    all->place_count = 0;
    twalk_r(all->tree, take_place, &(struct place_walk){all, now});
    *ret = all->places;
    return all->place_count;
}

static void near_place(const void *node, VISIT visit, void *closure)
{
    const struct integration *i = *(struct integration *const *) node;
    struct store_place place = i->places.far;

    if ((visit != postorder && visit != leaf) || i->places.claimed < NEAR_CLAIMED_MIN)
        return;
    place.fresh_id = MAX(place.fresh_id - NEAR_IDS, 0);
    if (place.due != INT64_MIN) {
        place.due -= NEAR_USEC;
        place.id = 0;
    }
    add_place(closure, &place);
}

size_t integrations_near_places(struct integrations *all, const struct store_place **ret)
{
    all->place_count = 0;
    twalk_r(all->tree, near_place, all);
    *ret = all->places;
    return all->place_count;
}

struct ready_walk {
    struct integrations *all;
    const struct http *http;
};

static void ready_place(const void *node, VISIT visit, void *closure)
{
    const struct integration *i = *(struct integration *const *) node;
    const struct ready_walk *w = closure;

    if ((visit == postorder || visit == leaf) &&
        http_is_ready_for(w->http, i->settings.way.http, i->endpoint_url))
        add_place(w->all, &i->places.far);
}

size_t integrations_ready_places(struct integrations *all, const struct http *http,
                                 const struct store_place **ret)
{
    all->place_count = 0;
    twalk_r(all->tree, ready_place, &(struct ready_walk){all, http});
    *ret = all->places;
    return all->place_count;
}

static void forget_place(const void *node, VISIT visit, void *closure)
{
    (void) closure;
    if (visit == postorder || visit == leaf)
        (*(struct integration *const *) node)->places.claimed = 0;
}

void integrations_forget_places(struct integrations *all)
{
    twalk_r(all->tree, forget_place, NULL);
}

struct load_walk {
    struct integrations *all;
    uint64_t now;
    bool last_slots;
};

static void note_load(const void *node, VISIT visit, void *closure)
{
    const struct integration *i = *(struct integration *const *) node;
    const struct load_walk *w = closure;
    struct integrations *all = w->all;
    if (visit != postorder && visit != leaf)
        return;
    if (i->pace.ends > w->now)
        all->next_end = MIN(all->next_end, i->pace.ends);
    uint64_t claim_at = rate_claim_at(&i->rate, w->now);
    uint64_t look_at = rate_look_at(&i->rate, w->now);
    if (look_at > 0)
        all->next_end = MIN(all->next_end, look_at);
    bool none =
        i->circuit.holds || i->reach.trial || claim_at > 0 || (w->last_slots && pace_is_silent(&i->pace));
    int slots = none ? 0 : pace_slots(&i->pace, w->now);
    if (i->in_flight + i->held == 0 && slots == INT_MAX)
        return;
    if (all->load_count == all->load_capacity) {
        all->load_capacity = all->load_capacity ? 2 * all->load_capacity : 64;
        all->loads = xreallocarray(all->loads, all->load_capacity, sizeof(*all->loads));
    }
    all->loads[all->load_count++] = (struct store_load){
        .integration_id = i->id, .in_flight = i->in_flight + i->held, .retries = i->retries, .slots = slots};
}

size_t integrations_loads(struct integrations *all, uint64_t now, bool last_slots,
                          const struct store_load **ret)
{
    all->load_count = 0;
    all->next_end = USEC_INFINITY;
    twalk_r(all->tree, note_load, &(struct load_walk){all, now, last_slots});
    *ret = all->loads;
    return all->load_count;
}
