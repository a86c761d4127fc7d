/* tests/native/held_sleep.c - a thread that is held just before it sleeps: to be preloaded. */
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <unistd.h>

static int (*real_epoll_wait)(int, struct epoll_event *, int, int);
static int reached_fd, go_fd;
static atomic_bool holds;

static void __attribute__((constructor)) begin(void)
{
    *(void **)&real_epoll_wait = dlsym(RTLD_NEXT, "epoll_wait");
}

/* The next one to sleep writes to `reached`, and does not before it can read from `go`. */
void hold_next_sleep(int reached, int go)
{
    reached_fd = reached;
    go_fd = go;
    holds = true;
}

int epoll_wait(int fd, struct epoll_event *events, int count, int timeout)
{
    char byte = 0;
    if (timeout != 0 && atomic_exchange(&holds, false))
        if (write(reached_fd, &byte, 1) != 1 || read(go_fd, &byte, 1) != 1)
            return -1;
    return real_epoll_wait(fd, events, count, timeout);
}
