/* Says on stderr who keeps a session of ours waiting, while it waits: that session is busy, so another one
 * asks. */
#pragma once

#include "ctl/ctl.h"

struct ctl_wait;

/* `pid` is the backend to watch. Without a second session there is nobody to say it, which is no error: *ret
 * is NULL then. */
void ctl_wait_start(struct ctl_wait **ret, const struct pg_params *params, int pid);
void ctl_wait_stop(struct ctl_wait *w); /* NULL is legal; ends its thread */

/* Who it waited for last, into `out`; nothing when it never waited. */
void ctl_wait_last(struct ctl_wait *w, struct strbuf *out);
