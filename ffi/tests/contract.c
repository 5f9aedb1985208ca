/*
 * The promises of locutor.h, tried one by one from C: what is NULL, what is too small, what happens in the wrong order.
 *
 *     contract MODEL PACK OFFSET
 *
 * PACK is a file that holds MODEL from OFFSET on, with other bytes around it. The model has a tokenizer; its weights
 * may be anything. Exit status 1 if a promise is broken.
 */
#include "check.h"

#include <fcntl.h>
#include <fenv.h>
#include <math.h>
#include <pthread.h>
#include <unistd.h>

static const char *path;
static unsigned char *bytes;
static size_t n_bytes;

static locutor_model_params from_path(void) {
    locutor_model_params params;
    OK(locutor_model_params_init(&params, sizeof params));
    params.path = path;
    return params;
}

static locutor_model_params from_data(void) {
    locutor_model_params params;
    OK(locutor_model_params_init(&params, sizeof params));
    params.data = bytes;
    params.data_len = n_bytes;
    return params;
}

static locutor_session_params session_params(void) {
    locutor_session_params params;
    OK(locutor_session_params_init(&params, sizeof params));
    params.context = 96;
    params.batch = 8;
    return params;
}

/* Everything that a session says to a prompt, in a buffer of the caller. */
static void answer(locutor_session *session, const locutor_budget *budget, char *out, size_t capacity) {
    locutor_event event;
    size_t len = 0, pending = 0;
    OK(locutor_session_set_max_tokens(session, 24));
    OK(locutor_session_set_ignore_end(session, 1));
    OK(locutor_session_feed_text(session, "One day", 7, 0, NULL));
    OK(locutor_event_init(&event, sizeof event));
    for (;;) {
        int32_t status = locutor_session_step(session, budget, &event);
        CHECK(event.text != NULL);
        if (status) {
            STATUS(LOCUTOR_OK, status);
            break;
        }
        if (event.kind == LOCUTOR_EVENT_DONE) break;
        if (event.kind == LOCUTOR_EVENT_PENDING) {
            pending++;
            continue;
        }
        if (event.kind == LOCUTOR_EVENT_TOKEN) {
            CHECK(event.text_len == 0 && event.token != LOCUTOR_NO_TOKEN);
            continue;
        }
        CHECK(event.kind == LOCUTOR_EVENT_PIECE && event.text_len > 0);
        CHECK(len + event.text_len < capacity);
        memcpy(out + len, event.text, (size_t)event.text_len);
        len += (size_t)event.text_len;
    }
    out[len] = 0;
    CHECK(event.finish == LOCUTOR_FINISH_MAX_TOKENS);
    CHECK(!budget || pending > 0);
}

static void version_and_status(void) {
    CHECK(!strcmp(locutor_version(), LOCUTOR_VERSION));
    CHECK(locutor_abi() == LOCUTOR_ABI);
    CHECK(strlen(locutor_status_text(LOCUTOR_ERR_BUSY)) > 5);
    CHECK(!strcmp(locutor_status_text(12345), "unknown status"));
    CHECK(strcmp(locutor_status_text(LOCUTOR_ERR_ARGUMENT), "unknown status"));
}

#define INIT(type, params)                                                                                             \
    do {                                                                                                               \
        struct { type known; unsigned char tail[64]; } newer;                                                          \
        STATUS(LOCUTOR_ERR_ARGUMENT, type##_init(NULL, sizeof(type)));                                                 \
        STATUS(LOCUTOR_ERR_STRUCT_SIZE, type##_init(&newer.known, 4));                                                 \
        STATUS(LOCUTOR_ERR_STRUCT_SIZE, type##_init(&newer.known, (size_t)1 << 20));                                   \
        memset(&newer, 0xFF, sizeof newer);                                                                            \
        OK(type##_init(&newer.known, sizeof newer));                                                                   \
        CHECK(newer.known.struct_size == sizeof newer && newer.tail[0] == 0 && newer.tail[63] == 0);                   \
    } while (0)

static void structures(void) {
    struct { locutor_model_params known; unsigned char tail[64]; } newer;
    locutor_model_params params;
    locutor_model *model = NULL;
    INIT(locutor_error, 0);
    INIT(locutor_model_params, 0);
    INIT(locutor_model_info, 0);
    INIT(locutor_session_params, 0);
    INIT(locutor_session_plan, 0);
    INIT(locutor_sampler_params, 0);
    INIT(locutor_budget, 0);
    INIT(locutor_event, 0);

    /* A program with a newer header: fine as long as it does not use what this library does not know. */
    OK(locutor_model_params_init(&newer.known, sizeof newer));
    newer.known.path = path;
    OK(locutor_model_create(&newer.known, &model, NULL));
    locutor_model_destroy(model);
    newer.tail[40] = 1;
    STATUS(LOCUTOR_ERR_STRUCT_SIZE, locutor_model_create(&newer.known, &model, NULL));
    memset(&params, 0, sizeof params);
    params.path = path;
    STATUS(LOCUTOR_ERR_STRUCT_SIZE, locutor_model_create(&params, &model, NULL));
    params.struct_size = 8;
    STATUS(LOCUTOR_ERR_STRUCT_SIZE, locutor_model_create(&params, &model, NULL));
}

static int32_t read_file(void *user, uint64_t offset, void *destination, size_t len) {
    if (user) return *(int32_t *)user;
    if (offset > n_bytes || len > n_bytes - offset) return 1;
    memcpy(destination, bytes + offset, len);
    return 0;
}

static void wrong_models(void) {
    locutor_model_params params;
    locutor_model *untouched = (locutor_model *)&failures, *model = untouched;
    locutor_error error;
    int32_t seven = 7;
    size_t i;
    OK(locutor_error_init(&error, sizeof error));

    params = from_path();
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_model_create(NULL, &model, &error));
    CHECK(error.code == LOCUTOR_ERR_ARGUMENT && strlen(error.text) > 5);
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_model_create(&params, NULL, &error));
    params.path = NULL;
    STATUS(LOCUTOR_ERR_PARAM, locutor_model_create(&params, &model, &error));
    params = from_data();
    params.path = path;
    STATUS(LOCUTOR_ERR_PARAM, locutor_model_create(&params, &model, &error));
    params = from_path();
    params.flags = 64;
    STATUS(LOCUTOR_ERR_PARAM, locutor_model_create(&params, &model, NULL));
    params = from_data();
    params.flags = LOCUTOR_MODEL_MAP;
    STATUS(LOCUTOR_ERR_PARAM, locutor_model_create(&params, &model, NULL));
    params.flags = LOCUTOR_MODEL_HEADER;
    STATUS(LOCUTOR_ERR_PARAM, locutor_model_create(&params, &model, &error));
    CHECK(strstr(error.text, "LOCUTOR_MODEL_HEADER is for"));
    params = from_data();
    params.len = 1;
    STATUS(LOCUTOR_ERR_PARAM, locutor_model_create(&params, &model, &error));
    CHECK(strstr(error.text, "offset and len"));
    params = from_path();
    params.flags = LOCUTOR_MODEL_HEADER | LOCUTOR_MODEL_MAP;
    STATUS(LOCUTOR_ERR_PARAM, locutor_model_create(&params, &model, &error));
    CHECK(strstr(error.text, "excludes LOCUTOR_MODEL_MAP"));
    params = from_path();
    params.path = "/no/such/file.gguf";
    STATUS(LOCUTOR_ERR_IO, locutor_model_create(&params, &model, &error));
    CHECK(error.code == LOCUTOR_ERR_IO && strstr(error.text, "open"));
    params.offset = 1;
    STATUS(LOCUTOR_ERR_IO, locutor_model_create(&params, &model, &error));
    CHECK(strstr(error.text, "cannot open the file at byte 0: entity not found"));
    params.offset = 0;
    params.path = "/";
    STATUS(LOCUTOR_ERR_IO, locutor_model_create(&params, &model, NULL));
    params.offset = 1;
    STATUS(LOCUTOR_ERR_IO, locutor_model_create(&params, &model, NULL));
    params = from_path();
    params.len = n_bytes + 1;
    STATUS(LOCUTOR_ERR_IO, locutor_model_create(&params, &model, NULL));
    params.path = NULL;
    params.len = 0;
    params.flags = LOCUTOR_MODEL_FD;
    STATUS(LOCUTOR_ERR_IO, locutor_model_create(&params, &model, NULL));

    for (i = 0; i < n_bytes && i < 4000; i += 1 + i / 7) {
        params = from_data();
        params.data_len = i;
        CHECK(locutor_model_create(&params, &model, &error) < 0);
    }
    params = from_data();
    params.data_len = 100;
    STATUS(LOCUTOR_ERR_FORMAT, locutor_model_create(&params, &model, &error));
    CHECK(strstr(error.text, "byte"));
    OK(locutor_model_params_init(&params, sizeof params));
    params.read = read_file;
    params.read_user = &seven;
    params.read_len = n_bytes;
    STATUS(LOCUTOR_ERR_IO, locutor_model_create(&params, &model, &error));
    CHECK(strstr(error.text, "7"));
    CHECK(model == untouched);
    locutor_model_destroy(NULL);

    /* A structure for words that was not initialised is left alone. */
    memset(&error, 0, sizeof error);
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_model_create(NULL, &model, &error));
    CHECK(error.code == 0 && error.text[0] == 0);
}

/* All sources of a model give the same answers. */
static void sources(const char *pack, uint64_t offset, const char *expected) {
    int i;
    int fd = open(pack, O_RDONLY);
    CHECK(fd >= 0);
    for (i = 0; i < 9; i++) {
        locutor_model_params params = from_path();
        locutor_session_params sp = session_params();
        locutor_model *model = NULL;
        locutor_session *session = NULL;
        locutor_error error;
        locutor_model_info info;
        void *memory = NULL;
        char text[4096];
        OK(locutor_error_init(&error, sizeof error));
        const int mapped = i == 1 || i == 5 || i == 7;
        if (mapped) params.flags = LOCUTOR_MODEL_MAP;
        if (i >= 2) params.path = NULL;
        if (i == 2) {
            params.read = read_file;
            params.read_len = n_bytes;
        }
        if (i == 3 || i == 6) params = from_data();
        if (i == 4 || i == 7) params.path = pack;
        if (i == 5 || i == 8) {
            params.flags |= LOCUTOR_MODEL_FD;
            params.fd = fd;
        }
        if (i == 4 || i == 5 || i >= 7) {
            params.offset = offset;
            params.len = n_bytes;
        }
        if (i == 6) {
            size_t size = 0;
            OK(locutor_model_size(&params, &size, &error));
            memory = aligned(size);
            STATUS(LOCUTOR_ERR_MEMORY_SIZE, locutor_model_init(&params, memory, size - 1, &model, &error));
            STATUS(LOCUTOR_ERR_MEMORY_ALIGN, locutor_model_init(&params, (char *)memory + 8, size, &model, &error));
            STATUS(LOCUTOR_ERR_ARGUMENT, locutor_model_init(&params, NULL, size, &model, &error));
            STATUS(LOCUTOR_ERR_ARGUMENT, locutor_model_init(&params, memory, size, NULL, &error));
            CHECK(model == NULL);
            OK(locutor_model_init(&params, memory, size, &model, &error));
            CHECK(((unsigned char *)memory)[size] == 0xA5);
        } else {
            OK(locutor_model_create(&params, &model, &error));
        }
        if (!model) {
            printf("source %d: %s\n", i, error.text);
            return;
        }
        OK(locutor_model_info_init(&info, sizeof info));
        OK(locutor_model_get_info(model, &info));
        CHECK(!!(info.flags & LOCUTOR_MODEL_IS_MAPPED) == mapped);
        CHECK(info.file_bytes == n_bytes && info.struct_size == sizeof info);
        OK(locutor_session_create(model, &sp, &session, &error));
        /* The session keeps the model. */
        locutor_model_destroy(model);
        answer(session, NULL, text, sizeof text);
        CHECK(!strcmp(text, expected));
        locutor_session_destroy(session);
        free(memory);
    }
    /* The front alone, by a reader and out of the pack. */
    for (i = 0; i < 2; i++) {
        locutor_model_params params = from_path();
        locutor_session_params sp = session_params();
        locutor_model *model = NULL;
        locutor_session *session = NULL;
        locutor_model_info info;
        uint32_t ids[64];
        size_t n = 0;
        params.path = NULL;
        params.flags = LOCUTOR_MODEL_HEADER;
        if (i == 0) {
            params.read = read_file;
            params.read_len = n_bytes;
        } else {
            params.flags |= LOCUTOR_MODEL_FD;
            params.fd = fd;
            params.offset = offset;
            params.len = n_bytes;
        }
        OK(locutor_model_create(&params, &model, NULL));
        OK(locutor_model_info_init(&info, sizeof info));
        OK(locutor_model_get_info(model, &info));
        CHECK(info.file_bytes == n_bytes && info.table_bytes == 0 && !(info.flags & LOCUTOR_MODEL_IS_MAPPED));
        OK(locutor_model_tokenize(model, "a day", 5, 0, ids, 64, &n, NULL));
        CHECK(n > 0 && n <= 6);
        STATUS(LOCUTOR_ERR_PARAM, locutor_session_create(model, &sp, &session, NULL));
        CHECK(session == NULL);
        locutor_model_destroy(model);
    }
    close(fd);
    {
        locutor_model_params params = from_path();
        size_t size;
        STATUS(LOCUTOR_ERR_PARAM, locutor_model_size(&params, &size, NULL));
        params = from_data();
        STATUS(LOCUTOR_ERR_ARGUMENT, locutor_model_size(&params, NULL, NULL));
        STATUS(LOCUTOR_ERR_ARGUMENT, locutor_model_size(NULL, &size, NULL));
    }
}

static void tokenizer(const locutor_model *model) {
    locutor_model_info info;
    locutor_error error;
    uint32_t ids[64], none = LOCUTOR_NO_TOKEN;
    char text[256];
    size_t n = 99, len = 99, i;
    OK(locutor_error_init(&error, sizeof error));
    OK(locutor_model_info_init(&info, sizeof info));
    OK(locutor_model_get_info(model, &info));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_model_get_info(NULL, &info));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_model_get_info(model, NULL));
    CHECK((info.flags & LOCUTOR_MODEL_HAS_TOKENIZER) && info.vocab > 0 && info.layers > 0 && info.width > 0);
    CHECK(info.architecture && info.architecture_len > 0 && info.context > 0 && info.table_bytes > 0);

    OK(locutor_model_tokenize(model, "a day", 5, 0, ids, 64, &n, &error));
    CHECK(n > 0 && n <= 6);
    for (i = 0; i < n; i++) CHECK(ids[i] < info.vocab);
    OK(locutor_model_detokenize(model, ids, n, text, sizeof text, &len, &error));
    CHECK(len == 5 && !memcmp(text, "a day", 5));
    i = n;
    n = 0;
    STATUS(LOCUTOR_ERR_BUFFER, locutor_model_tokenize(model, "a day", 5, 0, NULL, 0, &n, &error));
    CHECK(n == i && error.code == LOCUTOR_ERR_BUFFER);
    len = 0;
    STATUS(LOCUTOR_ERR_BUFFER, locutor_model_detokenize(model, ids, n, NULL, 0, &len, NULL));
    CHECK(len == 5);
    memset(text, 'x', sizeof text);
    STATUS(LOCUTOR_ERR_BUFFER, locutor_model_detokenize(model, ids, n, text, 4, &len, NULL));
    CHECK(text[4] == 'x');
    OK(locutor_model_tokenize(model, NULL, 0, LOCUTOR_TEXT_MARKUP, NULL, 0, &n, NULL));
    CHECK(n == 0);
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_model_tokenize(model, NULL, 5, 0, ids, 64, &n, NULL));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_model_tokenize(model, "a", 1, 0, NULL, 64, &n, NULL));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_model_tokenize(model, "a", 1, 0, ids, 64, NULL, NULL));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_model_tokenize(NULL, "a", 1, 0, ids, 64, &n, NULL));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_model_tokenize(model, "a", (size_t)-1, 0, ids, 64, &n, NULL));
    STATUS(LOCUTOR_ERR_UTF8, locutor_model_tokenize(model, "\xff", 1, 0, ids, 64, &n, NULL));
    STATUS(LOCUTOR_ERR_PARAM, locutor_model_tokenize(model, "a", 1, 8, ids, 64, &n, NULL));
    STATUS(LOCUTOR_ERR_TOKEN, locutor_model_detokenize(model, &none, 1, text, sizeof text, &len, &error));
    CHECK(error.code == LOCUTOR_ERR_TOKEN && strstr(error.text, "there is no token 4294967295, the vocabulary has"));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_model_detokenize(model, ids, 1, text, sizeof text, NULL, NULL));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_model_detokenize(NULL, ids, 1, text, sizeof text, &len, NULL));
}

/* Every function of a session with NULL instead of it. */
static void no_session(void) {
    uint32_t id = 1;
    const uint32_t *ids;
    const float *logits;
    const char *name;
    size_t n;
    int32_t ready;
    uint64_t rng;
    double sum;
    locutor_error error;
    locutor_event event;
    locutor_sampler_params sampler;
    OK(locutor_error_init(&error, sizeof error));
    OK(locutor_event_init(&event, sizeof event));
    OK(locutor_sampler_params_init(&sampler, sizeof sampler));
    locutor_session_destroy(NULL);
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_get_error(NULL, &error));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_isa(NULL, &name, &n));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_feed_text(NULL, "a", 1, 0, NULL));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_feed_tokens(NULL, &id, 1));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_truncate(NULL, 0));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_tokens(NULL, &ids, &n));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_room(NULL, &n));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_set_sampler(NULL, &sampler));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_get_rng(NULL, &rng));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_set_rng(NULL, 1));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_set_max_tokens(NULL, 1));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_set_ignore_end(NULL, 1));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_set_stops(NULL, NULL, NULL, 0));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_step(NULL, NULL, &event));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_step_token(NULL, NULL, &event));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_advance(NULL, NULL, &ready));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_logits(NULL, &logits, &n));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_log_prob(NULL, &id, 1, NULL, &sum));
}

/* The other pointers of a session's functions, and calls in the wrong order. */
static void wrong_calls(const locutor_model *model) {
    locutor_session_params params = session_params();
    locutor_session *session = NULL;
    locutor_error error;
    locutor_event event;
    locutor_sampler_params sampler;
    locutor_session_plan plan;
    locutor_budget budget;
    const char *stop = "\xff";
    const uint32_t *ids;
    const float *logits;
    const char *name;
    char long_text[1000];
    size_t n = 1, room;
    uint32_t none = LOCUTOR_NO_TOKEN, id = 1;
    uint64_t rng;
    double sum;
    int32_t ready;
    OK(locutor_error_init(&error, sizeof error));
    OK(locutor_event_init(&event, sizeof event));
    OK(locutor_sampler_params_init(&sampler, sizeof sampler));
    OK(locutor_session_plan_init(&plan, sizeof plan));

    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_create(NULL, &params, &session, &error));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_create(model, NULL, &session, &error));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_create(model, &params, NULL, &error));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_get_plan(NULL, &params, &plan, &error));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_get_plan(model, NULL, &plan, &error));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_get_plan(model, &params, NULL, &error));
    params.isa = "abacus";
    STATUS(LOCUTOR_ERR_PARAM, locutor_session_create(model, &params, &session, &error));
    CHECK(strstr(error.text, "isa"));
    params = session_params();
    params.flags = 1;
    STATUS(LOCUTOR_ERR_PARAM, locutor_session_create(model, &params, &session, NULL));
    params = session_params();
    params.kv_keys = LOCUTOR_KV_I16 + 1;
    STATUS(LOCUTOR_ERR_PARAM, locutor_session_create(model, &params, &session, &error));
    CHECK(strstr(error.text, "kv_keys"));
    params = session_params();
    params.kv_values = 255;
    STATUS(LOCUTOR_ERR_PARAM, locutor_session_create(model, &params, &session, &error));
    CHECK(strstr(error.text, "kv_values"));
    params = session_params();
    params.precision = 1;
    STATUS(LOCUTOR_ERR_PARAM, locutor_session_create(model, &params, &session, NULL));
    params = session_params();
    params.threads = 100000;
    STATUS(LOCUTOR_ERR_PARAM, locutor_session_create(model, &params, &session, NULL));
    params = session_params();
    params.context = UINT32_MAX;
    CHECK(locutor_session_create(model, &params, &session, NULL) < 0);
    CHECK(session == NULL);

    params = session_params();
    params.text_bytes = 500;
    OK(locutor_session_create(model, &params, &session, &error));
    OK(locutor_session_get_error(session, &error));
    CHECK(error.code == LOCUTOR_OK);
    STATUS(LOCUTOR_ERR_NOT_READY, locutor_session_logits(session, &logits, &n));
    STATUS(LOCUTOR_ERR_EMPTY, locutor_session_step(session, NULL, &event));
    OK(locutor_session_get_error(session, &error));
    CHECK(error.code == LOCUTOR_ERR_EMPTY && strlen(error.text) > 5);
    STATUS(LOCUTOR_ERR_EMPTY, locutor_session_advance(session, NULL, &ready));
    STATUS(LOCUTOR_ERR_EMPTY, locutor_session_log_prob(session, &id, 1, NULL, &sum));
    STATUS(LOCUTOR_ERR_POSITION, locutor_session_truncate(session, 1));
    STATUS(LOCUTOR_ERR_TOKEN, locutor_session_feed_tokens(session, &none, 1));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_feed_tokens(session, NULL, 1));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_feed_text(session, NULL, 1, 0, NULL));
    STATUS(LOCUTOR_ERR_UTF8, locutor_session_feed_text(session, "\xc3", 1, 0, NULL));
    STATUS(LOCUTOR_ERR_PARAM, locutor_session_feed_text(session, "a", 1, 2, NULL));
    memset(long_text, 'a', sizeof long_text);
    STATUS(LOCUTOR_ERR_TEXT_LENGTH, locutor_session_feed_text(session, long_text, 501, 0, NULL));
    OK(locutor_session_room(session, &room));
    CHECK(room == 96);
    OK(locutor_session_feed_text(session, "a day", 5, 0, &n));
    OK(locutor_session_tokens(session, &ids, &room));
    CHECK(room == n);
    {
        uint32_t many[97] = {0};
        STATUS(LOCUTOR_ERR_CONTEXT_FULL, locutor_session_feed_tokens(session, many, 97));
        OK(locutor_session_tokens(session, &ids, &room));
        CHECK(room == n);
    }
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_step(session, NULL, NULL));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_step_token(session, NULL, NULL));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_advance(session, NULL, NULL));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_logits(session, NULL, &n));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_log_prob(session, &id, 1, NULL, NULL));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_log_prob(session, NULL, 1, NULL, &sum));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_tokens(session, NULL, &n));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_room(session, NULL));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_isa(session, &name, NULL));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_get_rng(session, NULL));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_get_error(session, NULL));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_set_sampler(session, NULL));
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_set_stops(session, NULL, NULL, 1));
    STATUS(LOCUTOR_ERR_UTF8, locutor_session_set_stops(session, &stop, (n = 1, &n), 1));
    event.struct_size = 0;
    STATUS(LOCUTOR_ERR_STRUCT_SIZE, locutor_session_step(session, NULL, &event));
    memset(&budget, 0, sizeof budget);
    OK(locutor_event_init(&event, sizeof event));
    STATUS(LOCUTOR_ERR_STRUCT_SIZE, locutor_session_step(session, &budget, &event));
    OK(locutor_budget_init(&budget, sizeof budget));
    budget.reserved = 1;
    STATUS(LOCUTOR_ERR_PARAM, locutor_session_step(session, &budget, &event));
    OK(locutor_session_get_error(session, &error));
    CHECK(strstr(error.text, "budget.reserved"));

    OK(locutor_session_get_rng(session, &rng));
    sampler.temperature = NAN;
    STATUS(LOCUTOR_ERR_PARAM, locutor_session_set_sampler(session, &sampler));
    OK(locutor_session_get_error(session, &error));
    CHECK(strstr(error.text, "temperature"));
    OK(locutor_sampler_params_init(&sampler, sizeof sampler));
    sampler.n_logit_bias = 1;
    STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_set_sampler(session, &sampler));
    {
        locutor_bias outside = {LOCUTOR_NO_TOKEN, 1.0f};
        sampler.logit_bias = &outside;
        OK(locutor_session_set_sampler(session, &sampler));
        STATUS(LOCUTOR_ERR_TOKEN, locutor_session_step(session, NULL, &event));
    }
    locutor_session_destroy(session);
}

struct host {
    locutor_session *session;
    uint64_t now;
    int calls;
    int style;
};

static uint64_t clock_now(void *user) {
    struct host *host = user;
    size_t room;
    if (host->calls++ == 3) {
        STATUS(LOCUTOR_ERR_BUSY, locutor_session_room(host->session, &room));
        STATUS(LOCUTOR_ERR_BUSY, locutor_session_truncate(host->session, 0));
        locutor_session_destroy(host->session);
    }
    return host->now++;
}

struct call {
    locutor_job_fn job;
    void *arg;
    uint32_t n, first, worker, workers;
};

/* Threads of engines often round numbers in ways of their own, or flush small ones to zero (FTZ and DAZ). */
#if defined(__x86_64__) || defined(__i386__)
#include <xmmintrin.h>
static void flush_to_zero(int on) { _mm_setcsr(on ? _mm_getcsr() | 0x8040u : _mm_getcsr() & ~0x8040u); }
static int flushes_to_zero(void) { return (_mm_getcsr() & 0x8040u) == 0x8040u; }
#else
static void flush_to_zero(int on) { (void)on; }
static int flushes_to_zero(void) { return 1; }
#endif

static void *call_jobs(void *argument) {
    struct call *call = argument;
    uint32_t i;
    fesetround(FE_UPWARD);
    flush_to_zero(1);
    for (i = call->first; i < call->n; i += call->workers) call->job(call->arg, i, call->worker);
    CHECK(fegetround() == FE_UPWARD && flushes_to_zero());
    return NULL;
}

/* Job systems: one that does nothing, one that calls backwards, too often and for workers there are none, and one with
 * threads. */
static void run_jobs(void *user, uint32_t workers, uint32_t n, locutor_job_fn job, void *arg) {
    struct host *host = user;
    uint32_t i;
    CHECK(workers >= 2 && workers <= 3 && n >= 2);
    host->calls++;
    if (host->style == 1)
        for (i = n + 2; i-- > 0;) job(arg, i, i % (workers + 1));
    if (host->style == 2) {
        struct call calls[8];
        pthread_t threads[8];
        for (i = 0; i < workers; i++) {
            struct call call;
            call.job = job, call.arg = arg, call.n = n, call.first = i, call.worker = i, call.workers = workers;
            calls[i] = call;
            if (pthread_create(&threads[i], NULL, call_jobs, &calls[i])) abort();
        }
        for (i = 0; i < workers; i++) pthread_join(threads[i], NULL);
    }
}

/* The same text whatever threads, memory, budget and kernels. */
static void sameness(const locutor_model *model, const char *expected) {
    int i;
    for (i = 0; i < 9; i++) {
        locutor_session_params params = session_params();
        locutor_session_plan plan;
        locutor_session *session = NULL;
        locutor_budget budget, *used = NULL;
        locutor_error error;
        struct host host;
        void *memory = NULL;
        char text[4096];
        memset(&host, 0, sizeof host);
        OK(locutor_error_init(&error, sizeof error));
        OK(locutor_budget_init(&budget, sizeof budget));
        OK(locutor_session_plan_init(&plan, sizeof plan));
        if (i == 1) params.threads = 4;
        if (i == 2) params.isa = "scalar";
        if (i == 3) {
            budget.units = 3;
            used = &budget;
        }
        if (i == 4) {
            budget.clock = clock_now;
            budget.clock_user = &host;
            used = &budget;
        }
        if (i >= 5 && i <= 7) {
            params.threads = 3;
            params.parallel_for = run_jobs;
            params.parallel_for_user = &host;
            host.style = i - 5;
        }
        if (i >= 7) {
            size_t size;
            if (i == 8) params.batch = 1;
            OK(locutor_session_get_plan(model, &params, &plan, &error));
            CHECK(plan.context == 96 && plan.bytes == plan.kv_bytes + plan.logits_bytes + plan.scratch_bytes);
            size = (size_t)plan.bytes;
            memory = aligned(size);
            STATUS(LOCUTOR_ERR_MEMORY_SIZE, locutor_session_init(model, &params, memory, size - 1, &session, &error));
            STATUS(LOCUTOR_ERR_MEMORY_ALIGN,
                   locutor_session_init(model, &params, (char *)memory + 16, size, &session, &error));
            STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_init(model, &params, NULL, size, &session, &error));
            STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_init(model, &params, memory, size, NULL, &error));
            STATUS(LOCUTOR_ERR_ARGUMENT, locutor_session_init(model, NULL, memory, size, &session, &error));
            if (i == 8) {
                params.threads = 2;
                STATUS(LOCUTOR_ERR_PARAM, locutor_session_init(model, &params, memory, size, &session, &error));
                params.threads = 1;
            }
            CHECK(session == NULL);
            OK(locutor_session_init(model, &params, memory, size, &session, &error));
            CHECK(((unsigned char *)memory)[size] == 0xA5);
        } else {
            OK(locutor_session_create(model, &params, &session, &error));
        }
        if (!session) {
            printf("way %d: %s\n", i, error.text);
            return;
        }
        host.session = session;
        if (i == 4) {
            /* The clock shows one more whenever it is asked; twelve looks at it a step. */
            locutor_event event;
            OK(locutor_event_init(&event, sizeof event));
            OK(locutor_session_feed_text(session, "One day", 7, 0, NULL));
            budget.until = 12;
            OK(locutor_session_step(session, &budget, &event));
            CHECK(event.kind == LOCUTOR_EVENT_PENDING && host.calls > 3);
            OK(locutor_session_truncate(session, 0));
            used = NULL;
        }
        answer(session, used, text, sizeof text);
        CHECK(!strcmp(text, expected));
        if (strcmp(text, expected)) printf("way %d: `%s` instead of `%s`\n", i, text, expected);
        CHECK(!params.parallel_for || host.calls > 0);
        if (i == 2) {
            const char *name;
            size_t len;
            OK(locutor_session_isa(session, &name, &len));
            CHECK(len == 6 && !memcmp(name, "scalar", 6));
        }
        locutor_session_destroy(session);
        free(memory);
    }
}

/* The logits behind a prompt, which the caller frees. */
static float *logits_of(const locutor_model *model, const locutor_session_params *params, size_t *n) {
    locutor_session *session = NULL;
    const float *logits;
    float *copy;
    int32_t ready = 0;
    OK(locutor_session_create(model, params, &session, NULL));
    OK(locutor_session_feed_text(session, "One day a fox saw the moon", 26, 0, NULL));
    OK(locutor_session_advance(session, NULL, &ready));
    OK(locutor_session_logits(session, &logits, n));
    copy = malloc(*n * sizeof *copy);
    if (!copy) abort();
    memcpy(copy, logits, *n * sizeof *copy);
    locutor_session_destroy(session);
    return copy;
}

/* Finer and coarser storage and rounding: other memory, nearly the same numbers. */
static void precision(const locutor_model *model) {
    locutor_session_params params = session_params();
    locutor_session_plan plan, finer;
    size_t n, m, i;
    float *usual = logits_of(model, &params, &n), *fine;
    double difference = 0;
    OK(locutor_session_plan_init(&plan, sizeof plan));
    OK(locutor_session_plan_init(&finer, sizeof finer));
    OK(locutor_session_get_plan(model, &params, &plan, NULL));
    params.kv_keys = params.kv_values = LOCUTOR_KV_F32;
    params.precision = LOCUTOR_PRECISION_16;
    OK(locutor_session_get_plan(model, &params, &finer, NULL));
    /* 32 bits a number instead of 16, but no scales. */
    CHECK(finer.kv_bytes > plan.kv_bytes && finer.kv_bytes <= 2 * plan.kv_bytes);
    fine = logits_of(model, &params, &m);
    for (i = 0; i < n && n == m; i++) difference = fmax(difference, fabs(usual[i] - fine[i]));
    CHECK(difference > 0 && difference < 1);
    free(fine);
    /* Coarser than usual, where anything is rounded at all. */
    params = session_params();
    params.precision = LOCUTOR_PRECISION_8;
    fine = logits_of(model, &params, &m);
    difference = 0;
    for (i = 0; i < n && n == m; i++) difference = fmax(difference, fabs(usual[i] - fine[i]));
    CHECK(n == m && difference < 1);
    free(fine);
    /* One of the two in 8 bits, and both. */
    params = session_params();
    params.kv_keys = LOCUTOR_KV_Q8_0;
    OK(locutor_session_get_plan(model, &params, &finer, NULL));
    CHECK(finer.kv_bytes > plan.kv_bytes / 2 && finer.kv_bytes < plan.kv_bytes);
    n = (size_t)(plan.kv_bytes - finer.kv_bytes);
    params.kv_values = LOCUTOR_KV_Q8_0;
    OK(locutor_session_get_plan(model, &params, &finer, NULL));
    CHECK(plan.kv_bytes - finer.kv_bytes == 2 * n);
    fine = logits_of(model, &params, &n);
    difference = 0;
    for (i = 0; i < n && n == m; i++) difference = fmax(difference, fabs(usual[i] - fine[i]));
    CHECK(difference > 0 && difference < 1);
    free(fine);
    free(usual);
}

/* The same bits on threads that round upward, and the rounding is theirs again afterwards. */
static void rounding(const locutor_model *model) {
    locutor_session_params params = session_params();
    struct host host;
    size_t n, m;
    float *expected = logits_of(model, &params, &n), *logits;
    memset(&host, 0, sizeof host);
    host.style = 2;
    fesetround(FE_UPWARD);
    logits = logits_of(model, &params, &m);
    CHECK(fegetround() == FE_UPWARD);
    fesetround(FE_TONEAREST);
    CHECK(n == m && !memcmp(expected, logits, n * sizeof *logits));
    free(logits);
    flush_to_zero(1);
    logits = logits_of(model, &params, &m);
    CHECK(flushes_to_zero());
    flush_to_zero(0);
    CHECK(n == m && !memcmp(expected, logits, n * sizeof *logits));
    free(logits);
    params.threads = 3;
    params.parallel_for = run_jobs;
    params.parallel_for_user = &host;
    logits = logits_of(model, &params, &m);
    CHECK(n == m && !memcmp(expected, logits, n * sizeof *logits));
    free(logits);
    free(expected);
}

static void numbers(const locutor_model *model) {
    locutor_session_params params = session_params();
    locutor_session *session = NULL;
    locutor_event event;
    locutor_model_info info;
    const float *logits;
    size_t n, i, fed;
    uint32_t first[4], again[4];
    double each[2], sum = 0, total = 0, largest = -INFINITY, by_hand;
    uint64_t rng;
    int32_t ready = 0;
    OK(locutor_model_info_init(&info, sizeof info));
    OK(locutor_model_get_info(model, &info));
    OK(locutor_event_init(&event, sizeof event));
    OK(locutor_session_create(model, &params, &session, NULL));
    OK(locutor_session_feed_text(session, "One day", 7, 0, &fed));
    OK(locutor_session_advance(session, NULL, &ready));
    CHECK(ready == 1);
    OK(locutor_session_logits(session, &logits, &n));
    CHECK(n == info.vocab);
    for (i = 0; i < n; i++) largest = logits[i] > largest ? logits[i] : largest;
    for (i = 0; i < n; i++) total += exp(logits[i] - largest);
    by_hand = logits[1] - largest - log(total);

    /* Tokens, and the random numbers saved and taken up again. */
    OK(locutor_session_set_ignore_end(session, 1));
    OK(locutor_session_get_rng(session, &rng));
    for (i = 0; i < 4; i++) {
        OK(locutor_session_step_token(session, NULL, &event));
        CHECK(event.kind == LOCUTOR_EVENT_TOKEN && event.token < info.vocab && event.text_len == 0);
        first[i] = event.token;
    }
    OK(locutor_session_truncate(session, fed));
    OK(locutor_session_set_rng(session, rng));
    for (i = 0; i < 4; i++) {
        OK(locutor_session_step_token(session, NULL, &event));
        again[i] = event.token;
    }
    CHECK(!memcmp(first, again, sizeof first));

    OK(locutor_session_truncate(session, fed));
    again[0] = 1;
    OK(locutor_session_log_prob(session, again, 2, each, &sum));
    CHECK(fabs(sum - each[0] - each[1]) < 1e-9 && fabs(each[0] - by_hand) < 1e-4);

    /* A stop string: what the model says without it, from its second letter on. */
    {
        char text[4096];
        const char *stop = text + 1;
        size_t len = 3;
        locutor_session_destroy(session);
        OK(locutor_session_create(model, &params, &session, NULL));
        answer(session, NULL, text, sizeof text);
        if ((text[1] & 0x80) == 0 && (text[4] & 0x80) == 0 && (text[2] & 0x80) == 0) {
            OK(locutor_session_truncate(session, 0));
            OK(locutor_session_set_rng(session, 0));
            OK(locutor_session_set_stops(session, &stop, &len, 1));
            OK(locutor_session_set_max_tokens(session, 24));
            OK(locutor_session_feed_text(session, "One day", 7, 0, NULL));
            do {
                OK(locutor_session_step(session, NULL, &event));
            } while (event.kind == LOCUTOR_EVENT_PIECE || event.kind == LOCUTOR_EVENT_TOKEN);
            CHECK(event.kind == LOCUTOR_EVENT_DONE && event.finish == LOCUTOR_FINISH_STOP);
        }
    }
    /* The context runs full: an error, and the session goes on after it. */
    OK(locutor_session_set_stops(session, NULL, NULL, 0));
    OK(locutor_session_set_max_tokens(session, UINT64_MAX));
    OK(locutor_session_truncate(session, 0));
    OK(locutor_session_feed_text(session, "One day", 7, 0, NULL));
    for (i = 0; i < 300; i++) {
        int32_t status = locutor_session_step(session, NULL, &event);
        if (status == LOCUTOR_ERR_CONTEXT_FULL) break;
        OK(status);
    }
    CHECK(i < 300);
    OK(locutor_session_truncate(session, 2));
    OK(locutor_session_step_token(session, NULL, &event));
    locutor_session_destroy(session);
}

static int test(int argc, char **argv) {
    locutor_model_params params;
    locutor_session_params sp;
    locutor_model *model = NULL;
    locutor_session *session = NULL;
    char expected[4096];
    FILE *file;
    if (argc != 4) return 2;
    path = argv[1];
    file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) return 2;
    n_bytes = (size_t)ftell(file);
    rewind(file);
    bytes = malloc(n_bytes);
    if (!bytes || fread(bytes, 1, n_bytes, file) != n_bytes) return 2;
    fclose(file);

    version_and_status();
    structures();
    wrong_models();
    no_session();
    params = from_path();
    sp = session_params();
    OK(locutor_model_create(&params, &model, NULL));
    OK(locutor_session_create(model, &sp, &session, NULL));
    answer(session, NULL, expected, sizeof expected);
    locutor_session_destroy(session);
    tokenizer(model);
    wrong_calls(model);
    sameness(model, expected);
    precision(model);
    rounding(model);
    numbers(model);
    locutor_model_destroy(model);
    sources(argv[2], strtoull(argv[3], NULL, 10), expected);
    free(bytes);
    if (failures) printf("%d promises are broken\n", failures);
    return failures != 0;
}

int main(int argc, char **argv) { return on_small_stack(test, argc, argv); }
