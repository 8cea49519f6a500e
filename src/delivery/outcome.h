/* What an attempt's end means for its subscription: the table of the manual (anubisd(8), OUTCOMES) as a pure
 * function. */
#pragma once

#include "base/strbuf.h"
#include "delivery/ambiguity.h"
#include "delivery/answer_rules.h"
#include "delivery/circuit.h"
#include "http/http.h"

enum outcome_state {
    OUTCOME_SENT,
    OUTCOME_FAILED,  /* for good */
    OUTCOME_RETRY,   /* not before delay_usec have passed */
    OUTCOME_RELEASE, /* back to its queue, as if it had not been claimed */
    OUTCOME_HOLD,    /* retry, but never due: a person decides */
};
const char *outcome_word(enum outcome_state state);

struct outcome_rules {
    int max_attempts;
    uint64_t max_age_usec;
    uint64_t base_delay_usec, max_delay_usec;
};

struct outcome_attempt {
    const struct http_result *result;
    const struct answer_rules *answer_rules; /* of the integration; NULL = none */
    const struct ambiguity *ambiguity;       /* the same */
    int attempts;                            /* this one included */
    int backoffs;            /* how often in a row its integration has to wait, this time included */
    uint64_t age_usec;       /* since the subscription was written */
    bool ambiguous_before;   /* the institution may have received it with an earlier attempt */
    uint64_t ambiguous_usec; /* since then */
    bool can_ask;            /* the institution can be asked for it (lookup) */
    bool is_lookup;          /* the result is that of such a question, and says nothing about the row */
    double unit;             /* chance for the jitter, in [0, 1) */
};

struct outcome {
    enum outcome_state state;
    bool ambiguous;     /* the institution may have received it */
    bool costs_attempt; /* counts towards max_attempts */
    bool turned_away;   /* by the institution or on the way to it, whatever stands in the row */
    bool refused;       /* for its data: no other attempt can help */
    bool our_fault;     /* this machine lacks something: it says nothing about the institution */
    enum circuit_event circuit;
    uint64_t delay_usec;
    uint64_t backoff_usec;    /* 0, or the whole integration waits for so long */
    const char *pause_reason; /* not NULL: the integration cannot work until it is repaired; not
                               * turned_away then */
    char decided_by[32];      /* "rule 3", "lookup", the name of a setting; "" = the table */
    bool new_key;             /* its next attempt goes out with another Idempotency-Key */
};

struct outcome outcome_decide(const struct outcome_rules *rules, const struct outcome_attempt *attempt);

/* What the institution is found to have, by the answer to a lookup. */
struct outcome outcome_found(void);
/* What is not sent again, but left to a person; why: the name of a setting. */
struct outcome outcome_held(const char *why);
/* How long an institution waits that a shortage of ours keeps from being reached, for the nth time. */
uint64_t outcome_own_backoff(int backoffs, double unit);

/* "HTTP 422: the answer's first bytes" or the cause in words, valid UTF-8 within 1,000 bytes: for last_error
 * and the ledger, never for the journal. */
void outcome_error_message(const struct http_result *result, struct strbuf *out);
/* The same without anything that the institution wrote: "HTTP 422" or the cause's word. */
void outcome_error_class(const struct http_result *result, char *out, size_t size);
