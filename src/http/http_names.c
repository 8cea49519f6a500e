/* Names and their addresses. See http_names.h. */
#include "http/http_names.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>

#include "base/timeutil.h"
#include "http/http_name_servers.h"
#include "http/http_shortage.h"

/* Twice as many as there are requests by default: a thread that hangs outlives its requester. */
#define THREADS_MAX 1024
#define REMEMBERED_USEC (60 * USEC_PER_SEC)
#define STACK_SIZE ((size_t) 512 * 1024)
#define NO_NAME_SERVER "no name server answers: see /etc/resolv.conf"
/* The resolver needs longer than a connection may take to find out that all name servers are silent. So they
 * are asked themselves as soon as a lookup lasts, again and again as long as it does. */
#define LASTS_USEC (500 * USEC_PER_MSEC)
#define AGAIN_USEC USEC_PER_SEC
#define SILENT_USEC                                                                                          \
    (400 * USEC_PER_MSEC) /* for so long they have not answered: they do not, for all we know */

TAILQ_HEAD(lookup_list, http_lookup);
LIST_HEAD(name_list, name);
TAILQ_HEAD(name_queue, name);

struct http_lookup {
    TAILQ_ENTRY(http_lookup) link;
    struct name *name;
    uint64_t serial;
    http_resolved *callback;
    void *userdata;
};

struct name {
    LIST_ENTRY(name) link;
    TAILQ_ENTRY(name) queued; /* while it waits for a thread */
    struct http_names *names;
    char *host;
    bool asked; /* a thread is at it, or will be, or its answer is being passed on */
    struct lookup_list lookups;
    struct http_addresses *addresses; /* NULL = not known */
    uint64_t known_until_usec;
};

/* What a thread works on and leaves behind. */
struct question {
    STAILQ_ENTRY(question) link;
    struct answers *answers;
    struct name *name; /* the main thread's; to this one only a token */
    char *host;        /* NULL = the name servers themselves are asked */
    struct addrinfo *found;
    int code;        /* getaddrinfo()'s */
    int local_errno; /* what this machine lacked */
    bool unanswered; /* by any name server */
};
STAILQ_HEAD(question_list, question);

/* Shared with the threads. The last one frees it. */
struct answers {
    pthread_mutex_t lock;
    int users;
    int wake_fd;
    struct question_list list;
};

struct http_names {
    struct http_sockets *sockets;
    struct http_wheel *wheel;
    struct answers *answers;
    struct name_list all;
    struct name_queue queue;
    int threads;
    uint64_t serial;
    bool unanswered; /* so the last question that ended */
    struct http_timer lasting;
    uint64_t servers_asked_usec; /* 0 = the name servers are not being asked */
};

/* --- the thread ------------------------------------------------------------------------------- */

static void look_up(struct question *q)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};

    if (!q->host) {
        q->unanswered = !http_name_servers_answer();
        return;
    }
    q->code = getaddrinfo(q->host, NULL, &hints, &q->found);
    if (q->code == 0)
        return;
    /* It says "no such name" also when it could not open a file or a socket. */
    q->local_errno = q->code == EAI_MEMORY   ? ENOMEM
                     : q->code == EAI_SYSTEM ? errno
                                             : http_missing_descriptors();
    if (!q->local_errno && q->code == EAI_AGAIN)
        q->unanswered = !http_name_servers_answer();
}

static void question_free(struct question *q)
{
    if (q->found)
        freeaddrinfo(q->found);
    free(q->host);
    free(q);
}

static void answers_unref(struct answers *a)
{
    struct question *q;

    pthread_mutex_lock(&a->lock);
    bool last = --a->users == 0;
    pthread_mutex_unlock(&a->lock);
    if (!last)
        return;
    while ((q = STAILQ_FIRST(&a->list))) {
        STAILQ_REMOVE_HEAD(&a->list, link);
        question_free(q);
    }
    closep(&a->wake_fd);
    pthread_mutex_destroy(&a->lock);
    free(a);
}

static void *lookup_thread(void *userdata)
{
    struct question *q = userdata;
    struct answers *a = q->answers;

    pthread_setname_np(pthread_self(), "resolver");
    look_up(q);
    pthread_mutex_lock(&a->lock);
    STAILQ_INSERT_TAIL(&a->list, q, link);
    wakefd_raise(a->wake_fd);
    pthread_mutex_unlock(&a->lock);
    answers_unref(a);
    return NULL;
}

static int start_thread(struct question *q)
{
    pthread_attr_t attributes;
    pthread_t thread;

    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK_SIZE);
    int r = pthread_create(&thread, &attributes, lookup_thread, q);
    pthread_attr_destroy(&attributes);
    return r;
}

/* --- names ------------------------------------------------------------------------------------ */

static void name_free(struct name *n)
{
    LIST_REMOVE(n, link);
    http_addresses_done(n->addresses);
    free(n->host);
    free(n);
}

/* Finds it among the names of the last minute; those that are older go. */
static struct name *name_use(struct http_names *names, const char *host)
{
    struct name *found = NULL, *next;
    uint64_t now = now_monotonic_usec();

    for (struct name *n = LIST_FIRST(&names->all); n; n = next) {
        next = LIST_NEXT(n, link);
        if (strcasecmp(n->host, host) == 0)
            found = n;
        else if (!n->asked && now >= n->known_until_usec)
            name_free(n);
    }
    if (!found) {
        found = xcalloc(1, sizeof(*found));
        found->names = names;
        found->host = xstrdup(host);
        TAILQ_INIT(&found->lookups);
        LIST_INSERT_HEAD(&names->all, found, link);
    }
    if (found->addresses && now >= found->known_until_usec) {
        http_addresses_done(found->addresses);
        found->addresses = NULL;
    }
    return found;
}

/* About a name, or, NULL, about the name servers. */
static void ask(struct http_names *names, struct name *n)
{
    struct question *q = xcalloc(1, sizeof(*q));

    q->answers = names->answers;
    q->name = n;
    q->host = n ? xstrdup(n->host) : NULL;
    pthread_mutex_lock(&names->answers->lock);
    names->answers->users++;
    int r = start_thread(q);
    if (r != 0) { /* as if the thread had found that out: the requester is not called from here */
        names->answers->users--;
        q->code = EAI_SYSTEM;
        q->local_errno = r;
        STAILQ_INSERT_TAIL(&names->answers->list, q, link);
        wakefd_raise(names->answers->wake_fd);
    }
    pthread_mutex_unlock(&names->answers->lock);
}

static void on_lasting(void *owner)
{
    struct http_names *names = owner;
    uint64_t now = now_monotonic_usec();

    http_wheel_set(names->wheel, &names->lasting, now + AGAIN_USEC);
    if (names->servers_asked_usec)
        return;
    names->servers_asked_usec = now;
    ask(names, NULL);
}

static void start_lookup(struct name *n)
{
    struct http_names *names = n->names;

    n->asked = true;
    if (names->threads >= THREADS_MAX) {
        TAILQ_INSERT_TAIL(&names->queue, n, queued);
        return;
    }
    names->threads++;
    ask(names, n);
    if (!names->lasting.at_usec) {
        http_wheel_set(names->wheel, &names->lasting, now_monotonic_usec() + LASTS_USEC);
        http_sockets_wake(names->sockets); /* for the loop to see when */
    }
}

/* Those that ask from within a callback wait for the next answer. */
static void pass_on(struct name *n, struct http_addresses *addresses, enum http_cause cause,
                    const char *detail)
{
    uint64_t last = n->names->serial;
    struct http_lookup *l;

    while ((l = TAILQ_FIRST(&n->lookups)) && l->serial <= last) {
        http_resolved *callback = l->callback;
        void *userdata = l->userdata;

        http_lookup_cancel(l);
        if (addresses)
            addresses->users++;
        callback(userdata, addresses, cause, detail);
    }
    n->asked = false;
    if (!TAILQ_EMPTY(&n->lookups))
        start_lookup(n);
}

static const char *words_of(int code)
{
    return code == 0           ? gai_strerror(EAI_NONAME)
           : code == EAI_AGAIN ? "a name server answers, but cannot find the name out (SERVFAIL, for one)"
                               : gai_strerror(code);
}

static void take_answer(struct http_names *names, const struct question *q)
{
    struct name *n = q->name, *next;
    struct http_addresses *addresses = q->code == 0 ? http_addresses_of(q->found) : NULL;

    if (--names->threads == 0)
        http_wheel_clear(&names->lasting);
    while (names->threads < THREADS_MAX && (next = TAILQ_FIRST(&names->queue))) {
        TAILQ_REMOVE(&names->queue, next, queued);
        next->asked = false; /* by nobody any more, perhaps */
        if (!TAILQ_EMPTY(&next->lookups))
            start_lookup(next);
    }
    http_addresses_done(n->addresses);
    n->addresses = addresses;
    n->known_until_usec = addresses ? now_monotonic_usec() + REMEMBERED_USEC : 0;
    if (addresses)
        pass_on(n, addresses, HTTP_ANSWERED, "");
    else if (q->unanswered)
        pass_on(n, NULL, HTTP_INTERNAL, NO_NAME_SERVER);
    else if (http_is_shortage(q->local_errno))
        pass_on(n, NULL, HTTP_INTERNAL, http_shortage_words(q->local_errno));
    else
        pass_on(n, NULL, HTTP_DNS, words_of(q->code));
}

static void take(struct http_names *names, const struct question *q)
{
    names->unanswered = q->unanswered;
    if (!q->name) {
        names->servers_asked_usec = 0;
        return;
    }
    if (names->servers_asked_usec && !q->unanswered)
        names->servers_asked_usec = now_monotonic_usec(); /* one that was silent until now speaks again */
    take_answer(names, q);
}

static void on_answers(void *owner, int fd, uint32_t events)
{
    struct http_names *names = owner;
    struct question_list list = STAILQ_HEAD_INITIALIZER(list);
    struct question *q;

    (void) events;
    wakefd_clear(fd);
    pthread_mutex_lock(&names->answers->lock);
    STAILQ_CONCAT(&list, &names->answers->list);
    pthread_mutex_unlock(&names->answers->lock);
    while ((q = STAILQ_FIRST(&list))) {
        STAILQ_REMOVE_HEAD(&list, link);
        take(names, q);
        question_free(q);
    }
}

/* --- the interface ---------------------------------------------------------------------------- */

struct http_lookup *http_names_ask(struct http_names *names, const char *host, http_resolved *callback,
                                   void *userdata, struct http_addresses **ret)
{
    struct http_addresses *known = http_addresses_numeric(host);
    struct name *n = known ? NULL : name_use(names, host);

    if (n && n->addresses) {
        known = n->addresses;
        known->users++;
    }
    if (known) {
        *ret = known;
        return NULL;
    }
    struct http_lookup *l = xcalloc(1, sizeof(*l));
    l->name = n;
    l->serial = ++names->serial;
    l->callback = callback;
    l->userdata = userdata;
    TAILQ_INSERT_TAIL(&n->lookups, l, link);
    if (!n->asked)
        start_lookup(n);
    return l;
}

void http_names_avoid(struct http_names *names, const char *host, const struct http_address *peer)
{
    for (struct name *n = LIST_FIRST(&names->all); n; n = LIST_NEXT(n, link))
        if (n->addresses && strcasecmp(n->host, host) == 0)
            http_addresses_avoid(n->addresses, peer);
}

void http_lookup_cancel(struct http_lookup *lookup)
{
    TAILQ_REMOVE(&lookup->name->lookups, lookup, link);
    free(lookup);
}

enum http_cause http_names_overdue(const struct http_names *names, const char **ret_detail)
{
    bool silent = names->unanswered || (names->servers_asked_usec &&
                                        now_monotonic_usec() - names->servers_asked_usec > SILENT_USEC);

    *ret_detail = silent ? NO_NAME_SERVER : "the name was not resolved in time";
    return silent ? HTTP_INTERNAL : HTTP_DNS;
}

void http_names_forget(struct http_names *names)
{
    for (struct name *n = LIST_FIRST(&names->all); n; n = LIST_NEXT(n, link))
        n->known_until_usec = 0;
}

int http_names_new(struct http_names **ret, struct http_sockets *sockets, struct http_wheel *wheel)
{
    struct http_names *names = xcalloc(1, sizeof(*names));
    struct answers *a = xcalloc(1, sizeof(*a));

    pthread_mutex_init(&a->lock, NULL);
    STAILQ_INIT(&a->list);
    a->users = 1;
    a->wake_fd = wakefd_new();
    names->answers = a;
    names->sockets = sockets;
    names->wheel = wheel;
    names->lasting = (struct http_timer){.fire = on_lasting, .owner = names};
    LIST_INIT(&names->all);
    TAILQ_INIT(&names->queue);
    int r = http_sockets_watch(sockets, a->wake_fd, EPOLLIN, on_answers, names);
    if (r < 0) {
        http_names_free(names);
        return r;
    }
    *ret = names;
    return 0;
}

void http_names_free(struct http_names *names)
{
    if (!names)
        return;
    while (!LIST_EMPTY(&names->all))
        name_free(LIST_FIRST(&names->all));
    http_wheel_clear(&names->lasting);
    http_sockets_forget(names->sockets, names->answers->wake_fd);
    answers_unref(names->answers);
    free(names);
}
