/* One POST on one libcurl easy handle: setting it up, what its callbacks see, and what became of it.
 *
 * For http.c alone. Main thread only; nothing here drives a transfer or calls the requester back. */
#pragma once

#include <curl/curl.h>
#include <sys/queue.h>

#include "base/strbuf.h"
#include "http/http.h"
#include "http/http_sockets.h"

/* What all transfers share. */
struct http_context {
    struct http_params params; /* its strings are the three below */
    char *ca_file, *proxy, *user_agent;
    unsigned generation; /* one more at each change of the parameters */
    struct http_sockets *sockets;
};

struct http_transfer {
    TAILQ_ENTRY(http_transfer) link; /* in one of the lists of struct http */
    bool finished;                   /* has its result, waits for the callback */

    struct http_context *context;
    CURL *easy;
    bool configured;
    unsigned generation; /* of the parameters that the handle is configured for */
    char *url;           /* set on the handle, found valid; NULL = none */
    long timeout_ms;     /* set on the handle; 0 = none */

    /* The request. */
    http_callback callback;
    void *userdata;
    struct curl_slist *headers; /* an array, linked; the texts lie in header_text */
    size_t headers_capacity;
    struct strbuf header_text;
    uint64_t started_usec;

    /* How far it came. */
    bool socket_opened;
    bool address_refused;
    bool handed_over;    /* the request, its body close behind, was given to a connection */
    bool repeat_refused; /* libcurl was about to send it a second time */
    int local_errno;     /* our own machine refused something */

    /* The answer. */
    size_t header_bytes;
    struct strbuf body;
    size_t body_excess; /* bytes beyond body.max, read and dropped */
    bool headers_ended;
    bool body_started;
    bool has_retry_after;
    int64_t retry_after_sec;

    /* The result. */
    enum http_cause cause;
    int status;
    bool truncated;
    uint64_t duration_usec;
    const char *detail;
    char curl_error[CURL_ERROR_SIZE];
};

struct http_transfer *http_transfer_new(struct http_context *context);
void http_transfer_free(struct http_transfer *t); /* not while it is in a multi handle */

/* Makes the handle ready for the multi handle. False: it has its result already. */
bool http_transfer_prepare(struct http_transfer *t, const struct http_request *request,
                           http_callback callback, void *userdata);
/* The result from what libcurl says about a transfer that ended. */
void http_transfer_conclude(struct http_transfer *t, CURLcode code);
/* The result of one that was cut short: the answer, if its status is known, else `cause`. `detail` is
 * constant. */
void http_transfer_abandon(struct http_transfer *t, enum http_cause cause, const char *detail);
/* Valid until the transfer is prepared anew or freed. */
struct http_result http_transfer_result(const struct http_transfer *t);

/* For the multi handle's socket callback: the transfer behind an easy handle, NULL for one of libcurl's own.
 */
struct http_transfer *http_transfer_of(CURL *easy);
