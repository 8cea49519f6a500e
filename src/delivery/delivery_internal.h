/* What the delivery*.c share. Main thread only. */
#pragma once

#include "base/trouble.h"
#include "crypto/ids.h"
#include "delivery/delivery.h"
#include "delivery/integration.h"
#include "delivery/look.h"
#include "delivery/notes.h"
#include "http/http.h"

#define SHORTAGES_SAID 8

/* Of a row that the institution may have: the GET by which it is asked, and what the POST needs then. */
struct question {
    char key[64], trace[80];
    bool is_absent; /* by the answer to that, the institution did not have it */
};

/* Of a row that a rate_limit let be claimed for a time to come. */
struct delivery;
struct turn_callbacks {
    /* Sends it now, or asks for it first. */
    void (*start)(struct delivery *d, const char *order_id, const char *key, const char *trace);
    /* Sends it now: after it was asked for, or once more. */
    void (*post)(struct delivery *d, const char *key, const char *trace);
    /* Puts it back, unsent. */
    void (*give_back)(struct delivery *d, const char *why);
};
struct turn {
    const struct turn_callbacks *callbacks;
    uint64_t send_at;       /* monotonic */
    sd_event_source *timer; /* until then; NULL = it did not wait */
    char key[64], trace[80];
    char *order_id;
    bool repeats; /* it is the second request of this row */
};

/* Of a row whose integration's tokens come from an OAuth 2 server. */
struct token_callbacks {
    void (*start)(struct delivery *d, const char *order_id, const char *key, const char *trace);
    void (*post)(struct delivery *d, const char *key, const char *trace); /* once more, with another token */
    void (*end)(struct delivery *d, const struct http_result *result);    /* there is no token */
};
struct authorized {
    const struct token_callbacks *callbacks;
    struct delivery *next; /* that waits for the same token */
    bool waits;
    bool repeats;    /* a token was refused, and it goes out again */
    bool asks;       /* as the lookup that was refused */
    uint64_t client; /* the number of the client, and the serial of the token, that it was posted with */
    unsigned serial;
    char key[64], trace[80];
    char *order_id;
};

/* Of a row that was refused for its data: what came of it, until the database knows whether it fails. */
struct refused {
    struct http_result result; /* with texts of its own */
    char *body, *detail;
    struct outcome outcome;
};

struct delivery {
    struct delivery *next, *previous;
    struct deliveries *all;
    struct integration *integration;
    struct http_transfer *transfer;
    int64_t id, token;
    int attempts;
    bool is_probe;
    bool is_retry; /* or scheduled: it has a due time */
    struct {
        bool before;   /* an earlier attempt was */
        uint64_t usec; /* since then, as it was claimed */
        bool can_ask;  /* its integration has a lookup that fits the row */
    } ambiguous;
    struct question *question;     /* what the institution is asked before it is sent; NULL = nothing */
    struct turn *turn;             /* NULL = without a rate_limit */
    struct authorized *authorized; /* NULL = without OAuth 2 */
    struct refused *refused;       /* NULL = no verdict is waited for */
    struct {
        int64_t fingerprint; /* of the integration */
        int64_t generation;  /* of its circuit */
        int64_t turn;        /* see struct burst */
    } sent_with;
    uint64_t started_usec;
    uint64_t age_usec; /* when it was claimed */
    size_t payload_len;
    char payload[]; /* as Postgres wrote it */
};

struct deliveries {
    sd_event *event;
    struct config *config;
    struct deliveries_callbacks callbacks;
    void *userdata;
    struct http *http;
    struct integrations *integrations;
    struct network *network;
    struct ids *ids;
    struct delivery *first;
    int count;
    size_t bytes;
    unsigned short jitter[3];        /* erand48(3)'s: a system call for each outcome would buy nothing */
    struct trouble shortage;         /* of this machine's own */
    char *shortages[SHORTAGES_SAID]; /* what was said of it since it began */
    uint64_t shortage_at;            /* monotonic: met for the last time */
    uint64_t wait_until;             /* monotonic: the end of a backoff */
    sd_event_source *failures_timer; /* NULL = none was needed so far */
    uint64_t failures_at;            /* monotonic: when it is set to go off; 0 = it is not */
    struct {
        int count;
        struct look look; /* for changed settings */
        uint64_t asked_at;
    } trials;
};

/* The two headers that tell a row from all others, with their names. */
void delivery_write_ids(const struct delivery *d, const struct store_claimed *row, char key[64],
                        char trace[80]);
void delivery_post(struct delivery *d, const char *key, const char *trace, http_callback callback);
/* Asks the institution whether it has the row. False: it cannot be asked. */
bool delivery_ask(struct delivery *d, const char *order_id, const char *key, const char *trace,
                  http_callback callback);

/* What the journal says when one has ended: how, what its integration does as a whole, and what this machine
 * lacks. */
void delivery_say(const struct delivery *d, const struct outcome *o, const struct http_result *result);
void delivery_say_outage(const struct delivery *d, const struct outcome *o, const struct http_result *result);
void delivery_say_shortage(const struct delivery *d, const struct outcome *o,
                           const struct http_result *result);
/* NULL: the network is still lost, which was said. */
void delivery_note_shortage(struct deliveries *all, const struct integration *i,
                            const struct http_result *result);
/* That its TLS is less than what all others get: once. */
void delivery_say_weak_tls(struct integration *i);
void delivery_forget_shortages(struct deliveries *all);
/* Tells the failures that were counted long enough, or all of them. */
void delivery_say_failures(struct deliveries *all, bool all_of_them);

/* Sends a row of an integration with a rate_limit at its time, or gives it back. */
void delivery_take_turn(struct delivery *d, const struct store_claimed *row,
                        const struct turn_callbacks *callbacks);
/* Its next request, at the next time that the rate_limit leaves free; or it goes back, when that is late. */
void delivery_take_next_turn(struct delivery *d);
/* Whether there is such a time for it. */
bool delivery_has_next_turn(const struct delivery *d);
/* It goes back from the event loop. */
void delivery_turn_cancel(struct delivery *d);
void delivery_turn_free(struct turn *t);

/* Sends a row as soon as there is a token. */
void delivery_with_token(struct delivery *d, const char *order_id, const char *key, const char *trace,
                         const struct token_callbacks *callbacks);
/* The institution refuses the token (401): it goes out once more, with a new one. False: not so. */
bool delivery_renews_token(struct delivery *d, const struct http_result *result);
/* It goes back from the event loop. False: it waits for no token. */
bool delivery_token_cancel(struct delivery *d);
void delivery_token_free(struct authorized *a);

/* It was refused for its data. True: it waits, until the database knows whether that is an outage. */
bool delivery_waits_for_verdict(struct delivery *d, const struct outcome *o,
                                const struct http_result *result);
/* It was taken: so its integration does not refuse all. */
void delivery_note_taken(const struct delivery *d);
void delivery_refused_free(struct refused *r);

/* What the end of a delivery says about its integration; nothing when its settings have changed. */
void delivery_note_integration(const struct delivery *d, const struct outcome *o,
                               const struct http_result *result, const char *pause_reason);
