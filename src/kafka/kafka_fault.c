/* See kafka_fault.h.
 *
 * Any thread. The library looks at certificates on its own threads. */
#include "kafka/kafka_fault.h"

#include <librdkafka/rdkafka.h>
#include <stdatomic.h>
#include <string.h>

struct kafka_fault {
    _Atomic int certificate; /* the last X509_V_ERR_…, 0 = there was none */
};

/* By openssl's x509_vfy.h. */
static const struct {
    int codes[5];
    const char *words;
} certificates[] = {
    {{2, 18, 19, 20, 21},
     "it is signed by an authority that is not trusted here; name that authority's certificate with "
     "ssl_ca_location in kafka.properties"},
    {{9}, "it, or one above it, is not valid yet; or the clock of this machine is behind"},
    {{10}, "it, or one above it, has expired; or the clock of this machine is ahead"},
    {{62, 64},
     "it does not name this address; let kafka.brokers and the brokers' advertised.listeners have names that "
     "it has, or let it have this one"},
};

/* What the library's words leave open. */
static const struct {
    const char *part, *hint;
} hints[] = {
    {"Disconnected", "; a listener without TLS does that: see kafka.security_protocol"},
    {"unexpected eof", "; a listener without TLS does that: see kafka.security_protocol"},
    {"wrong version number", "; a listener without TLS does that: see kafka.security_protocol"},
    {" alert ", "; the broker may want a certificate of this client: see ssl_certificate_location and "
                "ssl_key_location in kafka.properties"},
};

/* The verdict stays the one that openssl has come to. */
static int on_certificate(rd_kafka_t *rk, const char *broker, int32_t id, int *error, int depth,
                          const char *bytes, size_t size, char *errstr, size_t errstr_size, void *opaque)
{
    struct kafka_fault *fault = opaque;

    (void) rk, (void) broker, (void) id, (void) depth, (void) bytes, (void) size;
    if (*error == 0)
        return 1;
    fault->certificate = *error;
    snprintf(errstr, errstr_size, "X.509 error %d", *error);
    return 0;
}

/* With a verification that is turned off, a fault would only be noise. */
static bool verifies(rd_kafka_conf_t *conf)
{
    char value[16] = "";
    size_t size = sizeof(value);

    return rd_kafka_conf_get(conf, "enable.ssl.certificate.verification", value, &size) == RD_KAFKA_CONF_OK &&
           strcmp(value, "true") == 0;
}

struct kafka_fault *kafka_fault_watch(rd_kafka_conf_t *conf)
{
    struct kafka_fault *fault = xcalloc(1, sizeof(*fault));

    rd_kafka_conf_set_opaque(conf, fault);
    if (verifies(conf))
        (void) rd_kafka_conf_set_ssl_cert_verify_cb(conf, on_certificate);
    return fault;
}

static const char *words_of_certificate(int code)
{
    for (size_t i = 0; i < ARRAY_SIZE(certificates); i++)
        for (size_t n = 0; n < ARRAY_SIZE(certificates[i].codes); n++)
            if (code != 0 && certificates[i].codes[n] == code)
                return certificates[i].words;
    return NULL;
}

static const char *hint_for(const char *words)
{
    if (strstr(words, "SSL_HANDSHAKE") || strstr(words, "SSL routines"))
        for (size_t i = 0; i < ARRAY_SIZE(hints); i++)
            if (strstr(words, hints[i].part))
                return hints[i].hint;
    return "";
}

/* "ssl://HOST:PORT/bootstrap: words (after 3ms in state SSL_HANDSHAKE, 1 identical error(s) suppressed)". */
void kafka_fault_words(const rd_kafka_t *rk, const char *words, struct error *ret)
{
    const struct kafka_fault *fault = rd_kafka_opaque(rk);
    const char *after = strstr(words, " (after "), *colon = strstr(words, ": ");
    int len = (int) (after ? (size_t) (after - words) : strlen(words));
    bool is_certificate = strstr(words, "certificate verify failed");
    const char *why = is_certificate && colon ? words_of_certificate(fault->certificate) : NULL;

    if (why)
        error_set(ret, "%.*s: the broker's certificate cannot be trusted: %s", (int) (colon - words), words,
                  why);
    else
        error_set(ret, "%.*s%s", len, words, hint_for(words));
}

bool kafka_fault_read(rd_kafka_t *rk, struct error *ret)
{
    rd_kafka_queue_t *queue = rd_kafka_queue_get_main(rk);
    rd_kafka_event_t *event;
    bool found = false;

    while ((event = rd_kafka_queue_poll(queue, 0))) {
        bool is_error = rd_kafka_event_type(event) == RD_KAFKA_EVENT_ERROR;
        if (is_error && rd_kafka_event_error(event) != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
            kafka_fault_words(rk, rd_kafka_event_error_string(event), ret);
            found = true;
        } else if (is_error && !found) {
            error_set(ret, "%s", kafka_fault_unknown(rk));
            found = true;
        }
        rd_kafka_event_destroy(event);
    }
    rd_kafka_queue_destroy(queue);
    return found;
}

const char *kafka_fault_unknown(rd_kafka_t *rk)
{
    char protocol[32] = "";
    size_t size = sizeof(protocol);
    char *cluster = rd_kafka_clusterid(rk, 0); /* as some broker has told it */
    bool has_spoken = cluster;

    if (cluster)
        rd_kafka_mem_free(rk, cluster);
    (void) rd_kafka_conf_get(rd_kafka_conf(rk), "security.protocol", protocol, &size);
    if (has_spoken || strstr(protocol, "ssl"))
        return "no broker can be reached";
    return "connections end before a broker has said anything; a listener with TLS does that (see "
           "kafka.security_protocol), or a proxy without its broker";
}
