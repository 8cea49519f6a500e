/* Actions of "anubisctl dead-letters" and what they share. See ctl_dead_letters.c. */
#pragma once

#include "ctl/ctl.h"

/* The letters that the arguments name, or with --all those that are open. *ret has *ret_count of them and is
 * the caller's to free. 0, or an exit code after it said why. */
int letters_choose(struct ctl *c, struct pg *pg, int64_t **ret, size_t *ret_count);

/* The groups that have stopped, as letters_stops has them; nothing when there is none. */
void letters_add_stops(struct sheet *sheet, const struct pg_result *rows);

int letters_replay(struct ctl *c); /* through the handlers again */
