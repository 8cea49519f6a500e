/* A reload with an answer. See reload.h. */
#include "reload.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define ASKS 0x616e7562
#define TAKEN SIGUSR1
#define REFUSED SIGUSR2
#define PATIENCE_SEC 20

void reload_answer(const struct signalfd_siginfo *hangup, bool taken)
{
    if (hangup->ssi_code == SI_QUEUE && hangup->ssi_int == ASKS)
        (void) kill((pid_t) hangup->ssi_pid, taken ? TAKEN : REFUSED);
}

/* The signal that comes from the daemon; 0 = none does in time. */
static int wait_for_answer(pid_t daemon, const sigset_t *answers)
{
    const struct timespec patience = {.tv_sec = PATIENCE_SEC};
    siginfo_t info;
    int r;

    do
        r = sigtimedwait(answers, &info, &patience);
    while ((r < 0 && errno == EINTR) || (r > 0 && info.si_pid != daemon));
    return r < 0 ? 0 : r;
}

int reload_ask(pid_t daemon)
{
    sigset_t answers;

    sigemptyset(&answers);
    sigaddset(&answers, TAKEN);
    sigaddset(&answers, REFUSED);
    sigprocmask(SIG_BLOCK, &answers, NULL);
    if (sigqueue(daemon, SIGHUP, (union sigval){.sival_int = ASKS}) < 0) {
        fprintf(stderr, "anubisd: could not ask process %d: %s\n", (int) daemon, strerror(errno));
        return 1;
    }
    int r = wait_for_answer(daemon, &answers);
    if (r == REFUSED)
        fprintf(stderr,
                "anubisd: the daemon goes on with the configuration that it has; its log tells why\n");
    else if (r == 0)
        fprintf(stderr, "anubisd: process %d gave no answer within %d s\n", (int) daemon, PATIENCE_SEC);
    return r == TAKEN ? 0 : 1;
}
