/* The integrations of "anubisctl status": those in trouble first, with what they suffer from. */
#pragma once

#include "config/config.h"
#include "ctl/sheet.h"
#include "ctl/store_ctl.h"

/* In the order of trouble. */
enum fleet_state {
    FLEET_FAILING, /* nothing has been accepted for several attempts */
    FLEET_CIRCUIT, /* open or half open */
    FLEET_WAITS,   /* the institution asked for time, or refuses the credentials */
    FLEET_PAUSED,
    FLEET_OK,
    FLEET_IDLE, /* no results of late, and nothing waits */
    FLEET_DISABLED,
    FLEET_STATES,
};

struct fleet_row {
    struct store_integration i;
    struct store_health h; /* zeroed = no results of late; its times are INT64_MIN then */
    enum fleet_state state;
};

struct fleet {
    struct pg_result *integrations, *health;
    struct fleet_row *rows;
    size_t count;
    int64_t now;             /* the database's */
    int64_t window_began_at; /* of the health; INT64_MIN = there were no results */
    int64_t limit;           /* see store_integrations() */
};
/* Reads them; `now` and `limit` are set already. */
int fleet_read(struct fleet *f, struct pg *pg, const struct config *config, struct error *err);
void fleet_free(struct fleet *f);
/* Sums over all of them, and when the backlog will be done. */
void fleet_add_backlog(const struct fleet *f, struct sheet *sheet, bool daemons_wait);
/* The table. `all`: those that have nothing to do, too, however many there are. */
void fleet_add(const struct fleet *f, struct sheet *sheet, bool all);
