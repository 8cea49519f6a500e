/* Posts to each URL that comes on standard input, one after the other, and prints a line for each: how the
 * HTTP client of anubisd understood the answer. For tests that compare it with other clients.
 *
 * usage: post <URLS
 * prints: CAUSE STATUS WHOLE|TRUNCATED BODY-IN-HEX */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/timeutil.h"
#include "http/http.h"

#define URL_MAX 8192

static void on_result(const struct http_result *result, void *userdata)
{
    bool *done = userdata;

    printf("%s %d %s ", result->cause == HTTP_ANSWERED ? "answered" : "none", result->status,
           result->truncated ? "truncated" : "whole");
    for (size_t i = 0; i < result->body_len; i++)
        printf("%02x", (unsigned char) result->body[i]);
    printf("\n");
    fflush(stdout);
    *done = true;
}

int main(void)
{
    static const char *const headers[] = {"Content-Type: application/json", NULL};
    const struct http_params params = {
        .connect_timeout_usec = 10 * USEC_PER_SEC,
        .response_limit = 65536,
        .max_connections = 1,
        .allow_http = true,
        .allow_private_networks = true,
        .ca_file = "/dev/null", /* http only: no certificates are read */
        .proxy = "",
        .user_agent = "post",
    };
    char url[URL_MAX];
    sd_event *event = NULL;
    struct http *http = NULL;
    struct error err;

    signal(SIGPIPE, SIG_IGN);
    if (sd_event_new(&event) < 0)
        return 1;
    while (fgets(url, sizeof(url), stdin)) {
        bool done = false;
        url[strcspn(url, "\n")] = '\0';
        /* Anew for each: a kept connection that the server is about to end would be another test. */
        if (http_new(&http, event, &params, &err) < 0)
            return 1;
        http_post(http,
                  &(struct http_request){.url = url,
                                         .headers = headers,
                                         .body = "{}",
                                         .body_len = 2,
                                         .timeout_usec = 10 * USEC_PER_SEC},
                  on_result, &done);
        while (!done)
            if (sd_event_run(event, USEC_PER_SEC) < 0)
                return 1;
        http_free(http);
    }
    sd_event_unref(event);
    return 0;
}
