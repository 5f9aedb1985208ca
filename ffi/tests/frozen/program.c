/*
 * A program of the first ABI, compiled against the header of that time (locutor.h in this folder, which never changes),
 * with sizes as numbers. Every later library with the same LOCUTOR_ABI must run it, and say the same.
 *
 *     program MODEL
 */
#include "locutor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* 64-bit machines. */
typedef char frozen_error[sizeof(locutor_error) == 512 ? 1 : -1];
typedef char frozen_model_params[sizeof(locutor_model_params) == 80 ? 1 : -1];
typedef char frozen_model_info[sizeof(locutor_model_info) == 96 ? 1 : -1];
typedef char frozen_session_params[sizeof(locutor_session_params) == 96 ? 1 : -1];
typedef char frozen_session_plan[sizeof(locutor_session_plan) == 40 ? 1 : -1];
typedef char frozen_sampler_params[sizeof(locutor_sampler_params) == 56 ? 1 : -1];
typedef char frozen_budget[sizeof(locutor_budget) == 40 ? 1 : -1];
typedef char frozen_event[sizeof(locutor_event) == 32 ? 1 : -1];

static void must(int32_t status, const char *what) {
    if (status) {
        printf("%s: %s\n", what, locutor_status_text(status));
        exit(1);
    }
}

#define MUST(call) must(call, #call)

int main(int argc, char **argv) {
    locutor_error error;
    locutor_model_params mp;
    locutor_model_info info;
    locutor_session_params sp;
    locutor_session_plan plan;
    locutor_sampler_params ap;
    locutor_budget budget;
    locutor_event event;
    locutor_model *model = NULL;
    locutor_session *session = NULL;
    uint32_t ids[64];
    uint64_t rng, sequence;
    size_t n, used;
    double sum;
    char *state;

    if (argc != 2 || locutor_abi() != LOCUTOR_ABI) return 2;
    MUST(locutor_error_init(&error, 512));
    MUST(locutor_model_params_init(&mp, 80));
    MUST(locutor_model_info_init(&info, 96));
    MUST(locutor_session_params_init(&sp, 96));
    MUST(locutor_session_plan_init(&plan, 40));
    MUST(locutor_sampler_params_init(&ap, 56));
    MUST(locutor_budget_init(&budget, 40));
    MUST(locutor_event_init(&event, 32));
    mp.path = argv[1];
    MUST(locutor_model_create(&mp, &model, &error));
    MUST(locutor_model_get_info(model, &info));
    MUST(locutor_model_tokenize(model, "Once upon a time", 16, 0, ids, 64, &n, &error));
    sp.context = 64;
    sp.batch = 8;
    sp.sequences = 2;
    MUST(locutor_session_get_plan(model, &sp, &plan, &error));
    MUST(locutor_session_create(model, &sp, &session, &error));
    if (plan.context != 64 || info.vocab == 0 || plan.bytes < plan.kv_bytes) return 1;
    ap.seed = 42;
    MUST(locutor_session_set_sampler(session, &ap));
    MUST(locutor_session_get_rng(session, &rng));
    MUST(locutor_session_feed_tokens(session, ids, n));
    MUST(locutor_session_set_max_tokens(session, 24));
    MUST(locutor_session_set_ignore_end(session, 1));
    budget.units = 1000;
    do {
        MUST(locutor_session_step(session, &budget, &event));
        fwrite(event.text, 1, (size_t)event.text_len, stdout);
    } while (event.kind != LOCUTOR_EVENT_DONE);
    MUST(locutor_session_save_size(session, LOCUTOR_SAVE_SESSION, &n));
    state = malloc(n);
    MUST(locutor_session_save(session, LOCUTOR_SAVE_SESSION, state, n, &used));
    MUST(locutor_session_fork_sequence(session, &sequence));
    MUST(locutor_session_select_sequence(session, sequence));
    MUST(locutor_session_log_prob(session, ids, 1, NULL, &sum));
    MUST(locutor_session_restore(session, state, used));
    free(state);
    locutor_model_destroy(model);
    locutor_session_destroy(session);
    printf("\n");
    return sum < 0 ? 0 : 1;
}
