/* An MS-NNS forwarder on Heimdal's GSSAPI: see interop/peers/__init__.py for its command line.
 * A process for each connection, a thread for each direction. */

#include <arpa/inet.h>
#include <errno.h>
#include <gssapi/gssapi.h>
#include <gssapi/gssapi_krb5.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { IN_PROGRESS = 0x16, DONE = 0x14, ERROR = 0x15 };
enum { MOST_PLAIN = 64500, MOST_BODY = 65536 };

static int sealing = 1, replay = 1, spnego = 0;
static gss_ctx_id_t context = GSS_C_NO_CONTEXT;
/* A context derives its keys at their first use, and two threads that do so at once destroy them for each other. */
static pthread_mutex_t context_lock = PTHREAD_MUTEX_INITIALIZER;
static int secured, plain;

/* One write, so that the lines of several processes do not mix. */
static void say(const char *format, ...)
{
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    if (size > (int)sizeof line - 2)
        size = sizeof line - 2;
    line[size] = '\n';
    if (write(1, line, size + 1) < 0)
        _exit(1);
}

static void end(const char *what, const char *why)
{
    say("%s %s", what, why);
    _exit(1);
}

static const char *reason(OM_uint32 major, OM_uint32 minor)
{
    static char text[512];
    OM_uint32 ignored, more = 0;
    gss_buffer_desc part = GSS_C_EMPTY_BUFFER;
    gss_display_status(&ignored, major, GSS_C_GSS_CODE, GSS_C_NO_OID, &more, &part);
    snprintf(text, sizeof text, "%.*s", (int)part.length, (char *)part.value);
    more = 0;
    gss_display_status(&ignored, minor, GSS_C_MECH_CODE, GSS_C_NO_OID, &more, &part);
    size_t length = strlen(text);
    snprintf(text + length, sizeof text - length, ": %.*s", (int)part.length, (char *)part.value);
    for (char *c = text; *c; c++)
        if (*c == '\n')
            *c = ' ';
    return text;
}

static int send_all(int fd, const void *data, size_t size)
{
    for (const char *next = data; size;) {
        ssize_t sent = send(fd, next, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return -1;
        next += sent;
        size -= sent;
    }
    return 0;
}

/* 1: all of it; 0: the end came first; -1: the end came in the middle, or an error. */
static int read_all(int fd, void *data, size_t size)
{
    size_t have = 0;
    while (have < size) {
        ssize_t got = recv(fd, (char *)data + have, size - have, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            return have ? -1 : 0;
        have += got;
    }
    return 1;
}

static void send_frame(int kind, gss_buffer_t payload)
{
    unsigned char frame[5 + 65535] = {kind, 1, 0, payload->length >> 8, payload->length & 255};
    if (payload->length > 65535)
        end("lost", "a token that is too long for a frame");
    memcpy(frame + 5, payload->value, payload->length);
    if (send_all(secured, frame, 5 + payload->length))
        end("lost", "the connection, in the handshake");
}

static int read_frame(gss_buffer_t payload)
{
    static unsigned char body[65535];
    unsigned char header[5];
    if (read_all(secured, header, 5) != 1)
        end("lost", "the connection, in the handshake");
    payload->length = header[3] << 8 | header[4];
    payload->value = body;
    if (payload->length && read_all(secured, body, payload->length) != 1)
        end("lost", "the connection, in the handshake");
    if (header[0] == ERROR) {
        uint64_t code = 0;
        for (size_t i = 0; i < payload->length && i < 8; i++)
            code = code << 8 | body[i];
        char text[64];
        snprintf(text, sizeof text, "by the peer: code %llu", (unsigned long long)code);
        end("refused", text);
    }
    return header[0];
}

static void refuse(OM_uint32 major, OM_uint32 minor)
{
    unsigned char code[8] = {0, 0, 0, 0, 0x80, 0x09, 0x03, 0x0c}; /* SEC_E_LOGON_DENIED */
    gss_buffer_desc payload = {sizeof code, code};
    send_frame(ERROR, &payload);
    end("refused", reason(major, minor));
}

static void check(OM_uint32 flags)
{
    OM_uint32 wanted = GSS_C_MUTUAL_FLAG | GSS_C_INTEG_FLAG | (sealing ? GSS_C_CONF_FLAG : 0);
    if ((flags & wanted) != wanted)
        end("refused", "the context lacks what was asked for");
}

static void initiate(const char *spn)
{
    OM_uint32 major, minor, flags = 0;
    gss_name_t name;
    gss_buffer_desc text = {strlen(spn), (void *)spn}, in = GSS_C_EMPTY_BUFFER, out;
    major = gss_import_name(&minor, &text, GSS_KRB5_NT_PRINCIPAL_NAME, &name);
    if (GSS_ERROR(major))
        refuse(major, minor);
    OM_uint32 wanted = GSS_C_MUTUAL_FLAG | GSS_C_INTEG_FLAG | (sealing ? GSS_C_CONF_FLAG : 0)
                       | (replay ? GSS_C_REPLAY_FLAG | GSS_C_SEQUENCE_FLAG : 0);
    int complete = 0, peer_done = 0;
    for (;;) {
        out = (gss_buffer_desc)GSS_C_EMPTY_BUFFER;
        if (!complete) {
            major = gss_init_sec_context(&minor, GSS_C_NO_CREDENTIAL, &context, name,
                                         spnego ? GSS_SPNEGO_MECHANISM : GSS_KRB5_MECHANISM, wanted, 0,
                                         GSS_C_NO_CHANNEL_BINDINGS, &in, NULL, &out, &flags, NULL);
            if (GSS_ERROR(major))
                refuse(major, minor);
            complete = !(major & GSS_S_CONTINUE_NEEDED);
        }
        if (complete && peer_done)
            break;
        send_frame(complete ? DONE : IN_PROGRESS, &out);
        peer_done = read_frame(&in) == DONE;
        if (complete && peer_done)
            break;
    }
    check(flags);
    say("authenticated %s", spn);
}

static void accept_client(void)
{
    OM_uint32 major, minor, flags = 0;
    gss_buffer_desc in, out;
    gss_name_t client = GSS_C_NO_NAME;
    do {
        read_frame(&in);
        out = (gss_buffer_desc)GSS_C_EMPTY_BUFFER;
        major = gss_accept_sec_context(&minor, &context, GSS_C_NO_CREDENTIAL, &in, GSS_C_NO_CHANNEL_BINDINGS, &client,
                                       NULL, &out, &flags, NULL, NULL);
        if (GSS_ERROR(major))
            refuse(major, minor);
        if (!(major & GSS_S_CONTINUE_NEEDED))
            check(flags);
        send_frame(major & GSS_S_CONTINUE_NEEDED ? IN_PROGRESS : DONE, &out);
    } while (major & GSS_S_CONTINUE_NEEDED);
    gss_display_name(&minor, client, &out, NULL);
    say("authenticated %.*s", (int)out.length, (char *)out.value);
}

/* Plain bytes become records. */
static void *outward(void *unused)
{
    static unsigned char data[MOST_PLAIN];
    (void)unused;
    for (;;) {
        ssize_t size = recv(plain, data, sizeof data, 0);
        if (size < 0 && errno == EINTR)
            continue;
        if (size < 0)
            end("lost", "the plain connection");
        if (size == 0)
            break;
        OM_uint32 minor, major;
        int sealed;
        gss_buffer_desc in = {size, data}, out;
        pthread_mutex_lock(&context_lock);
        major = gss_wrap(&minor, context, sealing, GSS_C_QOP_DEFAULT, &in, &sealed, &out);
        pthread_mutex_unlock(&context_lock);
        if (GSS_ERROR(major))
            end("lost", reason(major, minor));
        static unsigned char record[4 + MOST_BODY];
        if (out.length > MOST_BODY)
            end("lost", "a record of its own that is too long");
        for (int i = 0; i < 4; i++)
            record[i] = out.length >> 8 * i;
        memcpy(record + 4, out.value, out.length);
        if (send_all(secured, record, 4 + out.length))
            end("lost", "the connection, writing");
        gss_release_buffer(&minor, &out);
    }
    shutdown(secured, SHUT_WR);
    return NULL;
}

/* Records become plain bytes. */
static void inward(void)
{
    static unsigned char body[MOST_BODY];
    for (;;) {
        unsigned char header[4];
        int got = read_all(secured, header, 4);
        if (got < 0)
            end("lost", "the connection, reading");
        if (!got)
            break;
        uint32_t size = header[0] | header[1] << 8 | header[2] << 16 | (uint32_t)header[3] << 24;
        if (size <= 4 || size > MOST_BODY)
            end("lost", "a record of no valid size");
        if (read_all(secured, body, size) != 1)
            end("lost", "the connection, in a record");
        OM_uint32 minor, major;
        int sealed;
        gss_buffer_desc in = {size, body}, out;
        pthread_mutex_lock(&context_lock);
        major = gss_unwrap(&minor, context, &in, &out, &sealed, NULL);
        pthread_mutex_unlock(&context_lock);
        if (major != GSS_S_COMPLETE)
            end("lost", reason(major, minor));
        if (sealing && !sealed)
            end("lost", "a record that is not sealed");
        if (!out.length)
            say("empty record");
        if (send_all(plain, out.value, out.length))
            end("lost", "the plain connection");
        gss_release_buffer(&minor, &out);
    }
    shutdown(plain, SHUT_WR);
}

static int connect_to(const char *host, const char *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1 || connect(fd, (struct sockaddr *)&address, sizeof address))
        end("lost", "no connection to the target");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    return fd;
}

/* A signal only interrupts accept(2). */
static void interrupted(int signum)
{
    (void)signum;
}

/* A connection's process cannot say itself that it crashed. */
static void report_crashes(void)
{
    int status;
    while (waitpid(-1, &status, WNOHANG) > 0)
        if (WIFSIGNALED(status))
            say("lost a process: %s", strsignal(WTERMSIG(status)));
}

int main(int count, char **words)
{
    if (count < 5) {
        fprintf(stderr, "usage: %s client|server HOST PORT SPN [spnego] [unordered] [sign]\n", words[0]);
        return 2;
    }
    int client = !strcmp(words[1], "client");
    for (int i = 5; i < count; i++) {
        spnego |= !strcmp(words[i], "spnego");
        replay &= !!strcmp(words[i], "unordered");
        sealing &= !!strcmp(words[i], "sign");
    }
    struct sigaction action = {.sa_handler = interrupted};
    sigaction(SIGCHLD, &action, NULL);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 64)
        || getsockname(listener, (struct sockaddr *)&address, &size)) {
        perror("listen");
        return 1;
    }
    say("listening %d", ntohs(address.sin_port));
    for (;;) {
        int accepted = accept(listener, NULL, NULL);
        report_crashes();
        if (accepted < 0)
            continue;
        setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        if (fork()) {
            close(accepted);
            continue;
        }
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(listener);
        if (client) {
            plain = accepted;
            secured = connect_to(words[2], words[3]);
            initiate(words[4]);
        } else {
            secured = accepted;
            accept_client();
            plain = connect_to(words[2], words[3]);
        }
        pthread_t thread;
        if (pthread_create(&thread, NULL, outward, NULL))
            end("lost", "no thread");
        inward();
        pthread_join(thread, NULL);
        say("ended");
        _exit(0);
    }
}
