/* What the sample institutions remember: totals by path, and the history of every Idempotency-Key.
 *
 * Included once, by institutions.c. Any thread; one mutex guards it all. Memory is bounded: as many keys and
 * paths as book_open() was told, what is beyond is counted as forgotten. */
#pragma once

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "base/json.h"
#include "base/timeutil.h"

#define KEY_SIZE 37 /* a UUID and its NUL; longer keys are a violation and cut */
#define RECEIPTS 5  /* remembered one by one for each key; later ones are only counted */
#define STATUSES 24 /* distinct answers told apart for each path */
#define PLACES 16384
#define PLACE_SLOTS (2 * PLACES)
#define NO_ANSWER 0 /* stands where a status would */

enum violation {
    VIOLATION_METHOD,
    VIOLATION_CONTENT_TYPE,
    VIOLATION_AUTHORIZATION,
    VIOLATION_KEY_MISSING,
    VIOLATION_KEY_LONG,
    VIOLATION_KEY_MOVED, /* seen before at another path */
    VIOLATION_JSON,
    VIOLATIONS,
};

static const char *const violation_names[VIOLATIONS] = {
    [VIOLATION_METHOD] = "method",
    [VIOLATION_CONTENT_TYPE] = "content_type",
    [VIOLATION_AUTHORIZATION] = "authorization",
    [VIOLATION_KEY_MISSING] = "idempotency_key_missing",
    [VIOLATION_KEY_LONG] = "idempotency_key_long",
    [VIOLATION_KEY_MOVED] = "idempotency_key_at_another_path",
    [VIOLATION_JSON] = "json",
};

struct tally {
    uint64_t requests;    /* received in full */
    uint64_t cut_short;   /* seen, but not received in full */
    uint64_t bytes;       /* of bodies received in full */
    uint64_t keys;        /* distinct */
    uint64_t again;       /* keys received in full more than once */
    uint64_t acked;       /* keys answered with 2xx */
    uint64_t acked_again; /* keys answered with 2xx more than once */
    uint64_t forgotten;   /* requests whose key had no room left */
    uint64_t violations[VIOLATIONS];
    struct {
        int status;
        uint64_t count;
    } statuses[STATUSES];
};

struct place {
    char *path;
    uint32_t number;
    _Atomic(const char *) role; /* the path whose part it plays, or NULL for its own */
    uint64_t theoretical_usec;  /* rate limit: when the next request would be on time (GCRA) */
    struct tally tally;
    struct strbuf last_head; /* of the last request received in full: method, path and headers, a line each */
    struct strbuf last_body;
};

struct entry {
    int64_t first_usec; /* since 1970 */
    uint32_t place;
    uint32_t later_ms[RECEIPTS]; /* after first_usec; [0] is 0 */
    uint16_t statuses[RECEIPTS];
    uint16_t received;
    uint16_t acked;
    char key[KEY_SIZE];
};

static struct {
    pthread_mutex_t mutex;
    bool remembers; /* else totals only */
    struct entry *entries;
    uint32_t *index; /* entry number + 1, or 0 */
    uint32_t entry_count, entry_max, index_mask;
    struct place *places[PLACES];
    uint32_t place_index[PLACE_SLOTS];
    uint32_t place_count;
} book = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static uint64_t hash_string(const char *s)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (; *s; s++)
        h = (h ^ (unsigned char) *s) * UINT64_C(0x100000001b3);
    h ^= h >> 32;
    h *= UINT64_C(0xd6e8feb86659fd93);
    return h ^ (h >> 32);
}

/* Memory that costs nothing until it is touched. */
static void *reserve_memory(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        abort();
    return p;
}

static void book_open(bool remembers, uint32_t max_keys)
{
    book.remembers = remembers;
    book.entry_max = remembers ? max_keys : 0;
    uint32_t slots = 1024;
    while (slots < book.entry_max * UINT64_C(3) / 2)
        slots *= 2;
    book.index_mask = slots - 1;
    book.entries = reserve_memory((size_t) (book.entry_max + 1) * sizeof *book.entries);
    book.index = reserve_memory((size_t) slots * sizeof *book.index);
}

static void book_forget(void)
{
    pthread_mutex_lock(&book.mutex);
    /* Given back to the system; the next touch finds zeros. */
    madvise(book.entries, (size_t) (book.entry_max + 1) * sizeof *book.entries, MADV_DONTNEED);
    madvise(book.index, ((size_t) book.index_mask + 1) * sizeof *book.index, MADV_DONTNEED);
    book.entry_count = 0;
    for (uint32_t i = 0; i < book.place_count; i++) {
        struct place *p = book.places[i];
        p->tally = (struct tally){0};
        strbuf_clear(&p->last_head);
        strbuf_clear(&p->last_body);
    }
    pthread_mutex_unlock(&book.mutex);
}

/* NULL when the path is unknown and `create` is false. Past PLACES paths all new ones share the last. */
static struct place *book_place(const char *path, bool create)
{
    pthread_mutex_lock(&book.mutex);
    struct place *found = NULL;
    uint64_t slot = hash_string(path) % PLACE_SLOTS;
    for (; book.place_index[slot]; slot = (slot + 1) % PLACE_SLOTS) {
        struct place *p = book.places[book.place_index[slot] - 1];
        if (strcmp(p->path, path) == 0) {
            found = p;
            break;
        }
    }
    if (!found && create && book.place_count == PLACES)
        found = book.places[PLACES - 1];
    if (!found && create) {
        found = xcalloc(1, sizeof *found);
        found->path = xstrdup(path);
        found->last_head = STRBUF_INIT(STRBUF_MAX_DEFAULT);
        found->last_body = STRBUF_INIT(STRBUF_MAX_DEFAULT);
        found->number = book.place_count;
        book.places[book.place_count++] = found;
        book.place_index[slot] = book.place_count;
    }
    pthread_mutex_unlock(&book.mutex);
    return found;
}

/* The mutex is held by the callers of everything down to book_receive(). */
static struct entry *entry_find(const char *key, bool create)
{
    uint32_t slot = (uint32_t) hash_string(key) & book.index_mask;
    for (; book.index[slot]; slot = (slot + 1) & book.index_mask) {
        struct entry *e = &book.entries[book.index[slot] - 1];
        if (strcmp(e->key, key) == 0)
            return e;
    }
    if (!create || book.entry_count == book.entry_max)
        return NULL;
    struct entry *e = &book.entries[book.entry_count++];
    book.index[slot] = book.entry_count;
    memcpy(e->key, key, strlen(key) + 1);
    return e;
}

static void tally_status(struct tally *t, int status)
{
    int i = 0;
    while (i < STATUSES - 1 && t->statuses[i].count && t->statuses[i].status != status)
        i++;
    t->statuses[i].status = status;
    t->statuses[i].count++;
}

static void entry_receive(struct place *place, struct entry *e)
{
    int64_t now = now_realtime_usec();
    if (e->received == 0) {
        e->first_usec = now;
        e->place = place->number;
        place->tally.keys++;
    } else if (e->place != place->number) {
        place->tally.violations[VIOLATION_KEY_MOVED]++;
    }
    if (e->received < RECEIPTS) {
        e->later_ms[e->received] = (uint32_t) ((now - e->first_usec) / 1000);
        e->statuses[e->received] = NO_ANSWER;
    }
    if (e->received < UINT16_MAX)
        e->received++;
    if (e->received == 2)
        place->tally.again++;
}

/* Notes that a request has been received in full. Returns how often its key has been by now (0 = not known);
 * the answer is noted later with book_answer(). */
static unsigned book_receive(struct place *place, const char *key, size_t bytes, unsigned violations)
{
    unsigned count = 0;
    pthread_mutex_lock(&book.mutex);
    place->tally.requests++;
    place->tally.bytes += bytes;
    for (int i = 0; i < VIOLATIONS; i++)
        place->tally.violations[i] += (violations >> i) & 1;
    if (book.remembers && key) {
        struct entry *e = entry_find(key, true);
        if (e) {
            entry_receive(place, e);
            count = e->received;
        } else {
            place->tally.forgotten++;
        }
    }
    pthread_mutex_unlock(&book.mutex);
    return count;
}

/* `count` is what book_receive() returned for this request. */
static void book_answer(struct place *place, const char *key, unsigned count, int status)
{
    pthread_mutex_lock(&book.mutex);
    tally_status(&place->tally, status);
    struct entry *e = book.remembers && key && count ? entry_find(key, false) : NULL;
    if (e && count <= RECEIPTS)
        e->statuses[count - 1] = (uint16_t) status;
    if (e && status >= 200 && status <= 299 && e->acked < UINT16_MAX) {
        e->acked++;
        place->tally.acked += e->acked == 1;
        place->tally.acked_again += e->acked == 2;
    }
    pthread_mutex_unlock(&book.mutex);
}

/* True when one more request fits into `rate` a second (a burst of as many at once is let through). */
static bool book_take_token(struct place *place, uint64_t rate)
{
    uint64_t now = now_monotonic_usec(), interval = rate ? USEC_PER_SEC / rate : 0;
    pthread_mutex_lock(&book.mutex);
    uint64_t on_time = MAX(place->theoretical_usec, now);
    bool fits = rate && on_time + interval <= now + USEC_PER_SEC;
    if (fits)
        place->theoretical_usec = on_time + interval;
    pthread_mutex_unlock(&book.mutex);
    return fits;
}

static void book_cut_short(struct place *place)
{
    pthread_mutex_lock(&book.mutex);
    place->tally.cut_short++;
    pthread_mutex_unlock(&book.mutex);
}

/* Swaps the buffers in: the caller gets the former ones to use again. */
static void book_remember_last(struct place *place, struct strbuf *head, struct strbuf *body)
{
    pthread_mutex_lock(&book.mutex);
    struct strbuf old_head = place->last_head, old_body = place->last_body;
    place->last_head = *head;
    place->last_body = *body;
    *head = old_head;
    *body = old_body;
    pthread_mutex_unlock(&book.mutex);
}

static void tally_add(struct tally *sum, const struct tally *t)
{
    sum->requests += t->requests;
    sum->cut_short += t->cut_short;
    sum->bytes += t->bytes;
    sum->keys += t->keys;
    sum->again += t->again;
    sum->acked += t->acked;
    sum->acked_again += t->acked_again;
    sum->forgotten += t->forgotten;
    for (int i = 0; i < VIOLATIONS; i++)
        sum->violations[i] += t->violations[i];
    for (int i = 0; i < STATUSES && t->statuses[i].count; i++) {
        tally_status(sum, t->statuses[i].status);
        for (int j = 0; j < STATUSES; j++) {
            if (sum->statuses[j].status == t->statuses[i].status && sum->statuses[j].count) {
                sum->statuses[j].count += t->statuses[i].count - 1;
                break;
            }
        }
    }
}

static void tally_print(const struct tally *t, struct strbuf *out)
{
    strbuf_addf(
        out,
        "{\"requests\": %ju, \"cut_short\": %ju, \"bytes\": %ju, \"keys\": %ju, \"received_again\": %ju, "
        "\"acknowledged\": %ju, \"acknowledged_again\": %ju, \"forgotten\": %ju, \"statuses\": {",
        (uintmax_t) t->requests, (uintmax_t) t->cut_short, (uintmax_t) t->bytes, (uintmax_t) t->keys,
        (uintmax_t) t->again, (uintmax_t) t->acked, (uintmax_t) t->acked_again, (uintmax_t) t->forgotten);
    for (int i = 0; i < STATUSES && t->statuses[i].count; i++)
        strbuf_addf(out, "%s\"%d\": %ju", i ? ", " : "", t->statuses[i].status,
                    (uintmax_t) t->statuses[i].count);
    strbuf_adds(out, "}, \"violations\": {");
    const char *comma = "";
    for (int i = 0; i < VIOLATIONS; i++) {
        if (t->violations[i]) {
            strbuf_addf(out, "%s\"%s\": %ju", comma, violation_names[i], (uintmax_t) t->violations[i]);
            comma = ", ";
        }
    }
    strbuf_adds(out, "}}");
}

/* All paths, or with `only` that one (or an empty tally when it was never asked for). */
static void book_print(struct strbuf *out, const char *only)
{
    struct tally sum = {0};
    pthread_mutex_lock(&book.mutex);
    strbuf_adds(out, "{\"paths\": {");
    const char *comma = "";
    for (uint32_t i = 0; i < book.place_count; i++) {
        const struct place *p = book.places[i];
        if (only ? strcmp(only, p->path) != 0 : p->tally.requests + p->tally.cut_short == 0)
            continue;
        tally_add(&sum, &p->tally);
        strbuf_adds(out, comma);
        json_add_string(out, p->path, strlen(p->path));
        strbuf_adds(out, ": ");
        tally_print(&p->tally, out);
        comma = ",\n";
    }
    strbuf_adds(out, "},\n\"total\": ");
    tally_print(&sum, out);
    strbuf_adds(out, "}\n");
    pthread_mutex_unlock(&book.mutex);
}

/* One key's history as JSON; false when it was never received in full. */
static bool book_print_key(struct strbuf *out, const char *key)
{
    pthread_mutex_lock(&book.mutex);
    const struct entry *e = book.remembers && strlen(key) < KEY_SIZE ? entry_find(key, false) : NULL;
    if (e) {
        const struct place *p = book.places[e->place];
        strbuf_adds(out, "{\"key\": ");
        json_add_string(out, e->key, strlen(e->key));
        strbuf_adds(out, ", \"path\": ");
        json_add_string(out, p->path, strlen(p->path));
        strbuf_addf(out, ", \"received\": %u, \"acknowledged\": %u, \"receipts\": [", e->received, e->acked);
        for (int i = 0; i < RECEIPTS && i < e->received; i++)
            strbuf_addf(out, "%s{\"at_usec\": %jd, \"status\": %u}", i ? ", " : "",
                        (intmax_t) (e->first_usec + e->later_ms[i] * INT64_C(1000)), e->statuses[i]);
        strbuf_adds(out, "]}\n");
    }
    pthread_mutex_unlock(&book.mutex);
    return e;
}

/* Writes lines "key received acknowledged first_usec" of entries from *position on into buffer, whole lines
 * only. Returns the length; 0 = no more. */
static size_t book_print_keys(uint32_t *position, const char *only, char *buffer, size_t size)
{
    size_t used = 0;
    pthread_mutex_lock(&book.mutex);
    for (; *position < book.entry_count; ++*position) {
        const struct entry *e = &book.entries[*position];
        if (only && strcmp(only, book.places[e->place]->path) != 0)
            continue;
        int n = snprintf(buffer + used, size - used, "%s %u %u %jd\n", e->key, e->received, e->acked,
                         (intmax_t) e->first_usec);
        if (n < 0 || (size_t) n >= size - used)
            break;
        used += (size_t) n;
    }
    pthread_mutex_unlock(&book.mutex);
    return used;
}

/* The last request received in full at a path, as JSON. */
static void book_print_last(struct strbuf *out, const struct place *place)
{
    pthread_mutex_lock(&book.mutex);
    strbuf_adds(out, "{\"head\": ");
    json_add_string(out, strbuf_str(&place->last_head), place->last_head.len);
    strbuf_adds(out, ", \"body\": ");
    json_add_string(out, strbuf_str(&place->last_body), place->last_body.len);
    strbuf_adds(out, "}\n");
    pthread_mutex_unlock(&book.mutex);
}
