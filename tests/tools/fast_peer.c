/* The line to beat: the bare work of delivery without any of its promises, for the benchmark.
 *
 * Four threads: one claims, one posts (by anubisd's own exchange), one settles, one counts what Kafka brings
 * back. Claim and settle write an event row each in their own statement; every event goes to Kafka. No lease,
 * no retry, no bad answer, no crash, no second process: the first thing that goes wrong ends it. Its tables
 * are FAST_SCHEMA of bench_peer.py.
 *
 * usage: fast_peer CONNINFO BROKERS PREFIX ROWS IN_FLIGHT CA_FILE
 * prints "done" when ROWS rows are sent and counted */
#include <libpq-fe.h>
#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>

#include "base/timeutil.h"
#include "http/http.h"

#define BATCH 500

struct job {
    STAILQ_ENTRY(job) link;
    char *id, *integration_id, *cpf, *url, *name, *payload, *answer;
    int status;
};
STAILQ_HEAD(job_list, job);

/* Jobs on their way from one thread to the next. */
struct channel {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct job_list jobs;
    int wake_fd; /* of the thread that posts; -1 = the taker waits for `changed` */
};

static struct {
    const char *conninfo, *brokers, *prefix, *ca_file;
    int rows, in_flight_max;
    struct channel claimed, answered;
    pthread_mutex_t lock;
    pthread_cond_t freed;
    int in_flight; /* claimed, and without an answer */
    struct http *http;
    rd_kafka_t *producer;
} peer = {.claimed = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER},
          .answered = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .wake_fd = -1},
          .lock = PTHREAD_MUTEX_INITIALIZER,
          .freed = PTHREAD_COND_INITIALIZER};

static void die(const char *what, const char *why)
{
    fprintf(stderr, "fast_peer: %s: %s\n", what, why);
    _exit(1);
}

/* --- channels --------------------------------------------------------------------------------- */

static void channel_put(struct channel *c, struct job_list *jobs)
{
    pthread_mutex_lock(&c->lock);
    STAILQ_CONCAT(&c->jobs, jobs);
    if (c->wake_fd >= 0)
        wakefd_raise(c->wake_fd);
    else
        pthread_cond_signal(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

static void channel_take(struct channel *c, struct job_list *ret)
{
    pthread_mutex_lock(&c->lock);
    while (c->wake_fd < 0 && STAILQ_EMPTY(&c->jobs))
        pthread_cond_wait(&c->changed, &c->lock);
    STAILQ_CONCAT(ret, &c->jobs);
    pthread_mutex_unlock(&c->lock);
}

/* --- Kafka ------------------------------------------------------------------------------------ */

static rd_kafka_t *client(rd_kafka_type_t type, const char *const (*settings)[2])
{
    char reason[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();

    for (; (*settings)[0]; settings++)
        if (rd_kafka_conf_set(conf, (*settings)[0], (*settings)[1], reason, sizeof(reason)) !=
            RD_KAFKA_CONF_OK)
            die("Kafka", reason);
    rd_kafka_t *kafka = rd_kafka_new(type, conf, reason, sizeof(reason));
    if (!kafka)
        die("Kafka", reason);
    return kafka;
}

static void publish(const struct job *j, const char *type, const char *status)
{
    char topic[128], value[8192], now[64];
    struct timespec ts;
    struct tm tm;

    clock_gettime(CLOCK_REALTIME, &ts);
    size_t len = strftime(now, sizeof(now), "%Y-%m-%dT%H:%M:%S", gmtime_r(&ts.tv_sec, &tm));
    snprintf(now + len, sizeof(now) - len, ".%06ldZ", ts.tv_nsec / 1000);
    snprintf(topic, sizeof(topic), "%ssubscriptions.%s", peer.prefix, type);
    int n = snprintf(
        value, sizeof(value),
        "{\"event_type\":\"%s\",\"timestamp\":\"%s\",\"version\":\"1.0\",\"subscription\":{\"id\":%s,"
        "\"integration_id\":%s,\"cpf\":\"%s\",\"status\":\"%s\"},"
        "\"integration\":{\"id\":%s,\"name\":\"%s\"},\"attempt\":1%s%s}",
        type, now, j->id, j->integration_id, j->cpf, status, j->integration_id, j->name,
        j->answer ? ",\"response_data\":" : "", j->answer ? j->answer : "");
    for (;;) {
        rd_kafka_resp_err_t r = rd_kafka_producev(
            peer.producer, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_KEY(j->id, strlen(j->id)),
            RD_KAFKA_V_VALUE(value, MIN((size_t) n, sizeof(value) - 1)),
            RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_HEADER("event_type", type, -1),
            RD_KAFKA_V_HEADER("timestamp", now, -1), RD_KAFKA_V_HEADER("service", "peer", -1),
            RD_KAFKA_V_HEADER("integration_id", j->integration_id, -1), RD_KAFKA_V_END);
        if (r == RD_KAFKA_RESP_ERR_NO_ERROR)
            break;
        if (r != RD_KAFKA_RESP_ERR__QUEUE_FULL)
            die("publish", rd_kafka_err2str(r));
        rd_kafka_poll(peer.producer, 10);
    }
    rd_kafka_poll(peer.producer, 0);
}

/* --- Postgres --------------------------------------------------------------------------------- */

static PGconn *session(void)
{
    PGconn *pg = PQconnectdb(peer.conninfo);

    if (PQstatus(pg) != CONNECTION_OK)
        die("Postgres", PQerrorMessage(pg));
    return pg;
}

static PGresult *query(PGconn *pg, const char *name, const char *sql, const char *const *values, int count)
{
    PGresult *result = NULL;

    if (sql)
        PQclear(PQprepare(pg, name, sql, count, NULL));
    result = PQexecPrepared(pg, name, count, values, NULL, NULL, 0);
    if (PQresultStatus(result) != PGRES_TUPLES_OK && PQresultStatus(result) != PGRES_COMMAND_OK)
        die(name, PQerrorMessage(pg));
    return result;
}

static void *claim(void *unused)
{
    static const char sql[] =
        "with c as (update subscriptions set status = 'processing', attempts = attempts + 1, updated_at = now() "
        " where id in (select id from subscriptions where status = 'pending' order by id limit $1 "
        "  for no key update skip locked) returning id, integration_id, cpf, payload::text as payload, attempts), "
        "e as (insert into subscription_events (subscription_id, event_type, attempt) "
        " select id, 'updated', attempts from c) "
        "select c.id, integration_id, cpf, payload, endpoint_url, name from c join integrations i "
        "on i.id = c.integration_id";
    const char *statement = sql;
    PGconn *pg = session();
    char limit[16];

    for (int left = peer.rows; left > 0;) {
        struct job_list jobs = STAILQ_HEAD_INITIALIZER(jobs);
        pthread_mutex_lock(&peer.lock);
        while (peer.in_flight_max - peer.in_flight < MIN(BATCH, peer.in_flight_max) / 2)
            pthread_cond_wait(&peer.freed, &peer.lock);
        snprintf(limit, sizeof(limit), "%d", MIN(BATCH, peer.in_flight_max - peer.in_flight));
        pthread_mutex_unlock(&peer.lock);
        const char *values[] = {limit};
        PGresult *rows = query(pg, "claim", statement, values, 1);
        statement = NULL;
        int count = PQntuples(rows);
        for (int i = 0; i < count; i++) {
            struct job *j = xcalloc(1, sizeof(*j));
            char **const fields[] = {&j->id, &j->integration_id, &j->cpf, &j->payload, &j->url, &j->name};
            for (int f = 0; f < (int) ARRAY_SIZE(fields); f++)
                *fields[f] = xstrdup(PQgetvalue(rows, i, f));
            publish(j, "created", "pending");
            publish(j, "updated", "processing");
            STAILQ_INSERT_TAIL(&jobs, j, link);
        }
        PQclear(rows);
        left -= count;
        pthread_mutex_lock(&peer.lock);
        peer.in_flight += count;
        pthread_mutex_unlock(&peer.lock);
        channel_put(&peer.claimed, &jobs);
    }
    PQfinish(pg);
    return unused;
}

static void add_text(struct strbuf *array, const char *text)
{
    strbuf_adds(array, array->len ? ",\"" : "{\"");
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            strbuf_addc(array, '\\');
        strbuf_addc(array, *text);
    }
    strbuf_addc(array, '"');
}

static void *settle(void *unused)
{
    static const char sql[] =
        "with r as (select * from unnest($1::bigint[], $2::text[]) as r (id, answer)), "
        "s as (update subscriptions s set status = 'sent', sent_at = now(), last_http_status = 200, "
        " updated_at = now() from r where s.id = r.id returning s.id, s.attempts, r.answer) "
        "insert into subscription_events (subscription_id, event_type, attempt, http_status, response) "
        "select id, 'sent', attempts, 200, answer from s";
    const char *statement = sql;
    PGconn *pg = session();

    for (int left = peer.rows; left > 0;) {
        CLEANUP(strbuf_free)
        struct strbuf ids = STRBUF_INIT(STRBUF_MAX_DEFAULT), answers = STRBUF_INIT(STRBUF_MAX_DEFAULT);
        struct job_list jobs = STAILQ_HEAD_INITIALIZER(jobs);
        struct job *j = NULL;
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL); /* or batches would be small */
        channel_take(&peer.answered, &jobs);
        STAILQ_FOREACH(j, &jobs, link)
        {
            add_text(&ids, j->id);
            add_text(&answers, j->answer);
        }
        strbuf_addc(&ids, '}');
        strbuf_addc(&answers, '}');
        const char *values[] = {strbuf_str(&ids), strbuf_str(&answers)};
        PQclear(query(pg, "settle", statement, values, 2));
        statement = NULL;
        while ((j = STAILQ_FIRST(&jobs))) {
            STAILQ_REMOVE_HEAD(&jobs, link);
            publish(j, "sent", "sent");
            char *const fields[] = {j->id, j->integration_id, j->cpf, j->payload, j->url, j->name, j->answer};
            for (size_t f = 0; f < ARRAY_SIZE(fields); f++)
                free(fields[f]);
            free(j);
            left--;
        }
    }
    rd_kafka_flush(peer.producer, 10000);
    PQfinish(pg);
    return unused;
}

/* --- the way out ------------------------------------------------------------------------------ */

static void on_answer(const struct http_result *result, void *userdata)
{
    struct job *j = userdata;
    struct job_list one = STAILQ_HEAD_INITIALIZER(one);

    if (result->cause != HTTP_ANSWERED || result->status != 200)
        die(http_cause_word(result->cause), result->detail);
    j->answer = xstrndup(result->body, result->body_len);
    STAILQ_INSERT_TAIL(&one, j, link);
    channel_put(&peer.answered, &one);
    pthread_mutex_lock(&peer.lock);
    peer.in_flight--;
    pthread_cond_signal(&peer.freed);
    pthread_mutex_unlock(&peer.lock);
}

static int on_claimed(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    static const char *const headers[] = {"Content-Type: application/json", "Authorization: Bearer t", NULL};
    struct job_list jobs = STAILQ_HEAD_INITIALIZER(jobs);
    struct job *j;

    (void) source, (void) events, (void) userdata;
    wakefd_clear(fd);
    channel_take(&peer.claimed, &jobs);
    while ((j = STAILQ_FIRST(&jobs))) {
        STAILQ_REMOVE_HEAD(&jobs, link);
        http_post(peer.http,
                  &(struct http_request){.url = j->url,
                                         .headers = headers,
                                         .body = j->payload,
                                         .body_len = strlen(j->payload),
                                         .timeout_usec = 30 * USEC_PER_SEC},
                  on_answer, j);
    }
    return 0;
}

/* --- the counter ------------------------------------------------------------------------------ */

static void *count(void *event)
{
    enum { INTEGRATIONS = 1024 };
    static int counts[INTEGRATIONS];
    CLEANUP(freep) char *topic = xasprintf("%ssubscriptions.sent", peer.prefix);
    CLEANUP(freep) char *group = xasprintf("%spersist", peer.prefix);
    const char *const settings[][2] = {{"bootstrap.servers", peer.brokers},
                                       {"group.id", group},
                                       {"auto.offset.reset", "earliest"},
                                       {NULL, NULL}};
    rd_kafka_t *consumer = client(RD_KAFKA_CONSUMER, settings);
    rd_kafka_topic_partition_list_t *wanted = rd_kafka_topic_partition_list_new(1);
    PGconn *pg = session();

    rd_kafka_topic_partition_list_add(wanted, topic, RD_KAFKA_PARTITION_UA);
    rd_kafka_subscribe(consumer, wanted);
    rd_kafka_topic_partition_list_destroy(wanted);
    rd_kafka_queue_t *queue = rd_kafka_queue_get_consumer(consumer);
    for (int left = peer.rows; left > 0;) {
        rd_kafka_message_t *batch[BATCH];
        ssize_t n = rd_kafka_consume_batch_queue(queue, 100, batch, BATCH);
        for (ssize_t i = 0; i < n; i++) {
            const char *found = batch[i]->err ? NULL : strstr(batch[i]->payload, "\"integration_id\":");
            long id = found ? strtol(found + strlen("\"integration_id\":"), NULL, 10) : 0;
            if (id > 0 && id < INTEGRATIONS) {
                counts[id]++;
                left--;
            }
            rd_kafka_message_destroy(batch[i]);
        }
        for (int id = 0; n > 0 && id < INTEGRATIONS; id++) {
            char sql[128];
            if (counts[id] == 0)
                continue;
            snprintf(sql, sizeof(sql),
                     "update integrations set successful_sends = successful_sends + %d where id = %d",
                     counts[id], id);
            PGresult *result = PQexec(pg, sql);
            if (PQresultStatus(result) != PGRES_COMMAND_OK)
                die("count", PQerrorMessage(pg));
            PQclear(result);
            counts[id] = 0;
        }
    }
    rd_kafka_queue_destroy(queue);
    rd_kafka_consumer_close(consumer);
    rd_kafka_destroy(consumer);
    PQfinish(pg);
    puts("done");
    fflush(stdout);
    _exit(0);
    return event;
}

int main(int argc, char **argv)
{
    sd_event *event = NULL;
    pthread_t threads[3];
    struct error err;

    if (argc != 7)
        die("usage", "fast_peer CONNINFO BROKERS PREFIX ROWS IN_FLIGHT CA_FILE");
    signal(SIGPIPE, SIG_IGN);
    peer.conninfo = argv[1];
    peer.brokers = argv[2];
    peer.prefix = argv[3];
    peer.rows = (int) strtol(argv[4], NULL, 10);
    peer.in_flight_max = (int) strtol(argv[5], NULL, 10);
    STAILQ_INIT(&peer.claimed.jobs);
    STAILQ_INIT(&peer.answered.jobs);
    peer.claimed.wake_fd = wakefd_new();
    const char *const settings[][2] = {{"bootstrap.servers", peer.brokers},
                                       {"linger.ms", "5"},
                                       {"compression.codec", "lz4"},
                                       {"queue.buffering.max.messages", "1000000"},
                                       {NULL, NULL}};
    peer.producer = client(RD_KAFKA_PRODUCER, settings);
    const struct http_params params = {.connect_timeout_usec = 10 * USEC_PER_SEC,
                                       .response_limit = 65536,
                                       .max_connections = peer.in_flight_max,
                                       .allow_http = true,
                                       .allow_private_networks = true,
                                       .ca_file = argv[6],
                                       .proxy = "",
                                       .user_agent = "peer"};
    if (sd_event_new(&event) < 0 || http_new(&peer.http, event, &params, &err) < 0)
        die("HTTP", err.text);
    sd_event_add_io(event, NULL, peer.claimed.wake_fd, EPOLLIN, on_claimed, NULL);
    void *(*const parts[])(void *) = {claim, settle, count};
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
        pthread_create(&threads[i], NULL, parts[i], NULL);
    return sd_event_loop(event);
}
