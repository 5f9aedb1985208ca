/*
 * A game loop that talks: 60 frames a second, of which the model gets a slice, on the loop's own thread or on the threads of
 * the game's job system. Nothing of the library blocks a frame, allocates, or starts a thread.
 *
 *     c++ -std=c++17 -O2 -Iinclude examples/frame_loop.cpp target/release/liblocutor.a -lpthread -ldl -lm -o frame_loop
 *     ./frame_loop -m examples/model/story.gguf "Once upon a time"
 *
 * Options: -m FILE, --frames N (0, the default, ends with the answer), --budget-us N (2000), --threads N (1),
 * --no-sleep (frames follow each other at once, for measuring), --endless (when an answer ends, the next begins).
 *
 * At the end it tells how late the slices were, and how much of the time went into work.
 */
#include "locutor.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

/* Microseconds, for the library: a function and its argument. */
uint64_t now_us(void *) {
    using namespace std::chrono;
    return static_cast<uint64_t>(duration_cast<microseconds>(Clock::now().time_since_epoch()).count());
}

/* The least that a job system has: threads that wait for jobs, and a caller who helps. An engine has its own, and writes
 * only `parallel_for`. */
class JobSystem {
public:
    explicit JobSystem(unsigned workers) {
        for (unsigned worker = 1; worker < workers; worker++)
            threads_.emplace_back([this, worker] { serve(worker); });
    }

    ~JobSystem() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            ends_ = true;
        }
        wake_.notify_all();
        for (std::thread &thread : threads_) thread.join();
    }

    /* locutor_parallel_for_fn */
    static void parallel_for(void *self, uint32_t workers, uint32_t n, locutor_job_fn fn, void *arg) {
        static_cast<JobSystem *>(self)->run(workers, n, fn, arg);
    }

private:
    struct Run {
        locutor_job_fn fn;
        void *arg;
        uint32_t workers, n;
        std::atomic<uint32_t> next{0};
        void work(unsigned worker) {
            if (worker >= workers) return;
            for (uint32_t job; (job = next.fetch_add(1)) < n;) fn(arg, job, worker);
        }
    };

    void run(uint32_t workers, uint32_t n, locutor_job_fn fn, void *arg) {
        Run run;
        run.fn = fn, run.arg = arg, run.workers = workers, run.n = n;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            run_ = &run;
            generation_++;
        }
        wake_.notify_all();
        run.work(0);
        /* No lock is held while jobs run; this one only says when the helpers have left. */
        std::unique_lock<std::mutex> lock(mutex_);
        run_ = nullptr;
        left_.wait(lock, [this] { return inside_ == 0; });
    }

    void serve(unsigned worker) {
        std::unique_lock<std::mutex> lock(mutex_);
        for (uint64_t seen = 0;;) {
            wake_.wait(lock, [&] { return ends_ || (run_ && generation_ != seen); });
            if (ends_) return;
            seen = generation_;
            Run *run = run_;
            inside_++;
            lock.unlock();
            run->work(worker);
            lock.lock();
            if (--inside_ == 0) left_.notify_one();
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_, left_;
    std::vector<std::thread> threads_;
    Run *run_ = nullptr;
    uint64_t generation_ = 0;
    int inside_ = 0;
    bool ends_ = false;
};

struct Options {
    const char *model = nullptr, *prompt = "Once upon a time";
    unsigned long frames = 0, budget_us = 2000, threads = 1;
    bool sleeps = true, endless = false;
};

bool parse(int argc, char **argv, Options &options) {
    for (int i = 1; i < argc; i++) {
        const std::string argument = argv[i];
        const bool more = i + 1 < argc;
        if (argument == "-m" && more) options.model = argv[++i];
        else if (argument == "--frames" && more) options.frames = std::strtoul(argv[++i], nullptr, 10);
        else if (argument == "--budget-us" && more) options.budget_us = std::strtoul(argv[++i], nullptr, 10);
        else if (argument == "--threads" && more) options.threads = std::strtoul(argv[++i], nullptr, 10);
        else if (argument == "--no-sleep") options.sleeps = false;
        else if (argument == "--endless") options.endless = true;
        else if (argument.empty() || argument[0] == '-') return false;
        else options.prompt = argv[i];
    }
    return options.model != nullptr && options.threads >= 1 && options.threads <= 64;
}

struct Free {
    void operator()(locutor_model *model) const { locutor_model_destroy(model); }
    void operator()(locutor_session *session) const { locutor_session_destroy(session); }
};

int fail(const char *what) {
    std::fprintf(stderr, "frame_loop: %s\n", what);
    return 1;
}

double quantile(std::vector<double> &sorted, double part) {
    return sorted[static_cast<size_t>((sorted.size() - 1) * part + 0.5)];
}

}  // namespace

int main(int argc, char **argv) {
    Options options;
    if (!parse(argc, argv, options)) {
        std::fprintf(stderr, "usage: frame_loop -m FILE [--frames N] [--budget-us N] [--threads N] [--no-sleep] "
                             "[--endless] [PROMPT]\n");
        return 2;
    }

    locutor_error error;
    locutor_error_init(&error, sizeof error);
    locutor_model_params mp;
    locutor_model_params_init(&mp, sizeof mp);
    mp.path = options.model;
    mp.flags = LOCUTOR_MODEL_MAP; /* the game ships the file, and nobody changes it */
    locutor_model *raw_model = nullptr;
    if (locutor_model_create(&mp, &raw_model, &error)) return fail(error.text);
    const std::unique_ptr<locutor_model, Free> model(raw_model);

    JobSystem jobs(static_cast<unsigned>(options.threads));
    locutor_session_params sp;
    locutor_session_params_init(&sp, sizeof sp);
    sp.policy = LOCUTOR_POLICY_SHIFT; /* the story may be longer than the context, which is the model's */
    sp.threads = static_cast<uint32_t>(options.threads);
    sp.parallel_for = JobSystem::parallel_for;
    sp.parallel_for_user = &jobs;
    locutor_session *raw_session = nullptr;
    if (locutor_session_create(model.get(), &sp, &raw_session, &error)) return fail(error.text);
    const std::unique_ptr<locutor_session, Free> session(raw_session);
    locutor_session_set_ignore_end(session.get(), options.endless);
    if (locutor_session_feed_text(session.get(), options.prompt, std::strlen(options.prompt), 0, nullptr))
        return fail("the prompt does not fit");
    std::fputs(options.prompt, stdout);

    locutor_budget budget;
    locutor_budget_init(&budget, sizeof budget);
    budget.clock = now_us;
    locutor_event event;
    locutor_event_init(&event, sizeof event);

    std::vector<double> late;
    double working = 0;
    unsigned long tokens = 0;
    const auto begun = Clock::now();
    auto next = begun;
    bool done = false;
    for (unsigned long frame = 0; !done && (options.frames == 0 || frame < options.frames); frame++) {
        /* Here a game moves its world and draws it. Then: */
        const uint64_t start = now_us(nullptr);
        budget.until = start + options.budget_us;
        const int32_t status = locutor_session_step(session.get(), &budget, &event);
        const uint64_t end = now_us(nullptr);
        working += (end - start) * 1e-6;
        late.push_back(end > budget.until ? (end - budget.until) * 1e-3 : 0.0);
        if (status) return fail(locutor_status_text(status));
        switch (event.kind) {
        case LOCUTOR_EVENT_PIECE:
            std::fwrite(event.text, 1, static_cast<size_t>(event.text_len), stdout);
            std::fflush(stdout);
            tokens++;
            break;
        case LOCUTOR_EVENT_TOKEN: tokens++; break;
        case LOCUTOR_EVENT_DONE: done = true; break;
        default: break; /* LOCUTOR_EVENT_PENDING: more in the next frame */
        }
        next += std::chrono::microseconds(16667);
        if (options.sleeps) std::this_thread::sleep_until(next);
    }
    const double whole = std::chrono::duration<double>(Clock::now() - begun).count();
    std::sort(late.begin(), late.end());
    std::fprintf(stderr,
                 "\n%zu frames with slices of %lu us: late by p50 %.3f ms, p99 %.3f ms, max %.3f ms; %lu tokens in %.2f s, "
                 "%.2f s of them at work\n",
                 late.size(), options.budget_us, quantile(late, 0.5), quantile(late, 0.99), late.back(), tokens, whole,
                 working);
    std::putchar('\n');
    return 0;
}
