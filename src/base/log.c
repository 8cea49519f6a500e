/* Log lines: made, folded, and handed to log_output.c.
 *
 * Any thread. Owns the level, the form, and the memory of the lines shown last, by which a flood is folded.
 * Must not wait, must not allocate without bound, and must not call anything that logs. */
#include "base/log.h"

#include <errno.h> /* program_invocation_short_name */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log_output.h"
#include "base/strbuf.h"
#include "base/timeutil.h"
#include "base/utf8.h"

#define TEXT_MAX 2048
/* Repeats are counted for this long at most before the count is written and the line shown again. */
#define FOLD_WINDOW_USEC (10 * USEC_PER_SEC)
/* Lines that take turns are remembered, and shown so often. */
#define REMEMBERED 16
#define TURNS_MAX 3
#define REMEMBERED_TEXT 200
#define FINISH_MS 1000

struct level {
    const char *priority; /* as the journal takes it */
    const char *word;
    const char *colour; /* ECMA-48, on a terminal only */
};

static const struct level levels[] = {
    [LOG_EMERG] = {"0", "emergency", "\x1b[1;31m"},
    [LOG_ALERT] = {"1", "alert", "\x1b[1;31m"},
    [LOG_CRIT] = {"2", "critical", "\x1b[1;31m"},
    [LOG_ERR] = {"3", "error", "\x1b[31m"},
    [LOG_WARNING] = {"4", "warning", "\x1b[33m"},
    [LOG_NOTICE] = {"5", "notice", "\x1b[1m"},
    [LOG_INFO] = {"6", "info", ""},
    [LOG_DEBUG] = {"7", "debug", "\x1b[2m"},
};

struct field {
    const char *name;  /* upper case, as in journald: SUBSCRIPTION_ID */
    const char *value; /* NULL = leave out */
};

/* One line, ready to be written: text bounded and free of control characters. */
struct line {
    int level;
    const char *message_id;
    const struct field *fields;
    const char *text;
};

static atomic_int log_level = LOG_INFO;

/* Set by log_init() before there are threads. */
static struct {
    bool journal, stamped, colour;
} target;

/* A line that was shown, within the window. */
struct shown {
    uint64_t hash; /* stands for the line, so that remembering it costs no copy */
    uint64_t since_usec, latest_usec;
    int level;
    unsigned turns, repeats; /* how often it was shown, and not shown since */
    char text[REMEMBERED_TEXT + 1];
};

static struct {
    pthread_mutex_t lock;
    struct shown shown[REMEMBERED];
    struct shown *last; /* what stands in the last line, NULL = not known */
    uint64_t lost;      /* lines that nobody took */
} memory = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* systemd sets JOURNAL_STREAM to "device:inode" of the stream it gave us; anything redirected since
 * differs. */
static bool stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat st;

    return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 && fstat(STDERR_FILENO, &st) == 0 &&
           (unsigned long long) st.st_dev == device && (unsigned long long) st.st_ino == inode;
}

/* On a terminal and in a file a line needs its time; who reads a pipe (a container's runtime, a supervisor)
 * adds his own, as the journal does. */
static bool stderr_wants_time(void)
{
    struct stat st;

    return isatty(STDERR_FILENO) || (fstat(STDERR_FILENO, &st) == 0 && S_ISREG(st.st_mode));
}

void log_init(void)
{
    const char *no_colour = getenv("NO_COLOR");

    target.journal = stderr_is_journal();
    target.stamped = stderr_wants_time();
    target.colour = isatty(STDERR_FILENO) && !(no_colour && *no_colour);
    log_output_init(target.journal);
}

void log_set_level(int level)
{
    atomic_store_explicit(&log_level, level, memory_order_relaxed);
}

bool log_enabled(int level)
{
    return level <= atomic_load_explicit(&log_level, memory_order_relaxed);
}

/* --- forms ------------------------------------------------------------------------------------ */

static void add_clean(struct strbuf *sb, const char *text)
{
    strbuf_add_harmless(sb, text, utf8_cut(text, strlen(text), TEXT_MAX));
}

static void add_for_people(struct strbuf *out, const struct line *l)
{
    const struct level *level = &levels[l->level];

    if (target.stamped) {
        strbuf_add_timestamp_sec(out, now_realtime_usec());
        strbuf_addc(out, ' ');
    }
    strbuf_addf(out, "%s%s:%s %s\n", target.colour ? level->colour : "", level->word,
                target.colour && *level->colour ? "\x1b[0m" : "", l->text);
}

/* The journal's native protocol; values have no line feed. */
static void add_field(struct strbuf *out, const char *name, const char *value)
{
    if (!value)
        return;
    strbuf_adds(out, name);
    strbuf_addc(out, '=');
    add_clean(out, value);
    strbuf_addc(out, '\n');
}

static void add_for_journald(struct strbuf *out, const struct line *l)
{
    add_field(out, "MESSAGE", l->text);
    add_field(out, "PRIORITY", levels[l->level].priority);
    add_field(out, "SYSLOG_IDENTIFIER", program_invocation_short_name);
    add_field(out, "MESSAGE_ID", l->message_id);
    for (const struct field *f = l->fields; f && f->name; f++)
        add_field(out, f->name, f->value);
}

static int send_line(const struct line *l)
{
    CLEANUP(strbuf_free) struct strbuf out = STRBUF_INIT((size_t) 64 * TEXT_MAX);

    (target.journal ? add_for_journald : add_for_people)(&out, l);
    return log_output_send(strbuf_str(&out), out.len);
}

static void write_stderr(const struct line *l)
{
    CLEANUP(strbuf_free) struct strbuf out = STRBUF_INIT((size_t) 4 * TEXT_MAX);

    add_for_people(&out, l);
    write_if_it_can_be(strbuf_str(&out));
}

static void write_line(const struct line *l)
{
    int r = send_line(l);

    if (r == -ENOBUFS)
        memory.lost++;
    else if (r < 0 && target.journal)
        write_stderr(l); /* journald has gone */
}

/* Once there is room again. */
static void tell_lost(void)
{
    char text[160];

    if (memory.lost == 0 || !log_output_flush())
        return;
    snprintf(text, sizeof(text), "%" PRIu64 " line%s of this log %s lost here: %s", memory.lost,
             plural((int64_t) memory.lost), memory.lost == 1 ? "was" : "were",
             target.journal ? "journald took none" : "nobody read what is written to stderr");
    memory.lost = 0;
    write_line(&(struct line){.level = LOG_WARNING, .text = text});
}

/* --- folding ---------------------------------------------------------------------------------- */

/* FNV-1a. */
static uint64_t hash_text(uint64_t hash, const char *text)
{
    for (; text && *text; text++)
        hash = (hash ^ (unsigned char) *text) * UINT64_C(0x100000001b3);
    return (hash ^ 0xff) * UINT64_C(0x100000001b3);
}

static uint64_t hash_line(const struct line *l)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325) + (uint64_t) l->level;

    hash = hash_text(hash, l->text);
    for (const struct field *f = l->fields; f && f->name; f++)
        hash = hash_text(hash_text(hash, f->name), f->value);
    return hash;
}

/* How often it came while it was not shown. Behind itself it needs no text. */
static void tell_repeats(struct shown *s)
{
    char text[REMEMBERED_TEXT + 64];

    if (s->repeats == 0)
        return;
    if (s == memory.last)
        snprintf(text, sizeof(text), "last message repeated %u time%s", s->repeats, plural(s->repeats));
    else
        snprintf(text, sizeof(text), "%u more time%s: %s", s->repeats, plural(s->repeats), s->text);
    s->repeats = 0;
    memory.last = s == memory.last ? s : NULL;
    write_line(&(struct line){.level = s->level, .text = text});
}

static void forget(struct shown *s)
{
    tell_repeats(s);
    memory.last = s == memory.last ? NULL : memory.last;
    *s = (struct shown){0};
}

/* Those whose time is over, in the order in which they came last: so the last one of lines that take turns
 * says how things are now. */
static void forget_old(uint64_t now)
{
    for (;;) {
        struct shown *first = NULL;

        for (struct shown *s = memory.shown; s < memory.shown + REMEMBERED; s++)
            if (s->turns && now - s->since_usec >= FOLD_WINDOW_USEC &&
                (!first || s->latest_usec < first->latest_usec))
                first = s;
        if (!first)
            return;
        forget(first);
    }
}

static struct shown *find(uint64_t hash)
{
    for (struct shown *s = memory.shown; s < memory.shown + REMEMBERED; s++)
        if (s->turns && s->hash == hash)
            return s;
    return NULL;
}

/* In the place of one that came seldom, and long ago. */
static struct shown *remember(const struct line *l, uint64_t hash, uint64_t now)
{
    struct shown *place = memory.shown;

    for (struct shown *s = memory.shown; s < memory.shown + REMEMBERED; s++)
        if (s->turns + s->repeats < place->turns + place->repeats ||
            (s->turns + s->repeats == place->turns + place->repeats && s->latest_usec < place->latest_usec))
            place = s;
    forget(place);
    *place = (struct shown){.hash = hash, .since_usec = now, .latest_usec = now, .level = l->level};
    memcpy(place->text, l->text, utf8_cut(l->text, strlen(l->text), REMEMBERED_TEXT));
    return place;
}

/* True when the line was counted instead of being shown. */
static bool fold(const struct line *l, uint64_t now)
{
    uint64_t hash = hash_line(l);

    forget_old(now);
    struct shown *s = find(hash);
    if (s && (s == memory.last || s->turns >= TURNS_MAX)) {
        s->repeats++;
        s->latest_usec = now;
        return true;
    }
    if (memory.last)
        tell_repeats(memory.last);
    s = s ? s : remember(l, hash, now);
    s->turns++;
    s->latest_usec = now;
    memory.last = s;
    return false;
}

void log_tick(void)
{
    pthread_mutex_lock(&memory.lock);
    tell_lost();
    forget_old(now_monotonic_usec());
    pthread_mutex_unlock(&memory.lock);
}

void log_finish(void)
{
    pthread_mutex_lock(&memory.lock);
    forget_old(UINT64_MAX);
    log_output_finish(FINISH_MS);
    tell_lost();
    pthread_mutex_unlock(&memory.lock);
}

/* --- lines ------------------------------------------------------------------------------------ */

#define NUMBERS 6

/* The decimal form of a number that is set, in the next of the buffers. */
static const char *number(char (**buffers)[24], bool is_set, int64_t value)
{
    if (!is_set)
        return NULL;
    snprintf(**buffers, sizeof(**buffers), "%" PRId64, value);
    return *(*buffers)++;
}

void log_about(int level, const char *message_id, const struct log_about *about, const char *fmt, ...)
{
    static const struct log_about nothing;
    CLEANUP(strbuf_free) struct strbuf clean = STRBUF_INIT(4 * TEXT_MAX);
    char text[TEXT_MAX + 2]; /* one byte more, which shows whether the limit cuts a character */
    char buffers[NUMBERS][24], (*next)[24] = buffers;
    va_list args;

    if (!log_enabled(level))
        return;
    about = about ? about : &nothing;
    const struct field fields[] = {
        {"SUBSCRIPTION_ID", number(&next, about->subscription_id != 0, about->subscription_id)},
        {"INTEGRATION_ID", number(&next, about->integration_id != 0, about->integration_id)},
        {"INTEGRATION_NAME", about->integration_name},
        {"EVENT_ID", about->event_id},
        {"ATTEMPT", number(&next, about->attempt != 0, about->attempt)},
        {"HTTP_STATUS", number(&next, about->http_status != 0, about->http_status)},
        {"KAFKA_TOPIC", about->kafka_topic},
        {"KAFKA_PARTITION", number(&next, about->kafka_at, about->kafka_partition)},
        {"KAFKA_OFFSET", number(&next, about->kafka_at, about->kafka_offset)},
        {"ERROR", about->error},
        {NULL, NULL},
    };
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    add_clean(&clean, text);

    const struct line line = {level, message_id, fields, strbuf_str(&clean)};
    pthread_mutex_lock(&memory.lock);
    tell_lost();
    if (!fold(&line, now_monotonic_usec()))
        write_line(&line);
    pthread_mutex_unlock(&memory.lock);
}

void log_lines(int level, const char *message_id, const char *before, const char *text)
{
    while (*text) {
        size_t len = strcspn(text, "\n");

        log_line(level, message_id, "%s%.*s", before, (int) MIN(len, (size_t) 2000), text);
        text += len + (text[len] == '\n');
    }
}
