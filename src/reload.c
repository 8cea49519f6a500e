/* A reload with an answer. See reload.h. */
#include "reload.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "base/util.h"

#define ASKS 0x616e7562
#define TAKEN SIGUSR1
#define REFUSED SIGUSR2
#define PATIENCE_SEC 20

void reload_answer(const struct signalfd_siginfo *hangup, bool taken)
{
    if (hangup->ssi_code == SI_QUEUE && hangup->ssi_int == ASKS && (pid_t) hangup->ssi_pid > 0)
        (void) kill((pid_t) hangup->ssi_pid, taken ? TAKEN : REFUSED);
}

/* What the kernel tells of a process: proc_pid_status(5). */
struct process {
    char name[64], state;
    pid_t leader;         /* of its threads */
    pid_t inner_id;       /* where it runs in a container: its id there; else 0 */
    bool is_spared_by_it; /* SIGHUP does not end it */
};

static void read_line(const char *line, struct process *p)
{
    int outer, inner;
    uint64_t blocked;

    (void) sscanf(line, "Name:\t%63[^\n]", p->name);
    (void) sscanf(line, "State:\t%c", &p->state);
    if (sscanf(line, "Tgid:\t%d", &outer) == 1)
        p->leader = outer;
    if (sscanf(line, "NSpid:\t%d\t%d", &outer, &inner) == 2)
        p->inner_id = inner;
    if (sscanf(line, "SigBlk:\t%" SCNx64, &blocked) == 1)
        p->is_spared_by_it = blocked >> (SIGHUP - 1) & 1;
}

/* 0, or -errno: -ENOENT = there is none, or none that we may see. */
static int look_at(pid_t pid, struct process *ret)
{
    char path[64], line[256];

    snprintf(path, sizeof(path), "/proc/%d/status", (int) pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return -errno;
    *ret = (struct process){.name = ""};
    while (fgets(line, sizeof(line), f))
        read_line(line, ret);
    fclose(f);
    return *ret->name ? 0 : -ENOENT;
}

/* There is one, though we do not see it: so ProtectProc= of a unit hides a process of the same user in a user
 * namespace of its own (PrivateUsers=). The service manager knows its PID. */
static bool is_hidden(pid_t pid)
{
    return kill(pid, 0) == 0 || errno == EPERM;
}

/* Whoever else gets SIGHUP may be ended by it. 0, or the exit code after the reason is printed. */
static int refuse_others(pid_t pid)
{
    struct process p;
    int id = (int) pid, r = look_at(pid, &p);

    if (r == -ENOENT && is_hidden(pid))
        return 0;
    if (r < 0 && r != -ENOENT && r != -ESRCH)
        fprintf(stderr, "anubisd: could not look at process %d in /proc: %s\n", id, strerror(-r));
    else if (r < 0 || strchr("ZX", p.state))
        fprintf(stderr, "anubisd: there is no process %d\n", id);
    else if (p.leader != pid)
        fprintf(stderr, "anubisd: %d is a thread of process %d\n", id, (int) p.leader);
    else if (strcmp(p.name, "anubisd") != 0)
        fprintf(stderr, "anubisd: process %d is no anubisd, but \"%s\"\n", id, p.name);
    else if (!p.is_spared_by_it)
        fprintf(stderr, "anubisd: process %d is an anubisd, but no daemon\n", id);
    else if (p.inner_id)
        fprintf(
            stderr,
            "anubisd: process %d runs in a container, from which no answer comes here; run \"anubisd --reload "
            "%d\" in there\n",
            id, (int) p.inner_id);
    else
        return 0;
    return EX_USAGE;
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
    int r = refuse_others(daemon);

    if (r)
        return r;
    sigemptyset(&answers);
    sigaddset(&answers, TAKEN);
    sigaddset(&answers, REFUSED);
    sigprocmask(SIG_BLOCK, &answers, NULL);
    if (sigqueue(daemon, SIGHUP, (union sigval){.sival_int = ASKS}) < 0) {
        r = errno == EPERM ? EX_NOPERM : EX_USAGE;
        fprintf(stderr, "anubisd: could not ask process %d: %s\n", (int) daemon, strerror(errno));
        return r;
    }
    r = wait_for_answer(daemon, &answers);
    if (r == REFUSED)
        fprintf(stderr,
                "anubisd: the daemon goes on with the configuration that it has; its log tells why\n");
    else if (r == 0)
        fprintf(stderr, "anubisd: process %d gave no answer within %d s\n", (int) daemon, PATIENCE_SEC);
    return r == TAKEN ? 0 : 1;
}
