/*
 * locutor.h: the C interface of Locutor, GPT inference that lives inside another program.
 *
 *     #include "locutor.h"
 *     #include <stdio.h>
 *
 *     int main(void) {
 *         locutor_error error;
 *         locutor_model_params mp;
 *         locutor_session_params sp;
 *         locutor_sampler_params ap;
 *         locutor_event event;
 *         locutor_model *model = NULL;
 *         locutor_session *session = NULL;
 *
 *         locutor_error_init(&error, sizeof error);
 *         locutor_model_params_init(&mp, sizeof mp);
 *         locutor_session_params_init(&sp, sizeof sp);
 *         locutor_sampler_params_init(&ap, sizeof ap);
 *         locutor_event_init(&event, sizeof event);
 *         mp.path = "story.gguf";
 *         ap.seed = 42;
 *         if (locutor_model_create(&mp, &model, &error) ||
 *             locutor_session_create(model, &sp, &session, &error)) {
 *             fprintf(stderr, "%s\n", error.text);
 *             return 1;
 *         }
 *         locutor_session_set_sampler(session, &ap);
 *         locutor_session_feed_text(session, "Once upon a time", 16, 0, NULL);
 *         while (!locutor_session_step(session, NULL, &event) && event.kind != LOCUTOR_EVENT_DONE)
 *             fwrite(event.text, 1, (size_t)event.text_len, stdout);
 *         locutor_session_destroy(session);
 *         locutor_model_destroy(model);
 *         return 0;
 *     }
 *
 * CONVENTIONS, which hold for every function unless it says otherwise
 *
 * Results. A function returns LOCUTOR_OK (0) or a negative status. Outputs are written only on LOCUTOR_OK, with one
 *   exception that is stated where it applies (LOCUTOR_ERR_BUFFER writes the length needed). After an error an object
 *   is as it was before the call. No pointer may be NULL unless its description says so; a NULL is LOCUTOR_ERR_ARGUMENT,
 *   never a crash. Pointers to objects that were destroyed, or to memory that is not there, are beyond what can be
 *   checked.
 * Ownership. "borrows": for the duration of the call. "keeps": until the object is destroyed, or until the call that
 *   replaces it. "gives": the caller gets an object and destroys it. "fills": writes to memory of the caller. "lends":
 *   the caller gets a pointer into the object, good until the next call with that object that is not const.
 * Threads. An object behind a const pointer may be used by any threads at the same time. Otherwise one call at a time;
 *   a session that is in a call answers another one with LOCUTOR_ERR_BUSY and does nothing. Any thread may call, not
 *   only the one that created the object. There is no global state, no thread-local state, and no initialisation.
 * Memory. Functions marked "allocates" may take memory from the allocator; no other function does. Generation never
 *   does. There is no output to a terminal or a log, no access to the environment, and no signal handler.
 * Waiting. Functions marked "blocks" may wait, for what they say; no other function does, and none makes a system call
 *   but those that allocate, destroy or block. No lock is ever held across a callback, and waiting has no time limit of its own.
 * Signals. locutor_session_cancel alone may be called from a signal handler. Others may not, not even locutor_version.
 *   A call that a signal interrupts goes on behind it.
 * Stack. No function needs more than 48 KiB of stack, its callbacks not counted, whatever the model; the threads of a
 *   session have stacks of their own.
 * Callbacks. They are called on the thread that is in the call, unless stated. They must return: no exception and no
 *   longjmp through the library. No lock is held meanwhile. A callback that calls a function with the object it serves
 *   gets LOCUTOR_ERR_BUSY.
 * Structures. Each begins with its size and is filled by its _init function, called with sizeof; it then holds the
 *   defaults. Structures only ever grow at their ends, so programs compiled against an older header work. A member that
 *   this library does not know must be 0.
 * Text. UTF-8, by pointer and length, not ended by a 0. Paths and names are ended by a 0.
 * Numbers. All results are the same bits for any number of threads, batch, budget and processor.
 */
#ifndef LOCUTOR_H
#define LOCUTOR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------- version -- */

/* The version of this header. */
#define LOCUTOR_VERSION "0.1.0"
/* Raised when a program compiled against an older header would not work. Before 1.0 that may happen in any release. */
#define LOCUTOR_ABI 1

/* The library's version. Static. */
const char *locutor_version(void);

/* The library's ABI number; a program works if it equals LOCUTOR_ABI. */
uint32_t locutor_abi(void);

/* -------------------------------------------------------------------------------------------------------- status -- */

#define LOCUTOR_OK 0

/* -1xx: the call. */
#define LOCUTOR_ERR_ARGUMENT (-100)    /* a NULL, an unaligned pointer, or a length beyond the address space */
#define LOCUTOR_ERR_STRUCT_SIZE (-101) /* a structure without its size, or with an unknown member that is not 0 */
#define LOCUTOR_ERR_PARAM (-102)       /* a parameter outside of its range, or parameters that exclude each other */
#define LOCUTOR_ERR_TOKEN (-103)       /* a token that the model does not have */
#define LOCUTOR_ERR_UTF8 (-104)        /* text that is not UTF-8 */
#define LOCUTOR_ERR_POSITION (-105)    /* a position behind the last token */
#define LOCUTOR_ERR_BUFFER (-106)      /* the output does not fit; the length needed was written */
#define LOCUTOR_ERR_TEXT_LENGTH (-107) /* a text or a stop string longer than the session's limits */
#define LOCUTOR_ERR_SEQUENCE (-108)    /* a sequence that does not exist, or no longer */
/* -2xx: the file. */
#define LOCUTOR_ERR_IO (-200)          /* the file cannot be opened or read */
#define LOCUTOR_ERR_FORMAT (-201)      /* the file is damaged, or not a GGUF file */
#define LOCUTOR_ERR_UNSUPPORTED (-202) /* the file is fine, but asks for something this library does not do */
#define LOCUTOR_ERR_NO_TOKENIZER (-203) /* the file has no tokenizer: give and take tokens */
#define LOCUTOR_ERR_STATE (-204)       /* a saved state that is damaged, incomplete, or of a version not known */
#define LOCUTOR_ERR_STATE_OF_OTHER (-205) /* a saved state of another model or of other settings */
/* -3xx: memory. */
#define LOCUTOR_ERR_MEMORY (-300)      /* the allocator has no memory, or the sum exceeds the address space */
#define LOCUTOR_ERR_MEMORY_SIZE (-301) /* the caller's block is too small */
#define LOCUTOR_ERR_MEMORY_ALIGN (-302) /* the caller's block is not aligned to LOCUTOR_ALIGN */
#define LOCUTOR_ERR_THREADS (-303)     /* the system starts no more threads */
/* -4xx: the state of the object. */
#define LOCUTOR_ERR_BUSY (-400)        /* the session is in another call */
#define LOCUTOR_ERR_CONTEXT_FULL (-401) /* no room for so many tokens */
#define LOCUTOR_ERR_EMPTY (-402)       /* there is no token to go on from */
#define LOCUTOR_ERR_NOT_READY (-403)   /* there are no logits: step or advance first */
#define LOCUTOR_ERR_PAGES_FULL (-404)  /* the sequences together have no room: close or truncate one */
#define LOCUTOR_ERR_NO_SEQUENCE (-405) /* all sequences are in use */
#define LOCUTOR_ERR_CANCELLED (-406)   /* the call was ended by locutor_session_cancel */
#define LOCUTOR_ERR_FORGOTTEN (-407)   /* the policy has forgotten what came before the position */
/* -5xx: numbers. */
#define LOCUTOR_ERR_NON_FINITE (-500)  /* the model gave a NaN or an infinity: damaged weights */
#define LOCUTOR_ERR_ALL_BANNED (-501)  /* the logit biases leave no token */
/* -9xx: a fault of the library. The object is unusable but may be destroyed. Please report it. */
#define LOCUTOR_ERR_INTERNAL (-900)

/* A short English description of a status. Static, ended by a 0; never NULL. */
const char *locutor_status_text(int32_t status);

/* What went wrong, in words. Optional wherever it is a parameter: NULL is fine. Filled only on errors. */
typedef struct locutor_error {
    uint32_t struct_size;
    int32_t code;   /* the status */
    char text[504]; /* one line, ended by a 0: names the field, the tensor or the offset at fault */
} locutor_error;

int32_t locutor_error_init(locutor_error *error, size_t size);

/* --------------------------------------------------------------------------------------------------------- model -- */

/* A model: a checked file and its tables. Immutable: any number of sessions and threads use it at the same time. */
typedef struct locutor_model locutor_model;

/* Alignment of memory that the caller gives. */
#define LOCUTOR_ALIGN 64

/* locutor_model_params.flags */
/* Map the file instead of reading it: nothing is copied but the header, and processes share the weights. As long as
 * the model lives, nobody may change or shorten the file; to update a model, write a new file and rename it over the
 * old one. If that is broken, results are wrong numbers, or the system ends the process (SIGBUS). */
#define LOCUTOR_MODEL_MAP 1u
/* The file is the open descriptor `fd` (not on Windows). It is used for the duration of the call, and stays open. */
#define LOCUTOR_MODEL_FD 2u
/* Read the header alone, before the weights are there or wanted: the model tells what it is, plans sessions, and turns
 * text into tokens and back, but has no sessions. For path, read and LOCUTOR_MODEL_FD; not with LOCUTOR_MODEL_MAP. */
#define LOCUTOR_MODEL_HEADER 4u

/* Fills the `len` bytes at `destination` with the file's bytes from `offset` on. Returns 0, or any other number, which
 * then stands in the error's text. */
typedef int32_t (*locutor_read_fn)(void *user, uint64_t offset, void *destination, size_t len);

/* Where the file is: exactly one of path, data, read and LOCUTOR_MODEL_FD. */
typedef struct locutor_model_params {
    uint32_t struct_size;
    uint32_t flags;       /* LOCUTOR_MODEL_*; default 0 */
    const char *path;     /* borrows; UTF-8 on Windows, bytes elsewhere; default NULL */
    const void *data;     /* keeps: the whole file in memory, which must not change; any alignment; default NULL */
    uint64_t data_len;    /* its bytes */
    locutor_read_fn read; /* borrows; a reader of the host's; default NULL */
    void *read_user;      /* its first argument */
    uint64_t read_len;    /* bytes of the whole file behind the reader */
    uint64_t offset;      /* path and fd: where the model begins, such as inside an asset pack; default 0 */
    uint64_t len;         /* path and fd: its bytes; default 0, the rest of the file */
    int32_t fd;           /* with LOCUTOR_MODEL_FD; default -1 */
    uint32_t reserved;    /* 0 */
} locutor_model_params;

int32_t locutor_model_params_init(locutor_model_params *params, size_t size);

/* Opens a model: checks the whole file and builds its tables. Gives *model. Borrows params, and what they say.
 * Allocates: the tables, and without `data` or LOCUTOR_MODEL_MAP the file's bytes. Blocks: for the disk. */
int32_t locutor_model_create(const locutor_model_params *params, locutor_model **model, locutor_error *error);

/* Bytes of memory that locutor_model_init needs for this file. Only for `data`. Does not allocate. */
int32_t locutor_model_size(const locutor_model_params *params, size_t *bytes, locutor_error *error);

/* As locutor_model_create, in memory of the caller. Keeps memory: it begins at a multiple of LOCUTOR_ALIGN, and stays
 * until the model and all its sessions are destroyed. Only for `data`. Does not allocate. */
int32_t locutor_model_init(const locutor_model_params *params, void *memory, size_t len, locutor_model **model,
                           locutor_error *error);

/* Destroys a model. NULL does nothing. A session keeps its model: the model's memory, `data` and file go out of use
 * when its last session has been destroyed as well. */
void locutor_model_destroy(locutor_model *model);

/* A token that is not there. */
#define LOCUTOR_NO_TOKEN UINT32_C(0xffffffff)

/* locutor_model_info.flags */
#define LOCUTOR_MODEL_HAS_TOKENIZER 1u /* takes and gives text */
#define LOCUTOR_MODEL_ADDS_BOS 2u      /* the first text of a session gets the token `bos` in front */
#define LOCUTOR_MODEL_IS_MAPPED 4u     /* the weights are mapped */

typedef struct locutor_model_info {
    uint32_t struct_size;
    uint32_t flags;        /* LOCUTOR_MODEL_HAS_TOKENIZER and the like */
    uint32_t vocab;        /* tokens are below; also the number of logits */
    uint32_t context;      /* positions that the model was trained for */
    uint32_t layers;
    uint32_t width;        /* of the residual stream */
    uint32_t bos;          /* begin of a text, or LOCUTOR_NO_TOKEN */
    uint32_t eos;          /* end of a text, or LOCUTOR_NO_TOKEN */
    uint64_t file_bytes;   /* of the whole file */
    uint64_t table_bytes;  /* of memory for tables */
    const char *architecture; /* lends, such as "llama" */
    uint64_t architecture_len;
    const char *name;         /* lends, the file's own name for the model; may be empty */
    uint64_t name_len;
    const char *chat_template; /* lends, in Jinja; NULL if the file has none */
    uint64_t chat_template_len;
} locutor_model_info;

int32_t locutor_model_info_init(locutor_model_info *info, size_t size);

/* Fills info, which was made by its _init. */
int32_t locutor_model_get_info(const locutor_model *model, locutor_model_info *info);

/* ----------------------------------------------------------------------------------------------------- tokenizer -- */

/* Flags for text. */
/* Texts of control tokens, such as <|im_end|>, become these tokens: for text that the program wrote. Without it they
 * are text like any other, so what a user types cannot end a turn. */
#define LOCUTOR_TEXT_MARKUP 1u

/* Turns text into tokens. Borrows text; fills tokens, of which there are at most capacity, and *n. Neither begin nor
 * end of text is added. Allocates working memory, and gives it back.
 * LOCUTOR_ERR_BUFFER: *n is the number of tokens; tokens may be NULL if capacity is 0. */
int32_t locutor_model_tokenize(const locutor_model *model, const char *text, size_t text_len, uint32_t flags,
                               uint32_t *tokens, size_t capacity, size_t *n, locutor_error *error);

/* Turns tokens into the text they were made from. Borrows tokens; fills text, at most capacity bytes, and *text_len.
 * The bytes need not be whole characters at their ends. Allocates working memory, and gives it back.
 * LOCUTOR_ERR_BUFFER: *text_len is the number of bytes; text may be NULL if capacity is 0. */
int32_t locutor_model_detokenize(const locutor_model *model, const uint32_t *tokens, size_t n, char *text,
                                 size_t capacity, size_t *text_len, locutor_error *error);

/* ------------------------------------------------------------------------------------------------------- session -- */

/* A conversation with a model, in one block of memory that never grows. One call at a time. */
typedef struct locutor_session locutor_session;

/* A job of the library. */
typedef void (*locutor_job_fn)(void *arg, uint32_t job, uint32_t worker);

/* The host's job system: calls fn(arg, job, worker) for every job below n, in any order, on at most `workers` threads,
 * and returns when all calls have returned. `worker` is below `workers`, and differs between calls at the same time;
 * `workers` is at least 2. Called on the thread that is in the call, with no lock held; calling everything inline as
 * worker 0 is fine. Jobs left out are done by the library afterwards; calls that break these rules do nothing. */
typedef void (*locutor_parallel_for_fn)(void *user, uint32_t workers, uint32_t n, locutor_job_fn fn, void *arg);

/* locutor_session_params.kv_keys and kv_values */
#define LOCUTOR_KV_F16 0  /* 16-bit floats: slower than LOCUTOR_KV_I16 */
#define LOCUTOR_KV_F32 1  /* 32-bit floats: twice the memory */
#define LOCUTOR_KV_Q8_0 2 /* 8 bits, and 16 bits of scale for 32 of them: about half the memory */
#define LOCUTOR_KV_I16 3  /* 16-bit integers, and 32 bits of scale for all of a position and head */

/* locutor_session_params.policy: what a sequence does when its context is full */
#define LOCUTOR_POLICY_STOP 0  /* LOCUTOR_ERR_CONTEXT_FULL */
#define LOCUTOR_POLICY_SHIFT 1 /* half of the tokens behind the first `keep` are forgotten, as often as needed; `keep` is
                                  rounded up to a multiple of 16. Models with learned positions then compute what is
                                  left once more */
#define LOCUTOR_POLICY_SLIDE 2 /* every token sees the first `keep` ones (4 are enough to keep a model sane) and as many
                                  of the last ones as fit: the context less 48 and the pages of the first ones. Rotary
                                  positions only */

/* locutor_session_params.precision */
#define LOCUTOR_PRECISION_MIXED 0 /* 16 bits for logits, and of what else is rounded for the blocks of 32 numbers that stand
                                     out by their size, an eighth at most; 8 bits for the rest */
#define LOCUTOR_PRECISION_8 8     /* 8 bits everywhere */
#define LOCUTOR_PRECISION_16 16   /* 16 bits everywhere: nearly 32-bit floats */

typedef struct locutor_session_params {
    uint32_t struct_size;
    uint32_t flags;      /* 0 */
    uint32_t context;    /* tokens, prompt and answer together; default 0: the model's, at most 4096 */
    uint32_t batch;      /* tokens of a prompt computed together: more are faster and need more memory;
                            default 192 */
    uint32_t logits;     /* tokens whose logits are kept at a time for log-probabilities; default 1 */
    uint32_t threads;    /* threads at work, the caller's included; default 1. Without `parallel_for`, and only in
                            locutor_session_create, the session starts threads - 1 of its own, which sleep when idle */
    uint32_t text_bytes; /* longest text fed at once; default 0: four a token of the context */
    uint32_t stops;      /* most stop strings; default 8 */
    uint32_t stop_bytes; /* bytes of the longest stop string; default 64 */
    uint32_t kv_keys;    /* LOCUTOR_KV_*: storage of keys; default LOCUTOR_KV_I16 */
    uint32_t kv_values;  /* LOCUTOR_KV_*: storage of values; default LOCUTOR_KV_I16 */
    uint32_t precision;  /* LOCUTOR_PRECISION_*: rounding of activations for quantised weights; default
                            LOCUTOR_PRECISION_MIXED */
    uint32_t sequences;  /* sequences at the same time; default 1 */
    uint32_t positions;  /* positions of all sequences together, in pages of 16 that forked sequences share; default 0: a
                            whole context for each */
    uint32_t decode_threads; /* threads for passes of one token a sequence; default 0: as `threads` */
    uint32_t policy;     /* LOCUTOR_POLICY_*; default LOCUTOR_POLICY_STOP */
    uint32_t keep;       /* tokens at the beginning that are never forgotten; default 0 */
    const char *isa;     /* borrows; name of the kernels, such as "scalar"; default NULL: the best of this processor */
    locutor_parallel_for_fn parallel_for; /* keeps; the host's job system; default NULL */
    void *parallel_for_user;              /* keeps; its first argument */
} locutor_session_params;

int32_t locutor_session_params_init(locutor_session_params *params, size_t size);

/* What a session will need, exactly. */
typedef struct locutor_session_plan {
    uint32_t struct_size;
    uint32_t context;       /* positions */
    uint64_t bytes;         /* the whole block of locutor_session_init */
    uint64_t kv_bytes;      /* of these: keys and values */
    uint64_t logits_bytes;  /* of these: logits and candidates */
    uint64_t scratch_bytes; /* of these: everything else */
} locutor_session_plan;

int32_t locutor_session_plan_init(locutor_session_plan *plan, size_t size);

/* Fills plan, which was made by its _init. Works on a header alone, see LOCUTOR_MODEL_HEADER. Does not allocate. */
int32_t locutor_session_get_plan(const locutor_model *model, const locutor_session_params *params,
                                 locutor_session_plan *plan, locutor_error *error);

/* Creates a session. Gives *session; keeps model. Allocates one block of the plan's bytes, and the threads. Blocks: for
 * the system to start its threads. */
int32_t locutor_session_create(const locutor_model *model, const locutor_session_params *params,
                               locutor_session **session, locutor_error *error);

/* As locutor_session_create, in memory of the caller. Keeps memory: it begins at a multiple of LOCUTOR_ALIGN, has the
 * plan's bytes, and stays until the session is destroyed. `threads` above 1 asks for `parallel_for`. Does not allocate. */
int32_t locutor_session_init(const locutor_model *model, const locutor_session_params *params, void *memory, size_t len,
                             locutor_session **session, locutor_error *error);

/* Destroys a session, and ends its threads. NULL does nothing. Not from a callback of this session: it is then left as
 * it is. Blocks: for the threads to end. */
void locutor_session_destroy(locutor_session *session);

/* Fills error with the words for the last call with this session that failed; error->code is LOCUTOR_OK if none did. */
int32_t locutor_session_get_error(locutor_session *session, locutor_error *error);

/* Lends the name of the kernels in use. */
int32_t locutor_session_isa(locutor_session *session, const char **name, size_t *len);

/* Adds text behind the last token; it is computed by the calls below. Borrows text. flags: LOCUTOR_TEXT_*. Writes how
 * many tokens were added to *added, which may be NULL. All or nothing. */
int32_t locutor_session_feed_text(locutor_session *session, const char *text, size_t len, uint32_t flags,
                                  size_t *added);

/* Adds tokens behind the last one. Borrows tokens. All or nothing. */
int32_t locutor_session_feed_tokens(locutor_session *session, const uint32_t *tokens, size_t n);

/* Forgets all tokens from position len on; what was computed for the others stays. Also ends a step under way.
 * LOCUTOR_ERR_FORGOTTEN: what the token before len saw is gone. */
int32_t locutor_session_truncate(locutor_session *session, size_t len);

/* Lends all tokens, given and generated; under a policy that forgets, those that the last one sees but for the first
 * ones, which are kept. */
int32_t locutor_session_tokens(locutor_session *session, const uint32_t **tokens, size_t *n);

/* Writes the number of tokens, given and generated, with those that were forgotten. */
int32_t locutor_session_position(locutor_session *session, size_t *position);

/* Writes the number of tokens that there is still room for. */
int32_t locutor_session_room(locutor_session *session, size_t *room);

/* Ends the call that is computing with this session, or, if there is none, the next one that would: it returns
 * LOCUTOR_ERR_CANCELLED within one job, with tokens, text and random numbers as they were before it. Any thread may
 * call, and signal handlers too: it is one relaxed atomic store. */
int32_t locutor_session_cancel(const locutor_session *session);

/* ----------------------------------------------------------------------------------------------------- sequences -- */

/* A session begins with one sequence, which is selected. All functions that feed, generate, truncate and ask work on the
 * selected one. A step computes the waiting tokens of all sequences together, so the weights are read once for all. An id
 * stays the name of one sequence, even after it is closed. None of these functions allocates, and none costs more than a
 * copy of the tokens.
 *
 * A sampler is its parameters and the state of its random numbers, and the session has one at a time. Where sequences are
 * to have one each, the host keeps both for each of them:
 *
 *     locutor_session_select_sequence(session, npc->sequence);
 *     locutor_session_set_sampler(session, &npc->sampler);
 *     locutor_session_set_rng(session, npc->rng);
 *     locutor_session_step(session, &budget, &event);
 *     locutor_session_get_rng(session, &npc->rng);
 *
 * with npc->rng from locutor_session_get_rng behind the first locutor_session_set_sampler. */

/* Begins an empty sequence, and writes its id. It is not selected. */
int32_t locutor_session_create_sequence(locutor_session *session, uint64_t *sequence);

/* Begins a sequence with the tokens of the selected one, and writes its id. Both share what is computed, and the pages of
 * it; whoever first adds to a page that is shared gets a copy. It is not selected. */
int32_t locutor_session_fork_sequence(locutor_session *session, uint64_t *sequence);

/* Selects a sequence. */
int32_t locutor_session_select_sequence(locutor_session *session, uint64_t sequence);

/* Writes the id of the selected sequence. */
int32_t locutor_session_selected_sequence(locutor_session *session, uint64_t *sequence);

/* Ends a sequence, and frees what it alone holds. The selected one becomes an empty one with another id. */
int32_t locutor_session_close_sequence(locutor_session *session, uint64_t sequence);

/* Writes how many pages of 16 positions are free, and how many there are. */
int32_t locutor_session_pages(locutor_session *session, size_t *free_pages, size_t *all_pages);

/* -------------------------------------------------------------------------------------------------- saved states -- */

#define LOCUTOR_SAVE_SEQUENCE 0 /* the selected sequence */
#define LOCUTOR_SAVE_SESSION 1  /* all sequences, with their ids and what they share */

/* Writes a number for everything that later results can depend on, but for the sampler: tokens, text, settings. */
int32_t locutor_session_state_hash(locutor_session *session, uint64_t *hash);

/* Writes the bytes that a state saved now would have. what: LOCUTOR_SAVE_*. */
int32_t locutor_session_save_size(locutor_session *session, uint32_t what, size_t *bytes);

/* Saves a state, the sampler and its random numbers included (not its biases): the same bytes on every machine. Fills
 * memory, of which there are capacity bytes, and writes how many were used. Nothing of the session changes.
 * LOCUTOR_ERR_BUFFER: *bytes is the number needed; memory may be NULL if capacity is 0. */
int32_t locutor_session_save(locutor_session *session, uint32_t what, void *memory, size_t capacity, size_t *bytes);

/* Goes on from a saved state: of a sequence, in place of the selected one, or of a session, in place of everything.
 * Borrows state. The session has the same model, kv_keys, kv_values, precision and policy as the one that was saved; batch
 * and threads may differ, and so may the context under LOCUTOR_POLICY_STOP, if the state fits. All or nothing. */
int32_t locutor_session_restore(locutor_session *session, const void *state, size_t len);

/* ---------------------------------------------------------------------------------------------------- generation -- */

/* Added to the logit of a token; minus infinity bans it. */
typedef struct locutor_bias {
    uint32_t token;
    float bias;
} locutor_bias;

/* How tokens are chosen, in this order: biases; penalties; at temperature 0 the largest logit; top_k; top_p; min_p;
 * temperature; a draw. Of equal logits the lower token ranks first. */
typedef struct locutor_sampler_params {
    uint32_t struct_size;
    float temperature;       /* 0 takes the most probable token; default 0.8 */
    uint32_t top_k;          /* keeps so many of the largest logits; 0 keeps all; default 40 */
    float top_p;             /* keeps the fewest tokens that are so probable together; (0, 1]; default 0.95 */
    float min_p;             /* keeps tokens so probable, by the best one's measure; [0, 1]; default 0.05 */
    float repeat_penalty;    /* divides logits above 0, multiplies others, of recent tokens; above 0; default 1 */
    float frequency_penalty; /* subtracted for each recent occurrence; default 0 */
    float presence_penalty;  /* subtracted once for a recent token; default 0 */
    uint32_t penalty_last_n; /* how many tokens are recent; UINT32_MAX is all; default 64 */
    uint32_t n_logit_bias;   /* entries of logit_bias; default 0 */
    uint64_t seed;           /* where the random numbers begin; default 0 */
    const locutor_bias *logit_bias; /* keeps, as long as the session has this sampler; default NULL */
} locutor_sampler_params;

int32_t locutor_sampler_params_init(locutor_sampler_params *params, size_t size);

/* Sets how the session chooses tokens, and starts the random numbers from the seed. A new session has the defaults. */
int32_t locutor_session_set_sampler(locutor_session *session, const locutor_sampler_params *params);

/* Reads, or sets, where the random numbers are, to save and go on with them later. */
int32_t locutor_session_get_rng(locutor_session *session, uint64_t *state);
int32_t locutor_session_set_rng(locutor_session *session, uint64_t state);

/* Generates at most n tokens from now on; UINT64_MAX, as in a new session, for no limit but the context. */
int32_t locutor_session_set_max_tokens(locutor_session *session, uint64_t n);

/* Whether (1) or not (0, as in a new session) tokens that end a text are treated like any other. */
int32_t locutor_session_set_ignore_end(locutor_session *session, int32_t ignore);

/* Most stop strings of one call. */
#define LOCUTOR_MAX_STOPS 64

/* Ends generation when one of these texts appears; what is shown ends before it. Borrows. Replaces those before. */
int32_t locutor_session_set_stops(locutor_session *session, const char *const *stops, const size_t *lens, size_t n);

/* The time, in a unit of the host's choice. It never goes back. */
typedef uint64_t (*locutor_clock_fn)(void *user);

/* How much one call may compute. With `clock`: until it shows `until`; less is done at a time the nearer that is, so a
 * call is late by one unit of work at most, some microseconds on a desktop. Else, with `units` above 0: so many units of
 * work, of some ten thousand multiplications each. Else, and where a budget is NULL: until there is a result. */
typedef struct locutor_budget {
    uint32_t struct_size;
    uint32_t reserved;      /* 0 */
    uint64_t units;         /* default 0 */
    uint64_t until;         /* default 0 */
    locutor_clock_fn clock; /* borrows; default NULL */
    void *clock_user;       /* its argument */
} locutor_budget;

int32_t locutor_budget_init(locutor_budget *budget, size_t size);

/* locutor_event.kind */
#define LOCUTOR_EVENT_PENDING 0 /* the budget is used up; call again */
#define LOCUTOR_EVENT_PIECE 1   /* more text */
#define LOCUTOR_EVENT_DONE 2    /* the end; `finish` says why */
#define LOCUTOR_EVENT_TOKEN 3   /* a token: from locutor_session_step_token, or one whose text is not certain yet */

/* locutor_event.finish */
#define LOCUTOR_FINISH_NONE 0       /* not at the end */
#define LOCUTOR_FINISH_END 1        /* the model ended the text, with the token `token` */
#define LOCUTOR_FINISH_STOP 2       /* a stop string */
#define LOCUTOR_FINISH_MAX_TOKENS 3 /* see locutor_session_set_max_tokens */

typedef struct locutor_event {
    uint32_t struct_size;
    int32_t kind;
    int32_t finish;
    uint32_t token;    /* LOCUTOR_NO_TOKEN where there is none */
    const char *text;  /* lends; whole characters, for LOCUTOR_EVENT_PIECE; else empty, but never NULL */
    uint64_t text_len;
} locutor_event;

int32_t locutor_event_init(locutor_event *event, size_t size);

/* Generates one token, until the budget is used up or the end is reached. The event has the text that has become
 * certain; a token that ends within a character, or might begin a stop string, is LOCUTOR_EVENT_TOKEN. budget: borrows,
 * may be NULL. Fills event, which was made by its _init. To stop early, just do not call again. Blocks: for the jobs on
 * other threads of the session, if it has any.
 * LOCUTOR_ERR_CONTEXT_FULL: truncate, and go on. */
int32_t locutor_session_step(locutor_session *session, const locutor_budget *budget, locutor_event *event);

/* As locutor_session_step, token by token: LOCUTOR_EVENT_TOKEN instead of a piece. Stop strings have no effect. Use one
 * of the two throughout an answer. Blocks: as locutor_session_step. */
int32_t locutor_session_step_token(locutor_session *session, const locutor_budget *budget, locutor_event *event);

/* Computes what was fed, without choosing a token. *ready becomes 1 when all is computed and there are logits, 0 when
 * the budget was used up before. budget: borrows, may be NULL. Blocks: as locutor_session_step. */
int32_t locutor_session_advance(locutor_session *session, const locutor_budget *budget, int32_t *ready);

/* Lends the logits behind the last token, one a token of the vocabulary. LOCUTOR_ERR_NOT_READY before
 * locutor_session_advance has written 1. */
int32_t locutor_session_logits(locutor_session *session, const float **logits, size_t *n);

/* Feeds tokens, and writes the natural logarithm of their probability behind what was there to *sum. Borrows tokens.
 * Fills each[n] with the terms, unless it is NULL. Blocks: as locutor_session_step. */
int32_t locutor_session_log_prob(locutor_session *session, const uint32_t *tokens, size_t n, double *each, double *sum);

#ifdef __cplusplus
}
#endif

#endif
