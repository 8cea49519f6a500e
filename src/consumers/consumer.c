/* Consumer groups: their threads. See consumer.h.
 *
 * The main thread starts and joins them; between that it only asks which of them wait. */
#include "consumers/consumer.h"

#include "base/log.h"
#include "base/timeutil.h"
#include "consumers/consumer_internal.h"
#include "kafka/kafka_conf.h"

#define JOIN_SEC 10

struct consumers {
    struct consumer **items;
    size_t count;
};

/* --- starting and joining --------------------------------------------------------------------- */

static bool is_enabled(const struct consumer_group *group, const struct config *config)
{
    const bool *enabled = (const bool *) ((const char *) config + group->enabled);

    return *enabled && (group->handlers[0] || group->inbox);
}

/* The topics of all types that its handlers want, and its inbox. */
static void choose_topics(struct consumer *c)
{
    unsigned types = 0;
    size_t count = 0;

    for (size_t i = 0; c->group->handlers[i]; i++)
        types |= c->group->handlers[i]->types;
    c->topics = xcalloc(EVENT_TYPES + 2, sizeof(char *));
    for (enum event_type type = 0; type < EVENT_TYPES; type++) {
        if (!(types >> type & 1))
            continue;
        c->topic_types[count] = type;
        c->topics[count++] = event_type_topic(type, c->config->kafka.topic_prefix);
    }
    if (!c->group->inbox)
        return;
    c->topic_types[count] = EVENT_TYPES;
    c->topics[count] = xasprintf("%s%s", c->config->kafka.topic_prefix, c->group->inbox->topic);
}

static bool wants_hashes(const struct consumer_group *group)
{
    bool any = false;

    for (size_t i = 0; group->handlers[i]; i++)
        any |= group->handlers[i]->hashes;
    return any;
}

static struct consumer *consumer_new(const struct consumer_group *group, int number,
                                     const struct consumers_params *params, struct heartbeat *heartbeat)
{
    struct consumer *c = xcalloc(1, sizeof(*c));

    c->group = group;
    c->config = config_ref(params->config);
    c->worker = (struct worker){.stop_fd = params->stop_fd, .heartbeat = heartbeat};
    c->database_up = params->database_up;
    c->group_id = xasprintf("%s-%s-group", c->config->consumers.group_prefix, group->model);
    c->name =
        c->config->consumers.threads > 1 ? xasprintf("%s/%d", c->group_id, number) : xstrdup(c->group_id);
    heartbeat->name = c->name;
    c->session.backoff = c->kafka.backoff = BACKOFF_RECONNECT;
    choose_topics(c);
    if (wants_hashes(group))
        c->batch.sha256 = sha256_new();
    c->instance = xasprintf("%s-%d", c->config->instance, number);
    return c;
}

static void consumer_free(struct consumer *c)
{
    consumer_batch_drop(c);
    free(c->batch.items);
    sha256_free(c->batch.sha256);
    for (size_t i = 0; c->topics[i]; i++)
        free(c->topics[i]);
    free(c->topics);
    c->worker.heartbeat->name = NULL;
    free(c->group_id);
    free(c->instance);
    free(c->kafka.name);
    free(c->name);
    config_unref(c->config);
    free(c);
}

static int start_group(struct consumers *cs, const struct consumer_group *group,
                       const struct consumers_params *params, struct error *err)
{
    for (int number = 1; number <= params->config->consumers.threads; number++) {
        struct consumer *c = consumer_new(group, number, params, &params->heartbeats[cs->count]);
        int r = worker_start(&c->worker, "consumer", consumer_run, c, err);
        if (r < 0) {
            consumer_free(c);
            return r;
        }
        cs->items = xreallocarray(cs->items, cs->count + 1, sizeof(struct consumer *));
        cs->items[cs->count++] = c;
    }
    return 0;
}

int consumers_start(struct consumers **ret, const struct consumers_params *params, struct error *err)
{
    int r = kafka_client_check(params->config, KAFKA_CONSUMER, err);

    if (r < 0)
        return r;
    /* In *ret at once: what was started has to be joined also when the rest cannot be. */
    *ret = xcalloc(1, sizeof(**ret));
    for (size_t i = 0; r == 0 && i < params->group_count; i++)
        if (is_enabled(&params->groups[i], params->config))
            r = start_group(*ret, &params->groups[i], params, err);
    return r;
}

void consumers_join(struct consumers *cs)
{
    uint64_t until = now_monotonic_usec() + JOIN_SEC * USEC_PER_SEC, now;

    if (!cs)
        return;
    for (size_t i = 0; i < cs->count; i++) {
        now = now_monotonic_usec();
        if (worker_join(&cs->items[i]->worker, until > now ? (unsigned) ((until - now) / USEC_PER_SEC) : 0))
            consumer_free(cs->items[i]);
        else
            /* Left alone with its memory: the process is about to end. */
            log_warning("%s: could not be stopped in %d seconds; left behind", cs->items[i]->name, JOIN_SEC);
    }
    free(cs->items);
    free(cs);
}

void consumers_describe(const struct consumers *cs, struct strbuf *out)
{
    for (size_t i = 0; cs && i < cs->count; i++)
        if (!cs->items[i]->told.has_database)
            strbuf_addf(out, "%s waits for the database; ", cs->items[i]->group_id);
        else if (cs->items[i]->stop.is_stopped)
            strbuf_addf(out, "%s has stopped (anubisctl status); ", cs->items[i]->group_id);
}

int64_t consumers_behind(const struct consumers *cs)
{
    int64_t most = 0, behind = 0;

    for (size_t i = 0; cs && i < cs->count; i++) {
        behind = cs->items[i]->told.behind +
                 (i > 0 && cs->items[i - 1]->group == cs->items[i]->group ? behind : 0);
        most = MAX(most, behind);
    }
    return most;
}
