/* A trouble that lasts. See trouble.h. */
#include "base/trouble.h"

bool trouble_lasts(struct trouble *t, uint64_t since_usec, uint64_t now_usec, uint64_t patience_usec)
{
    if (!t->since)
        t->since = since_usec;
    if (t->said || now_usec - t->since < patience_usec)
        return false;
    return t->said = true;
}

bool trouble_begins(struct trouble *t)
{
    return trouble_lasts(t, 1, 1, 0);
}

bool trouble_ends(struct trouble *t)
{
    bool said = t->said;

    *t = (struct trouble){0};
    return said;
}
