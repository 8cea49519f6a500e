/* Who else is a member of our consumer group? See kafka_consumer.h.
 *
 * rd_kafka_list_groups() waits for brokers that do not answer, whatever its timeout is; and the way of the
 * admin client ends the process by an assertion where a broker cannot tell (seen with 2.0.2). So it is asked
 * on a thread of its own, which nobody waits for. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/worker.h"
#include "kafka/kafka_consumer_internal.h"

#define ASK_MS 1000
#define UUID_LEN 36
/* Of a group.instance.id, as Kafka allows them. */
#define INSTANCE_CHARACTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
#define JOIN_SEC 2

struct kafka_look {
    struct worker worker;
    rd_kafka_t *rk;
    char group[512];
    const struct rd_kafka_group_list *list;
    rd_kafka_resp_err_t code;
    _Atomic bool done;
};

static void *ask(void *userdata)
{
    struct kafka_look *look = userdata;

    look->code = rd_kafka_list_groups(look->rk, look->group, &look->list, ASK_MS);
    look->done = true;
    return NULL;
}

static int begin(struct kafka_consumer *k, struct error *err)
{
    struct kafka_look *look = xcalloc(1, sizeof(*look));
    size_t size = sizeof(look->group);

    look->rk = k->rk;
    look->worker.stop_fd = -1;
    bool asks = rd_kafka_conf_get(rd_kafka_conf(k->rk), "group.id", look->group, &size) == RD_KAFKA_CONF_OK;
    int r = asks ? worker_start(&look->worker, "kafka group", ask, look, err) : 0;
    if (asks && r == 0)
        k->look = look;
    else
        free(look); /* a name of a length that no broker takes */
    return r;
}

/* A subscription, as a member tells it (the consumer protocol's ConsumerProtocolSubscription): a version, and
 * topics; or what it was given. Big-endian; a member may write what it likes. */
struct subscription {
    const unsigned char *p;
    size_t left;
    uint32_t topics; /* that are left */
};

static uint32_t take_number(struct subscription *s, size_t bytes)
{
    uint32_t number = 0;

    if (s->left < bytes) {
        *s = (struct subscription){0};
        return 0;
    }
    for (size_t i = 0; i < bytes; i++)
        number = number << 8 | s->p[i];
    s->p += bytes;
    s->left -= bytes;
    return number;
}

/* NULL: that was all. */
static const char *take_topic(struct subscription *s, size_t *ret_len)
{
    if (s->topics == 0)
        return NULL;
    s->topics--;
    *ret_len = take_number(s, 2);
    if (*ret_len == 0 || *ret_len > s->left)
        return NULL;
    const char *topic = (const char *) s->p;
    s->p += *ret_len;
    s->left -= *ret_len;
    return topic;
}

static bool is_among(const char *const *topics, const char *topic, size_t len)
{
    for (; *topics; topics++)
        if (strlen(*topics) == len && memcmp(*topics, topic, len) == 0)
            return true;
    return false;
}

/* --- whose the partitions are ----------------------------------------------------------------- */

void kafka_consumer_forget_members(struct kafka_consumer *k)
{
    for (size_t i = 0; i < k->given_count; i++)
        free(k->given[i].topic);
    free(TAKE_PTR(k->given));
    k->given_count = 0;
    k->members_known = false;
}

/* The consumer protocol's ConsumerProtocolAssignment: a version, and topics, each with its partitions. */
static void note_given(struct kafka_consumer *k, const struct rd_kafka_group_member_info *member)
{
    struct subscription s = {member->member_assignment, (size_t) member->member_assignment_size, 0};
    const char *topic;
    size_t len = 0;

    (void) take_number(&s, 2);
    s.topics = take_number(&s, 4);
    while ((topic = take_topic(&s, &len)))
        for (uint32_t count = take_number(&s, 4); count > 0 && s.left > 0; count--) {
            k->given = xreallocarray(k->given, k->given_count + 1, sizeof(*k->given));
            k->given[k->given_count++] =
                (struct kafka_given){xstrndup(topic, len), (int32_t) take_number(&s, 4)};
        }
}

static void note_members(struct kafka_consumer *k, const struct rd_kafka_group_info *group)
{
    if (group->err || group->member_cnt == 0 || strcmp(group->state, "Stable") != 0)
        return;
    k->members_known = true;
    for (int i = 0; i < group->member_cnt; i++)
        note_given(k, &group->members[i]);
}

int kafka_consumer_given(const struct kafka_consumer *k, const char *topic, int32_t partition)
{
    for (size_t i = 0; i < k->given_count; i++)
        if (k->given[i].partition == partition && strcmp(k->given[i].topic, topic) == 0)
            return 1;
    return k->members_known ? 0 : KAFKA_NOT_KNOWN;
}

/* --- strangers -------------------------------------------------------------------------------- */

/* True also when the member does not say what it reads. And the first topic that it reads. */
static bool reads_one_of(const struct rd_kafka_group_member_info *member, const char *const *topics,
                         char *ret_first, size_t size)
{
    struct subscription s = {member->member_metadata, (size_t) member->member_metadata_size, 0};
    const char *topic;
    size_t len = 0;
    bool found = false;

    *ret_first = '\0';
    (void) take_number(&s, 2);
    s.topics = take_number(&s, 4);
    while ((topic = take_topic(&s, &len))) {
        if (!*ret_first)
            (void) snprintf(ret_first, size, "%.*s", (int) len, topic);
        found |= is_among(topics, topic, len);
    }
    return found || !*ret_first;
}

/* A broker names a static member by its group.instance.id, and any other one by its client.id, each followed
 * by a hyphen and a UUID (Kafka's GroupMetadataManager). */
static void note_alike(const struct rd_kafka_group_member_info *member, const char *client,
                       struct kafka_strangers *ret)
{
    size_t len = strlen(member->member_id);
    char *name = ret->alike[ret->alike_count];

    if (len <= UUID_LEN + 1 || len - UUID_LEN > sizeof(ret->alike[0]) ||
        ret->alike_count == KAFKA_ALIKE_MAX - 1)
        return;
    (void) snprintf(name, sizeof(ret->alike[0]), "%.*s", (int) (len - UUID_LEN - 1), member->member_id);
    if (strcmp(name, client) != 0 && name[strspn(name, INSTANCE_CHARACTERS)] == '\0')
        ret->alike_count++;
}

static void take_members(const struct rd_kafka_group_info *group, const char *client,
                         const char *const *topics, struct kafka_strangers *ret)
{
    char first[sizeof(ret->topic)];

    ret->unlisted = group->err == RD_KAFKA_RESP_ERR_NO_ERROR && group->member_cnt == 0;
    for (int i = 0; i < group->member_cnt; i++) {
        const struct rd_kafka_group_member_info *member = &group->members[i];
        bool reads_ours = reads_one_of(member, topics, first, sizeof(first));
        bool is_alike = reads_ours && strcmp(member->client_id, client) == 0;
        if (is_alike)
            note_alike(member, client, ret);
        if (is_alike || ret->count++ > 0)
            continue;
        (void) snprintf(ret->client, sizeof(ret->client), "%s", member->client_id);
        (void) snprintf(ret->host, sizeof(ret->host), "%s", member->client_host);
        (void) snprintf(ret->topic, sizeof(ret->topic), "%s", first);
    }
}

int kafka_consumer_strangers(struct kafka_consumer *k, const char *const *topics, struct kafka_strangers *ret,
                             struct error *err)
{
    char client[512];
    size_t client_size = sizeof(client);
    int r = 0;

    *ret = (struct kafka_strangers){0};
    if (!k->look)
        r = begin(k, err);
    if (r < 0 || !k->look || !k->look->done)
        return r < 0 ? r : KAFKA_NO_ANSWER_YET;
    CLEANUP(freep) struct kafka_look *look = TAKE_PTR(k->look);
    (void) worker_join(&look->worker, JOIN_SEC);
    kafka_consumer_forget_members(k);
    if (look->code) {
        error_set(err, "nobody tells the members of group \"%s\": %s", look->group,
                  rd_kafka_err2str(look->code));
        return -EIO;
    }
    for (int i = 0; i < look->list->group_cnt; i++)
        note_members(k, &look->list->groups[i]);
    if (rd_kafka_conf_get(rd_kafka_conf(k->rk), "client.id", client, &client_size) == RD_KAFKA_CONF_OK)
        for (int i = 0; i < look->list->group_cnt; i++)
            take_members(&look->list->groups[i], client, topics, ret);
    rd_kafka_group_list_destroy(look->list);
    return 0;
}

bool kafka_consumer_end_look(struct kafka_consumer *k)
{
    if (!k->look)
        return true;
    if (!worker_join(&k->look->worker, JOIN_SEC))
        return false;
    if (k->look->code == 0)
        rd_kafka_group_list_destroy(k->look->list);
    free(TAKE_PTR(k->look));
    return true;
}
