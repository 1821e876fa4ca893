/* load: runs POP3 sessions through a proxy and says how they went, as one line of JSON.
 *
 *     load PORT [-n SESSIONS] [-c AT_ONCE] [-r A_SECOND] [-m MESSAGES] [-s OCTETS] [-u SUFFIX] [-d SECONDS] [-H] [-t]
 *
 * A session: greeting, USER, PASS, STAT, MESSAGES times RETR, QUIT. Its time runs from connect() to the answer to QUIT.
 *   -c   closed loop: so many sessions at once, the next begins when one ends (default 1)
 *   -r   open loop instead: so many sessions begin each second, whatever became of the earlier ones
 *   -H   hold: log all sessions in, say "held N", quit them when a line comes in (or the end of the input)
 *   -u   appended to the user's name (which says what the mailbox holds: "20x8192")
 *   -t   TLS 1.3 from the start, every session with a full handshake, no certificate verified
 *   -d   give up after so many seconds (default 60; those that sessions are held do not count): what is then
 *        unfinished has failed
 * Every octet of every message is compared with what the backend sent; a difference is a failed session. Exit status
 * 1 where a session failed. One process, one epoll loop. Known limits: 127.0.0.1 only, no pipelining. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#ifdef WITH_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#endif

#include "mail.h"

enum { EVENTS = 256, BUFFER = 256 * 1024, LINE = 512, REQUEST = 256, FAILURE = 256 };

enum phase { CONNECTING, STATUS, CONTENT, END, HELD };

enum step { GREETING, USER, PASS, STAT, RETR, QUIT };

struct session {
    int fd;
    int number;             /* in order of beginning, from 0 */
    enum phase phase;
    enum step step;
    int message;            /* number of the message that is being fetched */
    double began;
    size_t at;              /* octets of the content, or of the line that ends it, seen so far */
    size_t have;            /* octets of the status line so far */
    char line[LINE];
#ifdef WITH_TLS
    SSL *tls;
#endif
};

static struct {
    int sessions, at_once, messages, hold, tls;
    size_t octets;
    double rate, patience;
    const char *suffix;
    struct sockaddr_in proxy;
} wanted = {.sessions = 1, .at_once = 1, .octets = 8192, .patience = 60, .suffix = ""};

static struct {
    int begun, running, held, done, failed;
    unsigned long long octets;
    double *times;
    char failure[FAILURE];  /* the first one */
} result;

static int poller;
static struct session **all;    /* by number; NULL: over */
#ifdef WITH_TLS
static SSL_CTX *context;
#endif

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void over(struct session *s, const char *failure)
{
    if (failure) {
        if (!result.failed++)
            snprintf(result.failure, FAILURE, "%s (step %d, message %d)", failure, (int)s->step, s->message);
    } else {
        result.times[result.done++] = now() - s->began;
    }
    if (s->phase == HELD)
        result.held--;
    result.running--;
    all[s->number] = NULL;
#ifdef WITH_TLS
    if (s->tls) {
        SSL_set_quiet_shutdown(s->tls, 1);
        SSL_free(s->tls);
    }
#endif
    close(s->fd);
    free(s);
}

/* read and write as one would a socket's; -1 with EAGAIN where it has to wait. */
static ssize_t fetch(struct session *s, void *buffer, size_t size)
{
#ifdef WITH_TLS
    if (s->tls) {
        ERR_clear_error();
        int got = SSL_read(s->tls, buffer, (int)size);
        if (got > 0)
            return got;
        int why = SSL_get_error(s->tls, got);
        errno = why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? EAGAIN : EPROTO;
        return why == SSL_ERROR_ZERO_RETURN ? 0 : -1;
    }
#endif
    return read(s->fd, buffer, size);
}

static ssize_t send_all(struct session *s, const void *buffer, size_t size)
{
#ifdef WITH_TLS
    if (s->tls)
        return SSL_write(s->tls, buffer, (int)size);
#endif
    return write(s->fd, buffer, size);
}

/* The next request, after a `+OK`. False: the session has ended. */
static int advance(struct session *s)
{
    char request[REQUEST];
    int length;

    s->have = 0;
    s->phase = STATUS;
    switch (s->step) {
    case GREETING:
        s->step = USER;
        length = snprintf(request, REQUEST, "USER %dx%zu%s\r\n", wanted.messages, wanted.octets, wanted.suffix);
        break;
    case USER:
        s->step = PASS;
        length = snprintf(request, REQUEST, "PASS secret\r\n");
        break;
    case PASS:
        s->step = STAT;
        length = snprintf(request, REQUEST, "STAT\r\n");
        break;
    case STAT:
    case RETR:
        if (s->message < wanted.messages) {
            s->step = RETR;
            length = snprintf(request, REQUEST, "RETR %d\r\n", ++s->message);
        } else {
            s->step = QUIT;
            length = snprintf(request, REQUEST, "QUIT\r\n");
        }
        break;
    case QUIT:
    default:
        over(s, NULL);
        return 0;
    }
    if (send_all(s, request, (size_t)length) != length) {
        over(s, "could not send");
        return 0;
    }
    return 1;
}

/* Take what came in. False: the session has ended. */
static int take(struct session *s, const char *data, size_t size)
{
    while (size) {
        size_t part;
        if (s->phase == STATUS) {
            const char *newline = memchr(data, '\n', size);
            part = newline ? (size_t)(newline + 1 - data) : size;
            if (s->have + part >= LINE) {
                over(s, "a status line that is too long");
                return 0;
            }
            memcpy(s->line + s->have, data, part);
            s->have += part;
            if (newline) {
                s->line[s->have] = '\0';
                if (strncmp(s->line, "+OK", 3)) {
                    over(s, s->line[0] == '-' ? "-ERR" : "a status that is none");
                    return 0;
                }
                s->at = 0;
                if (s->step == RETR)
                    s->phase = CONTENT;
                else if (s->step == STAT && wanted.hold) {
                    s->phase = HELD;
                    result.held++;
                } else if (!advance(s))
                    return 0;
            }
        } else if (s->phase == CONTENT) {
            part = size < wanted.octets - s->at ? size : wanted.octets - s->at;
            if (memcmp(mail_content(wanted.octets) + s->at, data, part)) {
                over(s, "a message that was altered");
                return 0;
            }
            s->at += part;
            if (s->at == wanted.octets) {
                s->phase = END;
                s->at = 0;
            }
        } else if (s->phase == END) {
            size_t left = sizeof MAIL_END - 1 - s->at;
            part = size < left ? size : left;
            if (memcmp(MAIL_END + s->at, data, part)) {
                over(s, "a message that does not end");
                return 0;
            }
            s->at += part;
            if (part == left) {
                result.octets += wanted.octets;
                if (!advance(s))
                    return 0;
            }
        } else {
            over(s, "octets that nothing asked for");
            return 0;
        }
        data += part;
        size -= part;
    }
    return 1;
}

static void receive(struct session *s)
{
    static char buffer[BUFFER];
    int encrypted = 0;

#ifdef WITH_TLS
    encrypted = s->tls != NULL;
#endif
    for (;;) {
        ssize_t got = fetch(s, buffer, BUFFER);
        if (got > 0) {
            if (!take(s, buffer, (size_t)got) || (!encrypted && got < BUFFER))
                return;
        } else if (got < 0 && errno == EAGAIN) {
            return;
        } else {
            over(s, got ? "connection reset" : "connection closed");
            return;
        }
    }
}

/* The connection is made, or TLS has something to say: get on with the handshake. */
static void connected(struct session *s)
{
#ifdef WITH_TLS
    if (s->tls) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = s};
        ERR_clear_error();
        int done = SSL_connect(s->tls);
        if (done == 1) {
            s->phase = STATUS;
        } else if (SSL_get_error(s->tls, done) != SSL_ERROR_WANT_READ) {
            over(s, "handshake failed");
            return;
        }
        epoll_ctl(poller, EPOLL_CTL_MOD, s->fd, &event);
        if (done == 1)
            receive(s);
        return;
    }
#endif
    s->phase = STATUS;
    receive(s);
}

static void begin(void)
{
    static const int on = 1;
    struct session *s = calloc(1, sizeof *s);

    if (!s)
        exit(1);
    s->number = result.begun++;
    all[s->number] = s;
    result.running++;
    s->began = now();
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (s->fd < 0 || (connect(s->fd, (struct sockaddr *)&wanted.proxy, sizeof wanted.proxy) && errno != EINPROGRESS)) {
        over(s, strerror(errno));
        return;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = s};
#ifdef WITH_TLS
    if (wanted.tls) {
        s->tls = SSL_new(context);
        SSL_set_fd(s->tls, s->fd);
        event.events = EPOLLIN | EPOLLOUT; /* the client speaks first */
    }
#endif
    epoll_ctl(poller, EPOLL_CTL_ADD, s->fd, &event);
}

/* How many may begin at this moment. */
static int due(double elapsed)
{
    int left = wanted.sessions - result.begun;
    int more = wanted.rate > 0 ? (int)(elapsed * wanted.rate) + 1 - result.begun
                               : wanted.at_once - (result.running - result.held);
    return more < left ? more : left;
}

static void run(void)
{
    struct epoll_event events[EVENTS];
    const double began = now();
    int asked = 0; /* 1: all that can be held are, and wait for a line; 2: it came; 3: they were told to quit */

    while (result.done + result.failed < wanted.sessions) {
        double elapsed = now() - began;
        if (asked != 1 && elapsed > wanted.patience) {
            if (!result.failed)
                snprintf(result.failure, FAILURE, "not finished in time");
            result.failed = wanted.sessions - result.done;
            return;
        }
        for (int more = due(elapsed); more > 0; more--)
            begin();
        int timeout = 200;
        if (wanted.rate > 0 && result.begun < wanted.sessions) {
            double wait = began + result.begun / wanted.rate - now();
            timeout = wait <= 0 ? 0 : wait < 0.2 ? (int)(wait * 1000) + 1 : 200;
        }
        if (wanted.hold && !asked && result.held + result.failed == wanted.sessions) {
            struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
            asked = 1;
            printf("held %d\n", result.held);
            fflush(stdout);
            if (epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &event))
                asked = 2; /* a file: its end is there already */
        }
        int ready = asked == 2 ? 0 : epoll_wait(poller, events, EVENTS, timeout);
        for (int i = 0; i < ready; i++) {
            struct session *s = events[i].data.ptr;
            if (!s)
                asked = 2;
            else if (s->phase == CONNECTING)
                connected(s);
            else
                receive(s);
        }
        if (asked == 2) {
            asked = 3;
            wanted.patience += now() - began; /* who holds sessions may take his time */
            epoll_ctl(poller, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
            for (int i = 0; i < result.begun; i++)
                if (all[i] && all[i]->phase == HELD) {
                    result.held--;
                    all[i]->message = wanted.messages;
                    advance(all[i]);
                }
        }
    }
}

static int by_value(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;

    return (a > b) - (a < b);
}

/* The time under which `share` of the sessions stayed (nearest rank), in milliseconds. */
static double quantile(double share)
{
    int rank = (int)(share * result.done + 0.999999);

    if (!result.done)
        return 0;
    return 1000 * result.times[rank < 1 ? 0 : rank > result.done ? result.done - 1 : rank - 1];
}

int main(int argc, char **argv)
{
    struct rlimit files;
    struct rusage used;
    int option;

    while ((option = getopt(argc, argv, "n:c:r:m:s:u:d:Ht")) != -1) {
        switch (option) {
        case 'n': wanted.sessions = atoi(optarg); break;
        case 'c': wanted.at_once = atoi(optarg); break;
        case 'r': wanted.rate = atof(optarg); break;
        case 'm': wanted.messages = atoi(optarg); break;
        case 's': wanted.octets = strtoul(optarg, NULL, 10); break;
        case 'u': wanted.suffix = optarg; break;
        case 'd': wanted.patience = atof(optarg); break;
        case 'H': wanted.hold = 1; break;
        case 't': wanted.tls = 1; break;
        default: return 2;
        }
    }
    if (optind + 1 != argc || wanted.sessions < 1 || wanted.at_once < 1 || !mail_content(wanted.octets)) {
        fprintf(stderr, "usage: load PORT [-n SESSIONS] [-c AT_ONCE] [-r A_SECOND] [-m MESSAGES] [-s OCTETS] "
                        "[-u SUFFIX] [-d SECONDS] [-H] [-t]\n");
        return 2;
    }
    if (wanted.tls) {
#ifdef WITH_TLS
        context = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
        SSL_CTX_set_mode(context, SSL_MODE_AUTO_RETRY);
#else
        fprintf(stderr, "load: built without TLS (libssl-dev and pkg-config)\n");
        return 2;
#endif
    }
    wanted.proxy.sin_family = AF_INET;
    wanted.proxy.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    wanted.proxy.sin_port = htons((unsigned short)atoi(argv[optind]));
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    poller = epoll_create1(EPOLL_CLOEXEC);
    all = calloc((size_t)wanted.sessions, sizeof(struct session *));
    result.times = calloc((size_t)wanted.sessions, sizeof(double));
    if (!all || !result.times)
        return 1;
    double began = now();
    run();
    double seconds = now() - began;
    getrusage(RUSAGE_SELF, &used);
    qsort(result.times, (size_t)result.done, sizeof(double), by_value);
    printf("{\"sessions\": %d, \"failed\": %d, \"failure\": \"%s\", \"octets\": %llu, \"seconds\": %.6f, "
           "\"cpu\": %.6f, \"p50\": %.4f, \"p90\": %.4f, \"p99\": %.4f, \"max\": %.4f}\n",
           result.done, result.failed, result.failure, result.octets, seconds,
           (double)used.ru_utime.tv_sec + (double)used.ru_utime.tv_usec / 1e6 +
               (double)used.ru_stime.tv_sec + (double)used.ru_stime.tv_usec / 1e6,
           quantile(0.5), quantile(0.9), quantile(0.99), quantile(1));
    return result.failed ? 1 : 0;
}
