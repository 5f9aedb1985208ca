/*
 * A text that goes on: every line of standard input is added to it, and the model's continuation streams until a stop
 * string, the end, or Ctrl-C, which ends the answer and not the program.
 *
 *     cc -std=c99 -O2 -Iinclude examples/stream.c target/release/liblocutor.a -lpthread -ldl -lm -o stream
 *     echo "Once upon a time" | ./stream -m examples/model/story.gguf --stop "The end"
 *
 * Options: -m FILE, --stop TEXT (up to eight times), -n TOKENS (of an answer; no limit if not given), --units N (200),
 * --seed S (0), --greedy, --endless (tokens that end a text do not).
 *
 * A call computes --units units of work at most, of some ten thousand multiplications each (0 for no bound). Between two
 * calls the program could do anything; this one counts them. What an answer came to stands on standard error.
 *
 * Ctrl-C while no answer is under way, or the end of the input, ends the program. Exit status 0, 1 for an error, 2 for
 * wrong usage, 130 after Ctrl-C.
 */
#include "locutor.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_STOPS = 8, LONGEST_LINE = 4096 };

struct options {
    locutor_model_params model;
    locutor_session_params session;
    locutor_sampler_params sampler;
    const char *stops[MOST_STOPS];
    size_t stop_lens[MOST_STOPS];
    size_t n_stops;
    uint64_t max_tokens;
    uint64_t units;
    int endless;
};

/* For the signal handler. The session is set before the handler is installed, and never changes. */
static const locutor_session *answering_session;
static volatile sig_atomic_t answering;
static volatile sig_atomic_t interrupted;

/* locutor_session_cancel is one atomic store, so it may be called here. _Exit may be as well. */
static void on_interrupt(int number) {
    signal(number, on_interrupt);
    if (!answering) _Exit(130);
    interrupted = 1;
    locutor_session_cancel(answering_session);
}

/* The end of an answer, in words. */
static const char *why(int32_t status, const locutor_event *event) {
    if (status == LOCUTOR_ERR_CANCELLED) return "interrupted";
    if (status == LOCUTOR_ERR_CONTEXT_FULL) return "the context is full";
    if (event->finish == LOCUTOR_FINISH_STOP) return "a stop string";
    if (event->finish == LOCUTOR_FINISH_MAX_TOKENS) return "as many tokens as asked for";
    return "the end of the text";
}

/* Adds a line and streams what follows. Returns a status; an interrupted answer is none that failed. */
static int32_t answer(locutor_session *session, const struct options *o, const char *line, size_t len) {
    locutor_event event;
    locutor_budget budget;
    unsigned long calls = 0;
    size_t before = 0, after = 0;
    int32_t status;

    locutor_event_init(&event, sizeof event);
    locutor_budget_init(&budget, sizeof budget);
    budget.units = o->units;
    interrupted = 0;
    answering = 1;
    status = locutor_session_set_max_tokens(session, o->max_tokens);
    if (!status) status = locutor_session_feed_text(session, line, len, 0, NULL);
    if (!status) status = locutor_session_position(session, &before);
    while (!status) {
        status = locutor_session_step(session, &budget, &event);
        calls++;
        /* A wish that came just after the last answer had ended: not for this one. */
        if (status == LOCUTOR_ERR_CANCELLED && !interrupted) status = LOCUTOR_OK;
        else if (!status && event.kind == LOCUTOR_EVENT_DONE) break;
        else if (!status && event.kind == LOCUTOR_EVENT_PIECE) {
            fwrite(event.text, 1, (size_t)event.text_len, stdout);
            fflush(stdout);
        }
    }
    answering = 0;
    if (status && status != LOCUTOR_ERR_CANCELLED && status != LOCUTOR_ERR_CONTEXT_FULL) return status;
    locutor_session_position(session, &after);
    putchar('\n');
    fflush(stdout);
    fprintf(stderr, "[%s: %lu tokens in %lu calls]\n", why(status, &event), (unsigned long)(after - before), calls);
    return LOCUTOR_OK;
}

/* All lines. Returns a status. */
static int32_t converse(locutor_session *session, const struct options *o) {
    char line[LONGEST_LINE];
    int32_t status = locutor_session_set_sampler(session, &o->sampler);
    if (!status) status = locutor_session_set_stops(session, o->stops, o->stop_lens, o->n_stops);
    if (!status) status = locutor_session_set_ignore_end(session, o->endless);
    answering_session = session;
    signal(SIGINT, on_interrupt);
    while (!status && fgets(line, sizeof line, stdin)) {
        size_t len = strcspn(line, "\r\n");
        fwrite(line, 1, len, stdout);
        status = answer(session, o, line, len);
    }
    signal(SIGINT, SIG_DFL);
    return status;
}

static int usage(void) {
    fputs("usage: stream -m FILE [--stop TEXT]... [-n TOKENS] [--units N] [--seed S] [--greedy] [--endless]\n", stderr);
    return 2;
}

/* 0 if there is no such option. */
static int take(struct options *o, const char *option, const char *value) {
    if (!strcmp(option, "-m")) o->model.path = value;
    else if (!strcmp(option, "-n")) o->max_tokens = strtoull(value, NULL, 10);
    else if (!strcmp(option, "--units")) o->units = strtoull(value, NULL, 10);
    else if (!strcmp(option, "--seed")) o->sampler.seed = strtoull(value, NULL, 10);
    else if (!strcmp(option, "--stop") && o->n_stops < MOST_STOPS) {
        size_t len = strlen(value);
        o->stops[o->n_stops] = value;
        o->stop_lens[o->n_stops++] = len;
        if (len > o->session.stop_bytes) o->session.stop_bytes = (uint32_t)len;
    } else return 0;
    return 1;
}

int main(int argc, char **argv) {
    struct options o;
    locutor_error error;
    locutor_model *model = NULL;
    locutor_session *session = NULL;
    int32_t status;
    int i;

    memset(&o, 0, sizeof o);
    o.max_tokens = UINT64_MAX;
    o.units = 200;
    locutor_error_init(&error, sizeof error);
    locutor_model_params_init(&o.model, sizeof o.model);
    locutor_session_params_init(&o.session, sizeof o.session);
    locutor_sampler_params_init(&o.sampler, sizeof o.sampler);
    /* A conversation does not end because it is long. */
    o.session.policy = LOCUTOR_POLICY_SHIFT;
    o.session.text_bytes = LONGEST_LINE;
    for (i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--greedy")) o.sampler.temperature = 0;
        else if (!strcmp(argv[i], "--endless")) o.endless = 1;
        else if (i + 1 < argc && take(&o, argv[i], argv[i + 1])) i++;
        else return usage();
    }
    if (!o.model.path) return usage();

    status = locutor_model_create(&o.model, &model, &error);
    if (!status) status = locutor_session_create(model, &o.session, &session, &error);
    if (!status) {
        status = converse(session, &o);
        if (status) locutor_session_get_error(session, &error);
    }
    locutor_session_destroy(session);
    locutor_model_destroy(model);
    if (status) fprintf(stderr, "stream: error: %s\n", error.text);
    return status ? 1 : 0;
}
