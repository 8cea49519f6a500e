/* Where a partition goes on. See offset_decision.h. */
#include "consumers/offset_decision.h"

enum offset_decision decide_offset(const struct offset_facts *f)
{
    if (f->next < 0)
        return OFFSET_FIRST;
    /* Kafka drops a group's offsets with the topic: without one, the message at our offset may be another
     * topic's log, grown beyond where we stood. */
    if (f->next > f->first && f->committed < 0)
        return OFFSET_FORGOTTEN;
    if (f->next > f->end)
        return f->patient ? OFFSET_WAIT : OFFSET_BEYOND;
    if (f->next < f->first)
        return OFFSET_GONE;
    return f->doubted && f->next > f->first ? OFFSET_DOUBTED : OFFSET_AGREED;
}
