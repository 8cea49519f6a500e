/* An HTTP answer, whole and cut at every byte: what is taken from it, and where it ends. */
#include "unit.h"

#include <stdio.h>
#include <string.h>

#include "http/http_answer.h"

#define BODY_MAX 64

struct answer_case {
    const char *text;
    bool ends; /* the connection ends behind it */
    int status;
    const char *body;
    bool truncated, keep_alive;
    size_t leftover; /* bytes of the text that do not belong to the answer */
};

static const struct answer_case cases[] = {
    /* Framing. */
    {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, 200, "ok", false, true, 0},
    {"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", false, 200, "ok", false, true, 0},
    {"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", false, 200, "ok", false, true, 0},
    {"http/1.1 200 OK\r\ncontent-length:2\r\n\r\nok", false, 200, "ok", false, true, 0},
    {"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", false, 201, "", false, true, 0},
    {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", false, 200, "ok", false, true, 0},
    {"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", false, 200, "ok", false, true, 0},
    {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 500 No\r\n\r\n", false, 200, "ok", false, true,
     19},
    {"HTTP/1.1 200 OK\r\n\r\nall of it", true, 200, "all of it", false, false, 0},
    {"HTTP/1.0 200 OK\r\n\r\nold", true, 200, "old", false, false, 0},
    {"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold", false, 200, "old", false, false, 0},
    {"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nold", false, 200, "old", false,
     true, 0},
    {"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nok", false, 200, "ok", false, false,
     0},
    {"HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\n{}", false, 204, "", false, true, 2},
    {"HTTP/1.1 304 No\r\nTransfer-Encoding: chunked\r\n\r\n", false, 304, "", false, true, 0},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n3;x=y\r\n, y\r\n0\r\nX: y\r\n\r\n",
     false, 200, "ok, y", false, true, 0},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\nContent-Length: 9\r\n\r\n2\r\nok\r\n0\r\n\r\n", false,
     200, "ok", false, false, 0},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok", false, 200, "ok", false,
     true, 0},
    /* Interim answers; a fold, and lines that are no header. */
    {"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 103 E\r\nRetry-After: 9\r\n folded: x\r\n\r\nHTTP/1.1 200 OK\r\n"
     "Content-Length: 2\r\n\r\nok",
     false, 200, "ok", false, true, 0},
    {"HTTP/1.1 200 OK\r\n\tfolded: x\r\nContent-Length: 2\r\n\r\nok", false, 200, "ok", false, false, 0},
    {"HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 2\r\n\r\nok", false, 200, "ok", false, false, 0},
    {"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, 200, "ok", false, true, 0},
    /* Other codings stay packed. */
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\n\x1f\x8b\r\n0\r\n\r\n", false, 200,
     "\x1f\x8b", true, true, 0},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, gzip, gzip, chunked\r\n\r\n1\r\nz\r\n0\r\n\r\n", false, 200,
     "z", true, true, 0},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\nzip", true, 200, "zip", true, false, 0},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: zstd\r\nContent-Length: 2\r\n\r\nzstd", true, 200, "zstd", true,
     false, 0},
    /* Broken behind the status line: it decides all the same. */
    {"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nok", false, 200, "", true, false, 2},
    {"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nok", false, 200, "", true, false, 2},
    {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", false, 200, "", true, false, 2},
    {"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nok", false, 200, "", true, false, 2},
    {"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nok", false, 200, "", true, false, 2},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\nzz\r\n", false, 200, "part", true,
     false, 0},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npartX\r\n", false, 200, "part", true, false,
     0},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", false, 200, "", true,
     false, 0},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", false, 200, "", true, false, 0},
    {"HTTP/1.1 422 No\r\nContent-Length: 100\r\n\r\npart", true, 422, "part", true, false, 0},
    {"HTTP/1.1 200 OK\r\nContent-Le", true, 200, "", true, false, 0},
    /* No answer. */
    {"HTTP/1.1 20", true, 0, "", true, false, 0},
    {"HTTP/1.1 100 Continue\r\n\r\n", true, 0, "", true, false, 0},
    {"HTTP/1.1 101 Switching Protocols\r\n", false, 0, "", true, false, 0},
    {"HTTP/1.1 099 Low\r\n", false, 0, "", true, false, 0},
    {"HTTP/1.1 1000 High\r\n", false, 0, "", true, false, 0},
    {"HTTP/1.1 -20 X\r\n", false, 0, "", true, false, 0},
    {"", true, 0, "", true, false, 0},
};

/* Feeds `text` in two parts; returns how many bytes were left over. */
static size_t feed(struct http_answer *a, const struct answer_case *c, size_t cut)
{
    size_t len = strlen(c->text), used = 0;

    http_answer_begin(a, BODY_MAX);
    if (cut > 0)
        used = http_answer_feed(a, c->text, cut);
    if (!http_answer_is_over(a) && used == cut)
        used += http_answer_feed(a, c->text + used, len - used);
    if (c->ends)
        http_answer_end(a, true);
    return len - used;
}

TEST(answers_cut_at_every_byte)
{
    struct http_answer a = {0};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct answer_case *c = &cases[i];
        for (size_t cut = 0; cut <= strlen(c->text); cut++) {
            size_t leftover = feed(&a, c, cut);
            if (!http_answer_is_over(&a) || a.status != c->status ||
                strcmp(strbuf_str(&a.body), c->body) != 0 || a.truncated != c->truncated ||
                a.keep_alive != c->keep_alive || leftover != c->leftover)
                fail_msg(
                    "\"%s\" cut at %zu: over %d, status %d, body \"%s\", truncated %d, kept %d, %zu left over",
                    c->text, cut, http_answer_is_over(&a), a.status, strbuf_str(&a.body), a.truncated,
                    a.keep_alive, leftover);
        }
    }
    http_answer_free(&a);
}

/* What is no HTTP is not waited for. */
TEST(other_protocols_end_at_once)
{
    static const char *const texts[] = {"SSH-2.0-x",           "220 mail\r\n",   "HTTP/2 200\r\n",
                                        "HTTP/7.3 200 OK\r\n", "ICY 200 OK\r\n", "\x15\x03\x01",
                                        " HTTP/1.1 200 OK\r\n"};
    struct http_answer a = {0};

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        http_answer_begin(&a, BODY_MAX);
        http_answer_feed(&a, texts[i], strlen(texts[i]));
        assert_int_equal(a.state, HTTP_ANSWER_BROKEN);
        assert_int_equal(a.status, 0);
        assert_string_equal(a.fault, "the answer was no HTTP/1.1");
    }
    http_answer_free(&a);
}

TEST(limits)
{
    static const struct {
        const char *start, *repeated;
        int status;
    } endless[] = {
        {"", "HTTP/1.1 100 Continue\r\n\r\n", 0},
        {"HTTP/1.1 200 ", "and so on ", 0},
        {"HTTP/1.1 200 OK\r\n", "X-Header: one more\r\n", 200},
        {"HTTP/1.1 503 No\r\nX: ", "and so on ", 503},
        {"HTTP/1.1 200 OK\r\nX: a\r\n", "  b\r\n", 200},
        {"HTTP/1.1 200 OK\r\n\r\n", "body ", 200},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n", "body ", 200},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "8\r\nsame old\r\n", 200},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", 200},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", "x=y;", 200},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "X: y\r\n", 200},
    };
    struct http_answer a = {0};

    for (size_t i = 0; i < ARRAY_SIZE(endless); i++) {
        size_t read = 0;
        http_answer_begin(&a, BODY_MAX);
        http_answer_feed(&a, endless[i].start, strlen(endless[i].start));
        for (; !http_answer_is_over(&a); read += strlen(endless[i].repeated)) {
            assert_true(read < HTTP_ANSWER_HEADERS_MAX + 8 * HTTP_ANSWER_EXCESS_MAX);
            http_answer_feed(&a, endless[i].repeated, strlen(endless[i].repeated));
        }
        assert_int_equal(a.status, endless[i].status);
        assert_true(a.truncated);
        assert_false(a.keep_alive);
        assert_true(a.body.len <= BODY_MAX);
    }
    http_answer_free(&a);
}

/* Neither the lines of small chunks nor headers that come byte by byte count more than they are. */
TEST(what_counts_towards_the_limits)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    struct http_answer a = {0};

    http_answer_begin(&a, 60000);
    for (size_t i = 0; i < strlen(head); i++)
        http_answer_feed(&a, head + i, 1);
    assert_int_equal(a.header_bytes, strlen(head));
    for (int i = 0; i < 60000; i++)
        http_answer_feed(&a, "1\r\nx\r\n", 6);
    http_answer_feed(&a, "0\r\n\r\n", 5);
    assert_int_equal(a.state, HTTP_ANSWER_COMPLETE);
    assert_int_equal(a.body.len, 60000);
    assert_false(a.truncated);
    http_answer_free(&a);
}

TEST(a_body_beyond_the_limit_is_read_away)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
    char body[1000];
    struct http_answer a = {0};

    memset(body, 'x', sizeof(body));
    http_answer_begin(&a, BODY_MAX);
    http_answer_feed(&a, head, strlen(head));
    assert_int_equal(http_answer_feed(&a, body, sizeof(body)), sizeof(body));
    assert_int_equal(a.state, HTTP_ANSWER_COMPLETE);
    assert_int_equal(a.body.len, BODY_MAX);
    assert_true(a.truncated);
    assert_true(a.keep_alive);
    http_answer_free(&a);
}

TEST(headers_that_matter)
{
    static const char text[] =
        "HTTP/1.1 503 Busy\r\nRetry-After: soon\r\nRetry-After: \r\nRetry-After:  12 \r\nRetry-After: nonsense\r\n"
        "Keep-Alive: max=5, timeout=7\r\nContent-Length: 0\r\nContent-Type: Text/HTML ; charset=\"x\"\r\n\r\n";
    struct http_answer a = {0};

    http_answer_begin(&a, BODY_MAX);
    http_answer_feed(&a, text, strlen(text));
    assert_int_equal(a.state, HTTP_ANSWER_COMPLETE);
    assert_true(a.has_retry_after);
    assert_int_equal(a.retry_after_len, 2);
    assert_memory_equal(a.retry_after, "12", 2);
    assert_int_equal(a.keep_alive_sec, 7);
    assert_string_equal(a.content_type, "text/html");
    http_answer_free(&a);
}

/* What a server says of the connection's future, in whatever words. */
TEST(whether_the_connection_stays)
{
    static const struct {
        const char *headers;
        bool stays;
        int sec;
    } said[] = {
        {"", true, 0},
        {"Keep-Alive: timeout=5, max=100\r\n", true, 5},
        {"Keep-Alive: timeout=0\r\n", false, 0},
        {"Keep-Alive: timeout=5, max=0\r\n", false, 5},
        {"keep-alive: MAX=1,TIMEOUT=00\r\n", false, 0},
        {"Keep-Alive: timeout=-1, max=x, timeout=, max=\r\n", true, 0},
        {"Keep-Alive: timeout=99999999999999999999\r\n", true, 100000},
        {"Connection: Keep-Alive, Close\r\n", false, 0},
    };
    char text[256];

    for (size_t i = 0; i < ARRAY_SIZE(said); i++) {
        struct http_answer a = {0};
        http_answer_begin(&a, BODY_MAX);
        snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\n%sContent-Length: 0\r\n\r\n", said[i].headers);
        http_answer_feed(&a, text, strlen(text));
        assert_int_equal(a.state, HTTP_ANSWER_COMPLETE);
        if (a.keep_alive != said[i].stays || MIN(a.keep_alive_sec, 100000) != said[i].sec)
            fail_msg("%s: %d, %d s", said[i].headers, a.keep_alive, a.keep_alive_sec);
        http_answer_free(&a);
    }
}

/* Cut off, an end that may have been forged is none. */
TEST(an_end_that_is_not_clean)
{
    static const char text[] = "HTTP/1.1 200 OK\r\n\r\npart";
    struct http_answer a = {0};

    http_answer_begin(&a, BODY_MAX);
    http_answer_feed(&a, text, strlen(text));
    http_answer_end(&a, false);
    assert_int_equal(a.status, 200);
    assert_true(a.truncated);
    http_answer_free(&a);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_cut_at_every_byte),
        cmocka_unit_test(other_protocols_end_at_once),
        cmocka_unit_test(limits),
        cmocka_unit_test(what_counts_towards_the_limits),
        cmocka_unit_test(a_body_beyond_the_limit_is_read_away),
        cmocka_unit_test(headers_that_matter),
        cmocka_unit_test(whether_the_connection_stays),
        cmocka_unit_test(an_end_that_is_not_clean),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
