/* What the C tests have in common: checks that count what is wrong and go on. */
#ifndef CHECK_H
#define CHECK_H

#include "locutor.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            printf("%s:%d: %s\n", __FILE__, __LINE__, #condition);                                                       \
            failures++;                                                                                                \
        }                                                                                                              \
    } while (0)
#define STATUS(expected, call)                                                                                         \
    do {                                                                                                               \
        int32_t got = (call);                                                                                          \
        if (got != (expected)) {                                                                                       \
            printf("%s:%d: %s gave %d (%s), not %s\n", __FILE__, __LINE__, #call, (int)got, locutor_status_text(got),    \
                   #expected);                                                                                         \
            failures++;                                                                                                \
        }                                                                                                              \
    } while (0)
#define OK(call) STATUS(LOCUTOR_OK, call)

/* Memory as a session wants it, full of rubbish. */
static inline void *aligned(size_t size) {
    void *memory = NULL;
    if (posix_memalign(&memory, LOCUTOR_ALIGN, size + LOCUTOR_ALIGN)) abort();
    memset(memory, 0xA5, size + LOCUTOR_ALIGN);
    return memory;
}

/* A stack as small as a host's may be, and how much of it a test must leave alone. With a sanitizer in it, code needs
 * several times as much. */
#ifdef __has_feature
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define STACK_BYTES (1024 * 1024)
#endif
#endif
#ifndef STACK_BYTES
#define STACK_BYTES (64 * 1024)
#endif
#define STACK_SPARE (24 * 1024)

struct test {
    int (*run)(int argc, char **argv);
    int argc;
    char **argv;
    int status;
};

static void *run_test(void *arg) {
    struct test *test = arg;
    test->status = test->run(test->argc, test->argv);
    return NULL;
}

/* Runs a test on a thread with so small a stack, and checks how deep it went. */
static inline int on_small_stack(int (*run)(int argc, char **argv), int argc, char **argv) {
    struct test test = {run, argc, argv, 2};
    unsigned char *stack = aligned(STACK_BYTES);
    pthread_attr_t attributes;
    pthread_t thread;
    size_t untouched = 0;
    memset(stack, 0xA5, STACK_BYTES);
    if (pthread_attr_init(&attributes) || pthread_attr_setstack(&attributes, stack, STACK_BYTES)) abort();
    if (pthread_create(&thread, &attributes, run_test, &test)) abort();
    pthread_join(thread, NULL);
    pthread_attr_destroy(&attributes);
    /* A checker of memory takes what is below a stack's end for nobody's: do not look when one watches. */
    if (getenv("STACK_UNWATCHED")) {
        free(stack);
        return test.status;
    }
    while (untouched < STACK_BYTES && stack[untouched] == 0xA5) untouched++;
    printf("stack: %zu bytes\n", STACK_BYTES - untouched);
    free(stack);
    if (untouched < STACK_SPARE) {
        printf("only %zu bytes of a stack of %d were left alone\n", untouched, STACK_BYTES);
        return 1;
    }
    return test.status;
}

#endif
