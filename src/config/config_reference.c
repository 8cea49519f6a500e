/* Values that stand elsewhere: "credential:NAME", "file:/path", "env:NAME". Main thread, at load only.
 *
 * Each value may be a secret: buffers are wiped, messages name the reference and never the value. */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "config/config_internal.h"

struct scheme {
    const char *prefix;
    int (*read)(const char *name, struct strbuf *ret, struct strbuf *why);
    bool (*check)(const char *name, struct strbuf *why);
};

/* Without blanks, control characters and what is not ASCII, as systemd.exec(5) has it: so messages can name
 * it, though it may stand in a database. */
static bool check_credential(const char *name, struct strbuf *why)
{
    bool good = *name && strlen(name) <= NAME_MAX && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;

    for (const char *p = name; *p; p++)
        good &= *p > ' ' && *p < 0x7f && *p != '/';
    if (!good)
        strbuf_adds(
            why, "a credential's name is a file name without \"/\"; for another place write \"file:/path\"");
    return good;
}

static int read_credential(const char *name, struct strbuf *ret, struct strbuf *why)
{
    const char *directory = getenv("CREDENTIALS_DIRECTORY");
    CLEANUP(freep) char *path = NULL;

    if (!directory || !*directory) {
        strbuf_addf(
            why,
            "no credentials are passed to this process ($CREDENTIALS_DIRECTORY is not set); give the unit "
            "LoadCredential=%s:/path",
            name);
        return -ENOENT;
    }
    path = xasprintf("%s/%s", directory, name);
    int r = config_file_read(path, CONFIG_SECRET_MAX, ret, why);
    if (r == -ENOENT)
        strbuf_addf(why, "; give the unit LoadCredential=%s:/path", name);
    return r;
}

static bool check_file(const char *name, struct strbuf *why)
{
    if (*name == '/')
        return true;
    strbuf_adds(why, "the path must be absolute, as in \"file:/etc/anubis/secret\"");
    return false;
}

static int read_file(const char *name, struct strbuf *ret, struct strbuf *why)
{
    return config_file_read(name, CONFIG_SECRET_MAX, ret, why);
}

static bool check_env(const char *name, struct strbuf *why)
{
    if (*name && !strchr(name, '='))
        return true;
    strbuf_adds(why, "the name of a variable must follow, as in \"env:KAFKA_PASSWORD\"");
    return false;
}

static int read_env(const char *name, struct strbuf *ret, struct strbuf *why)
{
    const char *value = getenv(name);

    if (!value) {
        strbuf_adds(why, "the variable is not set in the environment");
        return -EINVAL;
    }
    strbuf_adds(ret, value);
    return 0;
}

static const struct scheme schemes[] = {
    {"credential:", read_credential, check_credential},
    {"file:", read_file, check_file},
    {"env:", read_env, check_env},
};

static const struct scheme *find_scheme(const char *text)
{
    for (size_t i = 0; i < ARRAY_SIZE(schemes); i++)
        if (strncmp(text, schemes[i].prefix, strlen(schemes[i].prefix)) == 0)
            return &schemes[i];
    return NULL;
}

bool config_is_reference(const char *text)
{
    return find_scheme(text) != NULL;
}

bool config_is_unset_variable(const char *reference)
{
    const struct scheme *scheme = find_scheme(reference);

    return scheme && scheme->read == read_env && !getenv(reference + strlen(scheme->prefix));
}

/* Editors and echo(1) end a file with a line feed that belongs to no secret. */
static void strip_line_end(struct strbuf *sb)
{
    if (sb->len > 0 && sb->data[sb->len - 1] == '\n')
        sb->data[--sb->len] = '\0';
    if (sb->len > 0 && sb->data[sb->len - 1] == '\r')
        sb->data[--sb->len] = '\0';
}

/* An empty secret would switch its protection off. */
static int check_content(const char *value, size_t len, struct strbuf *why)
{
    if (len == 0) {
        strbuf_adds(why, "the value is empty");
        return -ENOENT;
    }
    if (memchr(value, '\0', len))
        strbuf_adds(why, "the value contains a NUL byte");
    else if (len > CONFIG_SECRET_MAX)
        strbuf_addf(why, "the value is longer than %zu KiB", CONFIG_SECRET_MAX >> 10);
    else
        return 0;
    return -EINVAL;
}

int config_resolve(const char *text, enum config_secrets secrets, struct strbuf *ret, struct strbuf *why)
{
    CLEANUP(strbuf_wipe) struct strbuf checked = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    const struct scheme *scheme = find_scheme(text);
    const char *name;

    assert(scheme);
    name = text + strlen(scheme->prefix);
    if (!scheme->check(name, why))
        return -EINVAL;
    /* A check reads a file as a start would. */
    if (secrets == CONFIG_SECRETS_CHECK && scheme->read == read_file)
        ret = &checked;
    else if (secrets != CONFIG_SECRETS_RESOLVE)
        return 0;
    int r = scheme->read(name, ret, why);
    if (r == 0) {
        strip_line_end(ret);
        r = check_content(strbuf_str(ret), ret->len, why);
    }
    /* This process gets no other variables. */
    return r < 0 && (r == -EINVAL || scheme->read == read_env) ? -EINVAL : r < 0 ? -ENOENT : 0;
}

int config_database_secret(const char *text, struct strbuf *ret, struct error *err)
{
    CLEANUP(strbuf_free) struct strbuf why = STRBUF_INIT(4096);
    bool given = find_scheme(text) != &schemes[0];
    int r = given ? check_content(text, strlen(text), &why)
                  : config_resolve(text, CONFIG_SECRETS_RESOLVE, ret, &why);

    if (given && r == 0)
        strbuf_adds(ret, text);
    if (r < 0)
        error_set(err, "%s", strbuf_str(&why));
    return r;
}
