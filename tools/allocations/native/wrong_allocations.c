/* wrong_allocations.c - functions with deliberate errors, and one correct function.
 * tests/hostile/test_allocation_failures.py checks that the sweep detects the errors. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))

/* Each function below adds up n bytes with the value 1, and returns the sum, or -1 if it cannot allocate memory. */
static int sum_of(const char * ones, int n) {
    int sum = 0;
    for (int i = 0; i < n; i++) {
        sum += ones[i];
    }
    return sum;
}

API int right(int n) {
    char * a = malloc((size_t) n);
    char * b = a != NULL ? malloc((size_t) n) : NULL;
    int sum = -1;
    if (b != NULL) {
        memset(a, 1, (size_t) n);
        memcpy(b, a, (size_t) n);
        sum = sum_of(b, n);
    }
    free(a);
    free(b);
    return sum;
}

/* Does not check the result of malloc. */
API int unchecked(int n) {
    volatile char * a = malloc((size_t) n);
    for (int i = 0; i < n; i++) {
        a[i] = 1;
    }
    const int sum = sum_of((const char *) a, n);
    free((void *) a);
    return sum;
}

/* Does not free the first block if the second allocation fails. */
API int leaking(int n) {
    char * a = malloc((size_t) n);
    char * b = a != NULL ? malloc((size_t) n) : NULL;
    if (b == NULL) {
        return -1;
    }
    memset(a, 1, (size_t) n);
    memcpy(b, a, (size_t) n);
    const int sum = sum_of(b, n);
    free(a);
    free(b);
    return sum;
}

/* Returns another result instead of an error if the allocation fails. */
API int silent(int n) {
    char * a = malloc((size_t) n);
    if (a == NULL) {
        return 0;
    }
    memset(a, 1, (size_t) n);
    const int sum = sum_of(a, n);
    free(a);
    return sum;
}

/* This call cannot be repeated after a failed allocation: the next call fails as well. */
API int spoiled(int n) {
    static int refused;
    if (refused) {
        return -1;
    }
    const int sum = right(n);
    refused = sum < 0;
    return sum;
}

static void * sleep_forever(void * unused) {
    pause();
    return unused;
}

/* Leaves a thread running if the allocation fails. */
API int straying(int n) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, sleep_forever, NULL) != 0) {
        return -1;
    }
    char * a = malloc((size_t) n);
    if (a == NULL) {
        return -1;
    }
    memset(a, 1, (size_t) n);
    const int sum = sum_of(a, n);
    free(a);
    pthread_cancel(thread);
    pthread_join(thread, NULL);
    return sum;
}
