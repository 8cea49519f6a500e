/* The machine's shortages. See http_shortage.h. */
#include "http/http_shortage.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

static const struct shortage {
    int error;
    bool of_route;
    const char *words;
} shortages[] = {
    {EMFILE, false, "too many open descriptors: raise LimitNOFILE="},
    {ENFILE, false, "the system has too many open files: raise fs.file-max"},
    {EADDRNOTAVAIL, false,
     "no local address or port is free: see \"ip address\" and net.ipv4.ip_local_port_range"},
    {ENOMEM, false, "the system lacks memory for connections"},
    {ENOBUFS, false, "the system lacks memory for connections"},
    {ENOSPC, false, "too many watched descriptors: raise fs.epoll.max_user_watches"},
    {EAGAIN, false, "no thread can be started to look names up: raise TasksMax="},
    {ENETUNREACH, true, "no route to the address: see \"ip route\""},
    {EHOSTUNREACH, true, "no route to the address: see \"ip route\""},
    {EINVAL, true, "a route of this machine drops what goes to the address: see \"ip route\""},
    {ENETDOWN, true, "the network interface is down: see \"ip link\""},
    {EAFNOSUPPORT, true, "the address is an IPv6 one, and this machine has no IPv6"},
    {EACCES, true, "a rule of this machine forbids the connection: see \"ip rule\" and the firewall"},
    {EPERM, true, "a rule of this machine forbids the connection: see \"ip rule\" and the firewall"},
};

static const struct shortage *find(int error)
{
    for (size_t i = 0; i < ARRAY_SIZE(shortages); i++)
        if (shortages[i].error == error)
            return &shortages[i];
    return NULL;
}

bool http_is_shortage(int error)
{
    const struct shortage *s = find(error);

    return s && !s->of_route;
}

bool http_is_no_route(int error)
{
    const struct shortage *s = find(error);

    return s && s->of_route;
}

int http_missing_descriptors(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), missing = fd < 0 ? errno : 0;

    closep(&fd);
    return missing == EMFILE || missing == ENFILE ? missing : 0;
}

const char *http_shortage_words(int error)
{
    const struct shortage *s = find(error);

    return s ? s->words : strerrordesc_np(error);
}
