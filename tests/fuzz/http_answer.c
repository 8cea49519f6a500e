/* Fuzzing the reader of HTTP answers (make fuzz): whatever comes, in whatever pieces, it keeps its limits and
 * says the same.
 *
 * The first byte says into how large pieces the rest is cut. */
#include <string.h>

#include "http/http_answer.h"

#define BODY_MAX 512

static struct http_answer whole, pieces;

static void feed(struct http_answer *a, const char *bytes, size_t len, size_t piece, size_t *ret_used)
{
    http_answer_begin(a, BODY_MAX);
    *ret_used = 0;
    while (*ret_used < len && !http_answer_is_over(a)) {
        size_t part = MIN(piece, len - *ret_used), used = http_answer_feed(a, bytes + *ret_used, part);
        if (used > part || (used < part && !http_answer_is_over(a)))
            abort();
        *ret_used += used;
    }
    http_answer_end(a, true);
    if (!http_answer_is_over(a) || a->body.len > BODY_MAX ||
        a->header_bytes > HTTP_ANSWER_HEADERS_MAX + HTTP_ANSWER_LINE_MAX + len)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t used, used_in_pieces;

    if (size == 0)
        return 0;
    feed(&whole, (const char *) data + 1, size - 1, SIZE_MAX / 2, &used);
    feed(&pieces, (const char *) data + 1, size - 1, (size_t) data[0] + 1, &used_in_pieces);
    bool same = whole.state == pieces.state && whole.status == pieces.status &&
                whole.truncated == pieces.truncated && whole.keep_alive == pieces.keep_alive &&
                whole.has_retry_after == pieces.has_retry_after && whole.body.len == pieces.body.len &&
                memcmp(strbuf_str(&whole.body), strbuf_str(&pieces.body), whole.body.len) == 0;
    /* Of a broken answer the pieces may show the fault a little earlier. */
    if (!same && whole.state != HTTP_ANSWER_BROKEN)
        abort();
    if (whole.state == HTTP_ANSWER_COMPLETE && used != used_in_pieces)
        abort();
    return 0;
}
