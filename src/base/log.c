/* Where log lines go: journald's native protocol, or stderr.
 *
 * Any thread. Owns the level, the destination and the memory of the last line, by which a flood is folded.
 * Must not allocate without bound and must not call anything that logs. */
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define SD_JOURNAL_SUPPRESS_LOCATION /* it would always be this file */
#include <systemd/sd-journal.h>

#include "base/strbuf.h"
#include "base/timeutil.h"
#include "base/utf8.h"

#define TEXT_MAX 2048
#define FIELDS_MAX 16
/* Repeats are counted for this long at most before the count is written and the line shown again. */
#define FOLD_WINDOW_USEC (10 * USEC_PER_SEC)

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

static struct {
    pthread_mutex_t lock;
    uint64_t hash;
    uint64_t since_usec; /* when the line was last shown */
    int level;
    unsigned repeats;
} last = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* systemd sets JOURNAL_STREAM to "device:inode" of the stream it gave us; anything redirected since differs.
 */
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
}

void log_set_level(int level)
{
    atomic_store_explicit(&log_level, level, memory_order_relaxed);
}

bool log_enabled(int level)
{
    return level <= atomic_load_explicit(&log_level, memory_order_relaxed);
}

/* Valid UTF-8, bounded. Control characters become '?' (white space a blank), C1 ones too: some terminals act
 * on them. */
static void add_clean(struct strbuf *sb, const char *text)
{
    size_t from = sb->len;

    strbuf_add_utf8(sb, text, utf8_cut(text, strlen(text), TEXT_MAX));
    for (size_t i = from; i < sb->len; i++) {
        unsigned char c = (unsigned char) sb->data[i];
        bool c1 = c == 0xC2 && (unsigned char) sb->data[i + 1] < 0xA0;

        if (c == '\n' || c == '\r' || c == '\t')
            sb->data[i] = ' ';
        else if (c < 0x20 || c == 0x7F)
            sb->data[i] = '?';
        else if (c1)
            sb->data[i] = sb->data[i + 1] = '?';
    }
}

static void write_stderr(const struct line *l)
{
    CLEANUP(strbuf_free) struct strbuf out = STRBUF_INIT(4 * TEXT_MAX);
    const struct level *level = &levels[l->level];
    const char *p;

    if (target.stamped) {
        strbuf_add_timestamp_sec(&out, now_realtime_usec());
        strbuf_addc(&out, ' ');
    }
    strbuf_addf(&out, "%s%s:%s %s\n", target.colour ? level->colour : "", level->word,
                target.colour && *level->colour ? "\x1b[0m" : "", l->text);
    /* One write, so that lines of several threads and processes stay whole. */
    p = out.data;
    while (out.len > 0) {
        ssize_t n = write(STDERR_FILENO, p, out.len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return; /* there is no other place for the line */
        p += n;
        out.len -= (size_t) n;
    }
}

/* Fields of the native protocol are "NAME=value"; `out` owns the bytes, so it must not move while iov is
 * used. */
static void add_field(struct strbuf *out, size_t *ends, int *n, const char *name, const char *value)
{
    if (!value || *n >= FIELDS_MAX)
        return;
    strbuf_adds(out, name);
    strbuf_addc(out, '=');
    add_clean(out, value);
    ends[(*n)++] = out->len;
}

static int write_journal(const struct line *l)
{
    CLEANUP(strbuf_free) struct strbuf out = STRBUF_INIT((size_t) 4 * FIELDS_MAX * TEXT_MAX);
    struct iovec iov[FIELDS_MAX];
    size_t ends[FIELDS_MAX] = {0}, start = 0;
    int n = 0;

    add_field(&out, ends, &n, "MESSAGE", l->text);
    add_field(&out, ends, &n, "PRIORITY", levels[l->level].priority);
    add_field(&out, ends, &n, "MESSAGE_ID", l->message_id);
    for (const struct field *f = l->fields; f && f->name; f++)
        add_field(&out, ends, &n, f->name, f->value);
    for (int i = 0; i < n; i++) {
        iov[i] = (struct iovec){.iov_base = out.data + start, .iov_len = ends[i] - start};
        start = ends[i];
    }
    return sd_journal_sendv(iov, n);
}

static void write_line(const struct line *l)
{
    if (!target.journal || write_journal(l) < 0)
        write_stderr(l);
}

/* FNV-1a: the hash stands for the line, so that remembering it costs no copy. */
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

/* True when the line was counted instead of shown. *ret_repeats, if above 0, must be told before showing it.
 */
static bool fold(const struct line *l, unsigned *ret_repeats, int *ret_level)
{
    uint64_t hash = hash_line(l), now = now_monotonic_usec();
    bool folded;

    pthread_mutex_lock(&last.lock);
    folded = hash == last.hash && last.since_usec > 0 && now - last.since_usec < FOLD_WINDOW_USEC;
    *ret_repeats = folded ? 0 : last.repeats;
    *ret_level = last.level;
    if (folded) {
        last.repeats++;
    } else {
        last.hash = hash;
        last.since_usec = now;
        last.level = l->level;
        last.repeats = 0;
    }
    pthread_mutex_unlock(&last.lock);
    return folded;
}

static void tell_repeats(int level, unsigned repeats)
{
    char text[64];

    snprintf(text, sizeof(text), "last message repeated %u time%s", repeats, repeats == 1 ? "" : "s");
    write_line(&(struct line){.level = level, .text = text});
}

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
    unsigned repeats;
    int last_level;
    va_list args;

    if (!log_enabled(level))
        return;
    about = about ? about : &nothing;
    const struct field fields[] = {
        {"SUBSCRIPTION_ID", number(&next, about->subscription_id != 0, about->subscription_id)},
        {"INTEGRATION_ID", number(&next, about->integration_id != 0, about->integration_id)},
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
    if (fold(&line, &repeats, &last_level))
        return;
    if (repeats > 0)
        tell_repeats(last_level, repeats);
    write_line(&line);
}

void log_lines(int level, const char *message_id, const char *before, const char *text)
{
    while (*text) {
        size_t len = strcspn(text, "\n");

        log_line(level, message_id, "%s%.*s", before, (int) MIN(len, (size_t) 2000), text);
        text += len + (text[len] == '\n');
    }
}
