/* Common code of the two examples in C: options, connecting and accepting, and one connection.
 * The file that includes this one adds the protocol: see "hooks".
 *
 * Both:    --pieces N       write at most N bytes at a time
 *          --delay MS       answer a PING this much later
 *          --limit S        give up after S seconds (60): exit code 3
 *          --little-endian-pong   message1028: write the type of PONG as some programs do
 * Client:  --pings N --every MS   send PING 1..N and wait for each PONG
 *          --business TEXT        business data on those PINGs
 *          --data TEXT [--expect-echo]
 *          --messages N           native: send 1..N in a session with windows, expect each once
 *          --cut-after N          reset the connection after each N messages, and resume
 *          --policy IDLE,INTERVAL,PROBES    ask for this policy
 *          --identity NAME        [outside; with a token none: it says who]
 *          --token TEXT
 *          --tls FILE             TLS, believing the authorities in this file
 *          --name NAME            expected in the certificate, instead of HOST
 *          --stay MS              remain at least this long after WELCOME
 *          --silent-after MS      then send nothing more, and report when the other end closes
 *          --no-hello             send nothing at all, and report the same
 * Server:  --once           end when the first client has gone
 *          --mute           answer neither PING nor DATA
 *          --probe MS       send PINGs too
 *          --retune IDLE,INTERVAL,PROBES    send RETUNE after WELCOME
 *          --close-after MS send CLOSE (drained) this long after accepting
 *
 * Exit code: 0 all went as expected, 1 it did not (reason on stderr), 2 usage, 3 limit. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_DATA = 65536, MAX_DUE = 64 };

struct bytes { size_t length; uint8_t at[8 + MAX_DATA]; };

static struct {
    bool server, once, mute, expect_echo, ask, retune, no_hello, probe, little_endian_pong;
    long pings, every, stay, silent_after, delay, close_after, pieces, limit, messages,
        cut_after;
    const char *host, *port, *business, *data, *identity, *token, *policy_text,
        *roots, *name;
} opt = {.every = 1000, .silent_after = -1, .close_after = -1, .pieces = INT_MAX, .limit = 60,
         .token = ""};

/* The one connection of this process; the server forks for each. */
static struct {
    int fd;
    uint64_t session;                       /* the server's number of the connection */
    bool greeted, quiet, goodbye, echoed;   /* goodbye: a CLOSE has arrived or been sent */
    bool cut;                               /* the client ends it as if the network had */
    long sent, confirmed;                   /* our PINGs */
    long long opened, greeted_at, last_sent, ping_at;
    struct { long long at; uint8_t sequence; } due[MAX_DUE]; /* PONGs that wait */
    size_t queued, have, message_length;
    uint8_t in[8 + MAX_DATA], message[4 * MAX_DATA];
} me;

/* ---- hooks, which the protocol implements ---- */

static void start(void); /* the connection is established */
static size_t take(const uint8_t *at, size_t have); /* one message: bytes used, 0 if incomplete */
static void send_ping(uint8_t sequence);
static void send_pong(uint8_t sequence);
static void send_goodbye(void); /* the last message, if the protocol has one */
static bool has_all_messages(void); /* whether all of --messages have come back */
static bool resumes(void); /* whether the session goes on on another connection */

/* ---- helpers ---- */

static _Noreturn void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

#include "tls.h"

static void out_of_time(int signal)
{
    (void)signal;
    static const char text[] = "the time limit has passed\n";
    ssize_t ignored = write(STDERR_FILENO, text, sizeof text - 1);
    (void)ignored;
    _exit(3);
}

static long long now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static const char *plain(const uint8_t *text, size_t length)
{
    static char copy[MAX_DATA + 1];
    length = length < MAX_DATA ? length : MAX_DATA;
    for (size_t i = 0; i < length; i++) copy[i] = text[i] < ' ' || text[i] > '~' ? '.' : text[i];
    copy[length] = 0;
    return copy;
}

static void put(struct bytes *b, const void *from, size_t length)
{
    if (b->length + length > sizeof b->at) fail("too long to send");
    memcpy(b->at + b->length, from, length);
    b->length += length;
}

static void send_bytes(const struct bytes *b)
{
    if (me.quiet || me.goodbye) return;
    for (size_t at = 0; at < b->length;) {
        size_t piece = b->length - at < (size_t)opt.pieces ? b->length - at : (size_t)opt.pieces;
        ssize_t n = tls ? tls_send(b->at + at, piece)
                        : send(me.fd, b->at + at, piece, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return; /* the next read reports the reason */
        at += n;
    }
    me.last_sent = now_ms();
}

/* Queues the answer to a PING, delayed by `--delay`. */
static void queue_pong(uint8_t sequence)
{
    if (opt.mute || me.quiet) return;
    if (me.queued == MAX_DUE) memmove(me.due, me.due + 1, --me.queued * sizeof *me.due);
    me.due[me.queued].at = now_ms() + opt.delay; /* when full, the oldest answer is dropped */
    me.due[me.queued++].sequence = sequence;
}

static void fall_silent(void)
{
    me.quiet = true;
    printf("silent from now on\n");
}

/* Ends the handshake, if there is one: from now on PINGs may be sent. */
static void greet(void)
{
    me.greeted = true;
    me.greeted_at = me.ping_at = now_ms();
    if (opt.silent_after == 0) fall_silent();
}

static void end_writing(void)
{
    me.goodbye = true;
    if (tls) tls_end_writing();
    shutdown(me.fd, SHUT_WR);
}

/* ---- one connection ---- */

/* Reads what has arrived; false if the other end has closed. Frames may come in pieces. */
static bool receive(void)
{
    uint8_t *to = me.in + me.have;
    size_t room = sizeof me.in - me.have;
    ssize_t n = tls ? tls_receive(to, room) : recv(me.fd, to, room, 0);
    if (n < 0 && errno == EINTR) return true;
    if (n < 0) printf("reset by the other end\n");
    if (n <= 0) return false;
    me.have += n;
    size_t at = 0, used;
    while (!me.cut && (used = take(me.in + at, me.have - at))) at += used;
    memmove(me.in, me.in + at, me.have -= at);
    return !me.cut;
}

/* Does what is due at `now`; returns when something is due next. */
static long long on_time(long long now)
{
    long long next = now + 1000;
    while (me.queued && me.due[0].at <= now && !me.quiet && !me.goodbye) {
        send_pong(me.due[0].sequence);
        memmove(me.due, me.due + 1, --me.queued * sizeof *me.due);
    }
    if (me.greeted && !me.quiet && !me.goodbye && me.sent < opt.pings && me.ping_at <= now) {
        send_ping(++me.sent);
        me.ping_at = now + opt.every;
    }
    if (me.quiet || me.goodbye) return next;
    if (me.greeted && me.sent < opt.pings && me.ping_at < next) next = me.ping_at;
    if (me.queued && me.due[0].at < next) next = me.due[0].at;
    return next;
}

/* ---- the two roles ---- */

static bool client_is_complete(void)
{
    return me.greeted && me.confirmed >= opt.pings && (!opt.expect_echo || me.echoed)
        && has_all_messages();
}

/* Runs the connection until it ends; true if another one is to go on with its session. */
static bool run(void)
{
    int no_delay = 1;
    setsockopt(me.fd, IPPROTO_TCP, TCP_NODELAY, &no_delay, sizeof no_delay);
    me.opened = me.last_sent = now_ms();
    me.quiet = opt.no_hello;
    start();
    for (;;) {
        long long now = now_ms(), next = on_time(now);
        long long quiet_at = me.greeted_at + opt.silent_after;
        long long close_at = opt.server ? me.opened + opt.close_after : me.greeted_at + opt.stay;
        if (me.greeted && opt.silent_after >= 0 && !me.quiet) {
            if (now >= quiet_at) fall_silent();
            else if (quiet_at < next) next = quiet_at;
        }
        bool closes = opt.server ? opt.close_after >= 0
                                 : client_is_complete() && opt.silent_after < 0;
        if (closes && !me.goodbye) {
            if (now >= close_at) send_goodbye(), end_writing();
            else if (close_at < next) next = close_at;
        }
        struct pollfd ready = {.fd = me.fd, .events = POLLIN};
        bool holds_bytes = tls_holds_bytes(); /* of which the system does not know */
        poll(&ready, 1, holds_bytes ? 0 : (int)(next - now));
        if ((holds_bytes || ready.revents) && !receive()) break;
    }
    struct linger reset = {.l_onoff = 1};
    if (me.cut) setsockopt(me.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (resumes()) { close(me.fd); return true; }
    printf("closed by the other end");
    if (me.quiet) printf(" %lld ms after the last byte sent", now_ms() - me.last_sent);
    printf("\n");
    close(me.fd);
    if (opt.server || me.quiet) return false;
    if (!client_is_complete()) fail("closed too early: %ld of %ld PINGs answered%s", me.confirmed,
                                   opt.pings, opt.expect_echo && !me.echoed ? ", no echo" : "");
    if (!me.goodbye) fail("the other end closed first");
    return false;
}

/* Returns whether another connection is to go on with the session of this one. */
static bool client(void)
{
    memset(&me, 0, sizeof me);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list;
    int error = getaddrinfo(opt.host, opt.port, &hints, &list);
    if (error) fail("%s: %s", opt.host, gai_strerror(error));
    me.fd = socket(list->ai_family, SOCK_STREAM, 0);
    if (connect(me.fd, list->ai_addr, list->ai_addrlen)) fail("connect: %s", strerror(errno));
    freeaddrinfo(list);
    printf("connected\n");
    if (opt.roots) tls_start(me.fd, opt.roots, opt.name ? opt.name : opt.host);
    return run();
}

static void server(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(opt.port)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 128)
        || getsockname(listener, (struct sockaddr *)&address, &size))
        fail("port %s: %s", opt.port, strerror(errno));
    printf("listening on %d\n", ntohs(address.sin_port));
    signal(SIGCHLD, SIG_IGN); /* ended children leave no zombies */
    for (;;) {
        me.fd = accept(listener, NULL, NULL);
        if (me.fd < 0) continue;
        me.session++;
        printf("accepted\n");
        if (opt.once) { run(); return; }
        if (fork() == 0) { alarm(opt.limit); run(); exit(0); }
        close(me.fd);
    }
}

int main(int argc, char **argv)
{
    const struct { const char *name; bool *flag; long *number; const char **text; } table[] = {
        {"--once", &opt.once, 0, 0}, {"--mute", &opt.mute, 0, 0},
        {"--expect-echo", &opt.expect_echo, 0, 0}, {"--no-hello", &opt.no_hello, 0, 0},
        {"--pings", 0, &opt.pings, 0}, {"--every", 0, &opt.every, 0},
        {"--probe", &opt.probe, &opt.every, 0}, {"--stay", 0, &opt.stay, 0},
        {"--silent-after", 0, &opt.silent_after, 0}, {"--delay", 0, &opt.delay, 0},
        {"--messages", 0, &opt.messages, 0}, {"--cut-after", 0, &opt.cut_after, 0},
        {"--close-after", 0, &opt.close_after, 0}, {"--pieces", 0, &opt.pieces, 0},
        {"--limit", 0, &opt.limit, 0}, {"--business", 0, 0, &opt.business},
        {"--data", 0, 0, &opt.data}, {"--identity", 0, 0, &opt.identity},
        {"--token", 0, 0, &opt.token}, {"--tls", 0, 0, &opt.roots},
        {"--name", 0, 0, &opt.name}, {"--policy", &opt.ask, 0, &opt.policy_text},
        {"--little-endian-pong", &opt.little_endian_pong, 0, 0},
        {"--retune", &opt.retune, 0, &opt.policy_text},
    };
    const int known = sizeof table / sizeof *table;
    int at = 2, i;
    opt.server = argc > 1 && !strcmp(argv[1], "server");
    bool usable = opt.server || (argc > 1 && !strcmp(argv[1], "client"));
    if (usable && !opt.server) opt.host = at < argc ? argv[at++] : NULL;
    opt.port = at < argc ? argv[at++] : NULL;
    for (; usable && at < argc; at++) {
        for (i = 0; i < known && strcmp(argv[at], table[i].name); i++) {}
        bool takes_value = i < known && (table[i].number || table[i].text);
        if (i == known || (takes_value && at + 1 == argc)) { usable = false; break; }
        if (table[i].flag) *table[i].flag = true;
        if (table[i].number) *table[i].number = atol(argv[++at]);
        if (table[i].text) *table[i].text = argv[++at];
    }
    if (!usable || !opt.port || opt.pieces < 1) {
        fputs("usage: client HOST PORT [options] | server PORT [options]\n", stderr);
        return 2;
    }
    if (opt.probe) opt.pings = LONG_MAX;
    if (!opt.identity) opt.identity = *opt.token ? "" : "outside"; /* a token says who */
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without MSG_NOSIGNAL */
    signal(SIGALRM, out_of_time);
    alarm(opt.limit);
    if (opt.server) server();
    else while (client()) {}
    return 0;
}
