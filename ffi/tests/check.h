/* What the C tests have in common: checks that count what is wrong and go on. */
#ifndef CHECK_H
#define CHECK_H

#include "locutor.h"

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

#endif
