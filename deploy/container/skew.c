/* A clock that is wrong, for a process that loads this before libc (LD_PRELOAD).
 *
 * MOA_SKEW names a file of one 64-bit number: by how many seconds the time of day is off. It may change while the
 * process runs. Clocks that only go on are left alone, and times at which the kernel is to wake somebody are put right.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *skew;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("MOA_SKEW");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *found = mmap(NULL, sizeof *skew, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (found != MAP_FAILED)
        skew = found;
}

static int64_t off(void) { return skew ? *skew : 0; }

/* The kernel's time for a time of day; a time since the machine's start is far smaller, and as it is. */
static const struct timespec *kernels(const struct timespec *given, struct timespec *place) {
    if (given == NULL || given->tv_sec < 1000000000)
        return given;
    *place = *given;
    place->tv_sec -= off();
    return place;
}

/* What this replaces. */
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int clock_gettime(clockid_t clock, struct timespec *at) {
    static __typeof__(&clock_gettime) next;
    if (next == NULL)
        next = NEXT(clock_gettime);
    int result = next(clock, at);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        at->tv_sec += off();
    return result;
}

int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0)
        return -1;
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0)
        return -1;
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}

int pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *until) {
    struct timespec place;
    return NEXT(pthread_cond_timedwait)(cond, mutex, kernels(until, &place));
}

int pthread_mutex_timedlock(pthread_mutex_t *mutex, const struct timespec *until) {
    struct timespec place;
    return NEXT(pthread_mutex_timedlock)(mutex, kernels(until, &place));
}

int sem_timedwait(sem_t *semaphore, const struct timespec *until) {
    struct timespec place;
    return NEXT(sem_timedwait)(semaphore, kernels(until, &place));
}

long syscall(long number, ...) {
    static __typeof__(&syscall) next;
    struct timespec place;
    long a[6];
    va_list more;
    va_start(more, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(more, long);
    va_end(more);
    if (next == NULL)
        next = NEXT(syscall);
    if (number == SYS_futex && (a[1] & FUTEX_CLOCK_REALTIME))
        a[3] = (long)kernels((const struct timespec *)a[3], &place);
    return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
