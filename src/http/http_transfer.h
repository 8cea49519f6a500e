/* One POST: from its request to its result, over as many connections as it takes to hand it over once.
 *
 * For http.c alone. Main thread only; nothing here calls the requester back: what has ended waits in the list
 * of finished transfers. */
#pragma once

#include "http/http_answer.h"
#include "http/http_connector.h"
#include "http/http_pool.h"
#include "http/http_way.h"

struct http_transfer;
TAILQ_HEAD(http_transfer_list, http_transfer);

/* What all transfers share. */
struct http_context {
    struct http_params params; /* its strings are the three below */
    struct http_way *way;      /* the configuration's */
    struct http_way_list ways; /* others in use */
    char *ca_file, *proxy, *user_agent;
    unsigned generation; /* of what a connection depends on */
    struct http_sockets *sockets;
    struct http_connector *connector;
    struct http_wheel *wheel;
    struct http_pool pool;
    struct http_transfer_list running, finished;
    struct http_transfer_list handshakes; /* that can go on, by turns */
    int handshake_count;
    char *buffer; /* HTTP_BUFFER bytes, for whoever moves bytes just now */
};
#define HTTP_BUFFER ((size_t) 64 * 1024)

struct http_transfer {
    TAILQ_ENTRY(http_transfer) link; /* in one of the lists */
    struct http_context *context;
    http_callback callback;
    void *userdata;
    bool finished; /* has its result, waits for the callback */

    struct http_route *route; /* NULL: the URL is not valid */
    struct http_attempt *attempt;
    struct http_connection *connection;
    int restarts; /* connections that were of no use before anything was handed over */
    struct http_timer timer;
    uint64_t started_usec, deadline_usec; /* the request's own deadline */
    uint64_t connect_until_usec;
    TAILQ_ENTRY(http_transfer) turn; /* in the list of handshakes, if it can_shake */
    bool can_shake;
    uint64_t can_shake_since_usec;
    uint64_t boot_deadline_usec; /* the same in boot time: nothing is sent afterwards */

    struct http_sending {
        struct http_way *way;
        struct strbuf head;
        const char *body;
        size_t body_len, sent;
        bool handed_over; /* the connection took, or may have taken, a byte */
        bool connects_only;
    } request;
    struct http_answer answer;

    struct http_ending { /* meaningless until it has finished */
        enum http_cause cause;
        struct error detail;
        bool has_retry_after;
        int64_t retry_after_sec;
        uint64_t duration_usec;
    } end;
};

struct http_transfer *http_transfer_new(struct http_context *context);
void http_transfer_free(struct http_transfer *t);
/* Ends in the list of running or of finished transfers. Takes `way` over, which is prepared. */
void http_transfer_start(struct http_transfer *t, const struct http_request *request, struct http_way *way,
                         http_callback callback, void *userdata);
/* Ends it now: with the answer, if its status is known, else with HTTP_CANCELLED. */
void http_transfer_cancel(struct http_transfer *t);
/* Handshakes cost a millisecond each, exchanges a hundredth of it: this does some of the former, between the
 * latter, and wakes the sockets for the rest. */
void http_transfers_shake(struct http_context *h);
/* Lets go of everything but its memory, without a result. */
void http_transfer_drop(struct http_transfer *t);
