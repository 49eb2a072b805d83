/* The load of the fan-out benchmark: N websocket clients and one publisher in one thread, cheap enough not to be what is measured.

   It reads commands from stdin, one a line, and answers each but `blob` with one line of JSON. What is sent is given as blobs, so that
   it knows of no server's protocol; what comes is counted by the lengths in the frames' headers and thrown away. benchmarks/load.py
   speaks to it; benchmarks/load_fallback.py is the same in Python.

     blob NAME SIZE, then SIZE bytes              NAME is `request`, `first`, `message` or `again`
     count frames LOW HIGH PER | count nats       a message is PER frames of LOW to HIGH bytes, or a MSG of NATS
     connect COUNT PORT reads|stalls|asks QUIET   send `request`, then after the 101 `first`. `stalls`: never reads from then on. `asks`:
                                                  is not counted, and while a measurement runs it sends `again` each time that QUIET ms
                                                  passed without a byte for it
     publisher PORT raw|websocket                 likewise; raw has no request and no frames
     number KIND OFFSET WIDTH                     where its number is put into each `message`: KIND d: in digits; b: in bytes, big-endian;
                                                  n: nowhere any more
     sample EVERY                                 latencies are taken at every EVERYth client
     probe                                        publish one message, wait until all is quiet, say how it came
     window SIZE SECONDS TIMEOUT MOST             publish SIZE messages when all clients have the last; until SECONDS are over or MOST are out
     pace RATE COUNT TIMEOUT                      publish COUNT at RATE a second
     rest SECONDS                                 read what comes

   A latency is from when a message was made to when the read that brought its end returned. The nth message of a client is the nth that
   was published: a server that loses or reorders messages does not come to the end of a measurement. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 1024, BUFFER = 1 << 18, HAND = 4096, PLACES = 8, AT_ONCE = 32, LONGEST_PING = 125, HEARD = 240 };

struct blob { char *bytes; size_t size; };

struct client {
    int fd;
    char upgraded, counted, sampled, reads, lost, publishes, raw, asks;
    char counts;            /* the frame that is being read is to be counted */
    unsigned char opcode, have, ping_size, line_size;
    unsigned char header[10], ping[LONGEST_PING];
    char line[96];          /* of NATS: a protocol line */
    uint64_t left, body;    /* bytes of the frame, and of the NATS message, that are still to come */
    uint64_t count, last_ns;
    char *hand;             /* the answer to the handshake, until it is whole */
    size_t hand_size;
};

static struct blob request, first, message, again;
static struct place { char kind; size_t offset, width; } places[PLACES];
static struct client **clients, *publisher, *asker;
static int client_count, client_room, place_count, epoll_fd, nats, lost, broken, upgraded;
static uint64_t low = 1, high = UINT64_MAX, target, waiting, deliveries, received, asked, now, last_ns, quiet_ns;
static unsigned per = 1, number = 1000000000;
static uint64_t *latencies, *made_ns; /* made_ns: when each message of a measurement was made */
static size_t latency_count, latency_room, made_count, made_room;
static char buffer[BUFFER + 1], heard[HEARD + 1];
static char *out; /* what the publisher has not sent yet */
static size_t out_size, out_at, out_room;

static uint64_t clock_ns(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail(const char *why) {
    printf("{\"error\": \"%s\"}\n", why);
    fflush(stdout);
    exit(1);
}

static void watch(struct client *c, unsigned events, int operation) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(epoll_fd, operation, c->fd, &event);
}

static void lose(struct client *c) {
    if (c->lost) return;
    c->lost = 1;
    lost++;
    broken |= c->counted || c->publishes;
    epoll_ctl(epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
}

/* --- what comes */

static void whole_message(struct client *c) {
    c->counts = 0;
    deliveries++;
    if (++c->count == target) waiting--;
    if (!c->sampled || c->count % per || c->count / per > made_count) return;
    if (latency_count == latency_room)
        latencies = realloc(latencies, (latency_room = latency_room ? 2 * latency_room : 65536) * sizeof *latencies);
    latencies[latency_count++] = now - made_ns[c->count / per - 1];
}

/* The protocol within NATS's frames: lines, and behind a MSG its bytes. */
static void feed_nats(struct client *c, const char *at, size_t size) {
    while (size) {
        if (c->body) {
            size_t take = size < c->body ? size : c->body;
            c->body -= take;
            at += take;
            size -= take;
            if (!c->body) whole_message(c);
            continue;
        }
        char byte = *at++;
        size--;
        if (c->line_size < sizeof c->line - 1) c->line[c->line_size++] = byte;
        if (byte != '\n') continue;
        c->line[c->line_size] = 0;
        c->line_size = 0;
        if (strncmp(c->line, "MSG ", 4)) continue;
        c->body = strtoull(strrchr(c->line, ' '), NULL, 10) + 2;
    }
}

static void pong(struct client *c) {
    unsigned char frame[6 + LONGEST_PING] = {0x8a, 0x80 | c->ping_size};
    memcpy(frame + 6, c->ping, c->ping_size);
    send(c->fd, frame, 6u + c->ping_size, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Bytes of a frame's header are collected; whether it is whole. */
static int header(struct client *c, const char **at, size_t *size) {
    for (; *size; (*at)++, (*size)--) {
        c->header[c->have++] = (unsigned char)**at;
        unsigned length = c->have > 1 ? c->header[1] & 127u : 0, whole = length < 126 ? 2 : length == 126 ? 4 : 10;
        if (c->have < 2 || c->have < whole) continue;
        c->left = length < 126 ? length : 0;
        for (unsigned i = 2; i < whole; i++) c->left = c->left << 8 | c->header[i];
        c->opcode = c->header[0] & 15;
        c->have = c->ping_size = 0;
        (*at)++, (*size)--;
        return 1;
    }
    return 0;
}

static void end_frame(struct client *c) {
    if (c->counts) whole_message(c);
    if (c->opcode == 9) pong(c);
    c->opcode = 0;
}

static void feed(struct client *c, const char *at, size_t size) {
    while (size) {
        if (!c->left) {
            if (!header(c, &at, &size)) return;
            c->counts = c->counted && !nats && c->opcode < 8 && c->left >= low && c->left <= high;
        }
        size_t take = size < c->left ? size : c->left;
        if (c->opcode == 9)
            for (size_t i = 0; i < take && c->ping_size < LONGEST_PING; i++) c->ping[c->ping_size++] = (unsigned char)at[i];
        else if (nats && c->counted)
            feed_nats(c, at, take);
        c->left -= take;
        at += take;
        size -= take;
        if (!c->left) end_frame(c);
    }
}

/* Keep the end of what the publisher was told, for the error when something was refused. */
static void note(const char *at, size_t size) {
    size_t take = size < HEARD ? size : HEARD;
    for (size_t i = 0; i < take; i++) {
        char byte = at[size - take + i];
        heard[i] = byte < 32 || byte > 126 || byte == '"' || byte == '\\' ? '.' : byte;
    }
    heard[take] = 0;
}

static void greet(struct client *c, const char *at, size_t size) {
    if (c->hand_size + size >= HAND) fail("the answer to a handshake is too long");
    if (!c->hand) c->hand = malloc(HAND);
    memcpy(c->hand + c->hand_size, at, size);
    c->hand[c->hand_size += size] = 0;
    char *stop = strstr(c->hand, "\r\n\r\n");
    if (!stop) return;
    if (strncmp(c->hand, "HTTP/1.1 101", 12)) {
        note(c->hand, strcspn(c->hand, "\r"));
        fail(heard);
    }
    c->upgraded = 1;
    upgraded++;
    if (first.size && send(c->fd, first.bytes, first.size, MSG_NOSIGNAL) != (ssize_t)first.size) fail("the first frame was not taken");
    feed(c, stop + 4, c->hand_size - (size_t)(stop + 4 - c->hand));
    free(c->hand);
    c->hand = NULL;
    if (!c->reads) watch(c, 0, EPOLL_CTL_MOD);
}

static void send_out(void) {
    while (out_at < out_size) {
        ssize_t done = send(publisher->fd, out + out_at, out_size - out_at, MSG_NOSIGNAL);
        if (done < 0) break;
        out_at += (size_t)done;
    }
    watch(publisher, out_at < out_size ? EPOLLIN | EPOLLOUT : EPOLLIN, EPOLL_CTL_MOD);
}

static void readable(struct client *c) {
    ssize_t got = recv(c->fd, buffer, BUFFER, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        if (!c->upgraded) fail("a connection was closed before its handshake was answered");
        lose(c);
        return;
    }
    now = last_ns = c->last_ns = clock_ns(CLOCK_MONOTONIC);
    received += (uint64_t)got;
    if (c->publishes) note(buffer, (size_t)got);
    if (c->raw) return;
    if (c->upgraded) feed(c, buffer, (size_t)got);
    else greet(c, buffer, (size_t)got);
}

/* Handle what comes within `ms`, or the first of it. */
static void pump(int ms) {
    struct epoll_event events[EVENTS];
    int ready = epoll_wait(epoll_fd, events, EVENTS, asker && ms > 5 ? 5 : ms);
    for (int i = 0; i < ready; i++) {
        struct client *c = events[i].data.ptr;
        if (events[i].events & EPOLLOUT) send_out();
        if (events[i].events & ~(unsigned)EPOLLOUT) {
            if (c->reads || !c->upgraded) readable(c);
            else lose(c);
        }
    }
}

/* --- what goes out */

static void make_message(void) {
    if (out_at == out_size) out_at = out_size = 0;
    if (out_size + message.size > out_room) out = realloc(out, out_room = 2 * (out_size + message.size));
    char *at = out + out_size;
    memcpy(at, message.bytes, message.size);
    out_size += message.size;
    number++;
    for (int i = 0; i < place_count; i++) {
        unsigned value = number, base = places[i].kind == 'b' ? 256 : 10, zero = base == 10 ? '0' : 0;
        for (size_t digit = places[i].width; digit-- > 0; value /= base) at[places[i].offset + digit] = (char)(zero + value % base);
    }
    if (made_count == made_room) made_ns = realloc(made_ns, (made_room = made_room ? 2 * made_room : 4096) * sizeof *made_ns);
    made_ns[made_count++] = clock_ns(CLOCK_MONOTONIC);
}

static void ask(uint64_t at) {
    if (!asker || at - asker->last_ns < quiet_ns) return;
    asker->last_ns = at;
    asked++;
    if (send(asker->fd, again.bytes, again.size, MSG_NOSIGNAL) != (ssize_t)again.size) fail("a request was not taken");
}

static void expect(uint64_t messages) {
    target = messages * per;
    waiting = 0;
    for (int i = 0; i < client_count; i++) waiting += clients[i]->counted && clients[i]->count < target;
}

static void begin(void) {
    if (!publisher) fail("there is no publisher");
    for (int i = 0; i < client_count; i++) clients[i]->count = 0;
    deliveries = received = asked = latency_count = made_count = 0;
    target = 0;
}

/* --- connecting */

static struct client *dial(int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct client *c = calloc(1, sizeof *c);
    struct linger reset = {1, 0};
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to)) fail(strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    /* Thousands of closed connections would stay in TIME_WAIT. */
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    c->reads = 1;
    watch(c, EPOLLIN, EPOLL_CTL_ADD);
    return c;
}

static void hand_shake(struct client *c) {
    if (send(c->fd, request.bytes, request.size, MSG_NOSIGNAL) != (ssize_t)request.size) fail("the request was not taken");
}

static void connect_clients(int count, int port, const char *how, int quiet_ms) {
    upgraded = 0;
    for (int i = 0; i < count; i++) {
        struct client *c = dial(port);
        c->reads = strcmp(how, "stalls") != 0;
        c->asks = !strcmp(how, "asks");
        c->counted = c->reads && !c->asks;
        if (c->asks) {
            asker = c;
            quiet_ns = (uint64_t)quiet_ms * 1000000u;
        }
        if (client_count == client_room) clients = realloc(clients, (size_t)(client_room = client_room ? 2 * client_room : 64) * sizeof *clients);
        clients[client_count++] = c;
        hand_shake(c);
        while (i + 1 - upgraded >= AT_ONCE) pump(1000);
    }
    while (upgraded < count) pump(1000);
    printf("{\"clients\": %d}\n", client_count);
}

static void connect_publisher(int port, const char *how) {
    struct client *c = publisher = dial(port);
    c->publishes = 1;
    upgraded = 0;
    if (!strcmp(how, "raw")) {
        c->raw = c->upgraded = 1;
        if (first.size && send(c->fd, first.bytes, first.size, MSG_NOSIGNAL) != (ssize_t)first.size) fail("the first bytes were not taken");
    } else
        for (hand_shake(c); !upgraded;) pump(1000);
    printf("{\"clients\": %d}\n", client_count);
}

/* --- measuring */

static int by_size(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static double quantile_ms(double part) {
    return latency_count ? (double)latencies[(size_t)((double)(latency_count - 1) * part)] / 1e6 : 0;
}

static void report(uint64_t messages, int late, uint64_t start, uint64_t cpu) {
    double seconds = (double)(clock_ns(CLOCK_MONOTONIC) - start) / 1e9, used = (double)(clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu) / 1e9;
    qsort(latencies, latency_count, sizeof *latencies, by_size);
    printf("{\"messages\": %lu, \"deliveries\": %lu, \"bytes\": %lu, \"seconds\": %.6f, \"load_cpu_s\": %.6f, \"late\": %s, \"lost\": %d, "
           "\"asked\": %lu, \"samples\": %zu, \"p50_ms\": %.4f, \"p99_ms\": %.4f, \"most_ms\": %.4f, \"heard\": \"%s\"}\n",
           messages, deliveries / per, received, seconds, used, late ? "true" : "false", lost, asked, latency_count,
           quantile_ms(0.5), quantile_ms(0.99), quantile_ms(1), late ? heard : "");
}

static void measure_window(unsigned size, double seconds, double timeout_s, uint64_t most) {
    uint64_t messages = 0, start = clock_ns(CLOCK_MONOTONIC), cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID), at = start;
    uint64_t stop = start + (uint64_t)(seconds * 1e9), deadline = start + (uint64_t)(timeout_s * 1e9);
    begin();
    do {
        for (unsigned i = 0; i < size; i++) make_message();
        expect(messages += size);
        for (send_out(); waiting && !broken && at < deadline; at = clock_ns(CLOCK_MONOTONIC)) {
            pump(100);
            ask(at);
        }
    } while (!waiting && at < stop && messages < most);
    report(messages, waiting > 0, start, cpu);
}

static void measure_pace(double rate, uint64_t count, double timeout_s) {
    uint64_t start = clock_ns(CLOCK_MONOTONIC), cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID), at = start, done = 0;
    uint64_t deadline = start + (uint64_t)(timeout_s * 1e9);
    begin();
    expect(count);
    while ((waiting || done < count) && !broken && at < deadline) {
        uint64_t due = start + (uint64_t)((double)done / rate * 1e9);
        if (done < count && at >= due) {
            make_message();
            send_out();
            done++;
            continue;
        }
        pump(done < count ? (int)((due - at) / 1000000u) + 1 : 100);
        ask(at = clock_ns(CLOCK_MONOTONIC));
    }
    report(done, waiting > 0, start, cpu);
}

static void rest(double seconds, uint64_t quiet_for_ns) {
    uint64_t start = clock_ns(CLOCK_MONOTONIC), at = start, stop = start + (uint64_t)(seconds * 1e9);
    last_ns = at;
    while (at < stop && at - last_ns < quiet_for_ns) {
        pump(20);
        at = clock_ns(CLOCK_MONOTONIC);
    }
}

static void probe(void) {
    uint64_t most = 0, least = UINT64_MAX;
    begin();
    make_message();
    send_out();
    while (!deliveries && !broken) pump(1000);
    rest(10, 300000000);
    for (int i = 0; i < client_count; i++)
        if (clients[i]->counted) {
            most = clients[i]->count > most ? clients[i]->count : most;
            least = clients[i]->count < least ? clients[i]->count : least;
        }
    printf("{\"least\": %lu, \"most\": %lu, \"bytes\": %lu, \"heard\": \"%s\"}\n", least, most, received, heard);
}

/* --- commands */

static void read_blob(const char *name, size_t size) {
    struct blob *b = !strcmp(name, "request") ? &request : !strcmp(name, "first") ? &first : !strcmp(name, "again") ? &again : &message;
    b->bytes = realloc(b->bytes, size + 1);
    b->size = size;
    if (fread(b->bytes, 1, size, stdin) != size) fail("a blob is cut");
}

static void obey(const char *line) {
    char word[16] = "", how[16] = "";
    size_t a = 0, b = 0;
    double x = 0, y = 0, z = 0;
    sscanf(line, "%15s", word);
    if (!strcmp(word, "blob") && sscanf(line, "%*s %15s %zu", how, &a) == 2) {
        read_blob(how, a);
        return;
    }
    if (!strcmp(word, "count")) {
        nats = sscanf(line, "%*s frames %lu %lu %u", &low, &high, &per) != 3;
        if (nats) per = 1;
        printf("{}\n");
    } else if (!strcmp(word, "connect") && sscanf(line, "%*s %zu %zu %15s %lf", &a, &b, how, &x) == 4) {
        connect_clients((int)a, (int)b, how, (int)x);
    } else if (!strcmp(word, "publisher") && sscanf(line, "%*s %zu %15s", &a, how) == 2) {
        connect_publisher((int)a, how);
    } else if (!strcmp(word, "number") && sscanf(line, "%*s %1s %zu %zu", how, &a, &b) == 3) {
        if (*how == 'n') place_count = 0;
        else if (place_count < PLACES) places[place_count++] = (struct place){*how, a, b};
        printf("{}\n");
    } else if (!strcmp(word, "sample") && sscanf(line, "%*s %zu", &a) == 1) {
        for (int i = 0; i < client_count; i++) clients[i]->sampled = clients[i]->counted && a && (size_t)i % a == a - 1;
        printf("{}\n");
    } else if (!strcmp(word, "probe")) {
        probe();
    } else if (!strcmp(word, "window") && sscanf(line, "%*s %zu %lf %lf %lf", &a, &x, &y, &z) == 4) {
        measure_window((unsigned)a, x, y, (uint64_t)z);
    } else if (!strcmp(word, "pace") && sscanf(line, "%*s %lf %zu %lf", &x, &a, &y) == 3) {
        measure_pace(x, a, y);
    } else if (!strcmp(word, "rest") && sscanf(line, "%*s %lf", &x) == 1) {
        rest(x, UINT64_MAX);
        printf("{\"lost\": %d}\n", lost);
    } else
        fail("not a command");
    fflush(stdout);
}

int main(void) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    epoll_fd = epoll_create1(0);
    char *line = NULL;
    for (size_t room = 0; getline(&line, &room, stdin) > 0;) obey(line);
}
