/*
 * An allocator without memory, from C: the first call of malloc and its like fails, then the second, and so on, each
 * once and for ever. Every function that allocates says LOCUTOR_ERR_MEMORY, gives back what it had, and works afterwards.
 * Linked so that the library's calls come here (-Wl,--wrap).
 *
 *     faults MODEL
 *
 * Exit status 1 if a promise of locutor.h is broken.
 */
#include "check.h"

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
int __real_posix_memalign(void **memory, size_t alignment, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void __real_free(void *memory);

/* Calls that still succeed; -1 while nothing fails. */
static long good = -1;
static int forever;
static long calls, held;

static int refuses(void) {
    calls++;
    if (good < 0) return 0;
    if (good > 0) {
        good--;
        return 0;
    }
    if (!forever) good = -1;
    return 1;
}

static void *given(void *memory) {
    if (memory) held++;
    return memory;
}

void *__wrap_malloc(size_t size) { return refuses() ? NULL : given(__real_malloc(size)); }
void *__wrap_calloc(size_t n, size_t size) { return refuses() ? NULL : given(__real_calloc(n, size)); }
void *__wrap_aligned_alloc(size_t alignment, size_t size) {
    return refuses() ? NULL : given(__real_aligned_alloc(alignment, size));
}
void *__wrap_realloc(void *old, size_t size) {
    void *memory;
    if (refuses()) return NULL;
    memory = __real_realloc(old, size);
    if (!old) given(memory);
    return memory;
}
int __wrap_posix_memalign(void **memory, size_t alignment, size_t size) {
    int status;
    if (refuses()) return 12;
    status = __real_posix_memalign(memory, alignment, size);
    if (!status) held++;
    return status;
}
void __wrap_free(void *memory) {
    if (memory) held--;
    __real_free(memory);
}

static const char *path;
static unsigned char *bytes;
static size_t n_bytes;
static locutor_model *model;

/* What is tried: creates, and destroys again when that worked. Each returns the status. */
typedef int32_t (*attempt)(void);

static int32_t read_bytes(void *user, uint64_t offset, void *destination, size_t len) {
    (void)user;
    memcpy(destination, bytes + offset, len);
    return 0;
}

static int32_t open_with(uint32_t flags, int source) {
    locutor_model_params params;
    locutor_model *made = NULL;
    int32_t status;
    OK(locutor_model_params_init(&params, sizeof params));
    params.flags = flags;
    if (source == 0) params.path = path;
    if (source == 1) {
        params.data = bytes;
        params.data_len = n_bytes;
    }
    if (source == 2) {
        params.read = read_bytes;
        params.read_len = n_bytes;
    }
    status = locutor_model_create(&params, &made, NULL);
    CHECK((status == LOCUTOR_OK) == (made != NULL));
    locutor_model_destroy(made);
    return status;
}

static int32_t open_path(void) { return open_with(0, 0); }
static int32_t open_map(void) { return open_with(LOCUTOR_MODEL_MAP, 0); }
static int32_t open_data(void) { return open_with(0, 1); }
static int32_t open_reader(void) { return open_with(0, 2); }

static int32_t create_session(void) {
    locutor_session_params params;
    locutor_session *session = NULL;
    int32_t status;
    OK(locutor_session_params_init(&params, sizeof params));
    params.context = 64;
    params.sequences = 3;
    status = locutor_session_create(model, &params, &session, NULL);
    CHECK((status == LOCUTOR_OK) == (session != NULL));
    locutor_session_destroy(session);
    return status;
}

static int32_t tokenize(void) {
    uint32_t tokens[64];
    size_t n = 0;
    return locutor_model_tokenize(model, "a b c d e f", 11, 0, tokens, 64, &n, NULL);
}

static int32_t detokenize(void) {
    uint32_t tokens[6] = {5, 6, 7, 8, 9, 10};
    char text[256];
    size_t len = 0;
    return locutor_model_detokenize(model, tokens, 6, text, sizeof text, &len, NULL);
}

static void every_failure(const char *name, attempt run) {
    long before, needed, k;
    OK(run());
    before = held;
    calls = 0;
    OK(run());
    needed = calls;
    if (held != before || needed == 0) {
        printf("%s: %ld calls, %ld blocks left\n", name, needed, held - before);
        failures++;
    }
    for (forever = 0; forever < 2; forever++) {
        for (k = 0; k < needed; k++) {
            int32_t status;
            good = k;
            status = run();
            good = -1;
            if (status != LOCUTOR_ERR_MEMORY || held != before) {
                printf("%s, call %ld of %ld: %s, %ld blocks left\n", name, k, needed, locutor_status_text(status),
                       held - before);
                failures++;
            }
            OK(run());
        }
    }
}

static int test(int argc, char **argv) {
    locutor_model_params params;
    FILE *file;
    if (argc != 2) return 2;
    path = argv[1];
    file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) return 2;
    n_bytes = (size_t)ftell(file);
    rewind(file);
    bytes = malloc(n_bytes);
    if (!bytes || fread(bytes, 1, n_bytes, file) != n_bytes) return 2;
    fclose(file);
    every_failure("a path", open_path);
    every_failure("a mapped file", open_map);
    every_failure("data in memory", open_data);
    every_failure("a reader", open_reader);
    OK(locutor_model_params_init(&params, sizeof params));
    params.path = path;
    OK(locutor_model_create(&params, &model, NULL));
    every_failure("a session", create_session);
    every_failure("tokens of a text", tokenize);
    every_failure("the text of tokens", detokenize);
    locutor_model_destroy(model);
    free(bytes);
    if (failures) printf("%d promises are broken\n", failures);
    return failures != 0;
}

int main(int argc, char **argv) { return on_small_stack(test, argc, argv); }
