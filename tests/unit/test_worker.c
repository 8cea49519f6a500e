/* A thread that blocks: what wakes it, that its heart beats, and that nobody waits for it for ever. */
#include <unistd.h>

#include "base/timeutil.h"
#include "base/worker.h"
#include "unit.h"

#define PATIENCE_SEC 60

struct scene {
    struct worker worker;
    struct heartbeat heartbeat;
    int wake_fd;
    _Atomic int turns;
    _Atomic bool deaf; /* it does not look at the stop descriptor */
};

static void *run(void *userdata)
{
    struct scene *s = userdata;

    while (s->deaf || !worker_is_stopping(&s->worker)) {
        worker_wait(&s->worker, s->wake_fd, s->deaf ? 1000 : PATIENCE_SEC * USEC_PER_SEC);
        wakefd_clear(s->wake_fd);
        s->turns++;
    }
    return NULL;
}

static void scene_start(struct scene *s)
{
    struct error err;

    s->worker.stop_fd = wakefd_new();
    s->worker.heartbeat = &s->heartbeat;
    s->wake_fd = wakefd_new();
    assert_int_equal(worker_start(&s->worker, "test", run, s, &err), 0);
}

static void scene_end(struct scene *s)
{
    wakefd_raise(s->worker.stop_fd);
    assert_true(worker_join(&s->worker, PATIENCE_SEC));
    closep(&s->worker.stop_fd);
    closep(&s->wake_fd);
}

TEST(test_the_stop_descriptor_ends_a_wait)
{
    struct scene s = {0};

    scene_start(&s);
    scene_end(&s);
    assert_true(s.turns <= 1);
}

TEST(test_a_wake_up_ends_a_wait)
{
    struct scene s = {0};
    uint64_t before = now_monotonic_usec();

    scene_start(&s);
    wakefd_raise(s.wake_fd);
    while (s.turns == 0 && now_monotonic_usec() < before + PATIENCE_SEC * USEC_PER_SEC / 2)
        usleep(1000);
    assert_int_equal(s.turns, 1);
    scene_end(&s);
    assert_true(s.heartbeat.beats >= 1);
}

TEST(test_a_wait_ends_by_itself)
{
    const struct worker worker = {.stop_fd = wakefd_new()};
    uint64_t before = now_monotonic_usec();

    worker_wait(&worker, -1, 20 * USEC_PER_MSEC);
    assert_true(now_monotonic_usec() - before >= 20 * USEC_PER_MSEC);
    close(worker.stop_fd);
}

TEST(test_one_that_does_not_end_is_not_waited_for)
{
    struct scene s = {.deaf = true};

    scene_start(&s);
    wakefd_raise(s.worker.stop_fd);
    assert_false(worker_join(&s.worker, 0));
    s.deaf = false;
    scene_end(&s);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_stop_descriptor_ends_a_wait),
        cmocka_unit_test(test_a_wake_up_ends_a_wait),
        cmocka_unit_test(test_a_wait_ends_by_itself),
        cmocka_unit_test(test_one_that_does_not_end_is_not_waited_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
