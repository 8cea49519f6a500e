/* Names of integrations, from a table that this file plays: it defines the functions of store_relay and pg
 * that relay_names.c calls, so the linker takes none of theirs. */
#include <errno.h>
#include <string.h>

#include "base/timeutil.h"
#include "relay/relay_names.h"
#include "relay/store_relay.h"
#include "unit.h"

/* --- the table -------------------------------------------------------------------------------- */

#define ROWS_MAX 5000

/* Rows of a read, or of an answer: in that those up to `existing` exist. */
struct pg_result {
    int64_t ids[ROWS_MAX];
    int count;
};

static struct {
    int64_t existing;
    const char *name;
    bool away;
    int questions;
    size_t last_count; /* ids of the last question */
} table;

int pg_rows(const struct pg_result *r)
{
    return r->count;
}

void pg_result_free(struct pg_result *r)
{
    free(r);
}

int64_t pg_get_i64(const struct pg_result *r, int row, int column)
{
    assert_int_equal(column, 0);
    return r->ids[row];
}

const char *pg_get_bytes(const struct pg_result *r, int row, int column, size_t *ret_len)
{
    (void) r;
    (void) row;
    const char *text = column == 1 ? table.name : "api";

    *ret_len = strlen(text);
    return text;
}

/* 0 stands for NULL. */
struct event_number store_relay_row_integration(const struct pg_result *r, int row)
{
    return (struct event_number){r->ids[row] != 0, r->ids[row]};
}

int store_relay_names(struct pg *pg, const int64_t *ids, size_t count, struct pg_result **ret,
                      struct error *err)
{
    (void) pg;
    (void) err;
    table.questions++;
    table.last_count = count;
    if (table.away)
        return -ECONNRESET;
    struct pg_result *answer = xcalloc(1, sizeof(*answer));
    for (size_t i = 0; i < count; i++) {
        assert_true(i == 0 || ids[i - 1] < ids[i]);
        if (ids[i] <= table.existing)
            answer->ids[answer->count++] = ids[i];
    }
    *ret = answer;
    return 0;
}

/* --- the scene -------------------------------------------------------------------------------- */

static struct relay_names names;
static uint64_t now;

static int scene_start(void **state)
{
    (void) state;
    memset(&table, 0, sizeof(table));
    table.existing = INT64_MAX;
    table.name = "before";
    now = 1000 * USEC_PER_SEC;
    return 0;
}

static int scene_end(void **state)
{
    (void) state;
    relay_names_free(&names);
    return 0;
}

/* A batch with these integrations, and a row behind its end. */
static int ask(const int64_t *ids, int count)
{
    CLEANUP(freep) struct pg_result *rows = xcalloc(1, sizeof(*rows));
    struct error err;

    memcpy(rows->ids + 1, ids, (size_t) count * sizeof(*ids));
    rows->ids[count + 1] = 4711;
    rows->count = count + 2;
    return relay_names_ask(&names, NULL, rows, count + 1, now, &err);
}

#define ASK(...) ask((const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

static bool is_named(int64_t id, const char *name)
{
    struct event_integration i = {.id = {true, id}};

    relay_names_find(&names, &i);
    return name ? i.name.p && i.name.len == strlen(name) && memcmp(i.name.p, name, i.name.len) == 0
                : !i.name.p;
}

/* --- tests ------------------------------------------------------------------------------------ */

TEST(test_each_integration_is_asked_for_once)
{
    assert_int_equal(ASK(7, 3, 7, 0, 3, 5), 0);
    assert_int_equal(table.last_count, 3);
    assert_true(is_named(3, "before") && is_named(5, "before") && is_named(7, "before"));
    assert_true(is_named(4, NULL) && is_named(4711, NULL));
    assert_int_equal(ASK(5, 3), 0);
    assert_int_equal(table.questions, 1);
    relay_names_find(&names, &(struct event_integration){0}); /* without an id */
}

TEST(test_rows_without_an_integration_ask_nothing)
{
    assert_int_equal(ASK(0, 0), 0);
    assert_int_equal(table.questions, 0);
    assert_true(is_named(1, NULL));
}

TEST(test_a_new_name_shows_within_a_second)
{
    ASK(3);
    table.name = "after";
    now += USEC_PER_SEC;
    ASK(3);
    assert_int_equal(table.questions, 2);
    assert_true(is_named(3, "after"));
}

/* Old ones are asked for again, too: none gets older than a second. */
TEST(test_an_unknown_one_is_asked_for_at_once)
{
    ASK(3);
    now += USEC_PER_SEC / 2;
    ASK(4);
    assert_int_equal(table.last_count, 2);
    now += USEC_PER_SEC / 2;
    ASK(3, 4);
    assert_int_equal(table.questions, 2);
    assert_true(is_named(3, "before") && is_named(4, "before"));
}

TEST(test_one_that_does_not_exist_is_known_not_to)
{
    table.existing = 3;
    ASK(4);
    ASK(4);
    assert_int_equal(table.questions, 1);
    assert_true(is_named(4, NULL));
    table.existing = 4;
    now += USEC_PER_SEC;
    ASK(4);
    assert_true(is_named(4, "before"));
}

/* However many integrations there are. */
TEST(test_few_are_kept)
{
    int64_t ids[3000];
    int64_t next = 1;

    while (next < 100000) {
        for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
            ids[i] = next++;
        assert_int_equal(ask(ids, ARRAY_SIZE(ids)), 0);
        assert_in_range(table.last_count, ARRAY_SIZE(ids), ARRAY_SIZE(ids) + RELAY_NAMES_KEPT);
        assert_true(is_named(ids[0], "before") && is_named(next - 1, "before"));
        ASK(next++);
    }
}

TEST(test_no_answer_is_an_error)
{
    table.away = true;
    assert_int_equal(ASK(3), -ECONNRESET);
    assert_true(is_named(3, NULL));
    table.away = false;
    assert_int_equal(ASK(3), 0);
    assert_true(is_named(3, "before"));
}

#define SCENE(test) cmocka_unit_test_setup_teardown(test, scene_start, scene_end)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        SCENE(test_each_integration_is_asked_for_once),
        SCENE(test_rows_without_an_integration_ask_nothing),
        SCENE(test_a_new_name_shows_within_a_second),
        SCENE(test_an_unknown_one_is_asked_for_at_once),
        SCENE(test_one_that_does_not_exist_is_known_not_to),
        SCENE(test_few_are_kept),
        SCENE(test_no_answer_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
