/* The name servers of this machine, asked themselves: getaddrinfo(3) says the same of one that is silent and
 * of one that answers SERVFAIL. Any thread. */
#pragma once

#include "base/util.h"

/* Does any server of resolv.conf(5) answer, whatever it says? Waits for at most 2 s. */
bool http_name_servers_answer(void);
