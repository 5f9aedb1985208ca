/*
 * Calls that are wrong in every way that can be listed. `misuse.inc`, made from the declarations of locutor.h, has each
 * function with each of its pointers NULL, with each structure of a wrong size, and from within another call.
 *
 *     misuse MODEL
 *
 * The model has a tokenizer. Exit status 1 if a call does not answer as locutor.h promises.
 */
#include "check.h"

#include <pthread.h>
#include <sched.h>

/* Valid arguments, one a type. */
static locutor_model *model, *out_model;
static locutor_session *session, *out_session;
static struct {
    locutor_error error;
    locutor_model_params model_params;
    locutor_model_info model_info;
    locutor_session_params session_params;
    locutor_session_plan session_plan;
    locutor_sampler_params sampler_params;
    locutor_budget budget;
    locutor_event event;
} v;
static unsigned char *file;
static size_t file_len;
static void *memory;
static const size_t memory_len = 8u << 20;
static uint32_t ids[64];
static char buffer[4096];
static double doubles[64];
static const char *const stops[1] = {"a"};
static const size_t lens[1] = {1};

/* Outputs, and what they hold before a call. */
#define MARK 77
static size_t out_size;
static int32_t out_int;
static uint64_t out_long;
static double out_double;
static const uint32_t *out_tokens;
static const float *out_logits;
static const char *out_name;

/* Everything as it should be before a call. */
static void prepare(void) {
    out_model = NULL;
    out_session = NULL;
    out_size = MARK;
    out_int = MARK;
    out_long = MARK;
    out_double = MARK;
    out_tokens = NULL;
    out_logits = NULL;
    out_name = NULL;
    ids[0] = 1;
    OK(locutor_error_init(&v.error, sizeof v.error));
    OK(locutor_model_params_init(&v.model_params, sizeof v.model_params));
    OK(locutor_model_info_init(&v.model_info, sizeof v.model_info));
    OK(locutor_session_params_init(&v.session_params, sizeof v.session_params));
    OK(locutor_session_plan_init(&v.session_plan, sizeof v.session_plan));
    OK(locutor_sampler_params_init(&v.sampler_params, sizeof v.sampler_params));
    OK(locutor_budget_init(&v.budget, sizeof v.budget));
    OK(locutor_event_init(&v.event, sizeof v.event));
    v.model_params.data = file;
    v.model_params.data_len = file_len;
    v.session_params.context = 32;
    v.session_params.batch = 4;
    if (session) {
        OK(locutor_session_truncate(session, 0));
        OK(locutor_session_feed_tokens(session, ids, 1));
    }
}

static int untouched(void) {
    return !out_model && !out_session && out_size == MARK && out_int == MARK && out_long == MARK && out_double == MARK &&
           !out_tokens && !out_logits && !out_name;
}

/* Ends what a call has made. */
static void clear(void) {
    locutor_session_destroy(out_session);
    locutor_model_destroy(out_model);
    out_session = NULL;
    out_model = NULL;
}

/* A structure with room behind it. */
#define BEHIND 64
static uint64_t space[(sizeof(locutor_error) + sizeof(locutor_session_params) + BEHIND) / sizeof(uint64_t) + 1];

static void *spacious(const void *structure, size_t size, uint32_t says, int tail) {
    memset(space, 0, sizeof space);
    memcpy(space, structure, size);
    memcpy(space, &says, sizeof says);
    memset((char *)space + size, tail, BEHIND);
    return space;
}

static int behind_is(size_t size, int tail) {
    const unsigned char *at = (const unsigned char *)space + size;
    size_t i;
    for (i = 0; i < BEHIND; i++) {
        if (at[i] != tail) return 0;
    }
    return 1;
}

/* A size that no structure has ever had. */
static const uint32_t wrong_sizes[] = {0, 1, 4, 4097, UINT32_MAX};
#define N_WRONG_SIZES (sizeof wrong_sizes / sizeof *wrong_sizes)

/* null_pointers, initialisers, structure_sizes, from_within */
#include "misuse.inc"

/* From a callback, and from another thread meanwhile. */
static void *call_from_thread(void *unused) {
    (void)unused;
    from_within();
    return NULL;
}

static unsigned callbacks;

static uint64_t clock_that_calls(void *user) {
    pthread_t thread;
    (void)user;
    if (callbacks++ == 0) {
        from_within();
        locutor_session_destroy(session);
        if (pthread_create(&thread, NULL, call_from_thread, NULL)) abort();
        pthread_join(thread, NULL);
    }
    return callbacks;
}

static void callers(void) {
    locutor_budget budget;
    OK(locutor_budget_init(&budget, sizeof budget));
    prepare();
    budget.clock = clock_that_calls;
    budget.until = UINT64_MAX;
    OK(locutor_session_step(session, &budget, &v.event));
    CHECK(callbacks > 0);
}

/* Two threads with one session at the same time: each call is done whole, or not at all. */
static void *step_often(void *unused) {
    locutor_event event;
    int done = 0;
    (void)unused;
    OK(locutor_event_init(&event, sizeof event));
    /* As often as it takes: the other thread may be set aside within a call for as long as the system likes. */
    while (done < 200) {
        int32_t status = done % 2 ? locutor_session_step(session, NULL, &event) : locutor_session_truncate(session, 1);
        if (status == LOCUTOR_ERR_BUSY) {
            sched_yield();
            continue;
        }
        if (status != LOCUTOR_OK && status != LOCUTOR_ERR_CONTEXT_FULL) {
            STATUS(LOCUTOR_OK, status);
            break;
        }
        done++;
    }
    return NULL;
}

static void two_threads(void) {
    pthread_t thread;
    prepare();
    OK(locutor_session_set_max_tokens(session, UINT64_MAX));
    if (pthread_create(&thread, NULL, step_often, NULL)) abort();
    step_often(NULL);
    pthread_join(thread, NULL);
    OK(locutor_session_truncate(session, 1));
}

int main(int argc, char **argv) {
    FILE *stream;
    if (argc != 2 || !(stream = fopen(argv[1], "rb"))) return 2;
    fseek(stream, 0, SEEK_END);
    file_len = (size_t)ftell(stream);
    rewind(stream);
    file = malloc(file_len);
    if (!file || fread(file, 1, file_len, stream) != file_len) return 2;
    fclose(stream);
    memory = aligned(memory_len);
    prepare();
    OK(locutor_model_create(&v.model_params, &model, NULL));
    OK(locutor_session_create(model, &v.session_params, &session, NULL));
    if (failures) return 1;
    null_pointers();
    initialisers();
    structure_sizes();
    callers();
    two_threads();
    /* A model with a living child: the child goes on. */
    locutor_model_destroy(model);
    prepare();
    OK(locutor_session_step(session, NULL, &v.event));
    locutor_session_destroy(session);
    free(memory);
    free(file);
    return failures != 0;
}
