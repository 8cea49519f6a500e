/* Loading a configuration: defaults, then the file, then the environment, then the rules between keys.
 *
 * Main thread; a finished snapshot is immutable and may be read by any thread that holds a reference. Never
 * logs: problems and notices go to the caller's buffers. */
#include "config/config.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "config/config_internal.h"

/* A file of nothing but mistakes: the first thousand will do. */
#define PROBLEMS_MAX 1000

struct config_origin *config_origin(const struct config *c, const struct config_key *key)
{
    return &c->origins->keys[key - config_keys];
}

static void add_place(const struct config_loader *l, const struct config_origin *where, struct strbuf *out)
{
    if (where->source == SOURCE_ENVIRONMENT)
        strbuf_addf(out, "environment %s: ", where->environment);
    else if (where->line > 0)
        strbuf_addf(out, "%s:%u: ", l->path, where->line);
    else
        strbuf_addf(out, "%s: ", l->path);
}

static void PRINTF(4, 0) add_line(const struct config_loader *l, struct strbuf *out,
                                  const struct config_origin *where, const char *fmt, va_list args)
{
    CLEANUP(strbuf_free) struct strbuf line = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    /* Whole lines or nothing: `out` has a maximum of the caller's. */
    add_place(l, where, &line);
    strbuf_addv(&line, fmt, args);
    strbuf_addc(&line, '\n');
    strbuf_add(out, line.data, line.len);
}

void config_problem(struct config_loader *l, const struct config_origin *where, const char *fmt, ...)
{
    va_list args;

    if (l->n_problems++ >= PROBLEMS_MAX)
        return;
    va_start(args, fmt);
    add_line(l, l->problems, where, fmt, args);
    va_end(args);
}

void config_problem_line(struct config_loader *l, unsigned line, const char *fmt, ...)
{
    struct config_origin where = {.source = SOURCE_FILE, .line = line};
    va_list args;

    if (l->n_problems++ >= PROBLEMS_MAX)
        return;
    va_start(args, fmt);
    add_line(l, l->problems, &where, fmt, args);
    va_end(args);
}

void config_notice(struct config_loader *l, const struct config_origin *where, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    add_line(l, l->notices, where, fmt, args);
    va_end(args);
}

/* Rails' own parameters in a URL of the environment are meant for another program. */
static const char *without_rails(struct config_loader *l, const char *url, const struct config_origin *where,
                                 struct strbuf *ret)
{
    CLEANUP(strbuf_free) struct strbuf dropped = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    config_conninfo_drop_rails(url, ret, &dropped);
    if (dropped.len > 0)
        config_notice(l, where, "parameters that only Rails knows were left out: %s", dropped.data);
    return strbuf_str(ret);
}

enum config_secrets config_secrets_of(const struct config_loader *l, const struct config_key *key)
{
    if (l->secrets != CONFIG_SECRETS_DATABASE)
        return l->secrets;
    return strcmp(key->group, "database") == 0 ? CONFIG_SECRETS_RESOLVE : CONFIG_SECRETS_KEEP;
}

static void set_plain(struct config_loader *l, const struct config_key *key, const char *text,
                      const struct config_origin *where)
{
    CLEANUP(strbuf_wipe) struct strbuf cleaned = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    CLEANUP(strbuf_free) struct strbuf why = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    struct config_origin *origin = config_origin(l->config, key);
    bool quotable = !origin->reference && !(key->flags & (KEY_SECRET | KEY_CONNINFO));
    union config_value value;

    if ((key->flags & KEY_CONNINFO) && where->source == SOURCE_ENVIRONMENT)
        text = without_rails(l, text, where, &cleaned);
    if (config_value_parse(key, text, quotable, &value, &why) < 0) {
        config_problem(l, where, "%s%s%s %s", key->group, *key->group ? "." : "", key->name,
                       strbuf_str(&why));
        return;
    }
    config_value_set(l->config, key, value);
    origin->unknown = false;
}

static void set_reference(struct config_loader *l, const struct config_key *key, const char *reference,
                          const struct config_origin *where)
{
    CLEANUP(strbuf_wipe) struct strbuf value = STRBUF_INIT(2 * CONFIG_SECRET_MAX);
    CLEANUP(strbuf_free) struct strbuf why = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    enum config_secrets secrets = config_secrets_of(l, key);

    config_origin(l->config, key)->reference = xstrdup(reference);
    if (config_resolve(reference, secrets, &value, &why) < 0)
        config_problem(l, where, "%s%s%s: %s: %s", key->group, *key->group ? "." : "", key->name, reference,
                       strbuf_str(&why));
    else if (secrets == CONFIG_SECRETS_RESOLVE)
        set_plain(l, key, strbuf_str(&value), where);
    else if (key->type == TYPE_STRING)
        config_value_set(l->config, key, (union config_value){.s = reference});
}

void config_key_set(struct config_loader *l, const struct config_key *key, const char *text,
                    const struct config_origin *where)
{
    struct config_origin *origin = config_origin(l->config, key);

    free(origin->reference);
    *origin = *where;
    origin->reference = NULL;
    origin->unknown = true;
    if (config_is_reference(text))
        set_reference(l, key, text, where);
    else
        set_plain(l, key, text, where);
}

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
    switch (r) {
    case -ENOENT:
        return "; install etc/anubisd.conf there, or name another file with -c FILE";
    case -EACCES:
        return "; the user that runs this program must be able to read it";
    default:
        return "";
    }
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

/* "" stands for the host name; what is written to claimed_by must never be empty. */
static void name_instance(struct config *c)
{
    char host[256] = "";

    if (*c->instance)
        return;
    if (gethostname(host, sizeof(host) - 1) < 0 || !*host)
        memcpy(host, "localhost", sizeof("localhost"));
    free(c->instance);
    c->instance = xstrdup(host);
}

int config_load(struct config **ret, const char *path, enum config_secrets secrets, config_judge judge,
                struct strbuf *problems, struct strbuf *notices)
{
    struct config_loader l = {.path = path, .secrets = secrets, .problems = problems, .notices = notices};
    CLEANUP(config_unrefp) struct config *c = new_with_defaults(&l);
    int r = read_file(&l);

    if (r < 0)
        return r;
    config_apply_environment(&l);
    config_check_rules(&l);
    if (l.n_problems > PROBLEMS_MAX)
        strbuf_addf(problems, "%s: and %u more like these\n", path, l.n_problems - PROBLEMS_MAX);
    r = judge ? judge(c, path, problems) : 0;
    if (l.n_problems > 0 || r < 0)
        return -EINVAL;
    name_instance(c);
    *ret = TAKE_PTR(c);
    return 0;
}

static void free_key(struct config *c, const struct config_key *key)
{
    free(config_origin(c, key)->reference);
    if (key->type == TYPE_STRING || key->type == TYPE_WORD)
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
