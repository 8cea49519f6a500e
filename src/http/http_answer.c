/* An HTTP/1.1 answer. See http_answer.h. Pure; any thread. */
#include "http/http_answer.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "http/http_retry_after.h"

/* Kept between answers; the memory of a single large one is given back. */
#define BODY_KEPT_MAX ((size_t) 8 * 1024)
#define CHUNK_LINE_MAX ((size_t) 8 * 1024)
#define CHUNK_LINE_FREE 16

void http_answer_begin(struct http_answer *a, size_t body_max)
{
    struct strbuf body = a->body;

    if (body.capacity > BODY_KEPT_MAX)
        strbuf_free(&body);
    strbuf_clear(&body);
    body.max = body_max;
    /* The line's bytes stay: line_len says how many of them count. */
    memset(a, 0, offsetof(struct http_answer, line));
    a->body = body;
}

void http_answer_free(struct http_answer *a)
{
    strbuf_free(&a->body);
}

static void broken(struct http_answer *a, const char *fault)
{
    a->state = HTTP_ANSWER_BROKEN;
    a->fault = fault;
    a->truncated = true;
    a->keep_alive = false;
}

static void complete(struct http_answer *a)
{
    a->state = HTTP_ANSWER_COMPLETE;
    a->keep_alive = !a->framing.says_close && (a->framing.minor > 0 || a->framing.says_keep_alive);
}

/* --- values of headers ------------------------------------------------------------------------ */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static void trim(const char **text, size_t *len)
{
    for (; *len > 0 && is_blank(**text); (*len)--)
        (*text)++;
    while (*len > 0 && is_blank((*text)[*len - 1]))
        (*len)--;
}

static bool is_word(const char *text, size_t len, const char *word)
{
    return len == strlen(word) && strncasecmp(text, word, len) == 0;
}

/* The next element of a list (RFC 9110, 5.6.1), trimmed; false at its end. */
static bool next_element(const char **list, size_t *len, const char **ret, size_t *ret_len)
{
    while (*len > 0) {
        const char *comma = memchr(*list, ',', *len);
        size_t here = comma ? (size_t) (comma - *list) : *len;
        *ret = *list;
        *ret_len = here;
        *list += MIN(here + 1, *len);
        *len -= MIN(here + 1, *len);
        trim(ret, ret_len);
        if (*ret_len > 0)
            return true;
    }
    return false;
}

static void take_connection(struct http_answer *a, const char *value, size_t len)
{
    const char *word;
    size_t word_len;

    while (next_element(&value, &len, &word, &word_len)) {
        a->framing.says_close |= is_word(word, word_len, "close");
        a->framing.says_keep_alive |= is_word(word, word_len, "keep-alive");
    }
}

/* "chunked" is undone when it is the only coding. Behind another coding the chunks end the body all the same
 * (RFC 9112, 6.3), and what they hold stays packed. */
static void take_transfer_encoding(struct http_answer *a, const char *value, size_t len)
{
    const char *word;
    size_t word_len;

    while (next_element(&value, &len, &word, &word_len)) {
        if (a->framing.chunked)
            a->framing.unknown_coding = true; /* chunked must be the last */
        a->framing.chunked = is_word(word, word_len, "chunked");
        if (!a->framing.chunked && !is_word(word, word_len, "identity"))
            a->framing.unknown_coding = true;
    }
}

/* Nothing was asked to be packed. */
static void take_content_encoding(struct http_answer *a, const char *value, size_t len)
{
    const char *word;
    size_t word_len;

    while (next_element(&value, &len, &word, &word_len))
        a->framing.packed |= !is_word(word, word_len, "identity");
}

/* Equal values count as one (RFC 9112, 6.3). */
static void take_content_length(struct http_answer *a, const char *value, size_t len)
{
    const char *word;
    size_t word_len;
    bool any = false;

    while (next_element(&value, &len, &word, &word_len)) {
        int64_t length = 0;
        for (size_t i = 0; i < word_len; i++) {
            if (word[i] < '0' || word[i] > '9' || length > (INT64_MAX - 9) / 10) {
                a->framing.bad_length = true;
                return;
            }
            length = length * 10 + (word[i] - '0');
        }
        a->framing.bad_length |= a->framing.has_length && length != a->framing.length;
        a->framing.length = length;
        a->framing.has_length = any = true;
    }
    a->framing.bad_length |= !any;
}

static void take_retry_after(struct http_answer *a, const char *value, size_t len)
{
    int64_t unused;

    /* Of several the first that can be read counts. */
    if (a->has_retry_after || len >= sizeof(a->retry_after) ||
        http_parse_retry_after(value, len, 0, &unused) < 0)
        return;
    memcpy(a->retry_after, value, len);
    a->retry_after_len = len;
    a->has_retry_after = true;
}

static void take_content_type(struct http_answer *a, const char *value, size_t len)
{
    const char *parameters = memchr(value, ';', len);

    len = parameters ? (size_t) (parameters - value) : len;
    trim(&value, &len);
    if (len >= sizeof(a->content_type))
        return;
    for (size_t i = 0; i < len; i++)
        a->content_type[i] = (char) tolower((unsigned char) value[i]);
    a->content_type[len] = '\0';
}

/* The number of "name=number"; -1 = the word is something else. */
static int number_of(const char *word, size_t len, const char *name)
{
    size_t at = strlen(name);
    int number = -1;

    if (len <= at || strncasecmp(word, name, at) != 0)
        return -1;
    for (; at < len && word[at] >= '0' && word[at] <= '9' && number < 100000; at++)
        number = MAX(number, 0) * 10 + (word[at] - '0');
    return number;
}

/* "Keep-Alive: timeout=5, max=100", an old convention that many servers still speak. No time, or no further
 * request, is the connection's end. */
static void take_keep_alive(struct http_answer *a, const char *value, size_t len)
{
    const char *word;
    size_t word_len;

    while (next_element(&value, &len, &word, &word_len)) {
        int seconds = number_of(word, word_len, "timeout="), requests = number_of(word, word_len, "max=");
        if (seconds > 0)
            a->keep_alive_sec = seconds;
        a->framing.says_close |= seconds == 0 || requests == 0;
    }
}

static const struct {
    const char *name;
    void (*take)(struct http_answer *a, const char *value, size_t len);
    bool frames; /* where the answer ends depends on it */
} headers[] = {
    {"Content-Length", take_content_length, true}, {"Transfer-Encoding", take_transfer_encoding, true},
    {"Connection", take_connection, false},        {"Keep-Alive", take_keep_alive, false},
    {"Retry-After", take_retry_after, false},      {"Content-Encoding", take_content_encoding, false},
    {"Content-Type", take_content_type, false},
};

/* --- lines ------------------------------------------------------------------------------------ */

/* The line without its end. */
static size_t line_length(const struct http_answer *a)
{
    size_t len = MIN(a->line_len, sizeof(a->line));

    if (a->line_len <= sizeof(a->line) && len > 0 && a->line[len - 1] == '\r')
        len--;
    return len;
}

static void take_status_line(struct http_answer *a, const char *line, size_t len)
{
    static const char version[] = "HTTP/1.";
    const size_t at = sizeof(version) - 1; /* of the minor version */

    if (len < at + 5 || strncasecmp(line, version, at) != 0 || line[at] < '0' || line[at] > '9' ||
        !is_blank(line[at + 1]) || (len > at + 5 && !is_blank(line[at + 5]))) {
        broken(a, "the answer was no HTTP/1.1");
        return;
    }
    int status = 0;
    for (size_t i = at + 2; i < at + 5; i++) {
        if (line[i] < '0' || line[i] > '9') {
            broken(a, "the answer was no HTTP/1.1");
            return;
        }
        status = status * 10 + (line[i] - '0');
    }
    if (status < 100 || status == 101) {
        broken(a, status == 101 ? "the server changed to another protocol"
                                : "the answer had an impossible status");
        return;
    }
    a->status = status < 200 ? 0 : status;
    a->has_retry_after = false;
    a->content_type[0] = '\0';
    a->framing = (struct http_framing){.minor = line[at] - '0'};
    a->state = HTTP_ANSWER_HEADER;
}

static void take_header(struct http_answer *a, const char *line, size_t len)
{
    const char *colon = memchr(line, ':', len);
    size_t name_len = colon ? (size_t) (colon - line) : 0;
    bool cut = a->line_len > sizeof(a->line);

    if (is_blank(line[0]) || name_len == 0 || is_blank(line[name_len - 1])) {
        /* A folded line would belong to the one before it, which is read already. That, and a line that is no
         * header, may hide what we need to know: the connection is not used again. */
        a->framing.says_close = true;
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(headers); i++) {
        if (!is_word(line, name_len, headers[i].name))
            continue;
        const char *value = colon + 1;
        size_t value_len = len - name_len - 1;
        trim(&value, &value_len);
        if (!cut)
            headers[i].take(a, value, value_len);
        else if (headers[i].frames)
            a->framing.bad_length = true;
        else
            a->framing.says_close = true;
    }
}

/* The empty line: how the body is framed (RFC 9112, 6.3). */
static void take_headers_end(struct http_answer *a)
{
    if (a->status == 0) { /* an interim answer */
        a->state = HTTP_ANSWER_STATUS_LINE;
        return;
    }
    a->truncated = a->framing.unknown_coding || a->framing.packed;
    if (a->status == 204 || a->status == 304) {
        a->truncated = false;
        complete(a);
    } else if (a->framing.chunked) {
        a->framing.says_close |= a->framing.has_length ||
                                 a->framing.minor == 0; /* two frames, or one that HTTP/1.0 does not know */
        a->state = HTTP_ANSWER_CHUNK_SIZE;
    } else if (a->framing.unknown_coding) {
        a->state = HTTP_ANSWER_BODY_TO_END;
    } else if (a->framing.bad_length) {
        broken(a, "the answer's length makes no sense");
    } else if (a->framing.has_length) {
        a->left = a->framing.length;
        a->state = HTTP_ANSWER_BODY;
        if (a->left == 0)
            complete(a);
    } else {
        a->state = HTTP_ANSWER_BODY_TO_END;
    }
}

/* Chunk extensions say nothing to us. */
static void take_chunk_size(struct http_answer *a, const char *line, size_t len)
{
    size_t digits = 0;

    a->left = 0;
    for (; digits < len && digits < 15; digits++) {
        char c = line[digits] | 0x20;
        int value = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (value < 0 || (line[digits] < '0'))
            break;
        a->left = a->left * 16 + value;
    }
    bool ends = digits == len || line[digits] == ';' || is_blank(line[digits]);
    if (digits == 0 || !ends)
        broken(a, "a chunk's size makes no sense");
    else
        a->state = a->left > 0 ? HTTP_ANSWER_BODY : HTTP_ANSWER_TRAILER;
}

static void take_line(struct http_answer *a)
{
    const char *line = a->line;
    size_t len = line_length(a);

    switch (a->state) {
    case HTTP_ANSWER_STATUS_LINE:
        if (len > 0) /* an empty line before it is passed over (RFC 9112, 2.2) */
            take_status_line(a, line, len);
        break;
    case HTTP_ANSWER_HEADER:
        if (len > 0)
            take_header(a, line, len);
        else
            take_headers_end(a);
        break;
    case HTTP_ANSWER_CHUNK_SIZE:
        take_chunk_size(a, line, len);
        break;
    case HTTP_ANSWER_CHUNK_END:
        if (len > 0)
            broken(a, "a chunk does not end where it should");
        else
            a->state = HTTP_ANSWER_CHUNK_SIZE;
        break;
    case HTTP_ANSWER_TRAILER:
        if (len == 0)
            complete(a);
        break;
    default:
        break;
    }
    a->line_len = 0;
}

/* What cannot become a status line any more is not waited for. */
static bool may_be_status_line(const struct http_answer *a)
{
    static const char version[] = "HTTP/1.";
    size_t len = MIN(a->line_len, sizeof(version) - 1);

    return len == 0 || a->line[0] == '\r' || strncasecmp(a->line, version, len) == 0;
}

static size_t feed_line(struct http_answer *a, const char *bytes, size_t len)
{
    const char *end = memchr(bytes, '\n', len);
    size_t part = end ? (size_t) (end - bytes) : len;

    if (a->line_len < sizeof(a->line))
        memcpy(a->line + a->line_len, bytes, MIN(part, sizeof(a->line) - a->line_len));
    bool of_chunk = a->state == HTTP_ANSWER_CHUNK_SIZE || a->state == HTTP_ANSWER_CHUNK_END;

    a->line_len += part;
    /* A chunk's line is part of the body's cost as long as it is short. */
    a->header_bytes += !of_chunk ? part + (end != NULL) : a->line_len > CHUNK_LINE_FREE ? part : 0;
    if (a->state == HTTP_ANSWER_STATUS_LINE && !may_be_status_line(a))
        broken(a, "the answer was no HTTP/1.1");
    else if (a->header_bytes > HTTP_ANSWER_HEADERS_MAX)
        broken(a, "the answer's headers are too long");
    else if (of_chunk && a->line_len > CHUNK_LINE_MAX)
        broken(a, "a chunk's size is too long a line");
    else if (end)
        take_line(a);
    return end ? part + 1 : part;
}

/* --- the body --------------------------------------------------------------------------------- */

static void keep(struct http_answer *a, const char *bytes, size_t len)
{
    size_t kept = MIN(len, a->body.max - a->body.len);

    strbuf_add(&a->body, bytes, kept);
    a->excess += len - kept;
    a->truncated |= kept < len;
    if (a->excess > HTTP_ANSWER_EXCESS_MAX)
        broken(a, "the answer's body is too long");
}

static size_t feed_body(struct http_answer *a, const char *bytes, size_t len)
{
    size_t part = (size_t) MIN((int64_t) len, a->left);

    a->left -= (int64_t) part;
    keep(a, bytes, part);
    if (a->left > 0 || a->state == HTTP_ANSWER_BROKEN)
        return part;
    if (a->framing.chunked)
        a->state = HTTP_ANSWER_CHUNK_END;
    else
        complete(a);
    return part;
}

size_t http_answer_feed(struct http_answer *a, const char *bytes, size_t len)
{
    size_t used = 0;

    while (used < len && !http_answer_is_over(a)) {
        if (a->state == HTTP_ANSWER_BODY) {
            used += feed_body(a, bytes + used, len - used);
        } else if (a->state == HTTP_ANSWER_BODY_TO_END) {
            keep(a, bytes + used, len - used);
            used = len;
        } else {
            used += feed_line(a, bytes + used, len - used);
        }
    }
    return used;
}

void http_answer_end(struct http_answer *a, bool clean)
{
    if (http_answer_is_over(a))
        return;
    if (a->state == HTTP_ANSWER_BODY_TO_END) {
        a->truncated |= !clean;
        a->framing.says_close = true;
        complete(a);
        return;
    }
    broken(a, "the connection ended within the answer");
}
