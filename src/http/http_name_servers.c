/* The name servers, asked themselves. See http_name_servers.h. */
#include "http/http_name_servers.h"

#include <netinet/in.h>
#include <poll.h>
#include <resolv.h>
#include <string.h>
#include <sys/socket.h>

#include "base/timeutil.h"

#define ROUNDS 2 /* a packet may get lost */
#define ROUND_USEC USEC_PER_SEC

/* For the name of 192.0.2.1 (RFC 5737). A name server knows by itself that there is none (RFC 6303), or asks
 * servers that are not the institution's. */
static const char question[] = "an\1\0\0\1\0\0\0\0\0\0" /* id; recursion desired; one question */
                               "\0011\0012\0010\003192\007in-addr\004arpa\0"
                               "\0\014\0\1"; /* PTR, IN; the string's own end is not sent */
#define QUESTION_LEN (sizeof(question) - 1)
#define HEADER_LEN 12 /* RFC 1035, 4.1.1 */
#define IS_ANSWER 0x80

/* A connected one: a port without a server refuses, and nobody else can answer. */
static int open_socket(const struct __res_state *resolver, int i)
{
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } server = {.in = resolver->nsaddr_list[i]};
    socklen_t len = sizeof(server.in);

    if (server.any.sa_family == 0 && resolver->_u._ext.nsaddrs[i]) {
        server.in6 = *resolver->_u._ext.nsaddrs[i];
        len = sizeof(server.in6);
    }
    int fd = socket(server.any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && connect(fd, &server.any, len) < 0)
        closep(&fd);
    return fd;
}

/* False also when the server's port refuses: it is not asked again then. */
static bool take_answer(struct pollfd *server)
{
    char answer[512];

    if (!server->revents)
        return false;
    ssize_t n = recv(server->fd, answer, sizeof(answer), 0);
    if (n < 0)
        closep(&server->fd);
    return n >= HEADER_LEN && memcmp(answer, question, 2) == 0 && answer[2] & IS_ANSWER;
}

static bool wait_for_answer(struct pollfd *servers, int count, uint64_t until)
{
    for (;;) {
        uint64_t now = now_monotonic_usec();
        bool any = false;

        for (int i = 0; i < count; i++)
            any |= servers[i].fd >= 0;
        if (!any || now >= until ||
            poll(servers, (nfds_t) count, (int) ((until - now) / USEC_PER_MSEC) + 1) < 0)
            return false;
        for (int i = 0; i < count; i++)
            if (take_answer(&servers[i]))
                return true;
    }
}

static bool ask(struct pollfd *servers, int count)
{
    bool answered = false;

    for (int round = 0; round < ROUNDS && !answered; round++) {
        for (int i = 0; i < count; i++)
            (void) send(servers[i].fd, question, QUESTION_LEN, MSG_NOSIGNAL);
        answered = wait_for_answer(servers, count, now_monotonic_usec() + ROUND_USEC);
    }
    return answered;
}

bool http_name_servers_answer(void)
{
    struct __res_state resolver = {0};
    struct pollfd servers[MAXNS];

    if (res_ninit(&resolver) != 0)
        return true; /* nothing is known */
    int count = MIN(resolver.nscount, MAXNS);
    for (int i = 0; i < count; i++)
        servers[i] = (struct pollfd){.fd = open_socket(&resolver, i), .events = POLLIN};
    res_nclose(&resolver);
    bool answered = ask(servers, count);
    for (int i = 0; i < count; i++)
        closep(&servers[i].fd);
    return answered;
}
