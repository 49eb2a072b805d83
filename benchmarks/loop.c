/* The baseline of the fan-out benchmark: a websocket server that does the least that any server must.

   `loop plain|joined` prints its port and ends with its stdin. Who connects to /publish is a publisher: each frame of his goes to
   every other connection as one frame, whose bytes are made once.
     plain   one send() per message and client
     joined  one send() per client for all messages that came in one read
   What a socket does not take waits in the log that all share, and is sent when the socket is writable again, in both modes in
   one piece. Nothing is checked: no token, no content, no accept key (it answers that of the benchmark's clients). */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 512, HEAD = 4096, INTAKE = 1 << 20, AT_ONCE = 1 << 18, MOST_BEHIND = 1 << 28 };

static const char ACCEPTED[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                               "Sec-WebSocket-Accept: 0ENys87To5f6AJZvhD8qQ9AJacA=\r\n\r\n";

struct client {
    int fd, place;        /* place: in `subscribers`, or -1 */
    unsigned have;        /* bytes in `buffer` */
    char *buffer;         /* the request until it is whole; then a publisher's frames */
    char publishes, behind;
    uint64_t at;          /* position in the log, where it is behind */
};

static int epoll_fd, joined;
static struct client **subscribers;
static int count, room, behind;
static unsigned char *sent_log; /* the bytes from `base` to `end` */
static size_t log_size;
static uint64_t base, end;
static char scratch[65536];

static void watch(struct client *c, unsigned events, int operation) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(epoll_fd, operation, c->fd, &event);
}

static void drop(struct client *c) {
    if (c->place >= 0) {
        subscribers[c->place] = subscribers[--count];
        subscribers[c->place]->place = c->place;
    }
    behind -= c->behind;
    close(c->fd);
    free(c->buffer);
    free(c);
}

/* Send [from, to) of the log to a client that has all before it. */
static void deliver(struct client *c, uint64_t from, uint64_t to) {
    ssize_t done = send(c->fd, sent_log + (from - base), to - from, MSG_NOSIGNAL);
    if (done < 0 && errno != EAGAIN) return; /* its end comes as an event */
    if (done < 0) done = 0;
    if ((uint64_t)done < to - from) {
        c->at = from + (uint64_t)done;
        c->behind = 1;
        behind++;
        watch(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
    }
}

static void catch_up(struct client *c) {
    uint64_t left = end - c->at;
    ssize_t done = send(c->fd, sent_log + (c->at - base), left < AT_ONCE ? left : AT_ONCE, MSG_NOSIGNAL);
    if (done > 0) c->at += (uint64_t)done;
    if (c->at < end) return;
    c->behind = 0;
    behind--;
    watch(c, EPOLLIN, EPOLL_CTL_MOD);
}

static void append(const void *bytes, size_t size) {
    size_t used = end - base;
    while (used + size > log_size) sent_log = realloc(sent_log, log_size = log_size ? 2 * log_size : INTAKE);
    memcpy(sent_log + used, bytes, size);
    end += size;
}

/* Forget what everyone has; end those for whom too much is kept. */
static void trim(void) {
    if (behind && end - base > MOST_BEHIND)
        for (int i = 0; i < count; i++)
            if (subscribers[i]->behind) { /* its end comes as an event */
                shutdown(subscribers[i]->fd, SHUT_RDWR);
                subscribers[i]->behind = 0;
                behind--;
            }
    if (!behind) base = end;
}

static void take_message(const unsigned char *payload, const unsigned char *mask, size_t size, unsigned char opcode) {
    unsigned char header[10] = {0x80 | opcode, (unsigned char)size};
    unsigned long have = 2;
    if (size > 125) {
        have = size > 65535 ? 10 : 4;
        header[1] = size > 65535 ? 127 : 126;
        for (unsigned long i = 2; i < have; i++) header[i] = (unsigned char)(size >> 8 * (have - 1 - i));
    }
    uint64_t start = end;
    append(header, have);
    append(payload, size);
    unsigned char *copy = sent_log + (end - base) - size;
    for (size_t i = 0; i < size; i++) copy[i] ^= mask[i & 3];
    if (!joined)
        for (int i = 0; i < count; i++)
            if (!subscribers[i]->behind) deliver(subscribers[i], start, end);
}

/* Take the whole frames of a publisher; whether he is still there. */
static int take_frames(struct client *c) {
    unsigned char *at = (unsigned char *)c->buffer, *stop = at + c->have;
    uint64_t start = end;
    int open = 1;
    while (open && stop - at >= 6) {
        size_t size = at[1] & 127, header = 6;
        if (size >= 126) {
            header = size == 126 ? 8 : 14;
            if ((size_t)(stop - at) < header) break;
            size_t bytes = header - 6;
            size = 0;
            for (size_t i = 0; i < bytes; i++) size = size << 8 | at[2 + i];
        }
        if ((size_t)(stop - at) < header + size) break;
        unsigned char opcode = at[0] & 15;
        if (opcode == 1 || opcode == 2) take_message(at + header, at + header - 4, size, opcode);
        open = opcode != 8;
        at += header + size;
    }
    c->have = (unsigned)(stop - at);
    memmove(c->buffer, at, c->have);
    if (joined && end > start)
        for (int i = 0; i < count; i++)
            if (!subscribers[i]->behind) deliver(subscribers[i], start, end);
    trim();
    return open;
}

static int take_request(struct client *c) {
    c->buffer[c->have] = 0;
    char *stop = strstr(c->buffer, "\r\n\r\n");
    if (!stop) return c->have < HEAD - 1;
    if (send(c->fd, ACCEPTED, sizeof ACCEPTED - 1, MSG_NOSIGNAL) < 0) return 0;
    if (!strncmp(c->buffer, "GET /publish", 12)) {
        c->publishes = 1;
        c->have -= (unsigned)(stop + 4 - c->buffer);
        memmove(c->buffer, stop + 4, c->have);
        c->buffer = realloc(c->buffer, INTAKE);
        return take_frames(c);
    }
    free(c->buffer);
    c->buffer = NULL;
    if (count == room) subscribers = realloc(subscribers, (room = room ? 2 * room : 64) * sizeof *subscribers);
    c->place = count;
    subscribers[count++] = c;
    return 1;
}

/* Whether the client is still there. */
static int readable(struct client *c) {
    if (c->place >= 0) { /* what a subscriber says is of no interest */
        ssize_t got = recv(c->fd, scratch, sizeof scratch, 0);
        return got > 0 || (got < 0 && errno == EAGAIN);
    }
    ssize_t got = recv(c->fd, c->buffer + c->have, (c->publishes ? INTAKE : HEAD - 1) - c->have, 0);
    if (got <= 0) return got < 0 && errno == EAGAIN;
    c->have += (unsigned)got;
    return c->publishes ? take_frames(c) : take_request(c);
}

static void accept_clients(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct client *c = calloc(1, sizeof *c);
        c->fd = fd;
        c->place = -1;
        c->buffer = malloc(HEAD);
        watch(c, EPOLLIN, EPOLL_CTL_ADD);
    }
}

int main(int argc, char **argv) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    struct rlimit files;
    joined = argc > 1 && !strcmp(argv[1], "joined");
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    epoll_fd = epoll_create1(0);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 2048)) return perror("listen"), 1;
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    struct client listening = {.fd = listener}, commands = {.fd = STDIN_FILENO};
    watch(&listening, EPOLLIN, EPOLL_CTL_ADD);
    watch(&commands, EPOLLIN, EPOLL_CTL_ADD);
    for (struct epoll_event events[EVENTS];;) {
        int ready = epoll_wait(epoll_fd, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            struct client *c = events[i].data.ptr;
            if (c == &listening) accept_clients(listener);
            else if (c == &commands) return 0;
            else if (events[i].events & (EPOLLERR | EPOLLHUP)) drop(c);
            else if (events[i].events & EPOLLOUT && c->behind) catch_up(c);
            else if (!readable(c)) drop(c);
        }
        if (!behind) base = end;
    }
}
