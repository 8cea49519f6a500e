/* Lines on stderr: level words, hostile text, folding. The journal needs journald (test_systemd.py). */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/strbuf.h"
#include "unit.h"

/* stderr goes to a file while a test runs. */
struct capture {
    int saved, file;
};

static int capture_start(void **state)
{
    static struct capture capture;
    char path[] = "/tmp/test_log.XXXXXX";

    capture.file = mkstemp(path);
    unlink(path);
    capture.saved = dup(STDERR_FILENO);
    dup2(capture.file, STDERR_FILENO);
    *state = &capture;
    unsetenv("JOURNAL_STREAM");
    log_init();
    log_set_level(LOG_INFO);
    return 0;
}

static int capture_stop(void **state)
{
    struct capture *c = *state;

    dup2(c->saved, STDERR_FILENO);
    close(c->saved);
    close(c->file);
    return 0;
}

/* Without the times in front of the lines. */
static void read_capture(struct capture *c, struct strbuf *out)
{
    static char buffer[65536];
    ssize_t n = pread(c->file, buffer, sizeof(buffer) - 1, 0);
    char *save = NULL;

    assert_true(n >= 0);
    buffer[n] = '\0';
    for (char *line = strtok_r(buffer, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        static const char like[] = "0000-00-00T00:00:00Z ";

        for (size_t i = 0; like[i]; i++)
            assert_true(like[i] == '0' ? line[i] >= '0' && line[i] <= '9' : line[i] == like[i]);
        strbuf_addf(out, "%s\n", line + strlen(like));
    }
}

/* Who reads a pipe knows himself when a line came. */
TEST(test_a_pipe_gets_no_times)
{
    int ends[2], saved = dup(STDERR_FILENO);
    char text[64] = "";

    assert_int_equal(pipe(ends), 0);
    dup2(ends[1], STDERR_FILENO);
    log_init();
    log_info("a line");
    dup2(saved, STDERR_FILENO);
    close(saved);
    assert_int_equal(read(ends[0], text, sizeof(text) - 1), strlen("info: a line\n"));
    assert_string_equal(text, "info: a line\n");
    close(ends[0]);
    close(ends[1]);
}

TEST(test_levels)
{
    CLEANUP(strbuf_free) struct strbuf out = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    log_debug("hidden %d", 1);
    log_info("shown %d", 2);
    log_error("could not do it: %s", "reason");
    log_set_level(LOG_DEBUG);
    log_debug("now");
    log_set_level(LOG_ERR);
    log_warning("hidden");
    assert_false(log_enabled(LOG_WARNING));
    read_capture(*state, &out);
    assert_string_equal(strbuf_str(&out), "info: shown 2\nerror: could not do it: reason\ndebug: now\n");
}

TEST(test_hostile_text_stays_one_line)
{
    CLEANUP(strbuf_free) struct strbuf out = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    log_info("a\nerror: forged\x1b[2J\x7f \xff \xc2\x9b"
             "31m \xc3\xa9 \u202enimda\u2069");
    read_capture(*state, &out);
    assert_string_equal(strbuf_str(&out), "info: a error: forged?[2J? \xEF\xBF\xBD ?31m \xc3\xa9 ?nimda?\n");
}

TEST(test_long_text_is_cut)
{
    CLEANUP(strbuf_free) struct strbuf out = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    strbuf_addc(&text, 'x');
    for (int i = 0; i < 5000; i++)
        strbuf_adds(&text, "\xf0\x9f\x98\x80"); /* the cut falls into the middle of one */
    log_info("%s", text.data);
    read_capture(*state, &out);
    assert_in_range(out.len, 2000, 2100);
    assert_null(strstr(out.data, "\xEF\xBF\xBD"));
    assert_int_equal(out.data[out.len - 1], '\n');
}

TEST(test_a_flood_is_folded)
{
    CLEANUP(strbuf_free) struct strbuf out = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    for (int i = 0; i < 1000; i++)
        log_warning("the same");
    log_warning("another");
    log_warning("once");
    log_warning("once");
    log_error("end");
    read_capture(*state, &out);
    assert_string_equal(strbuf_str(&out), "warning: the same\n"
                                          "warning: last message repeated 999 times\n"
                                          "warning: another\n"
                                          "warning: once\n"
                                          "warning: last message repeated 1 time\n"
                                          "error: end\n");
}

/* Two that take turns, too. */
TEST(test_lines_that_take_turns_are_folded)
{
    CLEANUP(strbuf_free) struct strbuf out = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    for (int i = 0; i < 1000; i++) {
        log_warning("gone");
        log_notice("back");
    }
    log_finish();
    read_capture(*state, &out);
    assert_string_equal(strbuf_str(&out), "warning: gone\nnotice: back\nwarning: gone\nnotice: back\n"
                                          "warning: gone\nnotice: back\n"
                                          "warning: 997 more times: gone\nnotice: 997 more times: back\n");
}

/* A pipe that nobody reads: no line waits, and the loss is said once somebody reads. */
TEST(test_a_pipe_that_nobody_reads)
{
    CLEANUP(strbuf_free) struct strbuf out = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    int ends[2], saved = dup(STDERR_FILENO), seen = -1, lost = 0, number;
    char buffer[4096], *save = NULL;

    assert_int_equal(pipe(ends), 0);
    dup2(ends[1], STDERR_FILENO);
    log_init();
    for (int i = 0; i < 20000; i++)
        log_info("line %d is long enough to fill the pipe soon", i);
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    for (ssize_t n; (n = read(ends[0], buffer, sizeof(buffer))) > 0; log_tick())
        strbuf_add(&out, buffer, (size_t) n);
    assert_int_equal(fcntl(STDERR_FILENO, F_GETFL) & O_NONBLOCK, 0); /* others share it */
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(ends[0]);
    close(ends[1]);
    log_init();
    for (char *line = strtok_r(out.data, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        assert_int_equal(lost, 0); /* nothing behind it */
        if (sscanf(line, "info: line %d is long enough to fill the pipe soon", &number) == 1)
            assert_int_equal(number, ++seen);
        else
            assert_int_equal(sscanf(line, "warning: %d lines of this log were lost here", &lost), 1);
    }
    assert_int_equal(seen + 1 + lost, 20000);
    assert_in_range(seen, 1000, 19000);
}

TEST(test_fields_tell_lines_apart)
{
    CLEANUP(strbuf_free) struct strbuf out = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    for (int i = 1; i <= 2; i++)
        log_about(LOG_INFO, NULL, &(struct log_about){.subscription_id = i}, "the same words");
    read_capture(*state, &out);
    assert_string_equal(strbuf_str(&out), "info: the same words\ninfo: the same words\n");
}

static void *log_much(void *arg)
{
    for (int i = 0; i < 200; i++)
        log_info("thread %s line %d", (const char *) arg, i / 2);
    return NULL;
}

TEST(test_lines_of_threads_stay_whole)
{
    static const char *const names[] = {"one", "two", "three", "four"};
    CLEANUP(strbuf_free) struct strbuf out = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    pthread_t threads[ARRAY_SIZE(names)];
    char *save = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, log_much, (void *) (uintptr_t) names[i]), 0);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        pthread_join(threads[i], NULL);
    read_capture(*state, &out);
    for (char *line = strtok_r(out.data, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        assert_true(strncmp(line, "info: thread ", 13) == 0 || strncmp(line, "info: last message ", 19) == 0);
}

#define CAPTURED(test) cmocka_unit_test_setup_teardown(test, capture_start, capture_stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CAPTURED(test_levels),
        CAPTURED(test_a_pipe_gets_no_times),
        CAPTURED(test_hostile_text_stays_one_line),
        CAPTURED(test_long_text_is_cut),
        CAPTURED(test_a_flood_is_folded),
        CAPTURED(test_lines_that_take_turns_are_folded),
        CAPTURED(test_a_pipe_that_nobody_reads),
        CAPTURED(test_fields_tell_lines_apart),
        CAPTURED(test_lines_of_threads_stay_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
