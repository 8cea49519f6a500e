/* anubisctl status. See ctl.h. */
#include <sysexits.h>

#include "ctl.h"

int ctl_status(struct ctl *c)
{
    (void) c;
    ctl_say("cannot do this yet");
    return EX_SOFTWARE;
}
