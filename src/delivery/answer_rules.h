/* What an integration's answers mean: delivery_settings.outcomes, an ordered list of rules, of which the
 * first that matches decides before the table of outcome.c.
 *
 * Pure; one thread at a time. A zeroed list has no rule. */
#pragma once

#include "base/json.h"
#include "http/http.h"

#define ANSWER_RULES_MAX 100
#define ANSWER_STATUSES_MAX 50 /* of one rule */
#define ANSWER_TEXT_MAX 1000   /* bytes of a text or a pointer */

enum answer_means {
    ANSWER_SENT = 1,
    ANSWER_FAILED,
    ANSWER_RETRY, /* costs an attempt */
    ANSWER_HELD,  /* a person decides */
};

struct answer_rule {
    struct {
        int first, last;
    } * statuses;
    int status_count;   /* 0 = any */
    char *contains;     /* NULL = any, like the next three */
    char *field;        /* a JSON pointer, with `value` */
    char *value;        /* as text: 0, "0" and 0 within a string are the same */
    char *content_type; /* in lower case, without parameters */
    bool is_not;        /* the field is there, and is not the value */
    enum answer_means then;
};

struct answer_rules {
    struct answer_rule *list;
    int count;
};

/* 0, or -EINVAL with words behind the name of the key: "rule 2: status is …". The same words as the
 * database's (delivery_settings_outcomes()). */
int answer_rules_read(const struct json_value *value, struct answer_rules *ret, struct error *why);
void answer_rules_free(struct answer_rules *rules); /* what it holds, not `rules` */
/* The number of the rule that decides, from 1 on, and what it says; 0: none does. */
int answer_rules_decide(const struct answer_rules *rules, const struct http_result *result,
                        enum answer_means *ret);
