/* Runs of ids. See id_runs.h. */
#include "consumers/id_runs.h"

/* So many rows that nobody wants are read in the time that it takes to begin another run. */
#define ROWS_BETWEEN 4

struct given {
    int64_t id;
    size_t i;
};

static int by_id(const void *a, const void *b)
{
    const struct given *x = a, *y = b;

    return (x->id > y->id) - (x->id < y->id);
}

/* Consumers of one topic get them in order. */
static struct given *in_order(const int64_t *first, size_t stride, size_t count)
{
    struct given *given = xcalloc(count, sizeof(*given));
    bool ascending = true;

    for (size_t i = 0; i < count; i++) {
        const char *at = (const char *) first + i * stride;
        given[i] = (struct given){*(const int64_t *) (const void *) at, i};
        ascending &= i == 0 || given[i - 1].id <= given[i].id;
    }
    if (!ascending)
        qsort(given, count, sizeof(*given), by_id);
    return given;
}

void id_runs_make(struct id_runs *ret, const int64_t *first, size_t stride, size_t count)
{
    CLEANUP(freep) struct given *given = in_order(first, stride, count);
    struct id_run *run = NULL;
    size_t capacity = 0;

    *ret = (struct id_runs){.places = xcalloc(count, sizeof(*ret->places))};
    for (size_t i = 0; i < count; i++) {
        int64_t id = given[i].id;
        if (!run || id - run->last > ROWS_BETWEEN + 1) {
            if (ret->count == capacity) {
                capacity = MAX(capacity * 2, (size_t) 16);
                ret->items = xreallocarray(ret->items, capacity, sizeof(*ret->items));
            }
            run = &ret->items[ret->count++];
            *run = (struct id_run){id, id, (int64_t) ret->width};
        } else {
            ret->twice |= id == run->last;
        }
        run->last = id;
        size_t place = (size_t) (run->place + (id - run->first)); /* the id may be the largest one */
        ret->places[given[i].i] = place;
        ret->width = place + 1;
    }
}

void id_runs_free(struct id_runs *r)
{
    free(r->items);
    free(r->places);
    *r = (struct id_runs){0};
}

void id_runs_args(const struct id_runs *r, struct pg_args *args)
{
    pg_arg_i64s(args, &r->items->first, sizeof(*r->items), r->count);
    pg_arg_i64s(args, &r->items->last, sizeof(*r->items), r->count);
    pg_arg_i64s(args, &r->items->place, sizeof(*r->items), r->count);
    pg_arg_i64(args, r->items[0].first);
    pg_arg_i64(args, r->items[r->count - 1].last);
}

void id_runs_given_arg(const struct id_runs *r, size_t count, struct pg_args *args)
{
    CLEANUP(freep) char *given = xcalloc(r->width, 1);

    for (size_t i = 0; i < count; i++)
        given[r->places[i]] = 1;
    pg_arg_blob(args, given, r->width);
}
