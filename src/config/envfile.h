/* A file of environment variables as systemd's EnvironmentFile= reads it (systemd.exec(5)), so that anubisctl
 * sees the same variables as the daemon.
 *
 * Main thread, before any other starts: it changes the environment. */
#pragma once

#include "base/util.h"

/* Sets what the environment does not hold yet; of several assignments in the file the last one counts. Lines
 * that are no assignment are passed over, as systemd does. 0, also when there is no such file; else a
 * negative errno with *err. */
int envfile_load(const char *path, struct error *err);
