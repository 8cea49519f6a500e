/* (high, gaps): each situation by itself, then a model of Postgres with transactions that commit, roll back
 * and overtake each other at random. The model also shows that the rule needs each of its conditions: without
 * one of them events are lost. */

#include <errno.h>
#include <string.h>

#include "relay/gaps.h"
#include "unit.h"

/* --- single situations ------------------------------------------------------------------------ */

static int take(struct gaps *g, int64_t xmin, int64_t probed, const int64_t *found, size_t n_found,
                const int64_t *above, size_t n_above)
{
    const struct gaps_read read = {.xmin = xmin,
                                   .probed_through = probed,
                                   .found = found,
                                   .found_count = n_found,
                                   .above = above,
                                   .above_count = n_above};
    return gaps_take(g, &read);
}

#define IDS(...) (const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)
#define NONE NULL, 0
#define ALL INT64_MAX

static void assert_gap(const struct gaps *g, size_t i, int64_t first, int64_t last, int64_t horizon)
{
    assert_true(i < g->count);
    assert_int_equal(g->items[i].first, first);
    assert_int_equal(g->items[i].last, last);
    assert_int_equal(g->items[i].horizon, horizon);
}

TEST(test_no_gap)
{
    struct gaps g = {0};

    assert_int_equal(take(&g, 100, ALL, NONE, IDS(1, 2, 3)), 0);
    assert_int_equal(g.high, 3);
    assert_int_equal(g.count, 0);
    assert_false(gaps_need_horizon(&g));
    assert_int_equal(take(&g, 100, ALL, NONE, NONE), 0);
    assert_int_equal(g.high, 3);
    gaps_free(&g);
}

TEST(test_rows_that_overtake_gaps)
{
    struct gaps g = {.high = 10};
    const struct gaps_read read = {
        .xmin = 900, .above = (const int64_t[]){20, 22}, .above_count = 2, .overtakes = true};

    assert_int_equal(take(&g, 100, ALL, NONE, IDS(16)), 0); /* 11 to 15 is a gap, of which not all is read */
    gaps_stamp(&g, 105);
    assert_int_equal(take(&g, 200, 13, IDS(13), NONE), 0);
    assert_gap(&g, 0, 14, 15, 105);
    assert_int_equal(take(&g, 200, 13, NONE, IDS(20)), -EINVAL);
    assert_int_equal(gaps_take(&g, &read), 0);
    assert_int_equal(g.high, 22);
    assert_int_equal(g.count, 3);
    assert_gap(&g, 0, 14, 15, 105);
    assert_gap(&g, 1, 17, 19, 0);
    assert_gap(&g, 2, 21, 21, 0);
    gaps_free(&g);
}

TEST(test_gap_opens_and_closes)
{
    struct gaps g = {.high = 10};

    assert_int_equal(take(&g, 100, ALL, NONE, IDS(13, 14, 20)), 0);
    assert_int_equal(g.high, 20);
    assert_int_equal(g.count, 2);
    assert_gap(&g, 0, 11, 12, 0);
    assert_gap(&g, 1, 15, 19, 0);
    assert_true(gaps_need_horizon(&g));
    gaps_stamp(&g, 105);
    assert_false(gaps_need_horizon(&g));

    /* Rows are found in the middle, at both ends, and in the whole gap. */
    assert_int_equal(take(&g, 100, ALL, IDS(11, 12, 17), NONE), 0);
    assert_int_equal(g.count, 2);
    assert_gap(&g, 0, 15, 16, 105);
    assert_gap(&g, 1, 18, 19, 105);
    assert_int_equal(take(&g, 100, ALL, IDS(15, 16, 18), IDS(22)), 0);
    assert_int_equal(g.count, 2);
    assert_gap(&g, 0, 19, 19, 105);
    assert_gap(&g, 1, 21, 21, 0);
    gaps_free(&g);
}

TEST(test_giving_up)
{
    struct gaps g = {.high = 10};

    assert_int_equal(take(&g, 100, ALL, NONE, IDS(13)), 0);
    /* A gap without a horizon never ends, whatever xmin is. */
    assert_int_equal(take(&g, 1000, ALL, NONE, NONE), 0);
    assert_int_equal(g.count, 1);
    gaps_stamp(&g, 1005);
    assert_int_equal(take(&g, 1004, ALL, NONE, NONE), 0);
    assert_int_equal(g.count, 1);
    /* xmin is not below the horizon: the gap ends. A row that the same statement finds still counts. */
    assert_int_equal(take(&g, 1005, ALL, IDS(12), NONE), 0);
    assert_int_equal(g.count, 0);
    assert_int_equal(g.high, 13);
    gaps_free(&g);
}

TEST(test_stamps_only_new_gaps)
{
    struct gaps g = {.high = 10};

    take(&g, 100, ALL, NONE, IDS(12));
    gaps_stamp(&g, 105);
    take(&g, 100, ALL, NONE, IDS(14));
    gaps_stamp(&g, 110);
    assert_gap(&g, 0, 11, 11, 105);
    assert_gap(&g, 1, 13, 13, 110);
    take(&g, 107, ALL, NONE, NONE);
    assert_int_equal(g.count, 1);
    assert_gap(&g, 0, 13, 13, 110);
    gaps_unstamp(&g);
    assert_true(gaps_need_horizon(&g));
    gaps_free(&g);
}

TEST(test_partial_probe)
{
    struct gaps g = {.high = 10};

    take(&g, 100, ALL, NONE, IDS(101, 111));
    gaps_stamp(&g, 105);
    /* The limit was reached at 50: ids behind it were not probed. */
    assert_int_equal(take(&g, 200, 50, IDS(20, 50), NONE), 0);
    assert_int_equal(g.count, 2);
    assert_gap(&g, 0, 51, 100, 105);
    assert_gap(&g, 1, 102, 110, 105);
    /* A found row behind the probe is refused, and so are rows above; nothing changes. */
    assert_int_equal(take(&g, 200, 60, IDS(61), NONE), -EINVAL);
    assert_int_equal(take(&g, 200, 60, NONE, IDS(112)), -EINVAL);
    assert_int_equal(g.count, 2);
    assert_int_equal(g.high, 111);
    /* Probed through exactly the last gap: rows above may pass. */
    assert_int_equal(take(&g, 200, 110, NONE, IDS(112)), 0);
    assert_int_equal(g.count, 0);
    gaps_free(&g);
}

TEST(test_what_was_passed_is_noted_and_can_be_reopened)
{
    struct gaps g = {.high = 10};

    take(&g, 100, ALL, NONE, IDS(15, 18, 30)); /* 11 to 14, 16 to 17, 19 to 29 */
    gaps_stamp(&g, 105);
    take(&g, 105, 20, IDS(12), NONE);
    assert_int_equal(g.passed.count, 4);
    assert_int_equal(g.passed.items[1].first, 13);
    assert_int_equal(g.passed.items[1].last, 14);
    assert_int_equal(g.passed.items[3].first, 19);
    assert_int_equal(g.passed.items[3].last, 20);
    assert_int_equal(g.count, 1);
    assert_gap(&g, 0, 21, 29, 105);
    gaps_were_saved(&g);
    assert_int_equal(g.passed.count, 0);

    assert_true(gaps_reopen(&g, 16, 17));
    assert_true(gaps_reopen(&g, 13, 14));
    assert_false(gaps_reopen(&g, 14, 16));
    assert_false(gaps_reopen(&g, 29, 29));
    assert_false(gaps_reopen(&g, 31, 32));
    assert_int_equal(g.reopened.count, 2);
    assert_int_equal(g.count, 3);
    assert_gap(&g, 0, 13, 14, 0);
    assert_gap(&g, 1, 16, 17, 0);
    assert_gap(&g, 2, 21, 29, 105);
    assert_int_equal(take(&g, 110, ALL, IDS(13, 16, 17), IDS(31)), 0);
    assert_int_equal(g.count, 1);
    assert_gap(&g, 0, 14, 14, 0);
    gaps_free(&g);
}

TEST(test_refuses_nonsense)
{
    struct gaps g = {.high = 10};

    take(&g, 100, ALL, NONE, IDS(20));
    assert_int_equal(take(&g, 100, ALL, IDS(10), NONE), -EINVAL);
    assert_int_equal(take(&g, 100, ALL, IDS(20), NONE), -EINVAL);
    assert_int_equal(take(&g, 100, ALL, IDS(12, 12), NONE), -EINVAL);
    assert_int_equal(take(&g, 100, ALL, IDS(13, 12), NONE), -EINVAL);
    assert_int_equal(take(&g, 100, ALL, NONE, IDS(20)), -EINVAL);
    assert_int_equal(take(&g, 100, ALL, NONE, IDS(22, 21)), -EINVAL);
    assert_int_equal(g.count, 1);
    gaps_free(&g);
}

TEST(test_load)
{
    struct gaps g = {0};
    const int64_t first[] = {3, 8}, last[] = {5, 9}, horizon[] = {100, 0};
    const int64_t overlapping[] = {3, 5}, inverted[] = {2, 9};

    assert_int_equal(gaps_load(&g, 10, first, last, horizon, 2), 0);
    assert_int_equal(g.high, 10);
    assert_int_equal(g.count, 2);
    assert_gap(&g, 0, 3, 5, 100);
    assert_true(gaps_need_horizon(&g));
    assert_int_equal(gaps_load(&g, 8, first, last, horizon, 2), -EINVAL);
    assert_int_equal(gaps_load(&g, 10, overlapping, last, horizon, 2), -EINVAL);
    assert_int_equal(gaps_load(&g, 10, first, inverted, horizon, 2), -EINVAL);
    assert_int_equal(gaps_load(&g, -1, NULL, NULL, NULL, 0), -EINVAL);
    assert_int_equal(g.count, 2);
    assert_int_equal(gaps_load(&g, 7, NULL, NULL, NULL, 0), 0);
    assert_int_equal(g.count, 0);
    gaps_free(&g);
}

/* --- the model -------------------------------------------------------------------------------- */

#define SESSIONS 12
#define SUBSCRIPTIONS 6
#define IDS_MAX 8192
#define CACHE 4

enum fault {
    NO_FAULT,
    PROBE_AND_XMIN_APART,  /* condition 1 */
    ID_BEFORE_XID,         /* condition 2 */
    SEQUENCE_CACHED,       /* condition 3 */
    GAPS_FORGOTTEN,        /* condition 4: a restart without them */
    HORIZON_FROM_SNAPSHOT, /* the obvious rule: xmax of the read that first showed the gap */
    HORIZON_BEFORE_READ,
    LIMIT_IGNORED, /* what lies behind the probe's limit counts as probed */
};

enum fate { NEVER_USED, RUNNING, COMMITTED, ROLLED_BACK };

struct transaction {
    bool open, has_xid;
    int64_t xid;
    int64_t ids[32];
    int subscriptions[32];
    int count;
    int64_t early_id; /* drawn before the xid; 0 = none */
};

struct model {
    uint64_t random;
    bool quiet; /* nobody writes any more */
    enum fault fault;
    int64_t next_xid, latest_completed, last_id;
    struct transaction sessions[SESSIONS];
    int64_t cache_next[SESSIONS], cache_end[SESSIONS];
    enum fate fates[IDS_MAX];
    int subscription_of[IDS_MAX];
    int locked_by[SUBSCRIPTIONS]; /* session + 1 */
    struct gaps gaps, saved;
    int64_t old_horizon;
    unsigned published[IDS_MAX], passed[IDS_MAX];
    int64_t newest[SUBSCRIPTIONS]; /* published */
    unsigned lost, twice, invented, disordered, forgotten;
};

static unsigned draw(struct model *m, unsigned below)
{
    m->random ^= m->random << 13;
    m->random ^= m->random >> 7;
    m->random ^= m->random << 17;
    return (unsigned) (m->random >> 33) % below;
}

static int64_t take_id(struct model *m, int s)
{
    if (m->fault != SEQUENCE_CACHED)
        return ++m->last_id;
    if (m->cache_next[s] == m->cache_end[s]) {
        m->cache_next[s] = m->last_id + 1;
        m->last_id += CACHE;
        m->cache_end[s] = m->last_id + 1;
    }
    return m->cache_next[s]++;
}

static void use_id(struct model *m, struct transaction *t, int64_t id, int subscription)
{
    t->ids[t->count] = id;
    t->subscriptions[t->count++] = subscription;
    m->fates[id] = RUNNING;
    m->subscription_of[id] = subscription;
}

static void work(struct model *m, int s)
{
    struct transaction *t = &m->sessions[s];
    int subscription = (int) draw(m, SUBSCRIPTIONS);

    if (m->fault == ID_BEFORE_XID && !t->has_xid && !t->early_id) {
        /* A plain INSERT evaluates nextval first; the transaction id comes with the row, a moment later. */
        t->early_id = take_id(m, s);
        return;
    }
    if (m->locked_by[subscription] && m->locked_by[subscription] != s + 1)
        return; /* it would wait */
    if (t->count == ARRAY_SIZE(t->ids) || m->last_id + CACHE >= IDS_MAX)
        return;
    if (!t->has_xid) {
        t->xid = m->next_xid++;
        t->has_xid = true;
    }
    m->locked_by[subscription] = s + 1;
    use_id(m, t, t->early_id ? t->early_id : take_id(m, s), subscription);
    t->early_id = 0;
}

static void end(struct model *m, int s, enum fate fate)
{
    struct transaction *t = &m->sessions[s];

    for (int i = 0; i < t->count; i++)
        m->fates[t->ids[i]] = fate;
    for (int i = 0; i < SUBSCRIPTIONS; i++)
        if (m->locked_by[i] == s + 1)
            m->locked_by[i] = 0;
    if (t->has_xid && t->xid > m->latest_completed)
        m->latest_completed = t->xid;
    *t = (struct transaction){0};
}

static void happen(struct model *m, unsigned steps)
{
    while (!m->quiet && steps-- > 0) {
        int s = (int) draw(m, SESSIONS);
        struct transaction *t = &m->sessions[s];
        /* Some sessions are slow: their transactions are overtaken by thousands. */
        if (t->open && draw(m, s < 3 ? 40 : 4) == 0)
            end(m, s, draw(m, 4) ? COMMITTED : ROLLED_BACK);
        else if (t->open)
            work(m, s);
        else
            t->open = true;
    }
}

static int64_t snapshot_xmax(const struct model *m)
{
    return m->latest_completed + 1;
}

static int64_t snapshot_xmin(const struct model *m)
{
    int64_t xmin = snapshot_xmax(m);

    for (int s = 0; s < SESSIONS; s++)
        if (m->sessions[s].has_xid && m->sessions[s].xid < xmin)
            xmin = m->sessions[s].xid;
    return xmin;
}

static int64_t own_xid(struct model *m)
{
    m->latest_completed = m->next_xid;
    return m->next_xid++;
}

static void publish(struct model *m, int64_t id)
{
    int subscription = m->subscription_of[id];

    m->published[id]++;
    if (m->newest[subscription] > id)
        m->disordered++;
    m->newest[subscription] = id;
}

static size_t look(const struct model *m, int64_t first, int64_t last, int64_t *to, size_t room)
{
    size_t n = 0;

    for (int64_t id = first; id <= last && n < room; id++)
        if (m->fates[id] == COMMITTED)
            to[n++] = id;
    return n;
}

static void copy_gaps(struct gaps *to, const struct gaps *from)
{
    gaps_free(to);
    *to = *from;
    to->items = from->count ? copy_of(from->items, from->count * sizeof(*from->items)) : NULL;
    to->capacity = from->count;
    to->passed = to->reopened = (struct gap_notes){0};
}

/* One turn of the relay. */
static void turn(struct model *m)
{
    int64_t found[64], above[64];
    size_t limit = 1 + draw(m, ARRAY_SIZE(found));
    struct gaps_read read = {.probed_through = INT64_MAX, .found = found, .above = above};

    if (m->fault == HORIZON_BEFORE_READ)
        m->old_horizon = own_xid(m);
    if (m->fault == HORIZON_BEFORE_READ || m->fault == HORIZON_FROM_SNAPSHOT)
        happen(m, draw(m, 60));
    for (size_t i = 0; i < m->gaps.count && read.found_count < limit; i++)
        read.found_count += look(m, m->gaps.items[i].first, m->gaps.items[i].last, found + read.found_count,
                                 limit - read.found_count);
    if (read.found_count == limit) {
        if (m->fault != LIMIT_IGNORED)
            read.probed_through = found[limit - 1];
    } else {
        read.above_count = look(m, m->gaps.high + 1, m->last_id, above, limit);
    }
    if (m->fault == PROBE_AND_XMIN_APART)
        happen(m, draw(m, 30));
    read.xmin = snapshot_xmin(m);
    int64_t xmax = snapshot_xmax(m);
    assert_int_equal(gaps_take(&m->gaps, &read), 0);

    happen(m, draw(m, 10));
    if (gaps_need_horizon(&m->gaps))
        gaps_stamp(&m->gaps, m->fault == HORIZON_FROM_SNAPSHOT ? xmax
                             : m->fault == HORIZON_BEFORE_READ ? m->old_horizon
                                                               : own_xid(m));
    for (size_t i = 0; i < read.found_count; i++)
        publish(m, found[i]);
    for (size_t i = 0; i < read.above_count; i++)
        publish(m, above[i]);
    for (size_t i = 0; i < m->gaps.passed.count; i++)
        for (int64_t id = m->gaps.passed.items[i].first; id <= m->gaps.passed.items[i].last; id++)
            m->passed[id]++;
    gaps_were_saved(&m->gaps);
    copy_gaps(&m->saved, &m->gaps);
}

static void restart(struct model *m)
{
    struct gaps *s = &m->saved;
    int64_t first[IDS_MAX / 2] = {0}, last[IDS_MAX / 2] = {0}, horizon[IDS_MAX / 2] = {0};

    for (size_t i = 0; i < s->count; i++) {
        first[i] = s->items[i].first;
        last[i] = s->items[i].last;
        horizon[i] = s->items[i].horizon;
    }
    assert_int_equal(
        gaps_load(&m->gaps, s->high, first, last, horizon, m->fault == GAPS_FORGOTTEN ? 0 : s->count), 0);
}

static void settle(struct model *m)
{
    for (int s = 0; s < SESSIONS; s++)
        end(m, s, COMMITTED);
    m->quiet = true;
    for (int i = 0; i < 1000; i++)
        turn(m);
    for (int64_t id = 1; id <= m->last_id; id++) {
        m->lost += m->fates[id] == COMMITTED && m->published[id] == 0;
        m->twice += m->published[id] > 1;
        m->forgotten += id <= m->gaps.high && m->published[id] + m->passed[id] != 1;
        m->invented += m->fates[id] != COMMITTED && m->published[id] > 0;
    }
}

/* Adds the errors of one run to `sum`. */
static void play(uint64_t seed, enum fault fault, struct model *sum)
{
    struct model *m = xcalloc(1, sizeof(*m));

    m->random = seed * UINT64_C(0x9E3779B97F4A7C15) | 1;
    m->fault = fault;
    m->next_xid = 1000;
    m->latest_completed = 999;
    for (int i = 0; i < 150; i++) {
        happen(m, draw(m, 60));
        turn(m);
        if (draw(m, 40) == 0)
            restart(m);
    }
    settle(m);
    sum->lost += m->lost;
    sum->twice += m->twice;
    sum->invented += m->invented;
    sum->disordered += m->disordered;
    sum->forgotten += m->forgotten;
    assert_int_equal(fault == NO_FAULT ? m->gaps.count : 0, 0);
    gaps_free(&m->gaps);
    gaps_free(&m->saved);
    free(m);
}

static void play_all(enum fault fault, struct model *sum)
{
    *sum = (struct model){0};
    for (uint64_t seed = 1; seed <= 200; seed++)
        play(seed, fault, sum);
}

TEST(test_nothing_is_lost)
{
    static struct model sum;

    play_all(NO_FAULT, &sum);
    assert_int_equal(sum.lost, 0);
    assert_int_equal(sum.twice, 0);
    assert_int_equal(sum.invented, 0);
    assert_int_equal(sum.disordered, 0);
    assert_int_equal(sum.forgotten, 0); /* each id was published or noted as passed, once */
}

TEST(test_each_condition_is_needed)
{
    static const struct {
        enum fault fault;
        const char *words;
    } faults[] = {
        {PROBE_AND_XMIN_APART, "probe and xmin from one statement"},
        {ID_BEFORE_XID, "transaction id before ledger id"},
        {SEQUENCE_CACHED, "a sequence with CACHE 1"},
        {GAPS_FORGOTTEN, "gaps saved with the state"},
        {HORIZON_FROM_SNAPSHOT, "a horizon that is no snapshot's xmax"},
        {HORIZON_BEFORE_READ, "a horizon taken after the read"},
        {LIMIT_IGNORED, "knowing how far the gaps were looked into"},
    };
    static struct model sum;

    for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
        play_all(faults[i].fault, &sum);
        print_message("without %s: %u events lost\n", faults[i].words, sum.lost);
        assert_true(sum.lost > 0);
    }
}

/* Condition 4, other half: in a restored database transaction ids start anew, and a horizon of the old one
 * may never be reached. */
TEST(test_restored_database)
{
    struct gaps g = {.high = 10};

    take(&g, 500000, ALL, NONE, IDS(12));
    gaps_stamp(&g, 500010);
    take(&g, 800, ALL, NONE, NONE);
    assert_int_equal(g.count, 1);
    gaps_unstamp(&g);
    gaps_stamp(&g, 805);
    take(&g, 805, ALL, NONE, NONE);
    assert_int_equal(g.count, 0);
    gaps_free(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_gap),
        cmocka_unit_test(test_rows_that_overtake_gaps),
        cmocka_unit_test(test_gap_opens_and_closes),
        cmocka_unit_test(test_giving_up),
        cmocka_unit_test(test_stamps_only_new_gaps),
        cmocka_unit_test(test_partial_probe),
        cmocka_unit_test(test_what_was_passed_is_noted_and_can_be_reopened),
        cmocka_unit_test(test_refuses_nonsense),
        cmocka_unit_test(test_load),
        cmocka_unit_test(test_nothing_is_lost),
        cmocka_unit_test(test_each_condition_is_needed),
        cmocka_unit_test(test_restored_database),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
