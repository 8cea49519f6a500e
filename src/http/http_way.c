/* Ways to servers. See http_way.h. */
#include "http/http_way.h"

#include <errno.h>
#include <string.h>

#include "http/http_pool.h"

/* The name of a version of TLS; 0 = there is none by that name. */
static int tls_version(const char *name)
{
    static const struct {
        const char *name;
        int version;
    } versions[] = {
        {"1.0", TLS1_VERSION}, {"1.1", TLS1_1_VERSION}, {"1.2", TLS1_2_VERSION}, {"1.3", TLS1_3_VERSION}};

    for (size_t i = 0; i < ARRAY_SIZE(versions); i++)
        if (strcmp(versions[i].name, name) == 0)
            return versions[i].version;
    return 0;
}

static void give_up_routes(struct http_way *way)
{
    http_routes_forget(way->routes);
    if (way->pool)
        http_pool_drop_forgotten(way->pool);
}

int http_way_new(struct http_way **ret, const struct http_way_params *params, struct error *err)
{
    struct http_way *way = xcalloc(1, sizeof(*way));
    int r = 0;

    way->users = 1;
    way->routes = http_routes_new();
    way->proxy = xstrdup(params->proxy);
    if (params->certificate)
        r = http_tls_own_read(&way->own, params->certificate, params->key, err);
    if (r == 0 && params->min_tls && !(way->own.min_version = tls_version(params->min_tls))) {
        error_set(err, "has no version of TLS in \"min_version\"");
        r = -EINVAL;
    }
    way->own.legacy_renegotiation = params->legacy_renegotiation;
    if (r < 0)
        http_way_unref(way);
    else
        *ret = way;
    return r;
}

void http_way_leave(struct http_way *way)
{
    LIST_REMOVE(way, link);
    way->pool = NULL;
}

void http_way_unref(struct http_way *way)
{
    if (!way || --way->users > 0)
        return;
    give_up_routes(way);
    if (way->pool)
        http_way_leave(way);
    http_routes_free(way->routes);
    http_tls_free(way->tls);
    http_tls_own_free(&way->own);
    free_secret(way->proxy);
    free(way);
}

void http_way_prepare(struct http_way *way, unsigned generation, const struct http_tls *trust,
                      const struct error *why)
{
    if (way->generation == generation)
        return;
    way->generation = generation;
    give_up_routes(way);
    http_tls_free(TAKE_PTR(way->tls));
    if (trust)
        way->tls = http_tls_derive(trust, &way->own, &way->tls_error);
    else
        way->tls_error = *why;
}
