/* floor: pop3gw's process model and nothing else, to tell what that alone costs.
 *
 *     floor PORT SERVER-PORT WORKERS SEATS
 *
 * A master accepts and hands each connection to the first worker with a free seat (SCM_RIGHTS), a worker connects to
 * the server, passes octets on, and tells the master when a session is over. No policy, no checks, no log, no POP3.
 * A gateway of this shape can't cost less (docs/performance.md). It must never be put before people. Known limits:
 * IPv4 on loopback; who does not read is waited for; where all seats are taken clients wait. Ends on SIGTERM, its
 * workers with it. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 64, BUFFER = 128 * 1024 };

struct side {
    int fd;
    struct side *other; /* NULL: the session is over, this is freed after the round */
};

union rights {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(int))];
};

static const int on = 1;

static struct sockaddr_in loopback(const char *port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void watch(int poller, int fd, void *what)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = what};

    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
}

/* Give a worker a connection, and keep none of it. */
static void hand_over(int channel, int fd)
{
    char octet = 0;
    struct iovec part = {&octet, 1};
    union rights rights = {0};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = rights.space, .msg_controllen = sizeof rights.space};

    rights.header.cmsg_level = SOL_SOCKET;
    rights.header.cmsg_type = SCM_RIGHTS;
    rights.header.cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(&rights.header), &fd, sizeof fd);
    if (sendmsg(channel, &message, 0) < 0) {
        perror("floor: cannot hand a connection over");
        exit(1);
    }
    close(fd);
}

/* A connection that the master gave; -1: it has nothing more to give. Ends the worker where the master has. */
static int taken(int channel)
{
    char octet;
    struct iovec part = {&octet, 1};
    union rights rights;
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = rights.space, .msg_controllen = sizeof rights.space};
    ssize_t got = recvmsg(channel, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    int fd;

    if (got == 0)
        _exit(0);
    if (got < 0)
        return -1;
    memcpy(&fd, CMSG_DATA(&rights.header), sizeof fd);
    return fd;
}

static void begin(int poller, int fd, const struct sockaddr_in *server)
{
    struct side *sides = calloc(2, sizeof *sides);
    int other = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    setsockopt(other, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (!sides || connect(other, (const struct sockaddr *)server, sizeof *server)) {
        perror("floor: cannot connect");
        _exit(1);
    }
    sides[0] = (struct side){fd, &sides[1]};
    sides[1] = (struct side){other, &sides[0]};
    watch(poller, fd, &sides[0]);
    watch(poller, other, &sides[1]);
}

/* Pass on what there is. 1: the session is over, and both connections are closed. */
static int pass(struct side *side)
{
    static char buffer[BUFFER];
    ssize_t got = recv(side->fd, buffer, sizeof buffer, MSG_DONTWAIT);

    if (got > 0 && send(side->other->fd, buffer, (size_t)got, MSG_NOSIGNAL) == got)
        return 0;
    if (got < 0 && errno == EAGAIN)
        return 0;
    close(side->fd);
    close(side->other->fd);
    return 1;
}

static void work(int channel, const struct sockaddr_in *server)
{
    struct epoll_event events[EVENTS];
    int poller = epoll_create1(EPOLL_CLOEXEC);

    watch(poller, channel, NULL);
    for (;;) {
        struct side *over[EVENTS];
        int ended = 0, fd, ready = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            struct side *side = events[i].data.ptr;
            if (!side) {
                while ((fd = taken(channel)) >= 0)
                    begin(poller, fd, server);
            } else if (side->other && pass(side)) {
                over[ended++] = side < side->other ? side : side->other;
                side->other->other = NULL;
                side->other = NULL;
            }
        }
        for (int i = 0; i < ended; i++) {
            free(over[i]);
            send(channel, "", 1, MSG_NOSIGNAL);
        }
    }
}

/* Fork a worker; returns the master's end of its channel. */
static int worker(const struct sockaddr_in *server)
{
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends)) {
        perror("floor: cannot make a channel");
        exit(1);
    }
    if (fork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ends[0]);
        work(ends[1], server);
    }
    close(ends[1]);
    return ends[0];
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS];

    if (argc != 5) {
        fprintf(stderr, "usage: floor PORT SERVER-PORT WORKERS SEATS\n");
        return 2;
    }
    const struct sockaddr_in address = loopback(argv[1]), server = loopback(argv[2]);
    const int workers = atoi(argv[3]), seats = atoi(argv[4]);
    struct seats { int channel, left; } *pool = calloc((size_t)workers, sizeof *pool);
    int left = workers * seats;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* as the connections that it gives */
    if (!pool || bind(listener, (const struct sockaddr *)&address, sizeof address)) {
        perror("floor: cannot listen");
        return 1;
    }
    int poller = epoll_create1(EPOLL_CLOEXEC);
    for (int i = 0; i < workers; i++) {
        pool[i] = (struct seats){worker(&server), seats};
        watch(poller, pool[i].channel, &pool[i]);
    }
    listen(listener, 4096);
    watch(poller, listener, NULL);
    for (;;) {
        int listens = left > 0, waiting = 0, ready = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            struct seats *seated = events[i].data.ptr;
            char octet;
            if (!seated)
                waiting = 1;
            else if (recv(seated->channel, &octet, 1, MSG_DONTWAIT) == 1)
                seated->left++, left++;
            else {
                fprintf(stderr, "floor: a worker is gone\n");
                return 1;
            }
        }
        if (waiting && left) {
            int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
            struct seats *free_one = pool;
            while (!free_one->left)
                free_one++;
            if (fd >= 0) {
                free_one->left--, left--;
                hand_over(free_one->channel, fd);
            }
        }
        if (listens != (left > 0)) {
            struct epoll_event event = {.events = left ? EPOLLIN : 0, .data.ptr = NULL};
            epoll_ctl(poller, EPOLL_CTL_MOD, listener, &event);
        }
    }
}
