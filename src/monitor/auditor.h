/* Proves the audit log again and again, so that somebody is told when it was changed: the alert "audit".
 *
 * A thread of its own, because a proof may take minutes; with a session only as long as it works. What is new
 * is proven each minute, all of it in a hundredth of the time. One daemon of all does it. */
#pragma once

#include "base/util.h"
#include "config/config.h"

struct auditor;

/* `config` is of the caller, as long as the thread lives. */
int auditor_start(struct auditor **ret, const struct config *config, int stop_fd, struct error *err);
void auditor_join(struct auditor *a); /* after stop_fd was raised; NULL is legal */
void auditor_wake(struct auditor *a); /* it is time */
