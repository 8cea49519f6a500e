/* An HTTP/1.1 answer, read as its bytes arrive (RFC 9112). Pure: no socket, no clock, no allocation but the
 * body's.
 *
 * The answer comes from a stranger: every part has a limit, and nothing that the server writes makes us read
 * or keep more. Interim answers (1xx) are passed over. Only the transfer coding "chunked" is undone; a body
 * in any other coding, of transfer or content, is kept as it came and marked as truncated, so nothing is ever
 * unpacked. */
#pragma once

#include "base/strbuf.h"

/* Status lines, headers and trailers together, interim answers included. */
#define HTTP_ANSWER_HEADERS_MAX ((size_t) 256 * 1024)
/* Read beyond the limit of the body, because a connection whose body breaks off is lost. */
#define HTTP_ANSWER_EXCESS_MAX ((size_t) 64 * 1024)
/* Kept of a line; what is behind it only counts towards the limit above. */
#define HTTP_ANSWER_LINE_MAX 1024

enum http_answer_state {
    HTTP_ANSWER_STATUS_LINE,
    HTTP_ANSWER_HEADER,
    HTTP_ANSWER_BODY,
    HTTP_ANSWER_BODY_TO_END, /* ends with the connection */
    HTTP_ANSWER_CHUNK_SIZE,
    HTTP_ANSWER_CHUNK_END, /* the line end behind a chunk */
    HTTP_ANSWER_TRAILER,
    HTTP_ANSWER_COMPLETE,
    HTTP_ANSWER_BROKEN, /* no more can be made of it; `fault` says why */
};

struct http_answer {
    enum http_answer_state state;
    int status;           /* of the final status line, 0 = not there yet */
    bool truncated;       /* the body is not whole, or stands in an unknown coding */
    bool keep_alive;      /* once complete: the server does not end the connection */
    int keep_alive_sec;   /* what "Keep-Alive: timeout=" promises, 0 = nothing */
    bool has_retry_after; /* the value lies in retry_after */
    char retry_after[64];
    size_t retry_after_len;
    char content_type[128]; /* "text/html": in lower case, without parameters; "" = none, or a longer one */
    const char *fault;      /* a constant; NULL = none */
    struct strbuf body;

    struct http_framing {
        int minor; /* of the version HTTP/1.minor */
        bool chunked, unknown_coding, packed, has_length, bad_length, says_close, says_keep_alive;
        int64_t length; /* Content-Length */
    } framing;
    int64_t left; /* of the body or of the chunk */
    size_t header_bytes, excess;
    size_t line_len; /* of the line so far, also beyond what is kept */
    char line[HTTP_ANSWER_LINE_MAX];
};

/* Ready for the next answer. At most `body_max` bytes of the body are kept. */
void http_answer_begin(struct http_answer *a, size_t body_max);
void http_answer_free(struct http_answer *a); /* legal on a zeroed one */

/* Reads bytes up to the end of the answer; returns how many it took. Fewer than `len`: the answer is complete
 * or broken, and the rest belongs to no request of ours. */
size_t http_answer_feed(struct http_answer *a, const char *bytes, size_t len);
/* The connection has ended. `clean`: by an end that cannot have been forged or cut (a FIN in clear text,
 * close_notify over TLS). */
void http_answer_end(struct http_answer *a, bool clean);
/* Complete or broken: nothing more is to be read. */
static inline bool http_answer_is_over(const struct http_answer *a)
{
    return a->state >= HTTP_ANSWER_COMPLETE;
}
