/* delivery_settings.tls and proxy, and the client's certificate of auth: a way of the integration's own. */
#include <errno.h>
#include <string.h>

#include "delivery/settings_read.h"

static int fault(struct error *why, const char *words)
{
    error_set(why, "%s", words);
    return -EINVAL;
}

int settings_read_tls(struct settings *s, const struct json_value *value, struct error *why)
{
    static const char *const versions[] = {"1.0", "1.1", "1.2", "1.3"};
    struct json_value name, member;

    if (value->type != JSON_OBJECT)
        return fault(why, "is no JSON object");
    for (struct json_walk w = json_walk(value); json_next(&w, &name, &member);) {
        bool good = false;
        if (json_is_text(&name, "legacy_renegotiation")) {
            good = member.type == JSON_BOOLEAN;
            s->way.legacy_renegotiation = good && json_is_text(&member, "true");
        }
        for (size_t i = 0; i < ARRAY_SIZE(versions) && json_is_text(&name, "min_version"); i++)
            if (member.type == JSON_STRING && json_is_text(&member, versions[i])) {
                good = true;
                s->way.min_tls = versions[i];
            }
        if (!good)
            return fault(why, "holds something else than \"min_version\" (1.0 to 1.3) and "
                              "\"legacy_renegotiation\" (true or false)");
    }
    return 0;
}

/* A password in it is for a credential: what stands in the database itself is seen by many. */
int settings_read_proxy(struct settings *s, const struct json_value *value, struct error *why)
{
    static const char *const schemes[] = {"http://", "socks5://", "socks5h://"};
    static const char credential[] = "\"credential:";
    int r = settings_read_text(value, SETTINGS_SECRET, &s->way.proxy, why);
    bool known = false;

    if (r < 0)
        return r;
    for (size_t i = 0; i < ARRAY_SIZE(schemes); i++)
        known |= strncmp(s->way.proxy, schemes[i], strlen(schemes[i])) == 0;
    if (!known || strchr(s->way.proxy, ' '))
        return fault(why, "is no URL of a proxy such as http://proxy.example:3128 (or socks5, socks5h)");
    if (strchr(s->way.proxy, '@') && strncmp(value->p, credential, strlen(credential)) != 0)
        return fault(why, "holds a user name or password: such a URL belongs into a credential");
    return 0;
}

int settings_make_way(struct settings *s, struct error *why)
{
    const struct settings_way *w = &s->way;

    if (!w->certificate && !w->proxy && !w->min_tls && !w->legacy_renegotiation)
        return 0;
    return http_way_new(&s->way.http,
                        &(struct http_way_params){
                            .certificate = w->certificate,
                            .key = w->key,
                            .min_tls = w->min_tls,
                            .legacy_renegotiation = w->legacy_renegotiation,
                            .proxy = w->proxy,
                        },
                        why);
}

bool settings_way_is_weak(const struct settings_way *w)
{
    return w->legacy_renegotiation || (w->min_tls && strcmp(w->min_tls, "1.2") < 0);
}

void settings_way_free(struct settings_way *w)
{
    http_way_unref(w->http);
    free_secret(w->certificate);
    free_secret(w->key);
    free_secret(w->proxy);
    *w = (struct settings_way){0};
}
