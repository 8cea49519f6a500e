/* Loading a configuration: defaults, then the file, then the environment, then the rules between keys.
 *
 * Main thread; a finished snapshot is immutable and may be read by any thread that holds a reference. Never
 * logs: problems and notices go to the caller's buffers. */
#include "config/config.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "config/config_internal.h"

static struct config *new_with_defaults(struct config_loader *l)
{
    struct config *c = xcalloc(1, sizeof(*c));
    struct config_origin where = {.source = SOURCE_DEFAULT};

    c->refs = 1;
    c->origins = xcalloc(1, sizeof(*c->origins) + config_keys_count * sizeof(c->origins->keys[0]));
    c->origins->path = xstrdup(l->path);
    l->config = c;
    for (size_t i = 0; i < config_keys_count; i++)
        config_key_set(l, &config_keys[i], config_keys[i].fallback, &where);
    return c;
}

static const char *hint_for(int r)
{
    if (r == -ENOENT)
        return "; install etc/anubisd.conf there, or name another file with -c FILE";
    return r == -EACCES ? "; the user that runs this program must be able to read it" : "";
}

static int read_file(struct config_loader *l)
{
    CLEANUP(strbuf_wipe) struct strbuf source = STRBUF_INIT(2 * CONFIG_FILE_MAX);
    CLEANUP(strbuf_wipe) struct strbuf text = STRBUF_INIT(8 * CONFIG_FILE_MAX);
    CLEANUP(strbuf_free) struct strbuf why = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    unsigned open_string;
    int r = config_file_read(l->path, CONFIG_FILE_MAX, &source, &why);

    if (r < 0) {
        config_problem_line(l, 0, "%s%s", strbuf_str(&why), hint_for(r));
        return r;
    }
    r = config_source_prepare(l, &source, &text, &open_string);
    if (r < 0)
        return r;
    config_tree_read(l, &text, open_string);
    return 0;
}

/* The Rails application's variables hold milliseconds; the key wants a unit. */
static void set_milliseconds(struct config_loader *l, const struct config_key *key, const char *text,
                             const struct config_origin *where)
{
    CLEANUP(freep) char *duration = NULL;
    int64_t ms;

    if (parse_i64(text, 0, INT64_MAX, &ms) < 0) {
        struct strbuf quoted CLEANUP(strbuf_free) = STRBUF_INIT(STRBUF_MAX_DEFAULT);

        config_add_quoted(&quoted, text);
        config_problem(l, where, "must be a whole number of milliseconds such as 10000, not %s",
                       strbuf_str(&quoted));
        config_origin(l->config, key)->unknown = true;
        return;
    }
    duration = xasprintf("%sms", text);
    config_key_set(l, key, duration, where);
}

/* Which variable belongs to which key stands in the key table. An empty variable counts as not set: that is
 * how EnvironmentFile= and container definitions leave one out. */
static void apply_environment(struct config_loader *l)
{
    for (size_t i = 0; i < config_keys_count; i++) {
        const struct config_key *key = &config_keys[i];
        const char *text = key->environment ? getenv(key->environment) : NULL;
        struct config_origin where = {.source = SOURCE_ENVIRONMENT, .environment = key->environment};

        if (!text || !*text)
            continue;
        if (key->type == TYPE_DURATION)
            set_milliseconds(l, key, text, &where);
        else
            config_key_set(l, key, text, &where);
    }
}

/* "" means the host name: claimed_by must never be empty. A host may have a name that instance may not be. */
static void name_instance(struct config *c)
{
    char host[256] = "";

    if (*c->instance)
        return;
    if (gethostname(host, sizeof(host) - 1) < 0 || !*host)
        memcpy(host, "localhost", sizeof("localhost"));
    free(c->instance);
    c->instance = xstrdup(host);
    for (char *p = c->instance; *p; p++)
        if (!isalnum((unsigned char) *p) && !strchr("._-", *p))
            *p = '_';
}

int config_load(struct config **ret, const char *path, enum config_secrets secrets,
                const struct config_judges *judges, struct strbuf *problems, struct strbuf *notices)
{
    struct config_loader l = {
        .path = path, .secrets = secrets, .judges = judges, .problems = problems, .notices = notices};
    CLEANUP(config_unrefp) struct config *c = new_with_defaults(&l);
    int r = read_file(&l);

    if (r < 0 && !judges->lenient)
        return r;
    apply_environment(&l);
    config_check_rules(&l);
    if (l.n_problems > CONFIG_PROBLEMS_MAX)
        strbuf_addf(problems, "%s: and %u more like these\n", path, l.n_problems - CONFIG_PROBLEMS_MAX);
    r = judges->properties ? judges->properties(c, path, problems) : 0;
    if ((l.n_problems > 0 || r < 0) && !judges->lenient)
        return r == 0 && l.n_problems == l.n_absent ? -EAGAIN : -EINVAL;
    name_instance(c);
    *ret = TAKE_PTR(c);
    return 0;
}

static void free_key(struct config *c, const struct config_key *key)
{
    free(config_origin(c, key)->reference);
    if (config_is_text(key))
        free_secret(*(char **) ((char *) c + key->offset));
    else if (key->type == TYPE_PROPERTIES)
        config_properties_free(config_properties_of(c, key));
}

struct config *config_ref(struct config *c)
{
    __atomic_add_fetch(&c->refs, 1, __ATOMIC_RELAXED);
    return c;
}

struct config *config_unref(struct config *c)
{
    if (!c || __atomic_sub_fetch(&c->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return NULL;
    for (size_t i = 0; i < config_keys_count; i++)
        free_key(c, &config_keys[i]);
    free(c->origins->path);
    free(c->origins);
    free(c);
    return NULL;
}

void config_unrefp(struct config **c)
{
    *c = config_unref(*c);
}
