/* A reload whose outcome whoever asked for it is told: kill(1) sends a signal, and learns nothing.
 *
 * The one who asks sends SIGHUP with a value (sigqueue(3)), by which the daemon knows that it waits for one
 * of two signals; whoever else sends SIGHUP gets none, which might end it. */
#pragma once

#include <stdbool.h>
#include <sys/signalfd.h>
#include <sys/types.h>

/* Asks the daemon and waits for its answer. Exit code, after the reason is printed: 0 = it has taken the
 * configuration over, 1 = it has not, or gave no answer, EX_USAGE = it is no anubisd that runs, and was sent
 * nothing, EX_NOPERM = we may not. Before any thread starts. */
int reload_ask(pid_t daemon);
/* The daemon's answer to this SIGHUP. */
void reload_answer(const struct signalfd_siginfo *hangup, bool taken);
