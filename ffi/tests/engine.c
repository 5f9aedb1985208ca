/*
 * The session engine from C: several conversations in one block, forks, calls that are ended from another thread and from
 * a signal handler, states that are saved and damaged, contexts that overflow.
 *
 *     engine MODEL
 *
 * Exit status 1 if a promise of locutor.h is broken.
 */
#include "check.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

static locutor_session_params session_params(void) {
    locutor_session_params params;
    OK(locutor_session_params_init(&params, sizeof params));
    params.context = 128;
    params.sequences = 4;
    return params;
}

static locutor_session *create(const locutor_model *model, const locutor_session_params *params) {
    locutor_session *session = NULL;
    locutor_error error;
    OK(locutor_error_init(&error, sizeof error));
    if (locutor_session_create(model, params, &session, &error)) {
        printf("%s\n", error.text);
        exit(2);
    }
    OK(locutor_session_set_ignore_end(session, 1));
    return session;
}

static uint64_t hash_of(locutor_session *session) {
    uint64_t hash = 0;
    OK(locutor_session_state_hash(session, &hash));
    return hash;
}

/* The next n tokens. */
static void tokens(locutor_session *session, uint32_t *out, int n) {
    locutor_event event;
    int i;
    OK(locutor_event_init(&event, sizeof event));
    for (i = 0; i < n; i++) {
        OK(locutor_session_step_token(session, NULL, &event));
        CHECK(event.kind == LOCUTOR_EVENT_TOKEN);
        out[i] = event.token;
    }
}

static void feed(locutor_session *session, uint32_t seed, size_t n) {
    uint32_t ids[512];
    size_t i;
    for (i = 0; i < n; i++) ids[i] = (uint32_t)(i * 37 + seed) % 100;
    OK(locutor_session_feed_tokens(session, ids, n));
}

/* Characters on one prompt. */
static void sequences(const locutor_model *model) {
    locutor_session_params params = session_params();
    locutor_session *session = create(model, &params), *plain;
    uint64_t first, forks[3], none, selected;
    uint32_t said[4][6], alone[6];
    size_t before, free_pages, all, position;
    int i;
    params.sequences = 1;
    plain = create(model, &params);
    feed(session, 3, 50);
    OK(locutor_session_selected_sequence(session, &first));
    OK(locutor_session_pages(session, &before, &all));
    CHECK(all == 4 * 8 && before == all - 4);
    for (i = 0; i < 3; i++) OK(locutor_session_fork_sequence(session, &forks[i]));
    STATUS(LOCUTOR_ERR_NO_SEQUENCE, locutor_session_fork_sequence(session, &none));
    STATUS(LOCUTOR_ERR_NO_SEQUENCE, locutor_session_create_sequence(session, &none));
    OK(locutor_session_pages(session, &free_pages, &all));
    CHECK(free_pages == before);
    for (i = 0; i < 3; i++) {
        OK(locutor_session_select_sequence(session, forks[i]));
        feed(session, 60 + (uint32_t)i, 3);
    }
    for (i = 0; i < 3; i++) {
        OK(locutor_session_select_sequence(session, forks[i]));
        tokens(session, said[i], 6);
        OK(locutor_session_truncate(plain, 0));
        feed(plain, 3, 50);
        feed(plain, 60 + (uint32_t)i, 3);
        tokens(plain, alone, 6);
        CHECK(!memcmp(alone, said[i], sizeof alone));
        OK(locutor_session_position(session, &position));
        CHECK(position == 59);
    }
    OK(locutor_session_close_sequence(session, forks[1]));
    STATUS(LOCUTOR_ERR_SEQUENCE, locutor_session_close_sequence(session, forks[1]));
    STATUS(LOCUTOR_ERR_SEQUENCE, locutor_session_select_sequence(session, forks[1]));
    OK(locutor_session_selected_sequence(session, &selected));
    CHECK(selected == forks[2]);
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_fork_sequence(session, NULL));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_pages(session, NULL, &all));
    locutor_session_destroy(session);
    locutor_session_destroy(plain);
}

/* A sampler for each sequence, as locutor.h describes it: in turns they say what each says alone. */
static void samplers(const locutor_model *model) {
    enum { N = 3, TOKENS = 12 };
    locutor_session_params params = session_params();
    locutor_session *session = create(model, &params), *plain;
    locutor_sampler_params sampler[N];
    uint64_t sequence[N], rng[N];
    uint32_t said[N][TOKENS], alone[N][TOKENS];
    int i, k;
    params.sequences = 1;
    plain = create(model, &params);
    feed(session, 3, 50);
    for (i = 0; i < N; i++) {
        OK(locutor_sampler_params_init(&sampler[i], sizeof sampler[i]));
        sampler[i].seed = 40 + (uint64_t)i;
        sampler[i].temperature = 0.7f + 0.3f * (float)i;
        sampler[i].top_k = i == 1 ? 5 : 0;
        OK(locutor_session_fork_sequence(session, &sequence[i]));
        OK(locutor_session_set_sampler(session, &sampler[i]));
        OK(locutor_session_get_rng(session, &rng[i]));
    }
    for (k = 0; k < TOKENS; k++) {
        for (i = 0; i < N; i++) {
            OK(locutor_session_select_sequence(session, sequence[i]));
            OK(locutor_session_set_sampler(session, &sampler[i]));
            OK(locutor_session_set_rng(session, rng[i]));
            tokens(session, &said[i][k], 1);
            OK(locutor_session_get_rng(session, &rng[i]));
        }
    }
    for (i = 0; i < N; i++) {
        OK(locutor_session_truncate(plain, 0));
        feed(plain, 3, 50);
        OK(locutor_session_set_sampler(plain, &sampler[i]));
        tokens(plain, alone[i], TOKENS);
        CHECK(!memcmp(alone[i], said[i], sizeof alone[i]));
    }
    CHECK(memcmp(said[0], said[1], sizeof said[0]) && memcmp(said[0], said[2], sizeof said[0]));
    locutor_session_destroy(session);
    locutor_session_destroy(plain);
}

struct canceller {
    locutor_session *session;
    int done; /* atomic */
};

static void *cancel_for_ever(void *argument) {
    struct canceller *canceller = argument;
    while (!__atomic_load_n(&canceller->done, __ATOMIC_ACQUIRE)) {
        OK(locutor_session_cancel(canceller->session));
        usleep(50);
    }
    return NULL;
}

static locutor_session *of_signal;

static void on_signal(int number) {
    (void)number;
    locutor_session_cancel(of_signal);
}

static uint64_t raise_in_clock(void *user) {
    int *looks = user;
    if (++*looks == 4) raise(SIGUSR1);
    return 0;
}

static void cancelling(const locutor_model *model) {
    locutor_session_params params = session_params();
    locutor_session *session = create(model, &params);
    locutor_event event;
    locutor_budget budget;
    struct canceller canceller;
    pthread_t thread;
    uint64_t hash, rng, rng_after;
    uint32_t expected[8], got[8];
    int cancelled = 0, calls = 0, looks = 0, ready;
    OK(locutor_event_init(&event, sizeof event));
    OK(locutor_budget_init(&budget, sizeof budget));
    feed(session, 3, 100);
    tokens(session, expected, 8);
    OK(locutor_session_truncate(session, 0));
    feed(session, 3, 100);
    hash = hash_of(session);
    OK(locutor_session_get_rng(session, &rng));

    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_cancel(NULL));
    OK(locutor_session_cancel(session));
    STATUS(LOCUTOR_ERR_CANCELLED, locutor_session_advance(session, NULL, &ready));
    CHECK(hash_of(session) == hash);

    signal(SIGUSR1, on_signal);
    of_signal = session;
    budget.clock = raise_in_clock;
    budget.clock_user = &looks;
    budget.until = 1;
    STATUS(LOCUTOR_ERR_CANCELLED, locutor_session_step(session, &budget, &event));
    CHECK(looks == 4 && hash_of(session) == hash);

    canceller.session = session;
    canceller.done = 0;
    if (pthread_create(&thread, NULL, cancel_for_ever, &canceller)) abort();
    while (cancelled < 20 && calls++ < 100000) {
        int32_t status = locutor_session_step(session, NULL, &event);
        if (status == LOCUTOR_ERR_CANCELLED) {
            cancelled++;
            CHECK(hash_of(session) == hash);
        } else {
            OK(status);
            OK(locutor_session_truncate(session, 0));
            feed(session, 3, 100);
        }
    }
    CHECK(cancelled == 20);
    __atomic_store_n(&canceller.done, 1, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
    OK(locutor_session_truncate(session, 0));
    OK(locutor_session_set_rng(session, rng));
    feed(session, 3, 100);
    while (locutor_session_advance(session, NULL, &ready) == LOCUTOR_ERR_CANCELLED) continue;
    OK(locutor_session_get_rng(session, &rng_after));
    CHECK(rng == rng_after);
    OK(locutor_session_set_rng(session, 0));
    tokens(session, got, 8);
    CHECK(!memcmp(expected, got, sizeof got));
    locutor_session_destroy(session);
}

/* A state goes on elsewhere; every prefix and every changed byte of it is refused, and changes nothing. */
static void states(const locutor_model *model) {
    locutor_session_params params = session_params();
    locutor_session *session, *other;
    unsigned char *state;
    size_t len, written, i;
    uint64_t fork, hash;
    uint32_t expected[8], got[8];
    params.context = 64;
    session = create(model, &params);
    feed(session, 5, 20);
    OK(locutor_session_fork_sequence(session, &fork));
    tokens(session, expected, 3);
    STATUS(LOCUTOR_ERR_PARAM, locutor_session_save_size(session, 7, &len));
    for (i = 0; i < 2; i++) {
        uint32_t what = i ? LOCUTOR_SAVE_SESSION : LOCUTOR_SAVE_SEQUENCE;
        OK(locutor_session_save_size(session, what, &len));
        STATUS(LOCUTOR_ERR_BUFFER, locutor_session_save(session, what, NULL, 0, &written));
        CHECK(written == len);
        state = malloc(len);
        if (!state) abort();
        STATUS(LOCUTOR_ERR_BUFFER, locutor_session_save(session, what, state, len - 1, &written));
        OK(locutor_session_save(session, what, state, len, &written));
        CHECK(written == len);
        params.batch = 3 + (uint32_t)i;
        other = create(model, &params);
        OK(locutor_session_restore(other, state, len));
        if (i) CHECK(hash_of(other) == hash_of(session));
        if (!i) tokens(session, expected, 8);
        if (i) {
            OK(locutor_session_restore(session, state, len));
            tokens(session, expected, 8);
        }
        tokens(other, got, 8);
        CHECK(!memcmp(expected, got, sizeof got));
        locutor_session_destroy(other);
        free(state);
    }

    /* A small one, byte by byte. */
    OK(locutor_session_truncate(session, 2));
    OK(locutor_session_save_size(session, LOCUTOR_SAVE_SEQUENCE, &len));
    state = malloc(len);
    if (!state) abort();
    OK(locutor_session_save(session, LOCUTOR_SAVE_SEQUENCE, state, len, &written));
    hash = hash_of(session);
    for (i = 0; i < len; i++) {
        int32_t status = locutor_session_restore(session, state, i);
        CHECK(status == LOCUTOR_ERR_STATE);
        state[i] ^= (unsigned char)(1 + i % 255);
        CHECK(locutor_session_restore(session, state, len) < 0);
        state[i] ^= (unsigned char)(1 + i % 255);
        CHECK(hash_of(session) == hash);
    }
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_restore(session, NULL, len));
    OK(locutor_session_restore(session, state, len));
    CHECK(hash_of(session) == hash);

    params.kv_keys = LOCUTOR_KV_F32;
    other = create(model, &params);
    STATUS(LOCUTOR_ERR_STATE_OF_OTHER, locutor_session_restore(other, state, len));
    locutor_session_destroy(other);
    free(state);
    locutor_session_destroy(session);
}

static void policies(const locutor_model *model, int rotary) {
    uint32_t policy;
    for (policy = LOCUTOR_POLICY_STOP; policy <= LOCUTOR_POLICY_SLIDE; policy++) {
        locutor_session_params params = session_params();
        locutor_session *session = NULL;
        locutor_event event;
        int32_t status = LOCUTOR_OK;
        size_t position;
        int i;
        params.sequences = 1;
        params.policy = policy;
        params.keep = policy == LOCUTOR_POLICY_STOP ? 0 : 4;
        if (policy == LOCUTOR_POLICY_SLIDE && !rotary) {
            STATUS(LOCUTOR_ERR_PARAM, locutor_session_create(model, &params, &session, NULL));
            continue;
        }
        session = create(model, &params);
        OK(locutor_event_init(&event, sizeof event));
        feed(session, 9, 100);
        for (i = 0; i < 300 && !status; i++) status = locutor_session_step_token(session, NULL, &event);
        OK(locutor_session_position(session, &position));
        if (policy == LOCUTOR_POLICY_STOP) {
            CHECK(status == LOCUTOR_ERR_CONTEXT_FULL && position == 128);
            OK(locutor_session_truncate(session, 50));
        } else {
            CHECK(status == LOCUTOR_OK && position == 400);
            STATUS(LOCUTOR_ERR_FORGOTTEN, locutor_session_truncate(session, 150));
            OK(locutor_session_truncate(session, 399));
        }
        OK(locutor_session_truncate(session, 0));
        locutor_session_destroy(session);
    }
    {
        locutor_session_params params = session_params();
        locutor_session *session = NULL;
        params.policy = 9;
        STATUS(LOCUTOR_ERR_PARAM, locutor_session_create(model, &params, &session, NULL));
        params = session_params();
        params.keep = 1;
        STATUS(LOCUTOR_ERR_PARAM, locutor_session_create(model, &params, &session, NULL));
    }
}

static int test(int argc, char **argv) {
    locutor_model_params params;
    locutor_model_info info;
    locutor_model *model = NULL;
    if (argc != 2) return 2;
    OK(locutor_model_params_init(&params, sizeof params));
    params.path = argv[1];
    OK(locutor_model_create(&params, &model, NULL));
    OK(locutor_model_info_init(&info, sizeof info));
    OK(locutor_model_get_info(model, &info));
    sequences(model);
    samplers(model);
    cancelling(model);
    states(model);
    policies(model, strncmp(info.architecture, "gpt2", 4) != 0);
    locutor_model_destroy(model);
    if (failures) printf("%d promises are broken\n", failures);
    return failures != 0;
}

int main(int argc, char **argv) { return on_small_stack(test, argc, argv); }
