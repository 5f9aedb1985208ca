/*
 * Continues a text: the C interface in one page.
 *
 *     cargo build --release -p locutor-ffi
 *     cc -std=c99 -O2 -Iinclude examples/generate.c target/release/liblocutor.a -lpthread -ldl -lm -o generate
 *     ./generate -m examples/model/story.gguf --seed 42 "Once upon a time"
 *
 * (On macOS the libraries behind liblocutor.a are not needed; on Windows see `cargo rustc -- --print native-static-libs`.)
 *
 * Prints the prompt and its continuation, the same text as the command-line tool with the same options. Exit status 0,
 * 1 for an error, 2 for wrong usage.
 */
#include "locutor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char USAGE[] =
    "usage: generate -m FILE [-n TOKENS] [--map] [--greedy] [--seed S] [--temperature T] [--top-k K] [--top-p P]\n"
    "                [--min-p P] [--repeat-penalty R] [--stop TEXT]... [--ignore-eos] [--context N] [--threads N]\n"
    "                [--isa NAME] [--no-echo] PROMPT\n";

enum { MOST_STOPS = 8 };

struct options {
    locutor_model_params model;
    locutor_session_params session;
    locutor_sampler_params sampler;
    const char *stops[MOST_STOPS];
    size_t stop_lens[MOST_STOPS];
    size_t n_stops;
    const char *prompt;
    uint64_t max_tokens;
    int ignore_eos;
    int echo;
};

/* The number behind an option, or the end of the program. */
static double number(const char *option, const char *text) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != 0) {
        fprintf(stderr, "generate: error: %s: `%s` is not a number\n", option, text);
        exit(2);
    }
    return value;
}

/* Takes an option with a value; 0 if there is none of that name. */
static int take(struct options *o, const char *option, const char *value) {
    if (!strcmp(option, "-m")) o->model.path = value;
    else if (!strcmp(option, "-n")) o->max_tokens = strtoull(value, NULL, 10);
    else if (!strcmp(option, "--seed")) o->sampler.seed = strtoull(value, NULL, 10);
    else if (!strcmp(option, "--temperature")) o->sampler.temperature = (float)number(option, value);
    else if (!strcmp(option, "--top-k")) o->sampler.top_k = (uint32_t)number(option, value);
    else if (!strcmp(option, "--top-p")) o->sampler.top_p = (float)number(option, value);
    else if (!strcmp(option, "--min-p")) o->sampler.min_p = (float)number(option, value);
    else if (!strcmp(option, "--repeat-penalty")) o->sampler.repeat_penalty = (float)number(option, value);
    else if (!strcmp(option, "--context")) o->session.context = (uint32_t)number(option, value);
    else if (!strcmp(option, "--threads")) o->session.threads = (uint32_t)number(option, value);
    else if (!strcmp(option, "--isa")) o->session.isa = value;
    else if (!strcmp(option, "--stop") && o->n_stops < MOST_STOPS) {
        size_t len = strlen(value);
        o->stops[o->n_stops] = value;
        o->stop_lens[o->n_stops++] = len;
        if (len > o->session.stop_bytes) o->session.stop_bytes = (uint32_t)len;
    } else return 0;
    return 1;
}

static void parse(struct options *o, int argc, char **argv) {
    int i;
    for (i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--greedy")) o->sampler.temperature = 0;
        else if (!strcmp(argv[i], "--ignore-eos")) o->ignore_eos = 1;
        else if (!strcmp(argv[i], "--no-echo")) o->echo = 0;
        else if (!strcmp(argv[i], "--map")) o->model.flags |= LOCUTOR_MODEL_MAP;
        else if (argv[i][0] == '-' && i + 1 < argc && take(o, argv[i], argv[i + 1])) i++;
        else if (argv[i][0] != '-' && !o->prompt) o->prompt = argv[i];
        else {
            fputs(USAGE, stderr);
            exit(2);
        }
    }
    if (!o->model.path || !o->prompt) {
        fputs(USAGE, stderr);
        exit(2);
    }
}

/* Prompt in, text out. Returns a status. */
static int32_t generate(locutor_session *session, const struct options *o) {
    locutor_event event;
    int32_t status = locutor_session_set_sampler(session, &o->sampler);
    if (!status) status = locutor_session_set_stops(session, o->stops, o->stop_lens, o->n_stops);
    if (!status) status = locutor_session_set_max_tokens(session, o->max_tokens);
    if (!status) status = locutor_session_set_ignore_end(session, o->ignore_eos);
    if (!status)
        status = locutor_session_feed_text(session, o->prompt, strlen(o->prompt), LOCUTOR_TEXT_MARKUP, NULL);
    if (!status) status = locutor_event_init(&event, sizeof event);
    if (!status && o->echo) fputs(o->prompt, stdout);
    while (!status) {
        status = locutor_session_step(session, NULL, &event);
        if (status || event.kind == LOCUTOR_EVENT_DONE) break;
        fwrite(event.text, 1, (size_t)event.text_len, stdout);
        fflush(stdout);
    }
    putchar('\n');
    return status;
}

int main(int argc, char **argv) {
    struct options o;
    locutor_error error;
    locutor_model *model = NULL;
    locutor_session *session = NULL;
    int32_t status;

    if (locutor_abi() != LOCUTOR_ABI) {
        fprintf(stderr, "generate: error: the library is version %s, not %s\n", locutor_version(), LOCUTOR_VERSION);
        return 1;
    }
    memset(&o, 0, sizeof o);
    o.max_tokens = UINT64_MAX;
    o.echo = 1;
    locutor_error_init(&error, sizeof error);
    locutor_model_params_init(&o.model, sizeof o.model);
    locutor_session_params_init(&o.session, sizeof o.session);
    locutor_sampler_params_init(&o.sampler, sizeof o.sampler);
    /* What the command-line tool takes if not told otherwise. */
    o.sampler.temperature = 0.7f;
    o.sampler.min_p = 0;
    parse(&o, argc, argv);
    o.session.text_bytes = (uint32_t)strlen(o.prompt) + 1;

    status = locutor_model_create(&o.model, &model, &error);
    if (!status) status = locutor_session_create(model, &o.session, &session, &error);
    if (!status) {
        status = generate(session, &o);
        /* A full context ends a text, too. */
        if (status == LOCUTOR_ERR_CONTEXT_FULL) status = LOCUTOR_OK;
        if (status) locutor_session_get_error(session, &error);
    }
    locutor_session_destroy(session);
    locutor_model_destroy(model);
    if (status) fprintf(stderr, "generate: error: %s\n", error.text);
    return status ? 1 : 0;
}
