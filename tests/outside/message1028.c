/* A client and a server of message1028, written from docs/protocol.md alone: messages of exactly
 * 1,028 bytes, a 32-bit big-endian type and 1,024 bytes of data.
 *
 *   cc -std=c11 -Wall -Wextra -Werror -O1 -o message1028 message1028.c
 *   ./message1028 client HOST PORT [options]
 *   ./message1028 server PORT [options]      0 chooses a port; prints "listening on PORT"
 *
 * The options are listed in outside.h. There is no handshake, no policy and no CLOSE here, and no
 * sequence numbers either: the program counts what it sends and what it receives. */
#include "outside.h"
#include <arpa/inet.h>

enum { PING = 1, PONG = 2, DATA = 11, OTHER_DATA = 21, FORGOTTEN_HTONL = 0x02000000 };
enum { MESSAGE = 1028 };

static void send_message(uint32_t type, const char *text)
{
    struct bytes b = {0};
    type = htonl(type);
    put(&b, &type, 4);
    if (text) put(&b, text, strlen(text));
    if (b.length > MESSAGE) fail("too long for one message");
    b.length = MESSAGE; /* zero-padded */
    send_bytes(&b);
}

static void on_ping(void)
{
    static uint8_t received;
    printf("received PING %u", ++received);
}

static void on_pong(void)
{
    if (me.confirmed == me.sent) printf("received PONG, which answers nothing");
    else printf("received PONG %u", (uint8_t)++me.confirmed);
}

static void on_data(uint32_t type, const char *text)
{
    size_t length = strlen(text);
    printf("received DATA of %zu bytes: %s", length, plain((const uint8_t *)text, length));
    me.echoed |= opt.data && !strcmp(opt.data, text);
    if (opt.server && !opt.mute) send_message(type, text);
}

static size_t take(const uint8_t *at, size_t have)
{
    uint32_t type;
    char text[MESSAGE - 4 + 1] = {0}; /* zero-padded; one more byte ends a full one */
    if (have < MESSAGE) return 0;
    memcpy(&type, at, 4);
    memcpy(text, at + 4, MESSAGE - 4);
    type = ntohl(type);
    switch (type) {
    case PING: on_ping(); break;
    case PONG: case FORGOTTEN_HTONL: on_pong(); break;
    case DATA: case OTHER_DATA: on_data(type, text); break;
    default: fail("illegal: message of type %u", type);
    }
    if (type == FORGOTTEN_HTONL) printf(", in little-endian");
    if (*text && (type == PING || type == PONG || type == FORGOTTEN_HTONL))
        printf(", business \"%s\"", plain((const uint8_t *)text, strlen(text)));
    if (me.quiet) printf(", %lld ms after the last byte sent", now_ms() - me.last_sent);
    printf("\n");
    if (type == PING) queue_pong(0);
    return MESSAGE;
}

static void start(void)
{
    greet();
    if (!opt.server && opt.data) send_message(DATA, opt.data);
}

static void send_ping(uint8_t sequence)
{
    send_message(PING, opt.business);
    printf("sent PING %u\n", sequence);
}

static void send_pong(uint8_t sequence)
{
    (void)sequence;
    send_message(opt.little_endian_pong ? FORGOTTEN_HTONL : PONG, NULL);
    printf("sent PONG\n");
}

static void send_goodbye(void) {} /* the end of the stream is the goodbye */

static bool has_all_messages(void) { return true; }

static bool resumes(void) { return false; }
