/* The wheel of deadlines against a plain list of them. */
#include "unit.h"

#include "base/timeutil.h"
#include "http/http_wheel.h"

#define SLOT_USEC 8192
#define TIMERS 500

static struct http_wheel wheel;

TEST(deadlines_fire_once_and_in_time)
{
    static const uint64_t starts[] = {0, 1, SLOT_USEC, UINT64_C(123456789012)};
    struct http_timer timers[TIMERS];

    for (size_t s = 0; s < ARRAY_SIZE(starts); s++) {
        uint64_t now = starts[s], at[TIMERS];
        int left = TIMERS;

        http_wheel_init(&wheel, now);
        for (int i = 0; i < TIMERS; i++) {
            timers[i] = (struct http_timer){0};
            /* Up to four rounds of the wheel. */
            at[i] = now + random_u64() % (UINT64_C(4) * HTTP_WHEEL_SLOTS * SLOT_USEC);
            http_wheel_set(&wheel, &timers[i], at[i]);
        }
        while (left > 0) {
            uint64_t next = http_wheel_next_usec(&wheel);
            struct http_timer *t;

            assert_true(next != USEC_INFINITY);
            now = MAX(now, next) + random_u64() % (10 * SLOT_USEC);
            while ((t = http_wheel_expired(&wheel, now))) {
                size_t i = (size_t) (t - timers);
                assert_true(at[i] != 0);
                assert_true(at[i] <= now);
                at[i] = 0;
                left--;
            }
            for (int i = 0; i < TIMERS; i++)
                assert_true(at[i] == 0 || at[i] + SLOT_USEC > now);
        }
        assert_true(http_wheel_next_usec(&wheel) == USEC_INFINITY || left == 0);
    }
}

TEST(a_timer_taken_back_does_not_fire)
{
    struct http_timer a = {0}, b = {0};

    http_wheel_init(&wheel, 1000);
    http_wheel_set(&wheel, &a, 50 * USEC_PER_MSEC);
    http_wheel_set(&wheel, &b, 50 * USEC_PER_MSEC);
    http_wheel_clear(&a);
    http_wheel_clear(&a);
    assert_ptr_equal(http_wheel_expired(&wheel, USEC_PER_SEC), &b);
    assert_null(http_wheel_expired(&wheel, USEC_PER_SEC));
}

TEST(a_timer_set_again_moves)
{
    struct http_timer a = {0};

    http_wheel_init(&wheel, 1000);
    http_wheel_set(&wheel, &a, 50 * USEC_PER_MSEC);
    http_wheel_set(&wheel, &a, 500 * USEC_PER_MSEC);
    assert_null(http_wheel_expired(&wheel, 400 * USEC_PER_MSEC));
    assert_ptr_equal(http_wheel_expired(&wheel, 600 * USEC_PER_MSEC), &a);
}

/* The clock stood still for us: a machine that was paused. */
TEST(a_long_absence)
{
    struct http_timer a = {0}, b = {0};

    http_wheel_init(&wheel, 1000);
    http_wheel_set(&wheel, &a, 50 * USEC_PER_MSEC);
    http_wheel_set(&wheel, &b, UINT64_C(86400) * USEC_PER_SEC + 1);
    assert_ptr_equal(http_wheel_expired(&wheel, UINT64_C(86400) * USEC_PER_SEC), &a);
    assert_null(http_wheel_expired(&wheel, UINT64_C(86400) * USEC_PER_SEC));
    assert_true(http_wheel_next_usec(&wheel) > UINT64_C(86400) * USEC_PER_SEC);
    assert_ptr_equal(http_wheel_expired(&wheel, UINT64_C(86401) * USEC_PER_SEC), &b);
}

/* A deadline that is past already fires at the next look, and the look is soon. */
TEST(a_deadline_in_the_past)
{
    struct http_timer a = {0};
    uint64_t now = 10 * USEC_PER_SEC;

    http_wheel_init(&wheel, now);
    assert_null(http_wheel_expired(&wheel, now));
    http_wheel_set(&wheel, &a, USEC_PER_SEC);
    assert_true(http_wheel_next_usec(&wheel) <= now + 2 * SLOT_USEC);
    assert_ptr_equal(http_wheel_expired(&wheel, now + 2 * SLOT_USEC), &a);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(deadlines_fire_once_and_in_time), cmocka_unit_test(a_timer_taken_back_does_not_fire),
        cmocka_unit_test(a_timer_set_again_moves),         cmocka_unit_test(a_long_absence),
        cmocka_unit_test(a_deadline_in_the_past),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
