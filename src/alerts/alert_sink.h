/* The sinks that need time: each has a state of its own, and a turn in which it goes on. Alerts' thread only;
 * nothing here waits. A sink's turn returns PG_DONE or an error of pg_query(). */
#pragma once

#include "alerts/alerts_internal.h"
#include "http/http.h"

struct alert_webhook *alert_webhook_new(void);
void alert_webhook_free(struct alert_webhook *w);
int alert_webhook_turn(struct alerts *a, struct alert_webhook *w, struct error *err);

struct alert_topic *alert_topic_new(void);
void alert_topic_free(struct alert_topic *t);
int alert_topic_turn(struct alerts *a, struct alert_topic *t, struct error *err);

/* Not alerts, but told by the same thread: dead letters. */
struct letter_topic *letter_topic_new(void);
void letter_topic_free(struct letter_topic *t);
int letter_topic_turn(struct alerts *a, struct letter_topic *t, struct error *err);

/* Nor are these: checkpoints of the audit log. */
struct checkpoint_topic *checkpoint_topic_new(void);
void checkpoint_topic_free(struct checkpoint_topic *t);
int checkpoint_topic_turn(struct alerts *a, struct checkpoint_topic *t, struct error *err);

/* Nor these: the hours of integration_stats. */
struct metrics_topic *metrics_topic_new(void);
void metrics_topic_free(struct metrics_topic *t);
int metrics_topic_turn(struct alerts *a, struct metrics_topic *t, struct error *err);

/* Alertmanager's clock is another one: see alertmanager.c. */
struct alertmanagers *alertmanagers_new(void);
void alertmanagers_free(struct alertmanagers *m);
/* What alerts.alertmanager_urls names, and the name in the outbox of its nth, from 1 on. */
size_t alertmanagers_count(const char *urls);
#define ALERTMANAGER_SINK 40
void alertmanager_sink(size_t number, char ret[ALERTMANAGER_SINK]);
/* `changed`: an alert has fired or resolved since the last turn. */
int alertmanagers_turn(struct alerts *a, struct alertmanagers *m, bool changed, struct error *err);

/* Did a server take a request (2xx)? If not, `why` says so without a word of the server's. */
bool alert_sink_took(const struct http_result *result, struct error *why);

/* A URL of the conf file as a request has it: without user name and password, which become a header of Basic
 * authentication (RFC 7617); NULL = there are none. The caller frees both. */
void alert_sink_read_url(const char *url, char **ret_url, char **ret_header);
