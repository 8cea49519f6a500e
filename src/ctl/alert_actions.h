/* Actions of "anubisctl alerts" that have a file of their own. See ctl_alerts.c. */
#pragma once

#include "ctl/ctl.h"

int alert_list(struct ctl *c); /* what fires, what is silenced, and who is still to be told */
int alert_test(struct ctl *c); /* a test alert, by way of the daemon */
