/* The monitor's SQL. See store_monitor.h. */
#include "monitor/store_monitor.h"

const struct pg_statement store_take_name = {
    "take_name", "select pg_try_advisory_lock(hashtextextended($1, lock_key('name')))"};

const struct pg_statement store_extend_ledger = {"extend_ledger", "select ledger_extend()"};

const struct pg_statement store_backlog = {
    "backlog",
    "select (select count(*) from (select from subscriptions"
    "         where status in ('pending', 'retry') and held_at is null and integration_id is not null limit 10000) w),"
    "       (select count(*) from (select from subscriptions"
    "         where status in ('pending', 'retry') and held_at is null and integration_id is null limit 10000) u),"
    "       greatest((select case when is_called then last_value else last_value - 1 end from ledger_id_seq)"
    "                - (select high from relay_state), 0),"
    "       (select stopped_reason from relay_state)"};
