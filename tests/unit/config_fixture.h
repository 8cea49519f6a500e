/* For tests of the configuration: writes a text to a file of its own and loads it. */
#pragma once

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "config/config.h"
#include "pg/pg_conninfo.h"

struct fixture {
    char path[32];
    struct config *config; /* of the last load, NULL when it had problems */
    struct strbuf problems, notices;
    int result;
};

static inline void fixture_write(const char *path, const void *text, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, len), len);
    close(fd);
}

static inline void fixture_load_path(struct fixture *f, const char *path, enum config_secrets secrets)
{
    static const struct config_judges judges = {.conninfo = pg_conninfo_check};

    f->config = config_unref(f->config);
    strbuf_clear(&f->problems);
    strbuf_clear(&f->notices);
    f->result = config_load(&f->config, path, secrets, &judges, &f->problems, &f->notices);
    assert_true((f->result == 0) == (f->config != NULL));
    assert_true((f->result == 0) == (f->problems.len == 0));
}

static inline void fixture_load_bytes(struct fixture *f, const void *text, size_t len)
{
    fixture_write(f->path, text, len);
    fixture_load_path(f, f->path, CONFIG_SECRETS_RESOLVE);
}

static inline void fixture_load(struct fixture *f, const char *text)
{
    fixture_load_bytes(f, text, strlen(text));
}

/* Loads what must be right. */
static inline const struct config *fixture_load_good(struct fixture *f, const char *text)
{
    fixture_load(f, text);
    if (f->result != 0)
        fail_msg("%s", strbuf_str(&f->problems));
    return f->config;
}

/* The problems without the path in front of them: "3: delivery.timeout must …\n". */
static inline void fixture_problems(const struct fixture *f, struct strbuf *out)
{
    const char *p = strbuf_str(&f->problems);
    size_t len = strlen(f->path);

    while (*p) {
        const char *end = strchr(p, '\n') + 1;

        if (strncmp(p, f->path, len) == 0 && p[len] == ':')
            p += len + 1;
        strbuf_add(out, p, (size_t) (end - p));
        p = end;
    }
}

static inline int fixture_setup(void **state)
{
    static const char *const variables[] = {
        "DATABASE_URL",
        "KAFKA_BROKERS",
        "KAFKA_CLIENT_ID",
        "KAFKA_GROUP_ID",
        "KAFKA_HEARTBEAT_INTERVAL",
        "KAFKA_SESSION_TIMEOUT",
        "KAFKA_MAX_POLL_RECORDS",
        "KAFKA_SECURITY_PROTOCOL",
        "KAFKA_SECURITY_MECHANISM",
        "KAFKA_SECURITY_USERNAME",
        "KAFKA_SECURITY_PASSWORD",
        "CREDENTIALS_DIRECTORY",
    };
    struct fixture *f = xcalloc(1, sizeof(*f));
    int fd;

    for (size_t i = 0; i < ARRAY_SIZE(variables); i++)
        unsetenv(variables[i]);
    snprintf(f->path, sizeof(f->path), "/tmp/test_config.XXXXXX");
    fd = mkstemp(f->path);
    assert_true(fd >= 0);
    close(fd);
    f->problems = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    f->notices = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    *state = f;
    return 0;
}

static inline int fixture_teardown(void **state)
{
    struct fixture *f = *state;

    unlink(f->path);
    config_unref(f->config);
    strbuf_free(&f->problems);
    strbuf_free(&f->notices);
    free(f);
    return 0;
}

/* etc/anubisd.conf with every key's comment sign taken away, so that all of it is read. */
static inline void fixture_shipped(struct strbuf *out)
{
    static const char here[] = __FILE__; /* …tests/unit/config_fixture.h */
    char path[512], line[512];
    FILE *file;

    snprintf(path, sizeof(path), "%.*s../../etc/anubisd.conf", (int) (strrchr(here, '/') + 1 - here), here);
    file = fopen(path, "re");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file)) {
        char *sign = strchr(line, '#');

        /* "#key = value;" is a key, "# text" is not. */
        if (sign && sign[1] >= 'a' && sign[1] <= 'z')
            *sign = ' ';
        strbuf_adds(out, line);
    }
    fclose(file);
}

#define WITH_FIXTURE(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)
