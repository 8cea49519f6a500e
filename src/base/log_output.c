/* Where log lines go. See log_output.h. */
#include "base/log_output.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/strbuf.h"

#define KEPT_MAX ((size_t) 256 << 10)
/* A line is a number of bytes that it has, and these. */
#define PREFIX sizeof(uint32_t)

static const struct sockaddr_un journald = {AF_UNIX, "/run/systemd/journal/socket"};

static struct {
    int fd;   /* what lines are written to */
    bool own; /* it is ours to close */
    bool is_socket, never_waits;
    const struct sockaddr *address; /* journald's, or NULL */
    struct strbuf kept;
    size_t from;  /* the first kept line */
    size_t begun; /* bytes of it that are written */
} output = {.fd = STDERR_FILENO, .kept = STRBUF_INIT(KEPT_MAX)};

/* O_NONBLOCK belongs to what was opened, which others share: a pipe or a terminal is opened anew. A file
 * never makes its writers wait, and opened anew it would be written from its beginning. */
static void open_stderr(void)
{
    struct stat st;
    bool is_known = fstat(STDERR_FILENO, &st) == 0;

    output.fd = STDERR_FILENO;
    output.is_socket = is_known && S_ISSOCK(st.st_mode);
    output.never_waits = is_known && S_ISREG(st.st_mode);
    if (!is_known || !(S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)))
        return;
    int fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return;
    output.fd = fd;
    output.own = output.never_waits = true;
}

static bool open_journal(void)
{
    static const int room = 8 << 20;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return false;
    (void) setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
    output.fd = fd;
    output.own = output.is_socket = true;
    output.address = (const struct sockaddr *) &journald;
    return true;
}

void log_output_init(bool journal)
{
    if (output.own)
        close(output.fd);
    output.own = output.is_socket = output.never_waits = false;
    output.address = NULL;
    if (!journal || !open_journal())
        open_stderr();
}

/* How many bytes went, or -errno. */
static ssize_t write_some(const char *bytes, size_t len)
{
    struct pollfd ready = {.fd = output.fd, .events = POLLOUT};
    ssize_t n;

    do {
        if (output.is_socket)
            n = sendto(output.fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL, output.address,
                       output.address ? sizeof(journald) : 0);
        else if (output.never_waits)
            n = write(output.fd, bytes, len);
        else /* so much fits when it is writable */
            n = poll(&ready, 1, 0) == 1 ? write(output.fd, bytes, MIN(len, (size_t) PIPE_BUF))
                                        : (errno = EAGAIN, -1);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/* All of it, and how far it came. 0 or -errno. */
static int write_all(const char *bytes, size_t len, size_t *written)
{
    while (*written < len) {
        ssize_t n = write_some(bytes + *written, len - *written);

        if (n <= 0)
            return n < 0 ? (int) n : -EIO;
        *written += (size_t) n;
    }
    return 0;
}

static bool waits(int r)
{
    return r == -EAGAIN || r == -ENOBUFS;
}

bool log_output_flush(void)
{
    struct strbuf *kept = &output.kept;

    while (output.from < kept->len) {
        uint32_t len;

        memcpy(&len, kept->data + output.from, PREFIX);
        if (waits(write_all(kept->data + output.from + PREFIX, len, &output.begun)))
            return false;
        output.from += PREFIX + len;
        output.begun = 0;
    }
    strbuf_clear(kept);
    output.from = 0;
    return true;
}

static int keep(const char *bytes, size_t len, size_t begun)
{
    struct strbuf *kept = &output.kept;
    uint32_t prefix = (uint32_t) len;

    if (kept->len + PREFIX + len > KEPT_MAX && output.from > 0) {
        kept->len -= output.from;
        memmove(kept->data, kept->data + output.from, kept->len);
        output.from = 0;
    }
    if (kept->len + PREFIX + len > KEPT_MAX)
        return -ENOBUFS;
    if (kept->len == 0)
        output.begun = begun;
    strbuf_add(kept, &prefix, PREFIX);
    strbuf_add(kept, bytes, len);
    return 0;
}

int log_output_send(const char *bytes, size_t len)
{
    size_t written = 0;

    if (!log_output_flush())
        return keep(bytes, len, 0);
    int r = write_all(bytes, len, &written);
    return waits(r) ? keep(bytes, len, written) : r;
}

void log_output_finish(int patience_ms)
{
    struct pollfd ready = {.fd = output.fd, .events = POLLOUT};

    while (!log_output_flush() && patience_ms > 0) {
        int slice = MIN(patience_ms, 50);

        if (poll(&ready, 1, slice) > 0)
            (void) poll(NULL, 0, 1); /* writable, but perhaps not for all of a line */
        patience_ms -= slice;
    }
}
