/* An embedded Kafka broker for the demo and for tests on a machine without Kafka: librdkafka's mock cluster,
 * on free ports of 127.0.0.1, until SIGTERM.
 *
 * It holds what it is sent in memory and forgets old messages after a few MB of a partition; it knows no
 * durability. The main thread reads commands from standard input; the cluster has threads of its own. */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"

#define TOPICS_MAX 256
#define ERRORS_MAX 100000
#define PARTITIONS_MAX 1000

struct topic {
    const char *name;
    int partitions;
};

struct options {
    const char *prefix;
    int brokers;
    bool lifeline;
    struct topic more[TOPICS_MAX];
    int more_count;
};

struct broker {
    rd_kafka_t *host; /* does nothing but carry the cluster */
    rd_kafka_mock_cluster_t *cluster;
    in_port_t port; /* of its first listener, in network order */
    atomic_bool busy;
};

/* The daemon's own topics: the mock answers no topic creation. */
static const struct topic topics[] = {
    {"subscriptions.created", 3}, {"subscriptions.updated", 3},
    {"subscriptions.sent", 3},    {"subscriptions.failed", 3},
    {"subscriptions.retried", 2}, {"alerts", 1},
    {"dead_letters", 1},          {"metrics", 1},
    {"confirmations", 1},         {"audit", 1},
};

/* The mock cluster's thread can miss the wake-up for an operation of ours and then sleeps for a second. While
 * one is under way, connections to its first port wake it. */
static void *nudger_run(void *data)
{
    const struct broker *b = data;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}, .sin_port = b->port};
    for (;; usleep(5000)) {
        if (!atomic_load(&b->busy))
            continue;
        CLEANUP(closep) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        (void) !connect(fd, (struct sockaddr *) &address, sizeof address);
    }
    return NULL;
}

static void nudger_start(struct broker *b)
{
    pthread_t thread;
    const char *colon = strchr(rd_kafka_mock_cluster_bootstraps(b->cluster), ':');
    b->port = htons((uint16_t) strtol(colon + 1, NULL, 10));
    if (pthread_create(&thread, NULL, nudger_run, b) == 0)
        pthread_detach(thread);
}

static int topic_create(struct broker *b, const char *name, int partitions)
{
    rd_kafka_resp_err_t err = rd_kafka_mock_topic_create(b->cluster, name, partitions, 1);
    if (!err)
        return 0;
    fprintf(stderr, "broker: could not create topic \"%s\": %s\n", name, rd_kafka_err2str(err));
    return -EIO;
}

static int broker_start(struct broker *b, const struct options *o)
{
    char text[512];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "client.id", "embedded-broker", text, sizeof text);
    rd_kafka_conf_set(conf, "log_level", "3", text, sizeof text);
    b->host = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof text);
    if (!b->host) {
        fprintf(stderr, "broker: could not start librdkafka: %s\n", text);
        rd_kafka_conf_destroy(conf);
        return -EIO;
    }
    b->cluster = rd_kafka_mock_cluster_new(b->host, o->brokers);
    if (!b->cluster) {
        fprintf(stderr, "broker: could not start the mock cluster\n");
        return -EIO;
    }
    nudger_start(b);
    for (size_t i = 0; i < ARRAY_SIZE(topics); i++) {
        CLEANUP(freep) char *name = xasprintf("%s%s", o->prefix, topics[i].name);
        if (topic_create(b, name, topics[i].partitions) < 0)
            return -EIO;
    }
    for (int i = 0; i < o->more_count; i++) {
        if (topic_create(b, o->more[i].name, o->more[i].partitions) < 0)
            return -EIO;
    }
    return 0;
}

/* --- commands: one a line, each answers "ok" or "error: …" on standard output ----------------- */

static bool command_down(struct broker *b, char *arguments)
{
    int64_t id = -1;
    return (!*arguments || parse_i64(arguments, 1, 1000, &id) == 0) &&
           !rd_kafka_mock_broker_set_down(b->cluster, (int32_t) id);
}

static bool command_up(struct broker *b, char *arguments)
{
    int64_t id = -1;
    return (!*arguments || parse_i64(arguments, 1, 1000, &id) == 0) &&
           !rd_kafka_mock_broker_set_up(b->cluster, (int32_t) id);
}

static bool command_rtt(struct broker *b, char *arguments)
{
    int64_t ms;
    return parse_i64(arguments, 0, 3600000, &ms) == 0 &&
           !rd_kafka_mock_broker_set_rtt(b->cluster, -1, (int) ms);
}

/* error APIKEY CODE COUNT: the next COUNT requests of that kind are answered with CODE (-195 disconnects). */
static bool command_error(struct broker *b, char *arguments)
{
    int api, code, count;
    char extra;
    if (sscanf(arguments, "%d %d %d %c", &api, &code, &count, &extra) != 3 || count < 1 || count > ERRORS_MAX)
        return false;
    for (int i = 0; i < count; i++)
        rd_kafka_mock_push_request_errors(b->cluster, (int16_t) api, 1, (rd_kafka_resp_err_t) code);
    return true;
}

static bool command_clear(struct broker *b, char *arguments)
{
    int64_t api;
    if (parse_i64(arguments, 0, 1000, &api) < 0)
        return false;
    rd_kafka_mock_clear_request_errors(b->cluster, (int16_t) api);
    return true;
}

static bool command_topic(struct broker *b, char *arguments)
{
    char *space = strchr(arguments, ' ');
    int64_t partitions;
    if (!space || parse_i64(space + 1, 1, PARTITIONS_MAX, &partitions) < 0)
        return false;
    *space = 0;
    return topic_create(b, arguments, (int) partitions) == 0;
}

static bool command_refuse(struct broker *b, char *arguments)
{
    char *space = strchr(arguments, ' ');
    int64_t code;
    if (!space || parse_i64(space + 1, -1000, 1000, &code) < 0)
        return false;
    *space = 0;
    rd_kafka_mock_topic_set_error(b->cluster, arguments, (rd_kafka_resp_err_t) code);
    return true;
}

/* leader TOPIC PARTITION ID: that broker leads the partition; -1 = none does. */
static bool command_leader(struct broker *b, char *arguments)
{
    char topic[256];
    int partition, id;
    char extra;
    return sscanf(arguments, "%255s %d %d %c", topic, &partition, &id, &extra) == 3 &&
           !rd_kafka_mock_partition_set_leader(b->cluster, topic, partition, id);
}

static const struct command {
    const char *name;
    bool (*run)(struct broker *b, char *arguments);
} commands[] = {
    {"down", command_down},     {"up", command_up},         {"rtt", command_rtt},
    {"error", command_error},   {"clear", command_clear},   {"topic", command_topic},
    {"refuse", command_refuse}, {"leader", command_leader},
};

static void command_run(struct broker *b, char *line)
{
    size_t len = strcspn(line, " ");
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        const struct command *c = &commands[i];
        if (strlen(c->name) != len || strncmp(c->name, line, len) != 0)
            continue;
        atomic_store(&b->busy, true);
        puts(c->run(b, line + len + (line[len] == ' ')) ? "ok" : "error: cannot do that");
        atomic_store(&b->busy, false);
        fflush(stdout);
        return;
    }
    puts("error: the commands are down [ID], up [ID], rtt MS, error APIKEY CODE COUNT, clear APIKEY, "
         "topic NAME PARTITIONS, refuse TOPIC CODE, leader TOPIC PARTITION ID");
    fflush(stdout);
}

/* Runs the whole lines of the buffer; returns how much of a line is left. */
static size_t commands_run(struct broker *b, char *buffer, size_t len)
{
    char *start = buffer, *end;
    while ((end = memchr(start, '\n', len - (size_t) (start - buffer)))) {
        *end = 0;
        command_run(b, start);
        start = end + 1;
    }
    len -= (size_t) (start - buffer);
    memmove(buffer, start, len);
    return len;
}

static void broker_run(struct broker *b, int signals, bool lifeline)
{
    char buffer[4096];
    size_t used = 0;
    struct pollfd fds[] = {{.fd = signals, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
    for (;;) {
        if (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno != EINTR)
            return;
        if (fds[0].revents)
            return;
        if (!fds[1].revents)
            continue;
        ssize_t n = read(STDIN_FILENO, buffer + used, sizeof buffer - used);
        if (n > 0) {
            used = commands_run(b, buffer, used + (size_t) n);
            if (used == sizeof buffer)
                used = 0;
        } else if (lifeline) {
            return;
        } else {
            fds[1].fd = -1;
        }
    }
}

static void usage(FILE *to)
{
    fputs("Usage: broker [OPTION]...\n"
          "A Kafka broker in memory, on free ports of 127.0.0.1, until SIGTERM.\n\n"
          "  --brokers=N               so many brokers (1)\n"
          "  --prefix=TEXT             before the names of anubisd's topics (anubis.)\n"
          "  --topic=NAME:PARTITIONS   one more topic; may be repeated\n"
          "  --lifeline                end when standard input ends\n"
          "  --help\n\n"
          "Commands on standard input: down [ID], up [ID], rtt MS, error APIKEY CODE COUNT, clear APIKEY,\n"
          "topic NAME PARTITIONS, refuse TOPIC CODE, leader TOPIC PARTITION ID.\n",
          to);
}

static int options_topic(struct options *o, char *argument)
{
    char *colon = strrchr(argument, ':');
    int64_t partitions;
    if (!colon || o->more_count == TOPICS_MAX || parse_i64(colon + 1, 1, PARTITIONS_MAX, &partitions) < 0)
        return -EINVAL;
    *colon = 0;
    o->more[o->more_count++] = (struct topic){argument, (int) partitions};
    return 0;
}

static int options_parse(struct options *o, int argc, char **argv)
{
    static const struct option known[] = {
        {"brokers", 1, NULL, 'b'},  {"prefix", 1, NULL, 'p'}, {"topic", 1, NULL, 't'},
        {"lifeline", 0, NULL, 'l'}, {"help", 0, NULL, 'h'},   {NULL, 0, NULL, 0},
    };
    int64_t n = o->brokers;
    for (int c, r = 0; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (c == 'b')
            r = parse_i64(optarg, 1, 100, &n);
        else if (c == 'p')
            o->prefix = optarg;
        else if (c == 't')
            r = options_topic(o, optarg);
        else if (c == 'l')
            o->lifeline = true;
        else if (c == 'h') {
            usage(stdout);
            exit(0);
        } else
            r = -EINVAL;
        if (r < 0)
            return r;
    }
    o->brokers = (int) n;
    return optind == argc ? 0 : -EINVAL;
}

int main(int argc, char **argv)
{
    static struct options o = {.prefix = "anubis.", .brokers = 1};
    if (options_parse(&o, argc, argv) < 0) {
        usage(stderr);
        return 64;
    }
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    CLEANUP(closep) int signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
    signal(SIGPIPE, SIG_IGN);

    static struct broker b = {.busy = true};
    if (broker_start(&b, &o) < 0)
        return 1;
    atomic_store(&b.busy, false);
    printf("listening on %s\n", rd_kafka_mock_cluster_bootstraps(b.cluster));
    fflush(stdout);
    broker_run(&b, signal_fd, o.lifeline);
    _exit(0); /* the cluster is nothing but memory: no need to take it apart */
}
