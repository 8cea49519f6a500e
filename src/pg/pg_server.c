/* Which server the sessions of this process work on. See pg_internal.h. On any thread. */
#include <pthread.h>

#include "base/timeutil.h"
#include "pg/pg_internal.h"

/* Where an address leads to two servers that both take writes, sessions would chase each other. A server that
 * was started anew is another one. */
#define STAY_USEC (30 * USEC_PER_SEC)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic int64_t newest; /* 0 = there was no session that writes */
static int64_t former;
static uint64_t left_at; /* monotonic; the former one */

bool pg_come_to_server(int64_t server, struct error *err)
{
    uint64_t now = now_monotonic_usec();

    if (server == 0)
        return true;
    pthread_mutex_lock(&lock);
    bool comes_back = server == former && now - left_at < STAY_USEC;
    if (!comes_back && server != newest) {
        former = newest;
        left_at = now;
        newest = server;
    }
    pthread_mutex_unlock(&lock);
    if (comes_back)
        error_set(err,
                  "the sessions have just left this server for another one that takes writes, too: does the "
                  "address lead to both?");
    return !comes_back;
}

bool pg_is_elsewhere(int64_t server, struct error *err)
{
    if (server == 0 || server == newest)
        return false;
    error_set(err, "a newer session of this process has come to another server: this one follows");
    return true;
}
