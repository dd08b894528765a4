/* A client and a server of the native protocol, written from docs/protocol.md alone.
 *
 *   cc -std=c11 -Wall -Wextra -Werror -O1 -o native native.c
 *   cc -std=c11 -Wall -Wextra -Werror -O1 -DTLS -o native native.c -lssl -lcrypto   # with --tls
 *   ./native client HOST PORT [options]
 *   ./native server PORT [options]           0 chooses a port; prints "listening on PORT"
 *
 * The options are listed in outside.h. */
#include "outside.h"

enum { PING = 1, PONG, HELLO, WELCOME, DATA, RETUNE, CLOSE, ACK };
enum { POLICY = 18, ACCOUNT = 25, DRAINED = 1, OTHER_VERSION = 7 };
enum { WINDOWS = 1, TO_RESUME = 2, RESUMED = 1 }; /* a capability, a flag of HELLO, of WELCOME */
enum { CONTINUES = 1, ACKNOWLEDGES = 2, ASKS = 4, ACK_ASKS = 1 }; /* flags of DATA, of ACK */

static struct policy { uint64_t idle, interval; unsigned probes; } policy; /* of the options */

/* What a client keeps of its session from one connection to the next. Its messages are numbers, so
 * those that may have to be sent again need not be kept. */
static struct {
    uint64_t number, epoch;
    uint8_t token[64];
    size_t token_length;
    uint32_t window, sent, acknowledged;    /* messages to the server */
    uint32_t received, told;                /* messages from it, of which so many acknowledged */
    int connections;
} session;

struct frame { bool acknowledges; unsigned type, flags, seq; uint32_t ack, length; const uint8_t *body; };

/* ---- writing ---- */

static void put_le(struct bytes *b, uint64_t value, int width)
{
    for (int i = 0; i < width; i++) put(b, &(uint8_t){value >> (8 * i)}, 1);
}

static void put_varint(struct bytes *b, uint32_t value)
{
    for (; value >= 0x80; value >>= 7) put_le(b, value | 0x80, 1);
    put_le(b, value, 1);
}

static void put_text(struct bytes *b, const char *text)
{
    put_varint(b, strlen(text));
    put(b, text, strlen(text));
}

static void put_policy(struct bytes *b, struct policy p)
{
    put_le(b, p.idle, 8), put_le(b, p.interval, 8), put_le(b, p.probes, 1), put_le(b, 0, 1);
}

static void put_ids(struct bytes *b) /* the boot id as "unknown", a random instance id */
{
    uint8_t boot[16] = {0}, instance[16] = {0};
    FILE *file = fopen("/dev/urandom", "r");
    if (!file || fread(instance, 1, 16, file) != 16) fail("no random numbers");
    fclose(file);
    put(b, boot, 16), put(b, instance, 16);
}

static void send_body(int type, const struct bytes *body)
{
    struct bytes frame = {0};
    put_le(&frame, type << 4, 1), put_varint(&frame, body->length);
    put(&frame, body->at, body->length);
    send_bytes(&frame);
}

static void send_hello(void)
{
    struct bytes b = {0};
    put(&b, "SYS1", 4), put_le(&b, 1, 1), 
    put_le(&b, opt.ask | (session.token_length ? TO_RESUME : 0), 1);
    put_le(&b, opt.messages ? WINDOWS : 0, 4);
    put_ids(&b);
    put_le(&b, session.number, 8), put_le(&b, session.epoch, 8), put_le(&b, session.received, 8);
    put_policy(&b, opt.ask ? policy : (struct policy){0});
    put(&b, (const uint8_t[ACCOUNT]){0}, ACCOUNT); /* there was no link before this one */
    put_varint(&b, session.token_length), put(&b, session.token, session.token_length);
    put_text(&b, opt.identity), put_text(&b, opt.token);
    send_body(HELLO, &b);
    session.connections++;
}

static void send_welcome(struct policy agreed)
{
    struct bytes b = {0};
    put_le(&b, 1, 1), put_le(&b, 0, 1), put_le(&b, 0, 4);
    put_ids(&b);
    put_le(&b, me.session, 8), put_le(&b, me.session, 8), put_le(&b, 0, 8); /* epoch = session */
    put_le(&b, (uint64_t)time(NULL) * 1000, 8), put_le(&b, 0, 4), put_le(&b, MAX_DATA, 4);
    put_policy(&b, agreed);
    put_text(&b, "");
    send_body(WELCOME, &b);
}

static void send_close(int reason, uint32_t return_after)
{
    struct bytes b = {0};
    put_le(&b, reason, 1), put_le(&b, 0, 1), put_le(&b, return_after, 4), put_text(&b, "");
    send_body(CLOSE, &b);
}

/* ---- reading ---- */

static uint64_t get_le(const uint8_t *at, int width)
{
    uint64_t value = 0;
    while (width--) value = value << 8 | at[width];
    return value;
}

static size_t get_varint(const uint8_t *at, size_t have, uint32_t *value)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < have; i++) {
        sum |= (uint64_t)(at[i] & 0x7f) << (7 * i);
        if (at[i] & 0x80 && i < 4) continue;
        if (at[i] & 0x80 || (i && !at[i]) || sum > UINT32_MAX) fail("illegal: varint");
        *value = sum;
        return i + 1;
    }
    return 0;
}

static size_t get_frame(const uint8_t *at, size_t have, struct frame *f)
{
    static const uint32_t bounds[] = {0, 1024, 1024, 2048, 2048, MAX_DATA, 256, 256, 0};
    static const unsigned flags[] = {0, 3, 3, 0, 0, 1, 0, 0, 0};
    bool windows = !opt.server && opt.messages;
    size_t used = 1, n;
    if (have < 1) return 0;
    *f = (struct frame){.type = at[0] >> 4, .flags = at[0] & 15};
    if (f->type < PING || f->type > (windows ? ACK : CLOSE)) fail("illegal: kind %02x", at[0]);
    if (f->flags & ~(windows && f->type == DATA ? 7 : windows && f->type == ACK ? ACK_ASKS
                     : flags[f->type])) fail("illegal: flags of kind %02x", at[0]);
    bool beat = f->type <= PONG;
    if (beat) {
        if (have < 2) return 0;
        f->seq = at[used++];
    }
    f->acknowledges = beat ? f->flags & 1 : f->type == ACK || (f->type == DATA && f->flags & 2);
    if (f->acknowledges) {
        if (!(n = get_varint(at + used, have - used, &f->ack))) return 0;
        used += n;
    }
    if (beat ? f->flags & 2 : f->type != ACK) {
        if (!(n = get_varint(at + used, have - used, &f->length))) return 0;
        used += n;
    }
    if (f->length > bounds[f->type]) fail("illegal: %u bytes in kind %02x", f->length, at[0]);
    f->body = at + used;
    return have - used < f->length ? 0 : used + f->length;
}

static struct policy get_policy(const uint8_t *at)
{
    return (struct policy){get_le(at, 8), get_le(at + 8, 8), at[16]};
}

static void say_policy(const char *what, struct policy p)
{
    printf("%sidle %llu interval %llu probes %u\n", what, (unsigned long long)p.idle,
           (unsigned long long)p.interval, p.probes);
}

/* ---- a session with windows ---- */

/* Sends as many of --messages as the window takes, but one that a cut is to lose. */
static void send_messages(void)
{
    uint32_t last = session.acknowledged + session.window - (opt.cut_after > 0);
    if (last > opt.messages) last = opt.messages;
    while (session.sent < last) {
        struct bytes b = {0};
        char text[16];
        snprintf(text, sizeof text, "%u", ++session.sent);
        put_le(&b, DATA << 4 | (session.sent == last ? ASKS : 0), 1), put_text(&b, text);
        send_bytes(&b);
    }
}

static void acknowledge(int flags)
{
    struct bytes b = {0};
    put_le(&b, ACK << 4 | flags, 1), put_varint(&b, session.told = session.received);
    send_bytes(&b);
}

static void on_acknowledged(uint32_t count)
{
    uint32_t newly = count - session.acknowledged; /* else a later one has overtaken this one */
    if (newly <= session.sent - session.acknowledged) session.acknowledged = count;
    if (!me.cut) send_messages();
}

/* Ends the connection as if the network had, within a message if there is one. */
static void cut_off(void)
{
    if (session.sent < opt.messages && session.sent - session.acknowledged < session.window) {
        struct bytes b = {0};
        char text[16];
        snprintf(text, sizeof text, "%u", ++session.sent);
        put_le(&b, DATA << 4, 1), put_text(&b, text), b.length--;
        send_bytes(&b);
    }
    me.cut = true;
}

/* Takes one of --messages that has come back: each once, in order. */
static void on_numbered(unsigned flags)
{
    char expected[16];
    size_t length = snprintf(expected, sizeof expected, "%u", ++session.received);
    if (me.message_length != length || memcmp(me.message, expected, length))
        fail("%s came instead of %s", plain(me.message, me.message_length), expected);
    if (opt.cut_after && session.received % opt.cut_after == 0 && !has_all_messages()) cut_off();
    else if (flags & ASKS || 2 * (session.received - session.told) >= session.window)
        acknowledge(0);
    if (has_all_messages())
        printf("all %u messages came back, each once, over %d connections\n", session.received,
               session.connections);
}

/* Begins a session with windows, or goes on with one. `rest` follows the policy in WELCOME. */
static void go_on(const uint8_t *at, const uint8_t *rest, bool resumed)
{
    uint64_t number = get_le(at + 38, 8), epoch = get_le(at + 46, 8), received = get_le(at + 54, 8);
    const uint8_t *window = rest + 1 + rest[0];
    if (!rest[0]) fail("this session cannot be resumed");
    if (resumed) {
        if (number != session.number || epoch != session.epoch || get_le(window + 8, 4))
            fail("resumed another session, or messages were dropped");
        if (received < session.acknowledged || received > session.sent)
            fail("the server has received what was not sent");
        printf("resumed: %u of %u have arrived, %u are sent again\n", (uint32_t)received,
               session.sent, session.sent - (uint32_t)received);
    }
    session.number = number, session.epoch = epoch, session.window = get_le(window, 4);
    memcpy(session.token, rest + 1, session.token_length = rest[0]);
    session.sent = received;
    /* What has arrived and is not acknowledged takes room in the window still, so ask for it. */
    acknowledge(session.sent > session.acknowledged ? ACK_ASKS : 0);
    send_messages();
}

/* ---- handling frames ---- */

static void after_handshake(void)
{
    struct bytes b = {0};
    greet();
    if (opt.server && opt.retune) put_policy(&b, policy), send_body(RETUNE, &b);
    if (!opt.server && opt.data) put(&b, opt.data, strlen(opt.data)), send_body(DATA, &b);
}

static void on_hello(const uint8_t *at, size_t length)
{
    struct policy agreed = {15000, 5000, 3};
    uint32_t n = 0;
    size_t used = 84 + ACCOUNT, identity = 0;
    if (length < 87 + ACCOUNT || memcmp(at, "SYS1", 4)) fail("illegal: HELLO");
    if (at[4] != 1) { send_close(OTHER_VERSION, 0), end_writing(); return; }
    for (int i = 0; i < 3; i++, used += n) {
        size_t width = get_varint(at + used, length - used, &n);
        if (!width || n > length - used - width) fail("illegal: HELLO");
        used += width;
        if (i == 1) identity = used, printf("hello identity \"%s\"\n", plain(at + used, n));
    }
    if (used != length || !identity) fail("illegal: HELLO");
    if (at[5] & 1) say_policy("asked for ", agreed = get_policy(at + 66));
    send_welcome(agreed);
    after_handshake();
}

static void on_welcome(const uint8_t *at, size_t length)
{
    bool resumed = length > 1 && at[1] == RESUMED && session.token_length;
    size_t windows = opt.messages ? 8 : 0, outcome = length > 1 && at[1] ? 4 : 0;
    if (length < 97 || at[0] != 1 || at[96] > 64
        || length != 97u + at[96] + windows + outcome) fail("illegal: WELCOME");
    if (at[1] && !resumed)
        fail("not resumed: flags %u, outcome %u", at[1], (unsigned)get_le(at + length - 4, 4));
    printf("welcome session %016llx epoch %llu ", (unsigned long long)get_le(at + 38, 8),
           (unsigned long long)get_le(at + 46, 8));
    say_policy("", get_policy(at + 78));
    after_handshake();
    if (opt.messages) go_on(at, at + 96, resumed);
}

static void on_beat(const struct frame *f)
{
    long newly = (uint8_t)(f->seq - me.confirmed);
    bool answers = f->type == PONG && newly >= 1 && newly <= me.sent - me.confirmed;
    printf("received %s %u", f->type == PING ? "PING" : "PONG", f->seq);
    if (f->flags & 1) printf(", acknowledges %u", f->ack);
    if (f->flags & 2) printf(", business \"%s\"", plain(f->body, f->length));
    if (f->type == PONG && !answers) printf(", which answers nothing");
    if (me.quiet) printf(", %lld ms after the last byte sent", now_ms() - me.last_sent);
    printf("\n");
    if (answers) me.confirmed += newly;
    if (f->type == PING) queue_pong(f->seq);
}

static void on_data(const struct frame *f)
{
    if (me.message_length + f->length > sizeof me.message) fail("a message of too many pieces");
    memcpy(me.message + me.message_length, f->body, f->length);
    me.message_length += f->length;
    if (!(f->flags & CONTINUES) && !opt.server && opt.messages) {
        on_numbered(f->flags);
        me.message_length = 0;
    } else if (!(f->flags & CONTINUES)) {
        printf("received DATA of %zu bytes: %s\n", me.message_length,
               plain(me.message, me.message_length));
        me.echoed |= opt.data && me.message_length == strlen(opt.data)
            && !memcmp(me.message, opt.data, me.message_length);
        me.message_length = 0;
    }
    if (!opt.server || opt.mute) return;
    struct bytes b = {0};
    put_le(&b, DATA << 4 | f->flags, 1), put_varint(&b, f->length), put(&b, f->body, f->length);
    send_bytes(&b);
}

static void on_close(const uint8_t *at, size_t length)
{
    static const char *const names[] = {"done", "drained", "kicked", "silent", "unauthorized",
                                        "replaced", "slow", "version", "full", "flooding"};
    if (length < 7 || at[1] > 1 || at[6] > 128 || length != 7u + at[6]) fail("illegal: CLOSE");
    printf("received CLOSE %u (%s) flags %u return-after %u \"%s\"\n", at[0],
           at[0] < 10 ? names[at[0]] : "other", at[1], (unsigned)get_le(at + 2, 4),
           plain(at + 7, at[6]));
    me.goodbye = true;
}

static size_t take(const uint8_t *at, size_t have)
{
    struct frame frame, *f = &frame;
    size_t used = get_frame(at, have, f);
    if (!used) return 0;
    unsigned first = opt.server ? HELLO : WELCOME;
    if (me.greeted ? f->type == HELLO || f->type == WELCOME
                   : f->type != first && (opt.server || f->type != CLOSE))
        fail("illegal: frame of type %u at this point", f->type);
    switch (f->type) {
    case HELLO: on_hello(f->body, f->length); break;
    case WELCOME: on_welcome(f->body, f->length); break;
    case DATA: on_data(f); break;
    case RETUNE:
        if (f->length != POLICY) fail("illegal: RETUNE");
        say_policy("received RETUNE ", get_policy(f->body));
        struct bytes b = {0};
        if (opt.server) put(&b, f->body, POLICY), send_body(RETUNE, &b);
        break;
    case CLOSE: on_close(f->body, f->length); break;
    case ACK: if (f->flags & ACK_ASKS) acknowledge(0); break;
    default: on_beat(f);
    }
    if (f->acknowledges && !opt.server && opt.messages) on_acknowledged(f->ack);
    return used;
}


/* ---- the hooks of outside.h ---- */

static void start(void)
{
    const char *text = opt.policy_text;
    unsigned long long idle, interval;
    if (text && sscanf(text, "%llu,%llu,%u", &idle, &interval, &policy.probes) != 3)
        fail("not a policy: %s", text);
    if (text) policy.idle = idle, policy.interval = interval;
    if (!opt.server) send_hello();
}

static void send_ping(uint8_t sequence)
{
    struct bytes b = {0};
    put_le(&b, PING << 4 | (opt.business ? 2 : 0), 1), put_le(&b, sequence, 1);
    if (opt.business) put_text(&b, opt.business);
    send_bytes(&b);
    printf("sent PING %u\n", sequence);
}

static void send_pong(uint8_t sequence)
{
    struct bytes b = {0};
    put_le(&b, PONG << 4, 1), put_le(&b, sequence, 1);
    send_bytes(&b);
    printf("sent PONG %u\n", sequence);
}

static void send_goodbye(void)
{
    if (opt.server) send_close(DRAINED, 2500);
    else send_close(0, 0);
}

static bool has_all_messages(void)
{
    return session.received >= (unsigned long)opt.messages;
}

static bool resumes(void)
{
    return session.token_length && !me.goodbye && !opt.server;
}
