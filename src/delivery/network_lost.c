/* Lost institutions, or a lost network. See network_lost.h. */
#include "delivery/network_lost.h"

#include "base/timeutil.h"

/* Institutions that are lost within so long are lost at once; it is as long as a connection may take. */
#define AT_ONCE_USEC (10 * USEC_PER_SEC)
/* Fewer prove nothing. */
#define LOST_MIN 4
/* They are counted anew, at most so often. */
#define COUNT_USEC (50 * USEC_PER_MSEC)
/* How long a result is held back: connections that were begun together end together. */
#define HOLD_USEC (2 * USEC_PER_SEC)
/* A lost network is back when an institution that was lost with it answers; or nobody asks any more; or it
 * was none: after so long most of the others answer. */
#define FORGOTTEN_USEC (60 * USEC_PER_SEC)
#define WORDS                                                                                                \
    "most institutions were lost at once, so this machine's network is to blame (cable, route, firewall, "   \
    "name servers)"

struct held {
    struct held *next;
    struct http_result result;
    char *detail;
    void *owner;
};

struct network {
    struct network_callbacks callbacks;
    void *userdata;
    sd_event_source *timer;
    struct held *first, **last;
    uint64_t lost_at, met_at; /* monotonic: the network was lost; and met lost, last. 0 = it is there */
    struct reach_count count; /* of all institutions */
    uint64_t counted_at;      /* monotonic; 0 = never */
};

static bool is_lost(const struct http_result *result)
{
    bool unconnected =
        result->cause == HTTP_DNS || result->cause == HTTP_CONNECT || result->cause == HTTP_TLS;

    return unconnected && !result->body_handed_over;
}

void reach_count(struct reach_count *count, const struct reach *r, uint64_t now)
{
    if (r->tried_at == 0 || now - r->tried_at > FORGOTTEN_USEC)
        return;
    count->tried_long++;
    count->lost_still += r->lost_at > 0;
    if (now - r->tried_at > AT_ONCE_USEC)
        return;
    count->tried++;
    count->lost += r->lost_at > 0 && now - r->lost_at <= AT_ONCE_USEC;
}

bool reach_count_blames_us(const struct reach_count *count)
{
    return count->lost >= LOST_MIN && 2 * count->lost >= count->tried;
}

bool reach_count_clears_us(const struct reach_count *count)
{
    return 2 * count->lost_still < count->tried_long;
}

static void count_lost(struct network *n, uint64_t now)
{
    n->count = (struct reach_count){0};
    n->callbacks.count(&n->count, now, n->userdata);
    n->counted_at = now;
    if (n->lost_at == 0 && reach_count_blames_us(&n->count))
        n->lost_at = n->met_at = now;
    else if (n->lost_at > 0 && now - n->lost_at > FORGOTTEN_USEC && reach_count_clears_us(&n->count))
        n->lost_at = 0;
}

/* The network is lost, and this institution was not lost before it. */
static bool is_ours(struct network *n, const struct reach *r, uint64_t now)
{
    if (n->lost_at > 0 && now - n->met_at > FORGOTTEN_USEC)
        n->lost_at = 0;
    if (now - n->counted_at >= COUNT_USEC)
        count_lost(n, now);
    if (n->lost_at == 0 || r->lost_at + AT_ONCE_USEC < n->lost_at)
        return false;
    n->met_at = now;
    return true;
}

static void held_free(struct held *h)
{
    free(h->detail);
    free(h);
}

static void use(struct network *n, struct held *h, bool ours)
{
    h->result.detail = ours ? WORDS : h->detail;
    if (ours)
        h->result.cause = HTTP_INTERNAL;
    n->callbacks.decided(&h->result, h->owner, n->userdata);
    held_free(h);
}

/* All of them: those that came later than the first say no more than it does. */
static void use_all(struct network *n, bool ours)
{
    struct held *list = n->first;

    n->first = NULL;
    n->last = &n->first;
    sd_event_source_set_enabled(n->timer, SD_EVENT_OFF);
    while (list) {
        struct held *h = list;
        list = h->next;
        use(n, h, ours);
    }
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
    struct network *n = userdata;

    (void) s, (void) usec;
    count_lost(n, now_monotonic_usec());
    use_all(n, n->lost_at > 0);
    return 0;
}

static void hold(struct network *n, const struct http_result *result, void *owner)
{
    struct held *h = xcalloc(1, sizeof(*h));

    h->result = *result;
    h->result.body = "";
    h->result.body_len = 0;
    h->detail = xstrdup(result->detail);
    h->owner = owner;
    if (!n->first) {
        sd_event_source_set_time_relative(n->timer, HOLD_USEC);
        sd_event_source_set_enabled(n->timer, SD_EVENT_ONESHOT);
    }
    *n->last = h;
    n->last = &h->next;
}

/* The others will be asked again soon, and show whether they are lost still. */
static void note_reached(struct network *n, struct reach *r)
{
    if (n->lost_at > 0 && r->lost_at + AT_ONCE_USEC >= n->lost_at)
        n->lost_at = 0;
    r->lost_at = 0;
}

bool network_holds(struct network *n, struct reach *r, const struct http_result *result, void *held)
{
    uint64_t now = now_monotonic_usec();

    if (result->cause == HTTP_ANSWERED) {
        if (r->lost_at > 0)
            note_reached(n, r);
        return false;
    }
    if (!is_lost(result))
        return false;
    if (r->lost_at == 0)
        r->lost_at = now;
    bool ours = is_ours(n, r, now);
    if (!ours && (n->count.tried < LOST_MIN || now - r->lost_at >= HOLD_USEC))
        return false;
    hold(n, result, held);
    if (ours)
        use_all(n, true);
    return true;
}

bool network_is_lost(struct network *n, struct reach *r, const struct http_result *result)
{
    if (result->cause == HTTP_ANSWERED && r->lost_at > 0)
        note_reached(n, r);
    return is_lost(result) && is_ours(n, r, now_monotonic_usec());
}

bool network_is_down(const struct network *n, uint64_t now)
{
    return n->lost_at > 0 && now - n->met_at <= FORGOTTEN_USEC;
}

void network_release(struct network *n)
{
    use_all(n, false);
}

struct network *network_new(sd_event *event, const struct network_callbacks *callbacks, void *userdata)
{
    struct network *n = xcalloc(1, sizeof(*n));

    n->callbacks = *callbacks;
    n->userdata = userdata;
    n->last = &n->first;
    if (sd_event_add_time(event, &n->timer, CLOCK_MONOTONIC, 0, USEC_PER_MSEC, on_timer, n) < 0 ||
        sd_event_source_set_enabled(n->timer, SD_EVENT_OFF) < 0)
        abort();
    return n;
}

void network_free(struct network *n)
{
    if (!n)
        return;
    while (n->first) {
        struct held *h = n->first;
        n->first = h->next;
        held_free(h);
    }
    sd_event_source_disable_unref(n->timer);
    free(n);
}
