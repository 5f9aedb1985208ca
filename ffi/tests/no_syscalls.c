/*
 * 10,000 tokens without a system call: the kernel ends the process at the first one (seccomp, strict mode).
 *
 *     no_syscalls MODEL [call]
 *
 * With `call`, a callback of the host makes a system call in between, to show that the test would notice.
 */
#include "check.h"

#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int makes_a_call;

static uint64_t ticks(void *user) {
    uint64_t *time = user;
    if (makes_a_call && *time == 1000) syscall(SYS_getppid);
    return (*time)++;
}

/* Strict mode allows read, write, exit of the thread and return from a signal. */
static void leave(int status) { syscall(SYS_exit, status); }

int main(int argc, char **argv) {
    static const char done[] = "10000 tokens\n", wrong[] = "a call failed\n";
    locutor_model_params params;
    locutor_session_params sp;
    locutor_model *model = NULL;
    locutor_session *session = NULL;
    locutor_event event;
    locutor_budget budget;
    uint64_t time = 0;
    int tokens = 0;
    if (argc < 2) return 2;
    makes_a_call = argc > 2;
    OK(locutor_model_params_init(&params, sizeof params));
    OK(locutor_session_params_init(&sp, sizeof sp));
    OK(locutor_event_init(&event, sizeof event));
    OK(locutor_budget_init(&budget, sizeof budget));
    params.path = argv[1];
    OK(locutor_model_create(&params, &model, NULL));
    sp.context = 256;
    sp.policy = LOCUTOR_POLICY_SHIFT;
    sp.keep = 4;
    OK(locutor_session_create(model, &sp, &session, NULL));
    OK(locutor_session_set_ignore_end(session, 1));
    budget.clock = ticks;
    budget.clock_user = &time;
    if (failures) return 1;
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT)) {
        perror("seccomp");
        return 3;
    }
    if (locutor_session_feed_text(session, "Once upon a time", 16, 0, NULL)) leave(1);
    while (tokens < 10000) {
        budget.until = time + 50;
        if (locutor_session_step(session, &budget, &event)) {
            if (write(2, wrong, sizeof wrong - 1) < 0) leave(4);
            leave(1);
        }
        tokens += event.kind == LOCUTOR_EVENT_PIECE || event.kind == LOCUTOR_EVENT_TOKEN;
    }
    if (write(1, done, sizeof done - 1) < 0) leave(4);
    leave(0);
    return 0;
}
