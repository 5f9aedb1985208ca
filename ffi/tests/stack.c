/*
 * How much stack the library needs: a whole life of a model on a painted stack. Prints the most bytes that were in use.
 *
 *     stack MODEL
 */
#include "check.h"

#include <pthread.h>

#define SIZE (256u << 10)
#define PAINT 0xA7

static const char *path;

static void *live(void *unused) {
    locutor_error error;
    locutor_model_params mp;
    locutor_model_info info;
    locutor_session_params sp;
    locutor_session_plan plan;
    locutor_event event;
    locutor_model *model = NULL;
    int map, kv;
    (void)unused;
    OK(locutor_error_init(&error, sizeof error));
    OK(locutor_model_params_init(&mp, sizeof mp));
    OK(locutor_model_info_init(&info, sizeof info));
    OK(locutor_session_plan_init(&plan, sizeof plan));
    OK(locutor_event_init(&event, sizeof event));
    mp.path = "/nowhere/at/all.gguf";
    STATUS(LOCUTOR_ERR_IO, locutor_model_create(&mp, &model, &error));
    mp.path = path;
    for (map = 0; map < 2; map++) {
        mp.flags = map ? LOCUTOR_MODEL_MAP : 0;
        OK(locutor_model_create(&mp, &model, &error));
        OK(locutor_model_get_info(model, &info));
        for (kv = 0; kv < 6; kv++) {
            locutor_session *session = NULL;
            uint32_t ids[64];
            const char *stops[2] = {"qqq", "zzz"};
            const size_t lens[2] = {3, 3};
            size_t n = 0, used;
            uint64_t sequence, hash;
            double sum;
            char *state, text[256];
            OK(locutor_session_params_init(&sp, sizeof sp));
            sp.context = 96;
            sp.batch = 16;
            sp.logits = 4;
            sp.sequences = 2;
            sp.kv_keys = sp.kv_values = (uint32_t)kv % 3;
            sp.threads = kv < 3 ? 1 : 3;
            if (kv == 5) sp.isa = "scalar";
            OK(locutor_session_get_plan(model, &sp, &plan, &error));
            OK(locutor_session_create(model, &sp, &session, &error));
            OK(locutor_model_tokenize(model, "Once upon a time, there was a dog.", 34, 0, ids, 64, &n, &error));
            OK(locutor_model_detokenize(model, ids, n, text, sizeof text, &used, &error));
            OK(locutor_session_set_stops(session, stops, lens, 2));
            OK(locutor_session_set_ignore_end(session, 1));
            OK(locutor_session_set_max_tokens(session, 8));
            OK(locutor_session_feed_text(session, "Once upon a time, there was a dog.", 34, LOCUTOR_TEXT_MARKUP, NULL));
            do {
                OK(locutor_session_step(session, NULL, &event));
            } while (event.kind != LOCUTOR_EVENT_DONE);
            OK(locutor_session_fork_sequence(session, &sequence));
            OK(locutor_session_select_sequence(session, sequence));
            OK(locutor_session_log_prob(session, ids, n, NULL, &sum));
            OK(locutor_session_state_hash(session, &hash));
            OK(locutor_session_save_size(session, LOCUTOR_SAVE_SESSION, &used));
            state = malloc(used);
            OK(locutor_session_save(session, LOCUTOR_SAVE_SESSION, state, used, &used));
            OK(locutor_session_restore(session, state, used));
            free(state);
            STATUS(LOCUTOR_ERR_STATE, locutor_session_restore(session, ids, sizeof ids));
            OK(locutor_session_get_error(session, &error));
            locutor_session_destroy(session);
        }
        locutor_model_destroy(model);
    }
    return NULL;
}

int main(int argc, char **argv) {
    unsigned char *stack = aligned(SIZE);
    pthread_attr_t attributes;
    pthread_t thread;
    size_t unused = 0;
    if (argc != 2) return 2;
    path = argv[1];
    memset(stack, PAINT, SIZE);
    if (pthread_attr_init(&attributes) || pthread_attr_setstack(&attributes, stack, SIZE) ||
        pthread_create(&thread, &attributes, live, NULL)) {
        return 2;
    }
    pthread_join(thread, NULL);
    /* Stacks grow down. */
    while (unused < SIZE && stack[unused] == PAINT) unused++;
    printf("%u\n", (unsigned)(SIZE - unused));
    free(stack);
    return failures != 0;
}
