/* TLS for the client in C, by OpenSSL. It is compiled in with `-DTLS`, and linked with
 * `-lssl -lcrypto`; without them `--tls` is refused. The socket stays a blocking one: like the rest
 * of the client, a record that does not become complete is bounded by `--limit` alone. */
#ifdef TLS
#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

static SSL *tls;

static _Noreturn void tls_fail(const char *what)
{
    unsigned long error = ERR_get_error();
    fail("%s: %s", what, error ? ERR_reason_error_string(error) : "the other end closed");
}

/* Believes the authorities in the file `roots` alone, and only a certificate for `name`. */
static SSL_CTX *tls_context(const char *roots)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION)) tls_fail("TLS");
    if (!SSL_CTX_load_verify_locations(context, roots, NULL)) tls_fail(roots);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_clear_mode(context, SSL_MODE_AUTO_RETRY); /* a session ticket is nothing to wait for */
    return context;
}

static void tls_expect(const char *name)
{
    uint8_t address[sizeof(struct in6_addr)];
    bool is_address = inet_pton(AF_INET, name, address) == 1
        || inet_pton(AF_INET6, name, address) == 1;
    bool expected = is_address
        ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls), name)
        : SSL_set1_host(tls, name) && SSL_set_tlsext_host_name(tls, name);
    if (!expected) tls_fail(name);
}

static void tls_start(int fd, const char *roots, const char *name)
{
    tls = SSL_new(tls_context(roots));
    if (!tls || !SSL_set_fd(tls, fd)) tls_fail("TLS");
    tls_expect(name);
    if (SSL_connect(tls) == 1) {
        printf("%s with %s\n", SSL_get_version(tls), name);
        return;
    }
    long verdict = SSL_get_verify_result(tls);
    if (verdict != X509_V_OK)
        fail("certificate verify failed: %s", X509_verify_cert_error_string(verdict));
    tls_fail("TLS handshake");
}

static bool tls_holds_bytes(void)
{
    return tls && SSL_pending(tls) > 0;
}

/* Like recv(); EINTR means that nothing for us was in what arrived. */
static ssize_t tls_receive(void *to, size_t length)
{
    ERR_clear_error();
    int n = SSL_read(tls, to, length < INT_MAX ? (int)length : INT_MAX);
    if (n > 0) return n;
    int error = SSL_get_error(tls, n);
    errno = error == SSL_ERROR_WANT_READ ? EINTR : ECONNRESET;
    return error == SSL_ERROR_ZERO_RETURN ? 0 : -1;
}

static ssize_t tls_send(const void *from, size_t length)
{
    ERR_clear_error();
    int n = SSL_write(tls, from, length < INT_MAX ? (int)length : INT_MAX);
    errno = ECONNRESET;
    return n > 0 ? n : -1;
}

static void tls_end_writing(void)
{
    SSL_shutdown(tls); /* says that we send no more; what arrives can still be read */
}
#else
enum { tls = false };

static _Noreturn void tls_start(int fd, const char *roots, const char *name)
{
    (void)fd, (void)roots, (void)name;
    fail("built without TLS: compile with -DTLS -lssl -lcrypto");
}

static bool tls_holds_bytes(void) { return false; }
static ssize_t tls_receive(void *to, size_t length) { (void)to, (void)length; return -1; }
static ssize_t tls_send(const void *from, size_t length) { (void)from, (void)length; return -1; }
static void tls_end_writing(void) {}
#endif
