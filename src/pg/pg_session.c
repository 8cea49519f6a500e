/* The sessions of this program. See pg_session.h. Pure. */
#include "pg/pg_session.h"

#include "pg/schema.h"

struct pg_params pg_session_params(const struct config *config, const char *application_name,
                                   uint64_t statement_max_usec)
{
    uint64_t timeout = config->database.statement_timeout_usec;

    if (statement_max_usec && (timeout == 0 || timeout > statement_max_usec))
        timeout = statement_max_usec;
    return (struct pg_params){
        .conninfo = config->database.conninfo,
        .schema = config->database.schema,
        .application_name = application_name,
        .daemon = config->instance,
        .connect_timeout_usec = config->database.connect_timeout_usec,
        .statement_timeout_usec = timeout,
        .writes = true,
        .stop_fd = -1,
        .keep_to_indexes = true,
        .admit = schema_admit_daemon,
    };
}
