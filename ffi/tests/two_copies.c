/*
 * Four copies of the library in one process, each with a thread of its own, telling the same story at the same time: the
 * static library, the same with a prefix before its symbols, the shared library, and the shared library once more in a
 * name space of its own.
 *
 *     two_copies MODEL LIBRARY
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "locutor.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Every function that is used here. */
#define FUNCTIONS(F)                                                                                                   \
    F(locutor_model_params_init)                                                                                       \
    F(locutor_session_params_init)                                                                                     \
    F(locutor_event_init)                                                                                              \
    F(locutor_model_create)                                                                                            \
    F(locutor_session_create)                                                                                          \
    F(locutor_session_feed_text)                                                                                       \
    F(locutor_session_set_max_tokens)                                                                                  \
    F(locutor_session_step)                                                                                            \
    F(locutor_session_destroy)                                                                                         \
    F(locutor_model_destroy)

#define DECLARE(name) extern __typeof__(name) other_##name;
FUNCTIONS(DECLARE)

#define MEMBER(name) __typeof__(name) *name;
typedef struct {
    FUNCTIONS(MEMBER)
    const char *path;
    int ok;
    size_t len;
    char text[4096];
} copy;

static void *tell(void *argument) {
    copy *c = argument;
    locutor_model_params mp;
    locutor_session_params sp;
    locutor_event event;
    locutor_model *model = NULL;
    locutor_session *session = NULL;
    c->locutor_model_params_init(&mp, sizeof mp);
    c->locutor_session_params_init(&sp, sizeof sp);
    c->locutor_event_init(&event, sizeof event);
    mp.path = c->path;
    sp.context = 128;
    sp.threads = 2;
    if (c->locutor_model_create(&mp, &model, NULL) || c->locutor_session_create(model, &sp, &session, NULL)) return NULL;
    c->locutor_session_set_max_tokens(session, 60);
    c->locutor_session_feed_text(session, "Once upon a time", 16, 0, NULL);
    while (!c->locutor_session_step(session, NULL, &event) && event.kind != LOCUTOR_EVENT_DONE) {
        if (c->len + event.text_len >= sizeof c->text) return NULL;
        memcpy(c->text + c->len, event.text, (size_t)event.text_len);
        c->len += (size_t)event.text_len;
    }
    c->ok = event.kind == LOCUTOR_EVENT_DONE && c->len > 40;
    c->locutor_session_destroy(session);
    c->locutor_model_destroy(model);
    return NULL;
}

static void load(copy *c, void *library) {
    if (!library) {
        printf("%s\n", dlerror());
        exit(1);
    }
    /* POSIX promises that a function's address fits; ISO C has no way to say so. */
#define FIND(name) *(void **)&c->name = dlsym(library, #name);
    FUNCTIONS(FIND)
}

int main(int argc, char **argv) {
    static copy copies[4];
    pthread_t threads[4];
    int i;
    if (argc != 3) return 2;
#define STATIC(name) copies[0].name = name;
#define PREFIXED(name) copies[1].name = other_##name;
    FUNCTIONS(STATIC)
    FUNCTIONS(PREFIXED)
    load(&copies[2], dlopen(argv[2], RTLD_NOW | RTLD_LOCAL));
    load(&copies[3], dlmopen(LM_ID_NEWLM, argv[2], RTLD_NOW | RTLD_LOCAL));
    for (i = 0; i < 4; i++) {
        int j;
        for (j = 0; j < i; j++) {
            if (copies[i].locutor_session_step == copies[j].locutor_session_step) {
                printf("copies %d and %d are the same\n", i, j);
                return 1;
            }
        }
    }
    for (i = 0; i < 4; i++) {
        copies[i].path = argv[1];
        if (pthread_create(&threads[i], NULL, tell, &copies[i])) return 1;
    }
    for (i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    for (i = 0; i < 4; i++) {
        if (!copies[i].ok || copies[i].len != copies[0].len || memcmp(copies[i].text, copies[0].text, copies[0].len)) {
            printf("copy %d tells another story\n", i);
            return 1;
        }
    }
    printf("4 copies, one story\n");
    return 0;
}
