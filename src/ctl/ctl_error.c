/* The class of a stored error. See ctl.h. Pure, on any thread. */
#include <inttypes.h>
#include <string.h>

#include "ctl/ctl.h"
#include "http/http.h"
#include "http/http_shortage.h"

#define ELSEWHERE " (its words are in the ledger)"

/* The sentences that anubisd and its trigger write themselves, without words of an institution. */
static const char *const own_sentences[] = {
    "lease expired: whoever was sending it gave no result",
    "not sent again: the institution may have it",
    "the answer's text could not be stored",
    "status set to failed by the application",
    "status set to retry by the application",
    "confirmation: the institution has rejected it",
    "erased",
};

/* And what the machine lacked: of these, or of http_shortage_words(). */
static const char not_sent[] = "not sent: ";
static const char *const not_sent_why[] = {
    "the claim's answer got lost",
    "the daemon stopped",
    "no name server answers: see /etc/resolv.conf",
    "this process stood still until the request's time was over",
    "most institutions were lost at once, so this machine's network is to blame (cable, route, firewall, name "
    "servers)",
};
#define ERRNO_END 200

/* Of settings that nothing can be sent with; names a credential, and tells nothing of its content. */
static const char *const problems[] = {"its auth_token cannot be used: ", "its delivery_settings ",
                                       "no credentials: "};

/* What "anubisctl" writes: the operator's name, and not what a person has to say. NULL = none of these. */
static char *operator_words(const char *error)
{
    static const char put_back[] = "put back by ", retry[] = " (anubisctl retry)", operator[] = "operator ";
    size_t len = strlen(error), end = strcspn(error, ":");

    if (strncmp(error, put_back, strlen(put_back)) == 0 && len > strlen(retry) &&
        strcmp(error + len - strlen(retry), retry) == 0)
        return xstrdup(error);
    if (strncmp(error, operator, strlen(operator)) == 0 && error[end])
        return xasprintf("settled by %.*s", (int) end, error);
    return NULL;
}

/* ": " and words of http_tls_fault_words(). */
static bool is_tls_fault(const char *rest)
{
    const char *words;

    for (unsigned i = 0; rest[0] == ':' && rest[1] == ' ' && (words = http_tls_fault_words(i)); i++)
        if (strcmp(rest + 2, words) == 0)
            return true;
    return false;
}

static bool is_own_shortage(const char *words)
{
    for (size_t i = 0; i < ARRAY_SIZE(not_sent_why); i++)
        if (strcmp(words, not_sent_why[i]) == 0)
            return true;
    for (int e = 1; e < ERRNO_END; e++)
        if ((http_is_shortage(e) || http_is_no_route(e)) && strcmp(words, http_shortage_words(e)) == 0)
            return true;
    return false;
}

char *ctl_error_class(const char *error, int64_t http_status)
{
    if (http_status)
        return xasprintf("HTTP %" PRId64, http_status);
    if (!*error)
        return NULL;
    for (size_t i = 0; i < ARRAY_SIZE(own_sentences); i++)
        if (strcmp(error, own_sentences[i]) == 0)
            return xstrdup(error);
    char *words = operator_words(error);
    if (words)
        return words;
    if (strncmp(error, not_sent, strlen(not_sent)) == 0)
        return xstrdup(is_own_shortage(error + strlen(not_sent)) ? error : "not sent" ELSEWHERE);
    for (size_t i = 0; i < ARRAY_SIZE(problems); i++)
        if (strncmp(error, problems[i], strlen(problems[i])) == 0)
            return xstrdup(error);
    for (enum http_cause cause = HTTP_ANSWERED; cause <= HTTP_INTERNAL; cause++) {
        const char *word = http_cause_word(cause);
        size_t len = strlen(word);
        if (cause == HTTP_TLS && strncmp(error, word, len) == 0 && is_tls_fault(error + len))
            return xstrdup(error);
        if (strncmp(error, word, len) == 0 && (error[len] == '\0' || error[len] == ':'))
            return xstrdup(word);
    }
    return xstrdup("other" ELSEWHERE);
}
