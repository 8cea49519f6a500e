/* Which server the sessions of this process work on. See pg_internal.h. On any thread. */
#include "pg/pg_internal.h"

static _Atomic int64_t newest; /* 0 = there was no session that writes */

void pg_note_server(int64_t server)
{
    newest = server;
}

bool pg_is_elsewhere(int64_t server, struct error *err)
{
    if (server == 0 || server == newest)
        return false;
    error_set(err, "a newer session of this process has come to another server: this one follows");
    return true;
}
