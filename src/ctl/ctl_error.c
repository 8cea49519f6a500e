/* The class of a stored error. See ctl.h. Pure, on any thread. */
#include <inttypes.h>
#include <string.h>

#include "ctl/ctl.h"
#include "http/http.h"

/* The sentences that anubisd and its trigger write themselves, without words of an institution. */
static const char *const own_sentences[] = {
    "lease expired: whoever was sending it gave no result",
    "not sent: the claim's answer got lost",
    "not sent: the daemon stopped",
    "the answer's text could not be stored",
    "status set to failed by the application",
    "status set to retry by the application",
};

char *ctl_error_class(const char *error, int64_t http_status)
{
    if (http_status)
        return xasprintf("HTTP %" PRId64, http_status);
    if (!*error)
        return NULL;
    for (size_t i = 0; i < ARRAY_SIZE(own_sentences); i++)
        if (strcmp(error, own_sentences[i]) == 0)
            return xstrdup(error);
    for (enum http_cause cause = HTTP_ANSWERED; cause <= HTTP_INTERNAL; cause++) {
        const char *word = http_cause_word(cause);
        size_t len = strlen(word);
        if (strncmp(error, word, len) == 0 && (error[len] == '\0' || error[len] == ':'))
            return xstrdup(word);
    }
    return xstrdup("other (its words are in the ledger)");
}
