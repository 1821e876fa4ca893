/* backend: a POP3 server that costs next to nothing, for measuring the proxies in front of it.
 *
 *     backend [ADDRESS:]PORT        (0: any port; the address in use is printed on the first line)
 *
 * One process, one epoll loop, no mailbox: any password is right, and the user's name says what there is to fetch
 * ("20x8192": 20 messages of 8192 octets, mail.h). Answers leave in one writev. It must never be put before people: it checks nothing. Known limits: IPv4,
 * request lines up to 1 KiB, no DELE that deletes. Ends on SIGTERM, SIGINT, or when its standard input ends. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <unistd.h>

#include "mail.h"

enum { EVENTS = 256, REQUEST = 1024, STATUS = 4096 };

struct session {
    int fd;
    int sasl, quit, blocked;            /* a challenge is out; QUIT was answered; waiting for EPOLLOUT */
    unsigned long count, size;          /* the mailbox */
    size_t have;                        /* octets of the request so far */
    size_t status_at, status_length;    /* what is to be sent: a status (with short content), */
    const char *content;                /* then perhaps a message, */
    size_t content_at, content_length;
    size_t end_at, end_length;          /* then the line that ends it */
    char request[REQUEST], status[STATUS];
};

static int poller;

/* A user's name says what the mailbox holds: "20x8192", or "20x8192@example.org". Another name: one small message. */
static void open_mailbox(struct session *s, const char *user)
{
    char *end;

    s->count = strtoul(user, &end, 10);
    s->size = *end == 'x' ? strtoul(end + 1, &end, 10) : 0;
    if ((*end && *end != '@') || s->size < 2 || s->size > MAIL_LARGEST)
        s->count = 1, s->size = 1024;
}

/* The user's name out of what XOAUTH2 sends: base64 of "user=NAME\1auth=...". Decodes in place. */
static const char *xoauth2_user(char *text)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    unsigned bits = 0, have = 0;
    size_t length = 0;

    for (char *c = text; *c && *c != '='; c++) {
        const char *digit = strchr(digits, *c);
        bits = bits << 6 | (unsigned)(digit ? digit - digits : 0);
        have += 6;
        if (have >= 8)
            text[length++] = (char)(bits >> (have -= 8));
    }
    text[length] = '\0';
    text[strcspn(text, "\1")] = '\0';
    return strncmp(text, "user=", 5) ? "" : text + 5;
}

static void say(struct session *s, const char *format, ...)
{
    va_list values;

    va_start(values, format);
    int length = vsnprintf(s->status, STATUS, format, values);
    va_end(values);
    s->status_at = 0;
    s->status_length = length < STATUS ? (size_t)length : STATUS - 1;
    s->content_length = s->content_at = s->end_at = s->end_length = 0;
}

static void say_message(struct session *s, unsigned long number)
{
    const char *content = mail_content(s->size);

    if (number < 1 || number > s->count || !content) {
        say(s, "-ERR no such message\r\n");
        return;
    }
    say(s, "+OK %lu octets\r\n", s->size);
    s->content = content;
    s->content_length = s->size;
    s->end_length = sizeof MAIL_END - 1;
}

static void say_list(struct session *s, const char *format, unsigned long number)
{
    size_t at;

    if (number) {
        at = (size_t)snprintf(s->status, STATUS, "+OK ");
        at += (size_t)snprintf(s->status + at, STATUS - at, format, number, s->size);
    } else {
        at = (size_t)snprintf(s->status, STATUS, "+OK\r\n");
        for (unsigned long i = 1; i <= s->count && at < STATUS - 64; i++)
            at += (size_t)snprintf(s->status + at, STATUS - at, format, i, s->size);
        at += (size_t)snprintf(s->status + at, STATUS - at, MAIL_END);
    }
    s->status_at = 0;
    s->status_length = at;
    s->content_length = s->content_at = s->end_at = s->end_length = 0;
}

/* Prepare the answer to one request line (without its end). */
static void answer(struct session *s, char *line)
{
    char *argument = strchr(line, ' ');
    unsigned long number = argument ? strtoul(argument, NULL, 10) : 0;

    if (argument)
        *argument++ = '\0';
    if (s->sasl) {
        s->sasl = 0;
        open_mailbox(s, xoauth2_user(line));
        say(s, "+OK logged in\r\n");
    } else if (!strcasecmp(line, "USER") || !strcasecmp(line, "APOP")) {
        open_mailbox(s, argument ? argument : "");
        say(s, "+OK\r\n");
    } else if (!strcasecmp(line, "RETR") || !strcasecmp(line, "TOP")) {
        say_message(s, number);
    } else if (!strcasecmp(line, "STAT")) {
        say(s, "+OK %lu %lu\r\n", s->count, s->count * s->size);
    } else if (!strcasecmp(line, "LIST")) {
        say_list(s, "%lu %lu\r\n", number);
    } else if (!strcasecmp(line, "UIDL")) {
        say_list(s, "%lu uid%lu\r\n", number);
    } else if (!strcasecmp(line, "CAPA")) {
        say(s, "+OK\r\nUSER\r\nTOP\r\nUIDL\r\nPIPELINING\r\nSASL PLAIN XOAUTH2\r\n" MAIL_END);
    } else if (!strcasecmp(line, "AUTH")) {
        s->sasl = 1;
        say(s, "+ \r\n");
    } else if (!strcasecmp(line, "QUIT")) {
        s->quit = 1;
        say(s, "+OK bye\r\n");
    } else {
        say(s, "+OK\r\n"); /* PASS, NOOP, DELE, RSET */
    }
}

static void end(struct session *s)
{
    close(s->fd);
    free(s);
}

/* Send what is left of the answer. 1: all of it went; 0: the socket is full; -1: the session is gone. */
static int deliver(struct session *s)
{
    for (;;) {
        struct iovec parts[3] = {
            {s->status + s->status_at, s->status_length - s->status_at},
            {(char *)s->content + s->content_at, s->content_length - s->content_at},
            {(char *)MAIL_END + s->end_at, s->end_length - s->end_at},
        };
        size_t left = parts[0].iov_len + parts[1].iov_len + parts[2].iov_len;
        if (!left)
            return 1;
        ssize_t sent = writev(s->fd, parts, s->end_length ? 3 : 1);
        if (sent < 0)
            return errno == EAGAIN ? 0 : -1;
        size_t *at[3] = {&s->status_at, &s->content_at, &s->end_at};
        left -= (size_t)sent;
        for (int i = 0; i < 3 && sent > 0; i++) {
            size_t step = (size_t)sent < parts[i].iov_len ? (size_t)sent : parts[i].iov_len;
            *at[i] += step;
            sent -= (ssize_t)step;
        }
        if (!left)
            return 1;
    }
}

static void watch(struct session *s, int blocked)
{
    struct epoll_event event = {.events = blocked ? EPOLLOUT : EPOLLIN, .data.ptr = s};

    if (blocked != s->blocked)
        epoll_ctl(poller, EPOLL_CTL_MOD, s->fd, &event);
    s->blocked = blocked;
}

/* Answer the whole lines that are there, one after the other, as long as the socket takes the answers. */
static void serve(struct session *s)
{
    for (;;) {
        int done = deliver(s);
        if (done < 0 || (done && s->quit)) {
            end(s);
            return;
        }
        char *newline = memchr(s->request, '\n', s->have);
        if (!done || !newline) {
            watch(s, !done);
            return;
        }
        *newline = '\0';
        if (newline > s->request && newline[-1] == '\r')
            newline[-1] = '\0';
        size_t used = (size_t)(newline + 1 - s->request);
        answer(s, s->request);
        s->have -= used;
        memmove(s->request, s->request + used, s->have);
    }
}

static void receive(struct session *s)
{
    ssize_t got = read(s->fd, s->request + s->have, REQUEST - s->have);

    if (got > 0) {
        s->have += (size_t)got;
        serve(s);
    } else if (got == 0 || errno != EAGAIN) {
        end(s);
    }
}

static void welcome(int listener)
{
    static const int on = 1;

    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        struct session *s = calloc(1, sizeof *s);
        if (!s) {
            close(fd);
            continue;
        }
        s->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = s};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
        say(s, "+OK ready <1.2@bench.invalid>\r\n");
        serve(s);
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    struct epoll_event events[EVENTS];
    struct rlimit files;
    const int on = 1;

    if (argc != 2) {
        fprintf(stderr, "usage: backend [ADDRESS:]PORT\n");
        return 2;
    }
    char *colon = strrchr(argv[1], ':');
    if (colon)
        *colon = '\0';
    if (colon && inet_pton(AF_INET, argv[1], &address.sin_addr) != 1) {
        fprintf(stderr, "backend: %s: no IPv4 address\n", argv[1]);
        return 2;
    }
    address.sin_port = htons((unsigned short)atoi(colon ? colon + 1 : argv[1]));
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, length) || listen(listener, 4096)) {
        perror("backend: cannot listen");
        return 1;
    }
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("%s:%d\n", inet_ntoa(address.sin_addr), ntohs(address.sin_port));
    fflush(stdout);
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    event.data.ptr = stdin; /* a pipe from who started us; a file or terminal cannot be polled, or never ends */
    epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &event);
    for (;;) {
        int ready = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            struct session *s = events[i].data.ptr;
            if (!s) {
                welcome(listener);
            } else if (events[i].data.ptr == stdin) {
                char ignored[64];
                if (read(STDIN_FILENO, ignored, sizeof ignored) <= 0)
                    return 0;
            } else if (s->blocked) {
                serve(s);
            } else {
                receive(s);
            }
        }
    }
}
