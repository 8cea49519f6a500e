/* Sample institutions for the demo, the tests and the benchmarks: one HTTP server on loopback whose paths
 * have characters (good, flaky, dead …; GET / lists them), and which remembers what it was sent.
 *
 * libmicrohttpd's thread runs every handler here; what waits or misbehaves goes to the stage thread
 * (institutions_stage.h), what is remembered to the book (institutions_book.h). Never to be reachable from
 * outside. */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <microhttpd.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "institutions_book.h"
#include "institutions_ports.h"
#include "institutions_stage.h"

#define BODY_MAX ((size_t) 64 << 20)
#define DELAY_MAX_MS 3600000

struct options {
    int port, more_ports, idle_timeout;
    int64_t keys;
    bool count, lifeline;
    const char *tls_cert, *tls_key;
};

enum body {
    BODY_USUAL, /* a short JSON object that fits the status */
    BODY_LATIN1,
    BODY_HUGE, /* `number` bytes of JSON */
    BODY_ENDLESS,
    BODY_BOMB, /* gzip of `number` zero bytes */
    BODY_ECHO,
    BODY_EMPTY,
};

struct request {
    struct actor actor;
    struct place *place; /* NULL: not an institution but a question to us */
    const struct character *character;
    int64_t number;
    struct strbuf head, body;
    char key[KEY_SIZE];
    bool has_key, staged;
    unsigned connection_requests, receipt;
    int status; /* of the answer, NO_ANSWER for none */
    enum body answer;
    int64_t retry_after;
    bool retry_after_date;
    struct request *next_free;
};

struct character {
    const char *name;
    const char *help;
    int64_t number; /* default; -1: takes none */
    bool before_body;
    void (*play)(struct request *r);
};

static atomic_uint_fast64_t dice;
static bool counting;
static struct MHD_Response *usual_ok, *usual_error;

/* --- characters ------------------------------------------------------------------------------- */

/* Each decides status, answer and script. Defaults: 200, BODY_USUAL, no script, no delay. */

static void play_good(struct request *r)
{
    (void) r;
}

static void act_out(struct request *r, const struct script *script, int status)
{
    r->actor.script = script;
    r->status = status;
}

static void play_slow(struct request *r)
{
    r->actor.due_usec = now_monotonic_usec() + (uint64_t) MIN(r->number, DELAY_MAX_MS) * USEC_PER_MSEC;
}

/* The same key at the same attempt always meets the same fate, another attempt another one. */
static void play_flaky(struct request *r)
{
    uint64_t h = r->has_key ? hash_string(r->key) : 0;
    uint64_t n = r->receipt ? r->receipt : atomic_fetch_add(&dice, 1);
    h = (h ^ n * UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xd6e8feb86659fd93);
    if ((int64_t) ((h >> 40) % 100) < r->number)
        r->status = 500;
}

static void play_dead(struct request *r)
{
    r->status = r->number ? (int) r->number : atomic_fetch_add(&dice, 1) % 2 ? 502 : 503;
}

static void play_silent(struct request *r)
{
    static const struct script script = {.ending = ENDING_NEVER};
    act_out(r, &script, NO_ANSWER);
}

static void play_limited(struct request *r)
{
    if (book_take_token(r->place, (uint64_t) r->number))
        return;
    r->status = 429;
    if (r->retry_after < 0)
        r->retry_after = 1;
}

static void play_reset(struct request *r)
{
    static const struct script script = {.ending = ENDING_RESET};
    act_out(r, &script, NO_ANSWER);
}

static void play_close(struct request *r)
{
    static const struct script script = {.ending = ENDING_CLOSE};
    act_out(r, &script, NO_ANSWER);
}

static void play_second_close(struct request *r)
{
    if (r->connection_requests > 1)
        play_close(r);
}

static void play_second_reset(struct request *r)
{
    if (r->connection_requests > 1)
        play_reset(r);
}

static void play_reject(struct request *r)
{
    r->status = (int) r->number;
    if (r->status < 200 || r->status == 204 || r->status == 304)
        r->answer = BODY_EMPTY;
}

static void play_huge(struct request *r)
{
    r->answer = BODY_HUGE;
}

static void play_endless(struct request *r)
{
    r->answer = BODY_ENDLESS;
}

static void play_gzip(struct request *r)
{
    r->answer = BODY_BOMB;
}

static void play_latin1(struct request *r)
{
    r->answer = BODY_LATIN1;
}

static void play_echo(struct request *r)
{
    r->answer = BODY_ECHO;
}

static void play_endless_headers(struct request *r)
{
    static const struct script script = {
        .head = "HTTP/1.1 200 OK\r\n", .repeat = "X-More: and more and more and more and more and more\r\n"};
    act_out(r, &script, 200);
}

static void play_continues(struct request *r)
{
    static const struct script script = {.repeat = "HTTP/1.1 100 Continue\r\n\r\n", .pause_ms = 10};
    act_out(r, &script, NO_ANSWER);
}

static void play_hints(struct request *r)
{
    static const struct script script = {
        .head = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"
                "HTTP/1.1 201 Created\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
        .ending = ENDING_CLOSE,
    };
    act_out(r, &script, 201);
}

static void play_garbage(struct request *r)
{
    static const struct script script = {.head = "\x16\x03\x01 this is not HTTP \xff\xfe\r\n\r\n",
                                         .ending = ENDING_CLOSE};
    act_out(r, &script, NO_ANSWER);
}

static void play_cut(struct request *r)
{
    static const struct script script = {
        .head =
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{\"half\":",
        .ending = ENDING_RESET,
    };
    act_out(r, &script, 200);
}

static void play_short(struct request *r)
{
    static const struct script script = {
        .head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{}",
        .ending = ENDING_CLOSE,
    };
    act_out(r, &script, 200);
}

static void play_drip(struct request *r)
{
    static const struct script script = {
        .head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n", .repeat = " ", .pause_ms = 200};
    act_out(r, &script, 200);
}

static void play_early(struct request *r)
{
    static const struct script script = {
        .head =
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
        .drain = true,
        .ending = ENDING_CLOSE,
    };
    act_out(r, &script, 200);
}

static void play_early_reject(struct request *r)
{
    static const struct script script = {
        .head = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        .drain = true,
        .ending = ENDING_CLOSE,
    };
    act_out(r, &script, 413);
}

static const struct character characters[] = {
    {"good", "answers 200 at once", -1, false, play_good},
    {"slow", "answers 200 after N milliseconds", 1000, false, play_slow},
    {"flaky", "answers 500 to N percent, by key and attempt, else 200", 30, false, play_flaky},
    {"dead", "answers 502 or 503 (or always N)", 0, false, play_dead},
    {"silent", "reads everything and never answers", -1, false, play_silent},
    {"limited", "answers N requests a second, the others 429 with Retry-After: 1", 10, false, play_limited},
    {"reject", "answers status N", 422, false, play_reject},
    {"reset", "reads everything, then resets the connection", -1, false, play_reset},
    {"reset-before", "resets the connection without reading the body", -1, true, play_reset},
    {"close", "reads everything, then closes without an answer", -1, false, play_close},
    {"close-before", "closes without reading the body", -1, true, play_close},
    {"second-close", "good, but closes instead of answering a connection's second request", -1, false,
     play_second_close},
    {"second-reset", "the same with a reset", -1, false, play_second_reset},
    {"huge", "answers 200 and N bytes", 1 << 30, false, play_huge},
    {"endless", "answers 200 and a body without end", -1, false, play_endless},
    {"gzip", "answers 200 and N bytes of zeros, compressed 158 times", 1 << 30, false, play_gzip},
    {"latin1", "answers 200 and a body that is not UTF-8", -1, false, play_latin1},
    {"endless-headers", "sends headers for ever", -1, false, play_endless_headers},
    {"continues", "sends status 100 for ever", -1, false, play_continues},
    {"hints", "sends status 103, then 201", -1, false, play_hints},
    {"garbage", "sends what is not HTTP", -1, false, play_garbage},
    {"cut", "sends 200 and a part of the body, then resets", -1, false, play_cut},
    {"short", "sends 200 and less than Content-Length says, then closes", -1, false, play_short},
    {"drip", "sends 200 and a byte of the body every 200 ms", -1, false, play_drip},
    {"early", "sends 200 before it reads the body", -1, true, play_early},
    {"early-reject", "sends 413 before it reads the body", -1, true, play_early_reject},
    {"echo", "answers 200 and what it was sent", -1, false, play_echo},
};

/* Splits "/flaky/30/usp" into character and number; what follows only tells institutions apart. */
static const struct character *character_find(const char *path, int64_t *ret_number)
{
    const char *name = path + (path[0] == '/');
    size_t len = strcspn(name, "/");
    for (size_t i = 0; i < ARRAY_SIZE(characters); i++) {
        const struct character *c = &characters[i];
        if (strncmp(c->name, name, len) != 0 || c->name[len])
            continue;
        char *end = NULL;
        long long n = name[len] ? strtoll(name + len + 1, &end, 10) : 0;
        bool given = end && end > name + len + 1 && (*end == 0 || *end == '/') && n >= 0;
        *ret_number = c->number >= 0 && given ? n : c->number;
        return c;
    }
    return NULL;
}

/* --- requests: taken from a list and given back to it ----------------------------------------- */

static pthread_mutex_t requests_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct request *free_requests;

static struct request *request_new(struct MHD_Connection *connection)
{
    pthread_mutex_lock(&requests_mutex);
    struct request *r = free_requests;
    if (r)
        free_requests = r->next_free;
    pthread_mutex_unlock(&requests_mutex);
    if (!r) {
        r = xcalloc(1, sizeof *r);
        r->head = STRBUF_INIT((size_t) 1 << 20);
        r->body = STRBUF_INIT(BODY_MAX);
    }
    struct strbuf head = r->head, body = r->body;
    *r = (struct request){.head = head, .body = body, .status = 200, .retry_after = -1};
    strbuf_clear(&r->head);
    strbuf_clear(&r->body);
    r->actor.connection = connection;
    return r;
}

static void request_done(void *unused, struct MHD_Connection *connection, void **data,
                         enum MHD_RequestTerminationCode how)
{
    (void) unused;
    (void) connection;
    (void) how;
    struct request *r = *data;
    if (!r)
        return;
    if (r->body.capacity > ((size_t) 1 << 20))
        strbuf_free(&r->body);
    r->body.max = BODY_MAX;
    pthread_mutex_lock(&requests_mutex);
    r->next_free = free_requests;
    free_requests = r;
    pthread_mutex_unlock(&requests_mutex);
    *data = NULL;
}

static void requests_free(void)
{
    for (struct request *r = free_requests; r; r = free_requests) {
        free_requests = r->next_free;
        strbuf_free(&r->head);
        strbuf_free(&r->body);
        free(r);
    }
}

static const char *header(struct request *r, const char *name)
{
    return MHD_lookup_connection_value(r->actor.connection, MHD_HEADER_KIND, name);
}

static const char *argument(struct request *r, const char *name)
{
    return MHD_lookup_connection_value(r->actor.connection, MHD_GET_ARGUMENT_KIND, name);
}

static int64_t argument_number(struct request *r, const char *name, int64_t otherwise)
{
    int64_t n = otherwise;
    const char *text = argument(r, name);
    if (text)
        parse_i64(text, 0, INT32_MAX, &n);
    return n;
}

static enum MHD_Result head_line(void *head, enum MHD_ValueKind kind, const char *name, const char *value)
{
    (void) kind;
    strbuf_addf(head, "%s: %s\n", name, value ? value : "");
    return MHD_YES;
}

/* Every request we are sent is anubisd's and has to look like it. */
static unsigned request_check(struct request *r, const char *method)
{
    unsigned found = 0;
    const char *type = header(r, "Content-Type"), *key = header(r, "Idempotency-Key");
    if (strcmp(method, "POST") != 0)
        found |= 1U << VIOLATION_METHOD;
    if (!type || strncasecmp(type, "application/json", 16) != 0)
        found |= 1U << VIOLATION_CONTENT_TYPE;
    if (!header(r, "Authorization"))
        found |= 1U << VIOLATION_AUTHORIZATION;
    if (!key || !*key)
        found |= 1U << VIOLATION_KEY_MISSING;
    else if (strlen(key) >= KEY_SIZE)
        found |= 1U << VIOLATION_KEY_LONG;
    if (r->body.overflowed || !json_is_valid(strbuf_str(&r->body), r->body.len, JSON_MAX_DEPTH))
        found |= 1U << VIOLATION_JSON;
    if (key && *key) {
        r->has_key = true;
        size_t len = MIN(strlen(key), KEY_SIZE - 1U);
        memcpy(r->key, key, len);
        r->key[len] = 0;
    }
    return found;
}

/* --- answers ---------------------------------------------------------------------------------- */

static ssize_t fill_with(void *what, uint64_t position, char *buffer, size_t size)
{
    const char *c = what;
    memset(buffer, *c, size);
    if (position == 0)
        buffer[0] = '"';
    return (ssize_t) size;
}

/* A gzip file of zeros, cut off before its end. Eight matches of 258 bytes at distance 1, in deflate's fixed
 * code, are 13 bytes, which repeat for ever. */
static ssize_t fill_with_bomb(void *unused, uint64_t position, char *buffer, size_t size)
{
    /* gzip's header, then the block's header (3 bits: final, fixed code) and the literal 0 (8 bits: 0x30). */
    static const unsigned char start[] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x63, 0};
    unsigned char repeat[13] = {0};
    (void) unused;
    /* 11 bits are out: the pattern starts at bit 3. A match is 11000101 (length 258) and 00000 (distance 1),
     * the first bit lowest. */
    for (unsigned match = 0; match < 8; match++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            unsigned at = (3 + match * 13 + bit) % (8 * sizeof repeat);
            repeat[at / 8] |= (unsigned char) (((0xc5U >> (7 - bit)) & 1) << (at % 8));
        }
    }
    for (size_t i = 0; i < size; i++) {
        uint64_t at = position + i;
        unsigned char c = at < sizeof start ? start[at] : repeat[(at - 11) % sizeof repeat];
        if (at == 11)
            c = (unsigned char) (start[11] | (repeat[0] & 0xf8));
        buffer[i] = (char) c;
    }
    return (ssize_t) size;
}

static struct MHD_Response *answer_echo(struct request *r)
{
    struct strbuf out = STRBUF_INIT(4 * BODY_MAX);
    strbuf_adds(&out, "{\"head\": ");
    json_add_string(&out, strbuf_str(&r->head), r->head.len);
    strbuf_adds(&out, ", \"body\": ");
    if (json_is_valid(strbuf_str(&r->body), r->body.len, JSON_MAX_DEPTH - 1))
        strbuf_add(&out, r->body.data, r->body.len);
    else
        json_add_string(&out, strbuf_str(&r->body), r->body.len);
    strbuf_adds(&out, "}");
    size_t len = out.len;
    return MHD_create_response_from_buffer(len, strbuf_take(&out), MHD_RESPMEM_MUST_FREE);
}

static struct MHD_Response *answer_static(const char *text)
{
    return MHD_create_response_from_buffer(strlen(text), (void *) (uintptr_t) text, MHD_RESPMEM_PERSISTENT);
}

static struct MHD_Response *answer_usual(int status)
{
    struct MHD_Response *a =
        answer_static(status < 300 ? "{\"status\":\"accepted\"}" : "{\"error\":\"not accepted\"}");
    MHD_add_response_header(a, "Content-Type", "application/json");
    return a;
}

static struct MHD_Response *answer_new(struct request *r)
{
    static char spaces[] = " ";
    struct MHD_Response *a;
    switch (r->answer) {
    case BODY_HUGE:
        return MHD_create_response_from_callback((uint64_t) r->number, 65536, fill_with, spaces, NULL);
    case BODY_ENDLESS:
        return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 65536, fill_with, spaces, NULL);
    case BODY_BOMB:
        a = MHD_create_response_from_callback((uint64_t) (r->number / 2064 * 13 + 12), 65536, fill_with_bomb,
                                              NULL, NULL);
        MHD_add_response_header(a, "Content-Encoding", "gzip");
        return a;
    case BODY_LATIN1:
        a = answer_static("{\"mensagem\":\"inscri\xe7\xe3o aceita\"}");
        MHD_add_response_header(a, "Content-Type", "application/json; charset=iso-8859-1");
        return a;
    case BODY_ECHO:
        return answer_echo(r);
    case BODY_EMPTY:
        return answer_static("");
    case BODY_USUAL:
        break;
    }
    return answer_usual(r->status);
}

static void add_retry_after(struct MHD_Response *answer, const struct request *r)
{
    char text[64];
    if (r->retry_after_date) {
        time_t when = time(NULL) + (time_t) r->retry_after;
        struct tm tm;
        strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&when, &tm));
    } else {
        snprintf(text, sizeof text, "%jd", (intmax_t) r->retry_after);
    }
    MHD_add_response_header(answer, "Retry-After", text);
}

static enum MHD_Result request_answer(struct request *r)
{
    struct MHD_Connection *c = r->actor.connection;
    bool plain = r->answer == BODY_USUAL && (r->retry_after < 0 || r->status < 400);
    if (plain)
        return MHD_queue_response(c, (unsigned) r->status, r->status < 300 ? usual_ok : usual_error);
    struct MHD_Response *answer = answer_new(r);
    if (r->retry_after >= 0 && r->status >= 300)
        add_retry_after(answer, r);
    if (r->status >= 300 && r->status < 400)
        MHD_add_response_header(answer, "Location", "/good/redirected");
    enum MHD_Result result = MHD_queue_response(c, (unsigned) r->status, answer);
    MHD_destroy_response(answer);
    return result;
}

/* --- the flow of a request -------------------------------------------------------------------- */

/* Lets the character decide and goes on stage or answers. */
static enum MHD_Result request_play(struct request *r)
{
    r->retry_after_date = argument(r, "retry_after_date");
    r->retry_after = argument_number(r, r->retry_after_date ? "retry_after_date" : "retry_after", -1);
    int64_t delay = argument_number(r, "delay", 0);
    if (delay > 0)
        r->actor.due_usec = now_monotonic_usec() + (uint64_t) MIN(delay, DELAY_MAX_MS) * USEC_PER_MSEC;
    r->character->play(r);
    book_answer(r->place, r->has_key ? r->key : NULL, r->receipt, r->status);
    if (!r->actor.script && !r->actor.due_usec)
        return request_answer(r);
    r->staged = true;
    stage_enter(&r->actor);
    return r->actor.hung_up ? MHD_NO : MHD_YES;
}

static enum MHD_Result request_begin(struct request *r, const char *path)
{
    r->place = book_place(path, true);
    const char *role = atomic_load(&r->place->role);
    r->character = character_find(role ? role : path, &r->number);
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(r->actor.connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    if (info && info->socket_context)
        r->connection_requests = ++*(unsigned *) info->socket_context;
    if (!r->character || !r->character->before_body)
        return MHD_YES;
    book_cut_short(r->place);
    return request_play(r);
}

static enum MHD_Result request_end(struct request *r, const char *method, const char *path)
{
    unsigned violations = counting ? request_check(r, method) : 0;
    const char *key = r->has_key ? r->key : NULL;
    r->receipt = book_receive(r->place, key, r->body.len, violations);
    if (!r->character) {
        r->status = 404;
        book_answer(r->place, key, r->receipt, r->status);
        return request_answer(r);
    }
    bool echo = r->character->play == play_echo;
    if (counting || echo) {
        strbuf_addf(&r->head, "%s %s\n", method, path);
        MHD_get_connection_values(r->actor.connection, MHD_HEADER_KIND, head_line, &r->head);
    }
    if (counting && !echo)
        book_remember_last(r->place, &r->head, &r->body);
    return request_play(r);
}

/* --- questions to the server itself ----------------------------------------------------------- */

static enum MHD_Result reply(struct request *r, unsigned status, struct strbuf *text)
{
    size_t len = text->len;
    struct MHD_Response *a =
        MHD_create_response_from_buffer(len, len ? strbuf_take(text) : NULL, MHD_RESPMEM_MUST_FREE);
    enum MHD_Result result = MHD_queue_response(r->actor.connection, status, a);
    MHD_destroy_response(a);
    return result;
}

static enum MHD_Result ask_counts(struct request *r, const char *rest)
{
    struct strbuf out = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    (void) rest;
    book_print(&out, argument(r, "path"));
    return reply(r, 200, &out);
}

static enum MHD_Result ask_key(struct request *r, const char *rest)
{
    struct strbuf out = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    return reply(r, book_print_key(&out, rest) ? 200 : 404, &out);
}

static enum MHD_Result ask_last(struct request *r, const char *rest)
{
    struct strbuf out = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    (void) rest;
    const char *path = argument(r, "path");
    struct place *place = path ? book_place(path, false) : NULL;
    if (place)
        book_print_last(&out, place);
    return reply(r, place ? 200 : 404, &out);
}

struct listing {
    uint32_t position;
    char *only;
};

static ssize_t listing_fill(void *cls, uint64_t position, char *buffer, size_t size)
{
    struct listing *l = cls;
    (void) position;
    size_t used = book_print_keys(&l->position, l->only, buffer, size);
    return used ? (ssize_t) used : (ssize_t) MHD_CONTENT_READER_END_OF_STREAM;
}

static void listing_free(void *cls)
{
    struct listing *l = cls;
    free(l->only);
    free(l);
}

static enum MHD_Result ask_keys(struct request *r, const char *rest)
{
    (void) rest;
    struct listing *l = xcalloc(1, sizeof *l);
    l->only = xstrdup(argument(r, "path"));
    struct MHD_Response *a =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 65536, listing_fill, l, listing_free);
    enum MHD_Result result = MHD_queue_response(r->actor.connection, 200, a);
    MHD_destroy_response(a);
    return result;
}

static enum MHD_Result tell_reset_counts(struct request *r, const char *rest)
{
    struct strbuf out = STRBUF_INIT(64);
    (void) rest;
    book_forget();
    return reply(r, 200, &out);
}

/* From now on `path` behaves as `role` would ("" = as itself again). */
static enum MHD_Result tell_become(struct request *r, const char *rest)
{
    struct strbuf out = STRBUF_INIT(1024);
    int64_t number;
    (void) rest;
    const char *path = argument(r, "path"), *role = argument(r, "role");
    if (!path || !role || (*role && !character_find(role, &number))) {
        strbuf_adds(&out, "wanted: path=/PATH&role=/CHARACTER\n");
        return reply(r, 400, &out);
    }
    atomic_store(&book_place(path, true)->role, *role ? book_place(role, true)->path : NULL);
    return reply(r, 200, &out);
}

static enum MHD_Result ask_help(struct request *r, const char *rest)
{
    struct strbuf out = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    (void) rest;
    for (size_t i = 0; i < ARRAY_SIZE(characters); i++)
        strbuf_addf(&out, "POST /%s%s/ANY  %s\n", characters[i].name, characters[i].number < 0 ? "" : "/N",
                    characters[i].help);
    strbuf_adds(&out, "     ?delay=MS  ?retry_after=SECONDS  ?retry_after_date=SECONDS  fit any of them\n"
                      "GET  /counts?path=  /keys?path=  /key/KEY  /last?path=\n"
                      "POST /reset-counts  /become?path=/PATH&role=/CHARACTER\n");
    return reply(r, 200, &out);
}

static const struct question {
    const char *method, *path; /* a path that ends with / takes a rest */
    enum MHD_Result (*ask)(struct request *r, const char *rest);
} questions[] = {
    {"GET", "/counts", ask_counts},
    {"GET", "/keys", ask_keys},
    {"GET", "/key/", ask_key},
    {"GET", "/last", ask_last},
    {"POST", "/reset-counts", tell_reset_counts},
    {"POST", "/become", tell_become},
    {"GET", "/", ask_help},
};

static const struct question *question_find(const char *method, const char *path, const char **ret_rest)
{
    for (size_t i = 0; i < ARRAY_SIZE(questions); i++) {
        const struct question *q = &questions[i];
        size_t len = strlen(q->path);
        bool takes_rest = len > 1 && q->path[len - 1] == '/';
        if (strcmp(method, q->method) == 0 && strncmp(path, q->path, len) == 0 &&
            (takes_rest || !path[len])) {
            *ret_rest = path + len;
            return q;
        }
    }
    return NULL;
}

static enum MHD_Result on_request(void *unused, struct MHD_Connection *connection, const char *path,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_size, void **data)
{
    struct request *r = *data;
    const char *rest = NULL;
    (void) unused;
    (void) version;
    if (r && r->staged)
        return r->actor.hung_up ? MHD_NO : request_answer(r);
    if (r && *upload_size) {
        strbuf_add(&r->body, upload, *upload_size);
        *upload_size = 0;
        return MHD_YES;
    }
    const struct question *q = !r || !r->place ? question_find(method, path, &rest) : NULL;
    if (!r) {
        *data = r = request_new(connection);
        return q ? MHD_YES : request_begin(r, path);
    }
    return q ? q->ask(r, rest) : request_end(r, method, path);
}

static void on_connection(void *unused, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    (void) unused;
    (void) connection;
    if (what == MHD_CONNECTION_NOTIFY_STARTED)
        *context = xcalloc(1, sizeof(unsigned));
    else
        freep(context);
}

static void usage(FILE *to)
{
    fputs("Usage: institutions [OPTION]...\n"
          "Sample institutions on a free port of 127.0.0.1, until SIGTERM. GET / lists what they can do.\n\n"
          "  --port=N                     this port\n"
          "  --more-ports=N               listen on N more free ports, which the line \"also on\" names\n"
          "  --no-count                   totals only: for benchmarks\n"
          "  --keys=N                     remember so many keys (4000000)\n"
          "  --idle-timeout=SECONDS       close idle connections\n"
          "  --tls-cert=FILE --tls-key=FILE   speak TLS (what writes raw bytes does not work then)\n"
          "  --lifeline                   end when standard input ends\n"
          "  --help\n",
          to);
}

static int options_parse(struct options *o, int argc, char **argv)
{
    static const struct option known[] = {
        {"port", 1, NULL, 'p'},    {"more-ports", 1, NULL, 'm'},   {"no-count", 0, NULL, 'n'},
        {"keys", 1, NULL, 'k'},    {"idle-timeout", 1, NULL, 'i'}, {"tls-cert", 1, NULL, 'c'},
        {"tls-key", 1, NULL, 'K'}, {"lifeline", 0, NULL, 'l'},     {"help", 0, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int64_t n = 0;
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        int64_t most = c == 'p' ? 65535 : c == 'm' ? PORTS_MAX : 100000000;
        if (strchr("pmki", c) && parse_i64(optarg, 0, most, &n) < 0) {
            fprintf(stderr, "institutions: a number is wanted, not \"%s\"\n", optarg);
            return -EINVAL;
        }
        switch (c) {
        case 'p':
            o->port = (int) n;
            break;
        case 'm':
            o->more_ports = (int) n;
            break;
        case 'k':
            o->keys = n;
            break;
        case 'i':
            o->idle_timeout = (int) n;
            break;
        case 'n':
            o->count = false;
            break;
        case 'c':
            o->tls_cert = optarg;
            break;
        case 'K':
            o->tls_key = optarg;
            break;
        case 'l':
            o->lifeline = true;
            break;
        case 'h':
            usage(stdout);
            exit(0);
        default:
            usage(stderr);
            return -EINVAL;
        }
    }
    return optind == argc ? 0 : -EINVAL;
}

static char *file_read(const char *path)
{
    FILE *f = fopen(path, "re");
    if (!f) {
        fprintf(stderr, "institutions: could not read \"%s\": %m\n", path);
        exit(1);
    }
    char *text = xcalloc(1, 65536);
    (void) !fread(text, 1, 65535, f);
    fclose(f);
    return text;
}

/* Driven by our own loop: libmicrohttpd's (0.9.75) sleeps with requests in its hands whenever exactly as many
 * sockets are ready as it asks for at once, 128. */
static struct MHD_Daemon *server_start(const struct options *o)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t) o->port),
                                  .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME;
    struct MHD_OptionItem more[5] = {{MHD_OPTION_END, 0, NULL}};
    int n = 0;
    char *cert = NULL, *key = NULL;
    if (o->tls_cert && o->tls_key) {
        flags |= MHD_USE_TLS;
        more[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_CERT, 0, cert = file_read(o->tls_cert)};
        more[n++] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_KEY, 0, key = file_read(o->tls_key)};
    }
    more[n] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};
    struct MHD_Daemon *server = MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, NULL, MHD_OPTION_SOCK_ADDR, (struct sockaddr *) &address,
        MHD_OPTION_NOTIFY_COMPLETED, request_done, NULL, MHD_OPTION_NOTIFY_CONNECTION, on_connection, NULL,
        MHD_OPTION_CONNECTION_LIMIT, 60000U, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned) o->idle_timeout,
        MHD_OPTION_LISTEN_BACKLOG_SIZE, 4096U, MHD_OPTION_ARRAY, more, MHD_OPTION_END);
    free(cert);
    free(key);
    return server;
}

/* Until SIGTERM or SIGINT, or with a lifeline the end of standard input. */
static void serve(struct MHD_Daemon *server, const sigset_t *signals, bool lifeline)
{
    struct pollfd fds[] = {
        {.fd = MHD_get_daemon_info(server, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd, .events = POLLIN},
        {.fd = signalfd(-1, signals, SFD_CLOEXEC), .events = POLLIN},
        {.fd = lifeline ? 0 : -1, .events = POLLIN},
        {.fd = stage.left_fd, .events = POLLIN},
        {.fd = ports.ready_fd, .events = POLLIN},
    };
    char dropped[4096];
    eventfd_t left;

    for (;;) {
        MHD_UNSIGNED_LONG_LONG timeout_ms;
        bool limited = MHD_get_timeout(server, &timeout_ms) == MHD_YES;

        if (poll(fds, ARRAY_SIZE(fds), limited ? (int) MIN(timeout_ms, 60000) : -1) > 0 &&
            (fds[1].revents || (fds[2].revents && read(0, dropped, sizeof dropped) <= 0)))
            break;
        eventfd_read(stage.left_fd, &left);
        if (fds[4].revents)
            ports_accept(server);
        MHD_run(server);
    }
    close(fds[1].fd);
}

int main(int argc, char **argv)
{
    struct options o = {.count = true, .keys = 4000000};
    if (options_parse(&o, argc, argv) < 0)
        return 64;
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);

    counting = o.count;
    book_open(o.count, (uint32_t) o.keys);
    usual_ok = answer_usual(200);
    usual_error = answer_usual(500);
    stage_open();
    struct MHD_Daemon *server = server_start(&o);
    if (!server) {
        fprintf(stderr, "institutions: could not listen: %m\n");
        return 1;
    }
    if (!ports_open(o.more_ports)) {
        fprintf(stderr, "institutions: could not listen on %d more ports: %m\n", o.more_ports);
        return 1;
    }
    printf("listening on 127.0.0.1:%d\n", MHD_get_daemon_info(server, MHD_DAEMON_INFO_BIND_PORT)->port);
    fflush(stdout);
    serve(server, &signals, o.lifeline);

    stage_close();
    ports_close();
    MHD_stop_daemon(server);
    MHD_destroy_response(usual_ok);
    MHD_destroy_response(usual_error);
    requests_free();
    return 0;
}
