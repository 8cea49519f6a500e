/* The arguments of the dispatcher's statements (sql/statements/), and the rows of their results. Sends
 * nothing. */
#pragma once

#include "base/timeutil.h"
#include "config/config.h"
#include "delivery/outcome.h"
#include "pg/pg.h"
#include "sql/statements.h"

/* How long another session's lock may keep our statements waiting before that is said. */
#define STORE_LOCK_PATIENCE_USEC (5 * USEC_PER_SEC)

/* --- claim ------------------------------------------------------------------------------------ */

struct store_claim_request {
    const char *claimed_by;
    int64_t token;       /* of the whole batch; never used again */
    uint64_t lease_usec; /* above default_timeout_usec; a longer timeout gets the same margin */
    uint64_t default_timeout_usec;
    int limit;
    int default_max_in_flight; /* per integration */
    int64_t after_integration; /* begin with the integrations after this one: round robin */
    int64_t byte_budget;       /* payloads; the first row is taken whatever its size */
    size_t passed_over_count;
    const int64_t *passed_over; /* ids */
    int max_slots;              /* requests that any integration may have at once */
};
/* What this daemon knows of an integration that it sends to. */
struct store_load {
    int64_t integration_id;
    int in_flight, retries; /* those, and how many of them are of rows with a due time */
    int slots;              /* requests that it may have at once; INT_MAX = as many as its settings allow */
};
/* For sql_claim, and for sql_claim_head, which shows what that would take: id and integration in columns 0
 * and 1. Then store_claim_places(). */
void store_claim_args(struct pg_args *args, const struct store_claim_request *request, size_t count,
                      const struct store_load *loads);

/* A place in an integration's part of subscriptions_due: one among its fresh rows, one among those with a due
 * time. STORE_PLACE_START() is before all of them. */
struct store_place {
    int64_t integration_id;
    int64_t fresh_id;
    int64_t due, id; /* due as Postgres counts timestamptz */
};
#define STORE_PLACE_START(integration)                                                                       \
    (struct store_place)                                                                                     \
    {                                                                                                        \
        .integration_id = (integration), .due = INT64_MIN, .id = INT64_MAX                                   \
    }
/* Round robin: a claim takes integrations in the order of their ids from `first` on, and around. */
bool store_claim_comes_later(int64_t a, int64_t b, int64_t first);
/* For sql_claim_probe, after store_claim_places(). */
void store_claim_probe_args(struct pg_args *args, uint64_t max_recovery_usec);
/* From which places on integrations are looked at, in the order of their ids, and which process claims: after
 * store_claim_args(). For sql_claim_on, which looks at these alone, and for sql_claim. */
void store_claim_places(struct pg_args *args, int64_t process, size_t count,
                        const struct store_place *places);

/* For sql_claim_weigh: of all integrations, or of `only` that one. */
void store_weigh_args(struct pg_args *args, uint64_t long_usec, const int64_t *only, size_t count,
                      const struct store_place *places);

/* True when nothing was claimed, though an integration may have rows: the row with its limits was locked by
 * somebody else. The result has one row then, which is none of a subscription. */
bool store_claim_was_locked_out(const struct pg_result *result);
/* Which of an integration's free slots a claim has used up. */
enum store_used {
    STORE_USED_NONE,
    STORE_USED_RETRIES, /* those that rows with a due time may have */
    STORE_USED_ALL,
};
/* One row of the result; pointers live as long as the result. The integration's columns are given in the
 * first of its rows. */
struct store_claimed {
    int64_t id, integration_id;
    int attempts;
    const char *seed; /* "" = none: the row is older than the adoption */
    uint64_t age_usec;
    const char *payload;
    size_t payload_len;
    bool ambiguous;                 /* the institution may have received it with an earlier attempt */
    uint64_t ambiguous_usec;        /* since then */
    const char *order_id;           /* where delivery_settings may ask for it; "" = none */
    const char *traceparent;        /* "" = none */
    const unsigned char *namespace; /* 16 bytes: the UUID that keys and trace ids are derived from */
    int64_t due;                    /* as Postgres counts timestamptz */
    bool has_integration;
    enum store_used used;                  /* more rows may wait for these slots */
    const char *endpoint_url, *auth_token; /* "" = none */
    uint64_t timeout_usec;
    int max_attempts;       /* 0 = the default */
    bool recovers;          /* it has backed off until a moment ago */
    int64_t fingerprint;    /* of endpoint_url, auth_token and delivery_settings */
    uint64_t found_usec;    /* how long the claim looked for rows */
    int64_t generation;     /* of the circuit */
    bool has_failures;      /* failures in a row stand in the database */
    uint64_t taken_usec;    /* since the institution took one, as the database knows; USEC_INFINITY = never */
    int64_t turn;           /* see struct burst */
    bool is_refusing;       /* refusals in a row stand in the database */
    bool cut;               /* the claim left rows for their bytes */
    const char *name;       /* its first characters */
    const char *settings;   /* delivery_settings; "" = {} */
    uint64_t interval_nsec; /* between two requests (rate_limit); 0 = there is no limit */
    int64_t send_usec;      /* from when the claim was sent: when the row may be */
};
void store_claim_row(const struct pg_result *result, int row, struct store_claimed *ret);

void store_release_tokens_args(struct pg_args *args, size_t count, const int64_t *tokens);

/* --- settle ----------------------------------------------------------------------------------- */

struct store_settlement {
    int64_t id, token, integration_id;
    struct outcome outcome;
    int attempts;    /* that the row has then */
    int http_status; /* 0 = none */
    int duration_ms;
    char *error;    /* NULL when sent */
    char *response; /* NULL when there was no answer; valid UTF-8 */
    size_t response_len;
    bool truncated;
    bool absent;         /* the institution did not have it before this attempt, for sure */
    int refusals;        /* by itself: 1 = its text was given up, 2 = it is said, and tried again and again */
    uint64_t not_before; /* monotonic; after a refusal */
    char refused_for[6]; /* the last one's SQLSTATE */
};
/* For sql_settle, and for sql_settle_unlocked, which leaves out rows that somebody else has locked. Result:
 * the ids settled, ascending, in column 0. */
void store_settle_args(struct pg_args *args, size_t count, const struct store_settlement *const *items);
void store_still_claimed_args(struct pg_args *args, size_t count,
                              const struct store_settlement *const *items);

/* For sql_renew_leases. */
void store_renew_leases_args(struct pg_args *args, size_t count, const struct store_settlement *const *items,
                             uint64_t lease_usec);

/* For sql_session_name: the session that stores results tells by its name how many the database refuses, the
 * lowest of their subscriptions, and for which SQLSTATE. `first` NULL = none. */
#define STORE_SETTLE_SESSION "anubisd settle"
void store_refused_args(struct pg_args *args, size_t count, const struct store_settlement *first);

/* --- the rest --------------------------------------------------------------------------------- */

/* For sql_expire_leases: up to `limit` rows whose lease is over and whose claim is none of `tokens`: retry,
 * ambiguous, or failed where that was the last attempt; those of other instances that are there keep theirs:
 * see lease_over.part.sql, with `patient` as its $9. Rows: id, integration_id, status. And for
 * sql_expire_head: whose lease that would end, id in column 0. */
void store_expire_leases_args(struct pg_args *args, const struct outcome_rules *rules, size_t count,
                              const int64_t *tokens, size_t passed_over_count, const int64_t *passed_over,
                              int limit, const char *instance, bool patient);

/* Nothing is to be sent to an integration, as long as it has this fingerprint. */
struct store_wait {
    int64_t integration_id;
    const char *integration_name;
    int64_t fingerprint;
    uint64_t usec; /* from now; USEC_INFINITY = it is paused until somebody resumes it */
    const char *reason;
};
void store_pause_integration_args(struct pg_args *args, const struct store_wait *wait);
void store_back_off_args(struct pg_args *args, const struct store_wait *wait);

/* What came of requests to an integration that were claimed in one generation of its circuit. */
struct store_circuit {
    int64_t integration_id, fingerprint, generation;
    enum circuit_event event;
    int failures;   /* in a row */
    char error[64]; /* the class of the last one, for the journal */
    char why[200];  /* of the last one: why no request could be made; "" = one was made */
    bool ours;      /* for want of a credential of our own */
};
struct store_circuit_rules {
    int failure_threshold;
    uint64_t recovery_usec, max_recovery_usec;
};
struct store_circuit_rules store_circuit_rules(const struct config *config);
/* For sql_circuit_note; and a row of its result. */
void store_circuit_args(struct pg_args *args, const struct store_circuit_rules *rules, size_t count,
                        const struct store_circuit *notes, bool avoid_locked);
struct store_circuit_change {
    int64_t integration_id;
    const char *state_before, *state;   /* both "" = the endpoint or the token is another one meanwhile */
    const char *reason, *reason_before; /* "" = it is closed */
    uint64_t probe_usec;  /* from now until the next probe; USEC_INFINITY = it is closed; 0 = not known */
    uint64_t lasted_usec; /* since it was opened, or closed */
    const char *name;     /* the integration's first characters */
};
void store_circuit_row(const struct pg_result *result, int row, struct store_circuit_change *ret);

/* A row that an institution refused for its data, or one that it took after refusals. */
struct store_refusal {
    int64_t integration_id, fingerprint;
    int64_t turn;        /* in which the row was claimed; see struct burst */
    uint64_t taken_usec; /* since it took one, as far as this daemon knows; USEC_INFINITY = never */
    bool taken;
};
/* For sql_judge_refusals, in their order. */
void store_judge_args(struct pg_args *args, size_t count, const struct store_refusal *refusals,
                      const char *reason);
struct store_verdict {
    int64_t integration_id, fingerprint, turn;
    int64_t may_fail;    /* of its refusals, the first ones */
    int64_t paused_turn; /* 0 = it is not paused for them */
    bool is_vain;        /* counting more of them is in vain */
};
void store_verdict_row(const struct pg_result *result, int row, struct store_verdict *ret);
