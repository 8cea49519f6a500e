/* Configuration: what is accepted, what is refused and in which words, what is shown. */
#include <errno.h>
#include <sys/stat.h>
#include <syslog.h>

#include "base/timeutil.h"
#include "config/config_internal.h"
#include "config_fixture.h"

static void test_an_empty_file_gives_the_defaults(void **state)
{
    const struct config *c = fixture_load_good(*state, "");
    char host[256] = "";

    gethostname(host, sizeof(host) - 1);
    assert_string_equal(c->instance, host);
    assert_int_equal(c->log_level, LOG_INFO);
    assert_string_equal(c->database.conninfo, "dbname=anubis");
    assert_int_equal(c->delivery.timeout_usec, 30 * USEC_PER_SEC);
    assert_int_equal(c->delivery.response_limit, 64 << 10);
    assert_int_equal(c->delivery.max_in_flight_per_integration, 32);
    assert_false(c->delivery.allow_http);
    assert_true(c->kafka.create_topics);
    assert_true(c->alerts.failure_rate == 0.5);
    assert_int_equal(c->alerts.remediation, REMEDIATION_NONE);
    assert_string_equal(c->status.listen, "127.0.0.1:9617");
    assert_int_equal(c->kafka.properties.count, 0);
}

static void test_values_are_read(void **state)
{
    const struct config *c =
        fixture_load_good(*state, "\xEF\xBB\xBF" /* byte order mark */
                                  "instance = \"a\" \"b\"; // joined\r\n"
                                  "log_level = \"Warning\";\n"
                                  "/* a comment\n of two lines */ delivery: { batch_size = 0x10;\n"
                                  "  max_in_flight = 64L, max_in_flight_per_integration = 8\n"
                                  "  allow_http = TRUE; timeout = \"250ms\"; };\n"
                                  "alerts = { failure_rate = .9; resolve_rate = .5e-1; };\n"
                                  "kafka: { security_protocol = \"SSL\"; };");

    assert_string_equal(c->instance, "ab");
    assert_int_equal(c->log_level, LOG_WARNING);
    assert_int_equal(c->delivery.batch_size, 16);
    assert_int_equal(c->delivery.max_in_flight, 64);
    assert_int_equal(c->delivery.max_in_flight_per_integration, 8);
    assert_true(c->delivery.allow_http);
    assert_int_equal(c->delivery.timeout_usec, 250 * USEC_PER_MSEC);
    assert_true(c->alerts.failure_rate == 0.9);
    assert_true(c->alerts.resolve_rate == 0.05);
    assert_string_equal(c->kafka.security_protocol, "ssl");
}

static void test_a_file_may_end_in_any_way(void **state)
{
    static const char *const ends[] = {"", "\n", "\r\n", "# end", "// end", "/* end */", "#", " \t"};

    for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
        CLEANUP(freep) char *text = xasprintf("instance = \"a\";%s", ends[i]);
        assert_string_equal(fixture_load_good(*state, text)->instance, "a");
    }
    assert_int_equal(fixture_load_good(*state, "# nothing but a comment")->log_level, LOG_INFO);
}

static void test_the_shipped_file_is_the_defaults(void **state)
{
    CLEANUP(strbuf_free) struct strbuf shipped = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    CLEANUP(strbuf_free) struct strbuf live = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    CLEANUP(strbuf_free) struct strbuf restart = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    struct fixture *f = *state;
    CLEANUP(config_unrefp) struct config *defaults = NULL;

    fixture_load_good(f, "");
    defaults = config_ref(f->config);
    fixture_shipped(&shipped);
    fixture_load_good(f, shipped.data);
    config_diff(defaults, f->config, &live, &restart);
    assert_string_equal(strbuf_str(&live), "");
    assert_string_equal(strbuf_str(&restart), "");
}

#define MANAGERS                                                                                             \
    "1: alerts.alertmanager_urls must be a list of URLs such as ( \"http://host:9093\" ), without ? and #\n"
#define INSTANCE                                                                                             \
    "1: instance must be at most 200 letters, digits, \".\", \"_\" and \"-\", as names of hosts are\n"
static const struct {
    const char *text, *problems;
} refused[] = {
    /* keys */
    {"timeout = \"5s\";", "1: unknown key \"timeout\"; it belongs in group \"delivery\"\n"},
    {"log_lvel = \"info\";", "1: unknown key \"log_lvel\"; did you mean \"log_level\"?\n"},
    {"delivery: {\n\n tiemout = \"5s\"; };",
     "3: unknown key \"tiemout\" in group \"delivery\"; did you mean \"timeout\"?\n"},
    {"delivery: { timeout_ms = 500; };",
     "1: unknown key \"timeout_ms\" in group \"delivery\"; did you mean \"timeout\"?\n"},
    {"delivery: { max_atempts = 5; };",
     "1: unknown key \"max_atempts\" in group \"delivery\"; did you mean \"max_attempts\" in group \"retry\"?\n"},
    {"delivery: { log_level = \"info\"; };",
     "1: unknown key \"log_level\" in group \"delivery\"; it belongs outside the groups\n"},
    {"delivery.timeout = \"5s\";",
     "1: unknown key \"delivery_timeout\"; did you mean \"timeout\" in group \"delivery\"?\n"},
    {"foo = 1;", "1: unknown key \"foo\"\n"},
    {"alerts: { fro = \"1m\"; };", "1: unknown key \"fro\" in group \"alerts\"; did you mean \"for\"?\n"},
    {"database: { password = \"hush\"; };",
     "1: unknown key \"password\" in group \"database\"; it stands within conninfo: "
     "conninfo = \"host=db dbname=anubis user=anubisd\";\n"},
    {"database: { host = \"db\"; };",
     "1: unknown key \"host\" in group \"database\"; it stands within conninfo: "
     "conninfo = \"host=db dbname=anubis user=anubisd\";\n"},
    {"retry: { zzzzzz = 1; };", "1: unknown key \"zzzzzz\" in group \"retry\"\n"},
    {"kafka: { fetch_wait_max_ms = 5; };", "1: unknown key \"fetch_wait_max_ms\" in group \"kafka\"; "
                                           "librdkafka's own properties go into properties: { … };\n"},
    {"Delivery: { };", "1: unknown group \"Delivery\"; did you mean \"delivery\"?\n"},
    {"nothing_like_it: { a = 1; };", "1: unknown group \"nothing_like_it\"\n"},
    {"retry = 3;", "1: retry must be a group: retry: { … }; not an integer\n"},
    {"log_level: { };", "1: log_level must be a string in double quotes, not a group\n"},
    /* types */
    {"instance = 5;", "1: instance must be a string in double quotes, not an integer\n"},
    {"delivery: { timeout = 30; };",
     "1: delivery.timeout must be a whole number and a unit (ms, s, m, h or d) such as \"30s\", not an integer\n"},
    {"delivery: { batch_size = \"500\"; };",
     "1: delivery.batch_size must be a whole number such as 500, not a string\n"},
    {"delivery: { batch_size = 1.5; };",
     "1: delivery.batch_size must be a whole number such as 500, not a floating-point number\n"},
    {"delivery: { allow_http = 1; };", "1: delivery.allow_http must be true or false, not an integer\n"},
    {"delivery: { batch_size = [ 1 ]; };",
     "1: delivery.batch_size must be a whole number such as 500, not an array\n"},
    {"alerts: { failure_rate = ( 1 ); };",
     "1: alerts.failure_rate must be a number such as 0.5, not a list\n"},
    {"kafka: { properties = 5; };",
     "1: kafka.properties must be a group such as { linger_ms = 5; }, not an integer\n"},
    /* values */
    {"log_level = \"verbose\";",
     "1: log_level must be \"debug\", \"info\", \"notice\", \"warning\" or \"error\", not \"verbose\"\n"},
    {"delivery: { timeout = \"30\"; };",
     "1: delivery.timeout must be a whole number and a unit (ms, s, m, h or d) such as \"30s\", not \"30\"\n"},
    {"delivery: { timeout = \"\x1b[31m\"; };",
     "1: delivery.timeout must be a whole number and a unit (ms, s, m, h or d) such as \"30s\", not \"?[31m\"\n"},
    {"delivery: { response_limit = \"64KB\"; };",
     "1: delivery.response_limit must be a whole number and a unit (B, KiB, MiB or GiB) such as \"64KiB\", not "
     "\"64KB\"\n"},
    {"delivery: { batch_size = 0; };", "1: delivery.batch_size must be between 1 and 10000, not 0\n"},
    {"alerts: { failure_rate = 1.01; };", "1: alerts.failure_rate must be between 0.01 and 0.9, not 1.01\n"},
    /* such an alert could never fire, or never be over */
    {"alerts: { failure_rate = 1; };", "1: alerts.failure_rate must be between 0.01 and 0.9, not 1\n"},
    {"alerts: { failure_rate = 0.95; };", "1: alerts.failure_rate must be between 0.01 and 0.9, not 0.95\n"},
    {"alerts: { failure_rate = 0; };", "1: alerts.failure_rate must be between 0.01 and 0.9, not 0\n"},
    {"alerts: { resolve_rate = 0; };", "1: alerts.resolve_rate must be between 0.001 and 0.9, not 0\n"},
    {"alerts: { failure_rate = 1e999; };", "1: alerts.failure_rate must be between 0.01 and 0.9, not inf\n"},
    {"delivery: { drain_timeout = \"99999999999999999999d\"; };",
     "1: delivery.drain_timeout must be between 0s and 1h, not \"99999999999999999999d\"\n"},
    /* integers that libconfig alone would read as others */
    {"delivery: { batch_size = 4294967297; };",
     "1: delivery.batch_size must be between 1 and 10000, not 4294967297\n"},
    {"delivery: { batch_size = 0x100000001; };",
     "1: delivery.batch_size must be between 1 and 10000, not 4294967297\n"},
    {"delivery: { batch_size = 4294967297L; };",
     "1: delivery.batch_size must be between 1 and 10000, not 4294967297\n"},
    {"delivery: { batch_size = 18446744073709551617; };",
     "1: batch_size is an integer of more than 64 bits, too big for any key\n"},
    {"delivery: { batch_size = -18446744073709551617L; };",
     "1: batch_size is an integer of more than 64 bits, too big for any key\n"},
    {"kafka: { properties: { linger_ms = 99999999999999999999LL; }; };",
     "1: linger_ms is an integer of more than 64 bits, too big for any key\n"},
    {"alerts: { failure_rate = 4294967296; };",
     "1: alerts.failure_rate must be between 0.01 and 0.9, not 4294967296\n"},
    /* strings with a shape */
    {"database: { schema = \"Anubis\"; };",
     "1: database.schema must be 1 to 63 lower-case letters, digits and "
     "underscores, not starting with a digit\n"},
    {"database: { schema = \"pg_toast\"; };",
     "1: database.schema must not name one of Postgres's own schemas\n"},
    {"database: { conninfo = \"anubis\"; };",
     "1: database.conninfo must be \"name=value\" pairs such as \"host=db dbname=anubis\", or a URL such as "
     "\"postgres://user@host/anubis\"; libpq reports: missing \"=\" after \"***\"\n"},
    {"database: { conninfo = \"host=x passwrod=hush\"; };",
     "1: database.conninfo must be \"name=value\" pairs such as \"host=db dbname=anubis\", or a URL such as "
     "\"postgres://user@host/anubis\"; libpq reports: invalid connection option \"passwrod\"\n"},
    {"database: { conninfo = \"postgres://u:hush@h/db?sslmode=require&pool=5\"; };",
     "1: database.conninfo must be \"name=value\" pairs such as \"host=db dbname=anubis\", or a URL such as "
     "\"postgres://user@host/anubis\"; libpq reports: invalid URI query parameter: \"pool\"\n"},
    {"database: { conninfo = \"password=hu sh=hush\"; };",
     "1: database.conninfo must be \"name=value\" pairs such as \"host=db dbname=anubis\", or a URL such as "
     "\"postgres://user@host/anubis\"; libpq reports: invalid connection option \"***\"\n"},
    {"database: { conninfo = \"postgres://u:hush/?hush@h/db\"; };",
     "1: database.conninfo must be \"name=value\" pairs such as \"host=db dbname=anubis\", or a URL such as "
     "\"postgres://user@host/anubis\"; libpq reports: missing key/value separator \"=\" in URI "
     "query parameter: \"***\"\n"},
    {"kafka: { brokers = \"a:9092,,b\"; };",
     "1: kafka.brokers must be a list such as \"kafka1:9092,kafka2:9092\"\n"},
    {"kafka: { brokers = \"a:99999\"; };",
     "1: kafka.brokers must be a list such as \"kafka1:9092,kafka2:9092\"\n"},
    {"kafka: { brokers = \"['a:9092']\"; };",
     "1: kafka.brokers must be a list such as \"kafka1:9092,kafka2:9092\"\n"},
    {"kafka: { brokers = \"[a]:9092\"; };",
     "1: kafka.brokers must be a list such as \"kafka1:9092,kafka2:9092\"\n"},
    {"kafka: { brokers = \"http://a:9092\"; };",
     "1: kafka.brokers must be a list such as \"kafka1:9092,kafka2:9092\"\n"},
    {"database: { conninfo = \"host=x port=99999\"; };",
     "1: database.conninfo must have ports from 1 to 65535\n"},
    {"database: { conninfo = \"host=x,y port='5432,x'\"; };",
     "1: database.conninfo must have ports from 1 to 65535\n"},
    {"database: { conninfo = \"postgres://h/db?port=0\"; };",
     "1: database.conninfo must have ports from 1 to 65535\n"},
    {"database: { conninfo = \"postgres://u:hu@sh@h/db\"; };",
     "1: database.conninfo must have hosts without \"@\"; a password with \"@\" in a URL has %40 in its place\n"},
    {"database: { conninfo = \"postgres://u:p@h:5432,[::1]:x/db\"; };",
     "1: database.conninfo must have ports from 1 to 65535; a password with \"/\" in a URL has %2F in its place\n"},
    {"database: { conninfo = \"postgres://u:hush/hush@h/db\"; };",
     "1: database.conninfo must have ports from 1 to 65535; a password with \"/\" in a URL has %2F in its place\n"},
    {"kafka: { topic_prefix = \"a b\"; };",
     "1: kafka.topic_prefix must be at most 200 letters, digits, \".\", \"_\" "
     "and \"-\", as Kafka's topic names are\n"},
    {"kafka: { client_id = \"\"; };", "1: kafka.client_id must not be empty\n"},
    {"status: { listen = \"9617\"; };",
     "1: status.listen must be \"host:port\" or \"[address]:port\", or \"\" for none\n"},
    {"delivery: { proxy = \"https://proxy:3128\"; };",
     "1: delivery.proxy must be a URL such as \"http://proxy:3128\" (or socks5, socks5h), or \"\" for none\n"},
    {"delivery: { proxy = \"proxy:3128\"; };",
     "1: delivery.proxy must be a URL such as \"http://proxy:3128\" (or "
     "socks5, socks5h), or \"\" for none\n"},
    {"delivery: { ca_file = \"/nonexistent\"; };",
     "1: delivery.ca_file must name a file that can be read: No such file or directory\n"},
    {"alerts: { webhook_url = \"ftp://x\"; };",
     "1: alerts.webhook_url must be a URL such as \"https://host/path\", or \"\" for none\n"},
    {"alerts: { webhook_url = \"http://ex\xc3\xa4mple/\"; };",
     "1: alerts.webhook_url must be a URL such as \"https://host/path\", or \"\" for none\n"},
    {"alerts: { alertmanager_urls = ( \"http://one:9093\", \"http://two:9093/?tenant=1\" ); };", MANAGERS},
    {"alerts: { alertmanager_urls = ( \"http://one:9093/#/alerts\" ); };", MANAGERS},
    {"alerts: { alertmanager_urls = ( \"http://ex\xc3\xa4mple:9093\" ); };", MANAGERS},
    {"delivery: { user_agent = \"a\\nX-Evil: 1\"; };",
     "1: delivery.user_agent must not contain control characters such as line feeds or tabs\n"},
    {"instance = \"\xff\";", "1: instance must be valid UTF-8\n"},
    {"instance = \"a b\";", INSTANCE},
    {"instance = \"a/b\";", INSTANCE},
    {"instance = \"a\xe2\x80\xae"
     "b\";",
     INSTANCE},
    {"instance = \"a\\nb\";", "1: instance must not contain control characters such as line feeds or tabs\n"},
    /* librdkafka's properties */
    {"kafka: { producer_properties: { acks = 1; }; };",
     "1: property acks cannot be set here: the relay's guarantee that no event is lost rests on it\n"},
    {"kafka: { properties: { enable.idempotence = false; }; };",
     "1: property enable.idempotence cannot be set here: "
     "the relay's guarantee that no event is lost rests "
     "on it\n"},
    {"kafka: { properties: { offset_store_path = \"/\"; }; };",
     "1: property offset.store.path cannot be set here: offsets are committed after the database, so that each event "
     "has its effect exactly once\n"},
    {"kafka: { properties: { sasl_password = \"hush\"; }; };",
     "1: property sasl.password cannot be set here: use kafka.sasl_password\n"},
    {"kafka: { properties: { message_max_bytes = 1000; }; };",
     "1: property message.max.bytes must be at least 1000000: an event that Kafka cannot take stops the relay\n"},
    {"kafka: { properties: { linger_ms = [ 5 ]; }; };",
     "1: property linger_ms must be a string, a number, true or false, not an array\n"},
    {"kafka: { consumer_properties: { max.poll.interval.ms = 20000; }; };",
     "1: property max.poll.interval.ms must be at least consumers.session_timeout\n"},
    /* combinations */
    {"delivery: { timeout = \"60s\";\n lease = \"60s\"; };",
     "2: delivery.lease (1m) must be at least 1s more than delivery.timeout (1m): a request that is still running "
     "must not lose its lease\n"},
    {"delivery: {\n timeout = \"2m\"; };",
     "2: delivery.lease (90s, the default) must be at least 1s more than delivery.timeout (2m): a request that is "
     "still running must not lose its lease\n"},
    {"delivery: { max_in_flight = 8; max_in_flight_per_integration = 9; };",
     "1: delivery.max_in_flight_per_integration (9) must be at most delivery.max_in_flight (8): one integration "
     "cannot have more than all together\n"},
    {"retry: { base_delay = \"2h\"; };",
     "1: retry.base_delay (2h) must be at most retry.max_delay (1h, the default): "
     "the first delay cannot pass the longest\n"},
    {"circuit_breaker: { recovery_timeout = \"1h\"; };",
     "1: circuit_breaker.recovery_timeout (1h) must be at most circuit_breaker.max_recovery_timeout (10m, the "
     "default): the first recovery time cannot pass the longest\n"},
    {"consumers: { heartbeat_interval = \"30s\"; };",
     "1: consumers.heartbeat_interval (30s) must be less than consumers.session_timeout (30s, the default): a "
     "consumer would be put out of its group between two heartbeats; a third is usual\n"},
    {"alerts: { resolve_rate = 0.5; };",
     "1: alerts.resolve_rate (0.5) must be less than alerts.failure_rate (0.5, the default): an alert would resolve "
     "and fire at the same rate\n"},
    {"kafka: { security_protocol = \"sasl_ssl\"; };",
     "1: kafka.sasl_mechanism must be set, to \"SCRAM-SHA-512\" for example: security_protocol is \"sasl_ssl\"\n"},
    {"kafka: { security_protocol = \"sasl_ssl\"; sasl_mechanism = \"PLAIN\"; };",
     "1: kafka.sasl_username must be set: sasl_mechanism \"PLAIN\" sends it\n"
     "1: kafka.sasl_password must be set: sasl_mechanism \"PLAIN\" needs it\n"},
    {"kafka: { brokers = \"a:9092,SSL://b:9092\"; };",
     "1: kafka.brokers names a broker as \"SSL://\", but kafka.security_protocol is \"plaintext\": leave the "
     "protocol out there, and set security_protocol\n"},
    {"delivery: { timeout = \"2s\"; connect_timeout = \"3s\"; };",
     "1: delivery.connect_timeout (3s) must be at most delivery.timeout (2s): the whole request has no more time\n"},
    {"retry: { max_age = \"10s\"; base_delay = \"30s\"; };",
     "1: retry.base_delay (30s) must be at most retry.max_age (10s): nothing would ever be tried again\n"},
    /* one mistake, one message: no rule judges a value that is wrong already */
    {"delivery: { timeout = \"x\"; lease = \"1s\"; };",
     "1: delivery.timeout must be a whole number and a unit (ms, s, m, h or d) such as \"30s\", not \"x\"\n"},
    /* syntax */
    {"a = ;", "1: syntax error; the value of \"a\" is missing: a key is written  name = value;\n"},
    {"instance = \"a\";\ninstance = \"b\";",
     "2: \"instance\" is set a second time; it stands in line 1 already: keep one of the two\n"},
    {"retry: { };\n/* retry: */\nretry: { };",
     "3: \"retry\" is set a second time; it stands in line 1 already: keep one of the two\n"},
    {"kafka:\n{ properties: { linger.ms = 1;\nlinger_ms = 2; }; };",
     "3: \"kafka.properties.linger_ms\" is set a second time; it stands in line 2 already: keep one of the two\n"},
    {"log_level = info;", "1: syntax error; a text stands in double quotes: write  log_level = \"info\";\n"},
    {"log_level = 'info'; # x",
     "1: syntax error; a text stands in double quotes: write  log_level = \"info\";\n"},
    {"log_level = info // x\n",
     "1: syntax error; a text stands in double quotes: write  log_level = \"info\";\n"},
    {"retry: {\n  base_delay = 30s;\n};",
     "2: syntax error; a text stands in double quotes: write  base_delay = \"30s\";\n"},
    {"status: { listen = 127.0.0.1:9617; };",
     "1: syntax error; a text stands in double quotes: write  listen = \"127.0.0.1:9617\";\n"},
    {"kafka: {\nbrokers = a:9092, b:9092;\n};",
     "2: syntax error; a text stands in double quotes: write  brokers = \"a:9092, b:9092\";\n"},
    {"kafka: { sasl_password = hush; };",
     "1: syntax error; a text stands in double quotes: write  sasl_password = \"…\";\n"},
    {"database: { conninfo = host=h; };",
     "1: syntax error; a text stands in double quotes: write  conninfo = \"…\";\n"},
    {"consumers: { integration = yes; };",
     "1: syntax error; \"yes\" is no value here: write  integration = true;\n"},
    {"delivery: { allow_http = Off }",
     "1: syntax error; \"Off\" is no value here: write  allow_http = false;\n"},
    {"instance = null;", "1: syntax error; to have no value is written  instance = \"\";\n"},
    {"kafka: { brokers = \"a:9092\", \"b:9092\"; };",
     "1: syntax error; several values of one key are one string, with commas in it: \"a,b\"\n"},
    {"kafka: { brokers = (\"a:9092\", \"b:9092\"); };",
     "1: kafka.brokers must be a string, not a list: several values are one string, with commas in it: \"a,b\"\n"},
    {"kafka: { brokers = [\"a:9092\"]; };",
     "1: kafka.brokers must be a string, not an array: several values are one string, with commas in it: \"a,b\"\n"},
    {"retry:\n  base_delay: 30s\n", "1: syntax error; a group is written  retry: { … };\n"},
    {"\n[retry]\nbase_delay = 30s", "2: syntax error; a group is written  name: { … };  and not  [name]\n"},
    {"{ \"retry\": { } }",
     "1: syntax error; there is no bracket around the whole, and a group is written  name: { … };\n"},
    {"retry: { \"base_delay\": \"30s\" }",
     "1: syntax error; a name stands without quotes: a key is written  name = value;\n"},
    {"retry {\n base_delay = \"30s\"; }",
     "1: syntax error; a group is written  retry: { … };  with a colon\n"},
    {"instance \"a\";",
     "1: syntax error; there is no \"=\" behind \"instance\": a key is written  name = value;\n"},
    {"\nretry: {\n base_delay = \"30s\";\n",
     "2: the group \"retry\" that starts here has no end; close it with };\n"},
    {"retry: { };\n};",
     "2: syntax error; this bracket closes nothing: one too many, or a \"{\" is missing above\n"},
    {"\n@include \"/etc/passwd\"",
     "2: cannot use @include here: the configuration is one file; copy the settings into it\n"},
    {"instance = \"a;\nlog_level = \"info\";\n",
     "1: the string that starts here runs over several lines: is its closing quote missing?\n"},
    {"instance = \"a;\nlog_level = \"info;\n",
     "2: syntax error; the string that starts in line 1 runs over several lines: is its closing quote missing?\n"},
    {"\ninstance = \"a;\n", "2: the string that starts here has no closing quote\n"},
    {"\n/* x\n\n", "2: the comment that starts here has no end; close it with */\n"},
    {"a = ((((((((((((((((((1",
     "1: brackets are nested too deeply here; no key needs more than three levels\n"},
};

static void test_mistakes_are_named(void **state)
{
    struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        CLEANUP(strbuf_free) struct strbuf problems = STRBUF_INIT(STRBUF_MAX_DEFAULT);

        fixture_load(f, refused[i].text);
        fixture_problems(f, &problems);
        assert_string_equal(strbuf_str(&problems), refused[i].problems);
        assert_int_equal(f->result, -EINVAL);
    }
}

static void test_all_mistakes_are_reported_at_once(void **state)
{
    CLEANUP(strbuf_free) struct strbuf problems = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    struct fixture *f = *state;

    fixture_load(f, "log_level = 1;\n"
                    "delivery: { batch_size = 0;\n"
                    "  lease = \"1s\"; };\n"
                    "kafka: { properties: { acks = 0; }; };\n");
    fixture_problems(f, &problems);
    assert_non_null(strstr(problems.data, "1: log_level"));
    assert_non_null(strstr(problems.data, "2: delivery.batch_size"));
    assert_non_null(strstr(problems.data, "3: delivery.lease"));
    assert_non_null(strstr(problems.data, "4: property acks"));
}

static void test_many_mistakes_are_counted(void **state)
{
    CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    struct fixture *f = *state;

    for (int i = 0; i < 3000; i++)
        strbuf_addf(&text, "key%d = 1;\n", i);
    fixture_load(f, text.data);
    assert_non_null(strstr(f->problems.data, ":1000: unknown key"));
    assert_null(strstr(f->problems.data, ":1001: unknown key"));
    assert_non_null(strstr(f->problems.data, ": and 2000 more like these\n"));
}

static void assert_file_problem(struct fixture *f, const char *path, int result, const char *words)
{
    CLEANUP(freep) char *wanted = xasprintf("%s: %s\n", path, words);

    fixture_load_path(f, path, CONFIG_SECRETS_RESOLVE);
    assert_int_equal(f->result, result);
    assert_string_equal(strbuf_str(&f->problems), wanted);
}

static void test_files_that_are_none(void **state)
{
    CLEANUP(freep) char *big = xcalloc(1, 10 << 20);
    struct fixture *f = *state;

    assert_file_problem(
        f, "/nonexistent/anubisd.conf", -ENOENT,
        "could not open the file: No such file or directory; install etc/anubisd.conf there, or name "
        "another file with -c FILE");
    assert_file_problem(f, "/tmp", -EISDIR, "is a directory");
    assert_file_problem(f, "/dev/zero", -EINVAL, "is not a regular file");
    memset(big, ' ', 10 << 20);
    fixture_write(f->path, big, 10 << 20);
    assert_file_problem(f, f->path, -EFBIG, "is longer than 256 KiB, the most that is accepted");
    fixture_write(f->path, big, (256 << 10) + 1);
    assert_file_problem(f, f->path, -EFBIG, "is longer than 256 KiB, the most that is accepted");
    fixture_load_bytes(f, big, 256 << 10);
    assert_int_equal(f->result, 0);
    fixture_load_bytes(f, "\n\nretry: { };\0 hidden", 21);
    assert_int_equal(f->result, -EINVAL);
    assert_non_null(
        strstr(f->problems.data, ":3: a NUL byte stands here; the configuration is a text file\n"));
}

static void test_a_fifo_does_not_block(void **state)
{
    struct fixture *f = *state;

    unlink(f->path);
    assert_int_equal(mkfifo(f->path, 0600), 0);
    assert_file_problem(f, f->path, -EINVAL, "is not a regular file");
}

static void test_an_unreadable_file_says_who_must_read_it(void **state)
{
    struct fixture *f = *state;
    const uid_t user = geteuid(), nobody = 65534;

    chmod(f->path, 0);
    /* root reads everything */
    assert_int_equal(user == 0 ? seteuid(nobody) : 0, 0);
    assert_file_problem(
        f, f->path, -EACCES,
        "could not open the file: Permission denied; the user that runs this program must be able to "
        "read it");
    assert_int_equal(seteuid(user), 0);
}

static void test_the_environment_overrides_the_file(void **state)
{
    const struct config *c;

    setenv("DATABASE_URL",
           "postgresql://app:p%40ss@db/web?pool=5&sslmode=require&encoding=unicode&connect_timeout=3", 1);
    setenv("KAFKA_BROKERS", "k1:9092,k2:9092", 1);
    setenv("KAFKA_CLIENT_ID", "app", 1);
    setenv("KAFKA_GROUP_ID", "groups", 1);
    setenv("KAFKA_SESSION_TIMEOUT", "15000", 1);
    setenv("KAFKA_HEARTBEAT_INTERVAL", "4500", 1);
    setenv("KAFKA_MAX_POLL_RECORDS", "50", 1);
    setenv("KAFKA_SECURITY_PROTOCOL", "sasl_plaintext", 1);
    setenv("KAFKA_SECURITY_MECHANISM", "PLAIN", 1);
    setenv("KAFKA_SECURITY_USERNAME", "user", 1);
    setenv("KAFKA_SECURITY_PASSWORD", "hush", 1);
    c = fixture_load_good(*state, "kafka: { brokers = \"conf:9092\"; client_id = \"conf\"; };");
    assert_string_equal(c->database.conninfo,
                        "postgresql://app:p%40ss@db/web?sslmode=require&connect_timeout=3");
    assert_string_equal(c->kafka.brokers, "k1:9092,k2:9092");
    assert_string_equal(c->kafka.client_id, "app");
    assert_string_equal(c->consumers.group_prefix, "groups");
    assert_int_equal(c->consumers.session_timeout_usec, 15 * USEC_PER_SEC);
    assert_int_equal(c->consumers.heartbeat_interval_usec, 4500 * USEC_PER_MSEC);
    assert_int_equal(c->consumers.max_poll_records, 50);
    assert_string_equal(c->kafka.security_protocol, "sasl_plaintext");
    assert_string_equal(c->kafka.sasl_mechanism, "PLAIN");
    assert_string_equal(c->kafka.sasl_username, "user");
    assert_string_equal(c->kafka.sasl_password, "hush");
    assert_string_equal(
        strbuf_str(&((struct fixture *) *state)->notices),
        "environment DATABASE_URL: parameters that only Rails knows were left out: pool, encoding\n");
}

static void test_parameters_of_later_rails_are_left_out(void **state)
{
    const struct config *c;

    setenv("DATABASE_URL",
           "postgres://u@db/web?max_connections=5&min_connections=1&keepalive=600&max_age=900&pool_jitter=0.2"
           "&min_threads=0&max_threads=5&query_cache=100&schema_format=sql&keepalives=1",
           1);
    c = fixture_load_good(*state, "");
    assert_string_equal(c->database.conninfo, "postgres://u@db/web?keepalives=1");
}

static void test_an_empty_variable_counts_as_not_set(void **state)
{
    const struct config *c;

    setenv("KAFKA_BROKERS", "", 1);
    c = fixture_load_good(*state, "kafka: { brokers = \"conf:9092\"; };");
    assert_string_equal(c->kafka.brokers, "conf:9092");
}

static void test_mistakes_in_the_environment_name_the_variable(void **state)
{
    struct fixture *f = *state;

    setenv("KAFKA_SESSION_TIMEOUT", "30s", 1);
    setenv("KAFKA_HEARTBEAT_INTERVAL", "1", 1);
    setenv("KAFKA_MAX_POLL_RECORDS", "many", 1);
    setenv("DATABASE_URL", "postgres://u:hush@h/db?sslmood=x&pool=1", 1);
    fixture_load(f, "");
    assert_string_equal(
        strbuf_str(&f->problems),
        "environment DATABASE_URL: database.conninfo must be \"name=value\" pairs such as \"host=db dbname=anubis\", or a URL such as "
        "\"postgres://user@host/anubis\"; libpq reports: invalid URI query parameter: "
        "\"sslmood\"\n"
        "environment KAFKA_SESSION_TIMEOUT: must be a whole number of milliseconds such as 10000, not \"30s\"\n"
        "environment KAFKA_HEARTBEAT_INTERVAL: consumers.heartbeat_interval must be between 100ms and 5m, not "
        "\"1ms\"\n"
        "environment KAFKA_MAX_POLL_RECORDS: consumers.max_poll_records must be a whole number such as 500, not "
        "many\n");
}

/* A directory with a credential in it, and a file beside. */
static void make_secrets(char *directory, const char *content, size_t len)
{
    CLEANUP(freep) char *path = NULL;

    assert_non_null(mkdtemp(directory));
    path = xasprintf("%s/secret", directory);
    fixture_write(path, content, len);
    setenv("CREDENTIALS_DIRECTORY", directory, 1);
}

static void remove_secrets(const char *directory)
{
    CLEANUP(freep) char *path = xasprintf("%s/secret", directory);

    unlink(path);
    rmdir(directory);
}

static void test_references_are_resolved(void **state)
{
    char directory[] = "/tmp/test_secrets.XXXXXX";
    CLEANUP(freep) char *text = NULL;
    const struct config *c;

    make_secrets(directory, "hush\n", 5);
    setenv("TEST_LEASE", "3m", 1);
    text = xasprintf("kafka: { sasl_password = \"credential:secret\"; properties: { ssl_key_password = "
                     "\"file:%s/secret\"; }; };\n delivery: { lease = \"env:TEST_LEASE\"; };",
                     directory);
    c = fixture_load_good(*state, text);
    remove_secrets(directory);
    assert_string_equal(c->kafka.sasl_password, "hush");
    assert_string_equal(c->kafka.properties.items[0].name, "ssl.key.password");
    assert_string_equal(c->kafka.properties.items[0].value, "hush");
    assert_int_equal(c->delivery.lease_usec, 180 * USEC_PER_SEC);
}

static void test_checking_reads_no_secret(void **state)
{
    struct fixture *f = *state;
    static const char text[] =
        "kafka: { sasl_password = \"credential:kafka\"; security_protocol = \"sasl_ssl\";\n"
        "  sasl_mechanism = \"PLAIN\"; sasl_username = \"file:/nonexistent\"; };\n"
        "delivery: { lease = \"env:NOWHERE\"; };\n"
        "database: { schema = \"env:NOWHERE\"; };\n";

    fixture_write(f->path, text, strlen(text));
    fixture_load_path(f, f->path, CONFIG_SECRETS_KEEP);
    assert_string_equal(strbuf_str(&f->problems), "");
    assert_string_equal(f->config->kafka.sasl_password, "credential:kafka");
}

static void test_the_operators_tool_reads_only_the_databases_secrets(void **state)
{
    struct fixture *f = *state;
    static const char text[] = "database: { conninfo = \"env:TEST_CONNINFO\"; };\n"
                               "kafka: { sasl_password = \"credential:kafka\";\n"
                               "  properties: { ssl_key_password = \"file:/nonexistent\"; }; };\n";

    setenv("TEST_CONNINFO", "dbname=there", 1);
    fixture_write(f->path, text, strlen(text));
    fixture_load_path(f, f->path, CONFIG_SECRETS_DATABASE);
    assert_string_equal(strbuf_str(&f->problems), "");
    assert_string_equal(f->config->database.conninfo, "dbname=there");
    assert_string_equal(f->config->kafka.sasl_password, "credential:kafka");
}

/* `result`: -EAGAIN where it may come by itself. */
static void assert_secret_problem(struct fixture *f, int result, const char *reference, const char *words)
{
    CLEANUP(freep) char *text = xasprintf("status: { token = \"%s\"; };", reference);
    CLEANUP(freep) char *wanted = xasprintf("1: status.token: %s: %s\n", reference, words);
    CLEANUP(strbuf_free) struct strbuf problems = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    fixture_load(f, text);
    fixture_problems(f, &problems);
    assert_string_equal(strbuf_str(&problems), wanted);
    assert_int_equal(f->result, result);
    CLEANUP(freep) char *more = xasprintf("%s token = 1;", text);
    fixture_load(f, more);
    assert_int_equal(f->result, -EINVAL);
}

static void test_references_that_lead_nowhere(void **state)
{
    struct fixture *f = *state;
    CLEANUP(freep) char *big = xcalloc(1, 100000);
    char directory[] = "/tmp/test_secrets.XXXXXX", reference[64];

    assert_secret_problem(f, -EAGAIN, "credential:x",
                          "no credentials are passed to this process ($CREDENTIALS_DIRECTORY is "
                          "not set); give the unit LoadCredential=x:/path");
    assert_secret_problem(f, -EINVAL, "credential:../x",
                          "a credential's name is a file name without \"/\"; for another place "
                          "write \"file:/path\"");
    assert_secret_problem(f, -EINVAL, "credential:..",
                          "a credential's name is a file name without \"/\"; for another place "
                          "write \"file:/path\"");
    assert_secret_problem(f, -EINVAL, "file:secret",
                          "the path must be absolute, as in \"file:/etc/anubis/secret\"");
    assert_secret_problem(f, -EAGAIN, "file:/nonexistent",
                          "could not open the file: No such file or directory");
    assert_secret_problem(f, -EAGAIN, "file:/tmp", "is a directory");
    assert_secret_problem(f, -EINVAL, "file:/dev/zero", "is not a regular file");
    assert_secret_problem(f, -EINVAL,
                          "env:", "the name of a variable must follow, as in \"env:KAFKA_PASSWORD\"");
    assert_secret_problem(f, -EINVAL, "env:NOT_SET_HERE", "the variable is not set in the environment");
    memset(big, 'x', 100000);
    make_secrets(directory, big, 100000);
    snprintf(reference, sizeof(reference), "file:%s/secret", directory);
    assert_secret_problem(f, -EAGAIN, reference, "is longer than 64 KiB, the most that is accepted");
    fixture_write(reference + 5, "\n", 1);
    assert_secret_problem(f, -EAGAIN, reference, "the value is empty");
    fixture_write(reference + 5, "a\0b", 3);
    assert_secret_problem(f, -EINVAL, reference, "the value contains a NUL byte");
    assert_secret_problem(f, -EAGAIN, "credential:other",
                          "could not open the file: No such file or directory; give the unit "
                          "LoadCredential=other:/path");
    remove_secrets(directory);
}

static const char with_secrets[] =
    "instance = \"a-b.c_1\";\n"
    "database: { conninfo = \"host=db user=u password='hush \\\\'hush' sslpassword = hush dbname=x\"; };\n"
    "delivery: { proxy = \"http://user:hush@proxy:3128\"; user_agent = \"a\\\"b\\\\\";\n"
    "            response_limit = \"1KiB\"; max_claim_bytes = \"1048576B\"; };\n"
    "kafka: { sasl_password = \"hush\"; properties: { linger.ms = 5; ssl_key_pem = \"hush\\nhush\"; check_crcs = true; };\n"
    "  consumer_properties: { ssl_keystore_password = \"hush\"; sasl_oauthbearer_client_secret = \"hush\"; }; };\n"
    "alerts: { webhook_url = \"https://u:hush@h/x?token=hush&a=b\"; webhook_secret = \"hush\"; failure_rate = 0.3; };\n"
    "status: { token = \"hush\"; }; audit: { signing_key = \"hush\"; };\n";

static void test_the_dump_hides_secrets(void **state)
{
    CLEANUP(strbuf_free) struct strbuf dump = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    struct fixture *f = *state;

    config_dump(fixture_load_good(f, with_secrets), &dump);
    assert_null(strstr(dump.data, "hush"));
    assert_non_null(
        strstr(dump.data, "conninfo = \"host=db user=u password=*** sslpassword=*** dbname=x\";"));
    assert_non_null(strstr(dump.data, "proxy = \"http://user:***@proxy:3128\";"));
    assert_non_null(strstr(dump.data, "webhook_url = \"https://***@h/***\";"));
    assert_non_null(strstr(dump.data, "sasl_password = \"***\";"));
    assert_non_null(strstr(dump.data, "ssl_key_pem = \"***\";"));
    assert_non_null(strstr(dump.data, "linger_ms = \"5\";"));
    assert_non_null(strstr(dump.data, "user_agent = \"a\\\"b\\\\\";"));
}

static void test_urls_without_their_secrets(void **state)
{
    static const struct {
        const char *url, *shown;
    } cases[] = {
        {"https://hush@h/x", "https://***@h/x"},
        {"https://h/x?a=1;token=hush;more&b=2", "https://h/x?a=1;token=***&b=2"},
        {"https://h/x?token=hu;sh#hush", "https://h/x?token=***"},
        {"https://h/x#access_token=hush&b", "https://h/x#access_token=***&b"},
        {"https://h/x?a=1;b#c", "https://h/x?a=1;b#c"},
    };
    (void) state;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(strbuf_free) struct strbuf shown = STRBUF_INIT(STRBUF_MAX_DEFAULT);
        config_url_scrub(cases[i].url, &shown);
        assert_string_equal(strbuf_str(&shown), cases[i].shown);
    }
}

/* As --check-config reads it: nothing but whether it is there. */
static void test_a_file_is_there_to_be_read(void **state)
{
    struct fixture *f = *state;
    static const char text[] = "kafka: { sasl_password = \"file:%s\"; };\n# the end";
    CLEANUP(freep) char *good = xasprintf(text, "/etc/hostname");
    CLEANUP(freep) char *bad = xasprintf(text, "/nonexistent");

    fixture_write(f->path, good, strlen(good));
    fixture_load_path(f, f->path, CONFIG_SECRETS_CHECK);
    assert_int_equal(f->result, 0);
    fixture_write(f->path, bad, strlen(bad));
    fixture_load_path(f, f->path, CONFIG_SECRETS_CHECK);
    assert_non_null(
        strstr(strbuf_str(&f->problems), ":1: kafka.sasl_password: file:/nonexistent: could not open"));
}

static void test_the_dump_hides_passwords_in_urls(void **state)
{
    static const struct {
        const char *url, *shown;
    } cases[] = {
        {"postgres://u:hush@h:5432/db", "postgres://u:***@h:5432/db"},
        {"postgres://u:hu?sh@h/db", "postgres://u:***@h/db"},
        {"postgres://u:7/hush@h/db", "postgres://u:***@h/db"},
        {"postgres://:hush@/db", "postgres://:***@/db"},
        {"postgres://u@h/db", "postgres://u@h/db"},
        {"postgres:///db?host=/run&password=hush&user=u", "postgres:///db?host=/run&password=***&user=u"},
        {"postgres:///db?password=hush", "postgres:///db?password=***"},
        {"postgres://u@h/db", "postgres://u@h/db"},
        {"host=h;password=hush", "host=***"},
        {"password=hush", "password=***"},
        {" password = 'hush' ", "password=***"},
        {"host=h password=hu\\\\ sh dbname=x", "host=h password=*** dbname=x"},
        {"", ""},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(strbuf_free) struct strbuf dump = STRBUF_INIT(STRBUF_MAX_DEFAULT);
        CLEANUP(freep) char *text = xasprintf("database: { conninfo = \"%s\"; };", cases[i].url);
        CLEANUP(freep) char *wanted = xasprintf("    conninfo = \"%s\";", cases[i].shown);

        config_dump(fixture_load_good(f, text), &dump);
        assert_non_null(strstr(dump.data, wanted));
    }
}

static void test_the_dump_names_where_values_come_from(void **state)
{
    CLEANUP(strbuf_free) struct strbuf dump = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    CLEANUP(freep) char *wanted = NULL;
    struct fixture *f = *state;

    setenv("KAFKA_CLIENT_ID", "x", 1);
    setenv("TEST_TOKEN", "hush", 1);
    setenv("TEST_CONNINFO", "password=hush", 1);
    config_dump(
        fixture_load_good(f, "\nretry: { max_attempts = 3; };\nstatus: { token = \"env:TEST_TOKEN\"; };\n"
                             "database: { conninfo = \"env:TEST_CONNINFO\"; };"),
        &dump);
    wanted = xasprintf("    max_attempts = 3;  # %s:2\n", f->path);
    assert_non_null(strstr(dump.data, wanted));
    assert_non_null(strstr(dump.data, "    base_delay = \"30s\";  # default\n"));
    assert_non_null(strstr(dump.data, "    client_id = \"x\";  # environment KAFKA_CLIENT_ID\n"));
    assert_non_null(strstr(dump.data, "    token = \"***\";  # "));
    assert_non_null(strstr(dump.data, ":3, env:TEST_TOKEN; without effect in this version\n"));
    assert_non_null(strstr(dump.data, "    conninfo = \"env:TEST_CONNINFO\";  # "));
    assert_non_null(strstr(dump.data, ";  # default: the host name\n"));
    assert_null(strstr(dump.data, "hush"));
}

static void test_the_dump_reads_back_as_the_same(void **state)
{
    CLEANUP(strbuf_free) struct strbuf shipped = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    struct fixture *f = *state;

    fixture_shipped(&shipped);
    for (int i = 0; i < 2; i++) {
        CLEANUP(strbuf_free) struct strbuf dump = STRBUF_INIT(STRBUF_MAX_DEFAULT);
        CLEANUP(strbuf_free) struct strbuf again = STRBUF_INIT(STRBUF_MAX_DEFAULT);
        CLEANUP(strbuf_free) struct strbuf differing = STRBUF_INIT(STRBUF_MAX_DEFAULT);
        CLEANUP(config_unrefp) struct config *before = NULL;

        config_dump(fixture_load_good(f, i == 0 ? shipped.data : with_secrets), &dump);
        before = config_ref(f->config);
        fixture_load_good(f, dump.data);
        config_diff(before, f->config, &differing, &differing);
        /* Only what was hidden differs. */
        assert_string_equal(strbuf_str(&differing),
                            i == 0
                                ? ""
                                : "database.conninfo\ndelivery.proxy\nkafka.sasl_password\nkafka.properties\n"
                                  "kafka.consumer_properties\nalerts.webhook_url\nalerts.webhook_secret\n"
                                  "status.token\naudit.signing_key\n");
        config_dump(f->config, &again);
        assert_true(again.len > 1000);
    }
}

static void test_differences_and_keys_without_effect(void **state)
{
    CLEANUP(strbuf_free) struct strbuf live = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    CLEANUP(strbuf_free) struct strbuf restart = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    CLEANUP(strbuf_free) struct strbuf unused = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    struct fixture *f = *state;
    CLEANUP(config_unrefp) struct config *before = NULL;

    fixture_load_good(f, "kafka: { properties: { linger_ms = 5; }; };");
    before = config_ref(f->config);
    fixture_load_good(
        f, "log_level = \"debug\"; delivery: { timeout = \"20s\"; allow_http = true; lease = \"90s\"; };"
           "kafka: { properties: { linger_ms = 6; }; brokers = \"b\"; }; alerts: { remediation = \"pause\"; "
           "min_samples = 20; }; consumers: { external = false; }; status: { listen = \"127.0.0.1:1\"; };");
    config_diff(before, f->config, &live, &restart);
    config_unused(f->config, &unused);
    assert_string_equal(
        strbuf_str(&live),
        "log_level\ndelivery.timeout\ndelivery.allow_http\nalerts.min_samples\nalerts.remediation\n");
    assert_string_equal(strbuf_str(&restart),
                        "kafka.brokers\nkafka.properties\nconsumers.external\nstatus.listen\n");
    assert_string_equal(strbuf_str(&unused), "status.listen\n");
}

static void test_sasl_without_use_is_a_notice(void **state)
{
    struct fixture *f = *state;

    /* The Rails guide's own .env does so. */
    setenv("KAFKA_SECURITY_PROTOCOL", "plaintext", 1);
    setenv("KAFKA_SECURITY_MECHANISM", "PLAIN", 1);
    fixture_load_good(f, "");
    assert_string_equal(
        strbuf_str(&f->notices),
        "environment KAFKA_SECURITY_PROTOCOL: kafka.sasl_mechanism and the like have no effect: "
        "security_protocol is \"plaintext\"\n");
}

static void test_secrets_are_not_quoted_in_problems(void **state)
{
    struct fixture *f = *state;

    setenv("TEST_SECRET", "hush\nhush", 1);
    fixture_load(
        f,
        "status: { token = \"hush\\nhush\"; };\n"
        "database: { conninfo = \"hush\"; schema = \"env:TEST_SECRET\"; };\n"
        "log_level = \"env:TEST_SECRET\"; delivery: { lease = \"env:TEST_SECRET\"; proxy = \"x://u:hush@h\"; };\n"
        "kafka: { sasl_password = \"hush\\n\"; properties: { sasl.password = \"hush\"; };\n"
        "  sasl_mechanism = \"http://u:hush@h\"; };");
    assert_int_equal(f->result, -EINVAL);
    assert_null(strstr(f->problems.data, "hush"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FIXTURE(test_an_empty_file_gives_the_defaults),
        WITH_FIXTURE(test_values_are_read),
        WITH_FIXTURE(test_a_file_may_end_in_any_way),
        WITH_FIXTURE(test_the_shipped_file_is_the_defaults),
        WITH_FIXTURE(test_mistakes_are_named),
        WITH_FIXTURE(test_all_mistakes_are_reported_at_once),
        WITH_FIXTURE(test_many_mistakes_are_counted),
        WITH_FIXTURE(test_files_that_are_none),
        WITH_FIXTURE(test_a_fifo_does_not_block),
        WITH_FIXTURE(test_an_unreadable_file_says_who_must_read_it),
        WITH_FIXTURE(test_the_environment_overrides_the_file),
        WITH_FIXTURE(test_parameters_of_later_rails_are_left_out),
        WITH_FIXTURE(test_an_empty_variable_counts_as_not_set),
        WITH_FIXTURE(test_mistakes_in_the_environment_name_the_variable),
        WITH_FIXTURE(test_references_are_resolved),
        WITH_FIXTURE(test_checking_reads_no_secret),
        WITH_FIXTURE(test_the_operators_tool_reads_only_the_databases_secrets),
        WITH_FIXTURE(test_references_that_lead_nowhere),
        WITH_FIXTURE(test_the_dump_hides_secrets),
        WITH_FIXTURE(test_the_dump_hides_passwords_in_urls),
        WITH_FIXTURE(test_urls_without_their_secrets),
        WITH_FIXTURE(test_a_file_is_there_to_be_read),
        WITH_FIXTURE(test_the_dump_names_where_values_come_from),
        WITH_FIXTURE(test_the_dump_reads_back_as_the_same),
        WITH_FIXTURE(test_differences_and_keys_without_effect),
        WITH_FIXTURE(test_sasl_without_use_is_a_notice),
        WITH_FIXTURE(test_secrets_are_not_quoted_in_problems),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
