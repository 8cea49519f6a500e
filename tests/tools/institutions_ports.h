/* Further ports of the same server: each is an institution of its own to a client, which keeps connections
 * for each host and port.
 *
 * Included once, by institutions.c. The server's loop polls ports.ready_fd and calls ports_accept(). */
#pragma once

#include <arpa/inet.h>
#include <microhttpd.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"

#define PORTS_MAX 10000
#define ACCEPTS_AT_ONCE 64

static struct {
    int *listeners;
    int count;
    int ready_fd; /* an epoll of the listeners; -1 without any */
} ports = {.ready_fd = -1};

static bool port_listen(int *ret, int *ret_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return false;
    if (bind(fd, (struct sockaddr *) &address, len) < 0 || listen(fd, 64) < 0 ||
        getsockname(fd, (struct sockaddr *) &address, &len) < 0) {
        close(fd);
        return false;
    }
    *ret = fd;
    *ret_port = ntohs(address.sin_port);
    return true;
}

/* Listens on `count` free ports and prints them in one line. */
static bool ports_open(int count)
{
    if (count == 0)
        return true;
    ports.listeners = xcalloc((size_t) count, sizeof(int));
    ports.ready_fd = epoll_create1(EPOLL_CLOEXEC);
    printf("also on");
    for (int port; ports.count < count; ports.count++) {
        int *fd = &ports.listeners[ports.count];
        if (!port_listen(fd, &port))
            return false;
        struct epoll_event event = {.events = EPOLLIN, .data.fd = *fd};
        if (epoll_ctl(ports.ready_fd, EPOLL_CTL_ADD, *fd, &event) < 0)
            return false;
        printf(" %d", port);
    }
    printf("\n");
    return true;
}

static void ports_accept(struct MHD_Daemon *server)
{
    struct epoll_event events[ACCEPTS_AT_ONCE];
    int n = epoll_wait(ports.ready_fd, events, ACCEPTS_AT_ONCE, 0);

    for (int i = 0; i < n; i++) {
        struct sockaddr_storage address;
        socklen_t len = sizeof(address);
        int fd = accept4(events[i].data.fd, (struct sockaddr *) &address, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0)
            MHD_add_connection(server, fd, (struct sockaddr *) &address, len); /* closes it when it cannot */
    }
}

static void ports_close(void)
{
    while (ports.count > 0)
        close(ports.listeners[--ports.count]);
    if (ports.ready_fd >= 0)
        close(ports.ready_fd);
    freep(&ports.listeners);
}
