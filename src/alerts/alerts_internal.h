/* What the files of the alerts share; nobody else includes it.
 *
 * alerts.c          the thread, its session and its turns
 * alerts_look.c     what is wrong, and whether it is to be told
 * alerts_rate.c     is the failure rate of an integration too high?
 * alerts_outbox.c   what the sinks are to be told, and what they have taken
 * alert_journal.c, alert_topic.c, alert_webhook.c, alertmanager.c: the sinks, see alert_sink.h
 * letter_topic.c    dead letters go to their topic
 * checkpoint_topic.c  checkpoints of the audit log go to theirs
 * metrics_topic.c   hours of integration_stats go to their topic
 * topic_sender.c    rows that go to a topic */
#pragma once

#include <systemd/sd-event.h>

#include "alerts/alerts.h"
#include "base/backoff.h"
#include "base/timeutil.h"
#include "base/trouble.h"
#include "http/http.h"
#include "pg/pg.h"

/* The session's name, by which daemons know of each other's network. */
#define ALERTS_SESSION "anubisd alerts"
#define ALERTS_SESSION_LOST ALERTS_SESSION " (network lost)"

#define ALERTS_TURN_USEC USEC_PER_SEC

struct alerts {
    struct worker worker;
    struct config *config;         /* as of the start: sessions and Kafka */
    struct config *rules;          /* the latest: what the group "alerts" says */
    _Atomic(struct config *) next; /* a reload's, not taken over yet */
    const _Atomic bool *network_lost;
    sd_event *event;
    struct http *http;
    struct {
        struct alert_webhook *webhook;
        struct alert_topic *topic;
        struct letter_topic *letters;
        struct checkpoint_topic *checkpoints;
        struct metrics_topic *metrics;
        struct alertmanagers *managers;
        bool settled; /* nothing waits for a sink that the configuration does not name */
    } sinks;
    struct pg *pg;
    struct backoff backoff;
    uint64_t opened_at;
    uint64_t open_at, look_at, prune_at; /* monotonic: nothing of it before */
    bool leading, shows_lost;            /* of the session */
    bool hurry;                          /* a sink can go on: the next turn comes at once */
    struct trouble look;                 /* the database refuses it */
    struct trouble stranger;             /* has the lock of the daemon that looks */
    _Atomic int64_t firing;
};

/* --- alerts_look.c ---------------------------------------------------------------------------- */

/* Looks for what is wrong, and puts what is to be told into the outbox: *ret_changed when there is something
 * to be told. PG_DONE or an error of pg_query(). */
int alerts_look(struct alerts *a, bool *ret_changed, struct error *err);

/* What waits for sinks that the configuration does not name is given up, with a word in the journal. PG_DONE
 * or an error of pg_query(). */
int alerts_drop_unnamed(struct alerts *a, struct error *err);

/* --- alerts_rate.c ---------------------------------------------------------------------------- */

/* The failure rate of each integration that has new outcomes. PG_DONE or an error of pg_query(). */
int alerts_judge_rates(struct alerts *a, struct error *err);

/* --- alerts_outbox.c -------------------------------------------------------------------------- */

/* An alert as a sink is told of it; lives as long as the result that it was read from. */
struct alert_notice {
    int64_t id; /* in the outbox */
    int64_t alert_id, integration_id;
    const char *event, *kind, *name, *message, *body;
    int64_t attempts;
};

/* Up to `max` notices for a sink, in order. The caller frees both. PG_DONE or an error of pg_query(). */
int alerts_outbox_read(struct pg *pg, const char *sink, int64_t max, struct pg_result **ret_result,
                       struct alert_notice **ret, size_t *ret_count, struct error *err);
int alerts_outbox_sent(struct pg *pg, const int64_t *ids, size_t count, struct error *err);
/* They are tried again later; `attempts` is how often the first of them was tried. */
int alerts_outbox_postponed(struct pg *pg, const char *sink, const int64_t *ids, size_t count,
                            int64_t attempts, const char *why, struct error *err);

/* --- the sinks: each turn of the leader ------------------------------------------------------- */

int alert_journal_turn(struct alerts *a, struct error *err);
