/*
 * locutor.hpp: the C++17 side of Locutor, on top of locutor.h and nothing else. Header-only; needs neither exceptions
 * nor run-time type information.
 *
 *     #include "locutor.hpp"
 *     #include <cstdio>
 *
 *     int main() {
 *         auto model = locutor::Model::open("story.gguf");
 *         if (!model) return std::puts(model.error().text()), 1;
 *         auto session = locutor::Session::create(*model);
 *         if (!session) return std::puts(session.error().text()), 1;
 *         if (!session->feed("Once upon a time")) return 1;
 *         for (;;) {
 *             auto event = session->step();
 *             if (!event || event->is_done()) break;
 *             std::fwrite(event->text().data(), 1, event->text().size(), stdout);
 *         }
 *     }
 *
 * Every function of locutor.h has its counterpart here, with the same meaning, the same threads and the same cost; the
 * conventions at the head of locutor.h hold. What is different:
 *
 * - Objects are moved, not copied, and destroy what they hold. An object that was moved from is empty: it may be
 *   assigned to and destroyed, and every other call with it answers LOCUTOR_ERR_ARGUMENT.
 * - Calls return a Result: a value, or why there is none. Making an object gives an Error, with words; calls with a
 *   session give a Status, and Session::last_error has the words. Looking at the value of a Result that has none is a
 *   mistake of the program, which `assert` finds.
 * - Structures derive from those of locutor.h and begin with the defaults.
 * - Functions that return a std::vector take memory by it, and are the only ones here that allocate by themselves.
 */
#ifndef LOCUTOR_HPP
#define LOCUTOR_HPP

#include "locutor.h"

#include <cassert>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace locutor {

/* A number of locutor.h: LOCUTOR_OK or LOCUTOR_ERR_*. */
class Status {
  public:
    constexpr Status(int32_t code = LOCUTOR_OK) noexcept : code_(code) {}
    constexpr int32_t code() const noexcept { return code_; }
    constexpr bool ok() const noexcept { return code_ == LOCUTOR_OK; }
    /* A short description, ended by a 0. */
    const char *text() const noexcept { return locutor_status_text(code_); }

    friend constexpr bool operator==(Status a, Status b) noexcept { return a.code_ == b.code_; }
    friend constexpr bool operator!=(Status a, Status b) noexcept { return a.code_ != b.code_; }

  private:
    int32_t code_;
};

/* A status with the words that say which field, tensor or parameter was at fault. */
class Error {
  public:
    Error() noexcept { locutor_error_init(&raw_, sizeof raw_); }
    constexpr int32_t code() const noexcept { return raw_.code; }
    constexpr Status status() const noexcept { return raw_.code; }
    /* One line, ended by a 0. */
    const char *text() const noexcept { return raw_.text; }
    /* For calls of locutor.h. */
    locutor_error *raw() noexcept { return &raw_; }

  private:
    locutor_error raw_;
};

/* A value, or why there is none. */
template <class T, class E = Status> class [[nodiscard]] Result {
  public:
    Result(T value) : value_(std::move(value)) {}
    Result(E error) : error_(std::move(error)) {}

    bool has_value() const noexcept { return value_.has_value(); }
    explicit operator bool() const noexcept { return has_value(); }

    /* The value, which must be there. */
    T &value() & { return assert(has_value()), *value_; }
    const T &value() const & { return assert(has_value()), *value_; }
    T &&value() && { return assert(has_value()), std::move(*value_); }
    T &operator*() & { return value(); }
    const T &operator*() const & { return value(); }
    T &&operator*() && { return std::move(*this).value(); }
    T *operator->() { return &value(); }
    const T *operator->() const { return &value(); }
    template <class U> T value_or(U &&other) && { return has_value() ? std::move(*value_) : T(std::forward<U>(other)); }

    /* Why there is no value; LOCUTOR_OK where there is one. */
    const E &error() const noexcept { return error_; }

  private:
    std::optional<T> value_;
    E error_{};
};

/* Nothing, or why it was not done. */
template <class E> class [[nodiscard]] Result<void, E> {
  public:
    Result(E error) : error_(std::move(error)) {}
    bool has_value() const noexcept { return error_.code() == LOCUTOR_OK; }
    explicit operator bool() const noexcept { return has_value(); }
    const E &error() const noexcept { return error_; }

  private:
    E error_;
};

/* Elements that belong to an object: good until its next call that is not const. */
template <class T> class View {
  public:
    constexpr View(const T *data = nullptr, size_t size = 0) noexcept : data_(data), size_(size) {}
    constexpr const T *data() const noexcept { return data_; }
    constexpr size_t size() const noexcept { return size_; }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr const T *begin() const noexcept { return data_; }
    constexpr const T *end() const noexcept { return data_ + size_; }
    constexpr const T &operator[](size_t index) const noexcept { return assert(index < size_), data_[index]; }

  private:
    const T *data_;
    size_t size_;
};

namespace detail {
inline std::string_view text(const char *data, uint64_t len) noexcept {
    return data ? std::string_view(data, static_cast<size_t>(len)) : std::string_view();
}
} // namespace detail

/* ------------------------------------------------------------------------------------------------------- version -- */

inline const char *version() noexcept { return locutor_version(); }

/* Whether the library is one that this header describes. */
inline bool is_compatible() noexcept { return locutor_abi() == LOCUTOR_ABI; }

/* --------------------------------------------------------------------------------------------------------- model -- */

struct ModelParams : locutor_model_params {
    ModelParams() noexcept { locutor_model_params_init(this, sizeof(locutor_model_params)); }
};

struct SessionParams : locutor_session_params {
    SessionParams() noexcept { locutor_session_params_init(this, sizeof(locutor_session_params)); }

    /* A job of the library. */
    struct Job {
        void operator()(uint32_t job, uint32_t worker) const { fn(arg, job, worker); }
        locutor_job_fn fn;
        void *arg;
    };

    /* The host's job system: jobs(workers, n, job) calls job(i, worker) for every i below n, as it says at
     * locutor_parallel_for_fn. `jobs` lives as long as the session. */
    template <class F> void set_parallel_for(F &jobs) noexcept {
        parallel_for = [](void *user, uint32_t workers, uint32_t n, locutor_job_fn fn, void *arg) {
            (*static_cast<F *>(user))(workers, n, Job{fn, arg});
        };
        parallel_for_user = &jobs;
    }
};

struct SessionPlan : locutor_session_plan {
    SessionPlan() noexcept { locutor_session_plan_init(this, sizeof(locutor_session_plan)); }
};

struct ModelInfo : locutor_model_info {
    ModelInfo() noexcept { locutor_model_info_init(this, sizeof(locutor_model_info)); }
    std::string_view architecture_text() const noexcept { return detail::text(architecture, architecture_len); }
    std::string_view name_text() const noexcept { return detail::text(name, name_len); }
    /* Empty if the file has none. */
    std::string_view chat_template_text() const noexcept { return detail::text(chat_template, chat_template_len); }
    bool has_tokenizer() const noexcept { return (flags & LOCUTOR_MODEL_HAS_TOKENIZER) != 0; }
};

/* A checked file. Any threads may use it at the same time; sessions keep what they need of it. */
class Model {
  public:
    static Result<Model, Error> create(const locutor_model_params &params) {
        return made([&](locutor_model **model, locutor_error *error) { return locutor_model_create(&params, model, error); });
    }

    /* Reads a file. */
    static Result<Model, Error> open(const char *path) { return of_path(path, 0); }

    /* Maps a file, which nobody may change: see LOCUTOR_MODEL_MAP. */
    static Result<Model, Error> map(const char *path) { return of_path(path, LOCUTOR_MODEL_MAP); }

    /* Reads the header alone: see LOCUTOR_MODEL_HEADER. */
    static Result<Model, Error> open_header(const char *path) { return of_path(path, LOCUTOR_MODEL_HEADER); }

    /* A file in memory, which is kept, not copied. */
    static Result<Model, Error> from_memory(const void *data, size_t len) {
        ModelParams params;
        params.data = data;
        params.data_len = len;
        return create(params);
    }

    /* Bytes of memory that `init` needs. */
    static Result<size_t, Error> size(const locutor_model_params &params) {
        size_t bytes = 0;
        Error error;
        if (locutor_model_size(&params, &bytes, error.raw())) return error;
        return bytes;
    }

    /* A model in memory of the caller, which is kept. */
    static Result<Model, Error> init(const locutor_model_params &params, void *memory, size_t len) {
        return made([&](locutor_model **model, locutor_error *error) {
            return locutor_model_init(&params, memory, len, model, error);
        });
    }

    Model() noexcept = default;
    /* Takes what locutor_model_create gave. */
    explicit Model(locutor_model *raw) noexcept : raw_(raw) {}
    Model(Model &&other) noexcept : raw_(other.release()) {}
    Model &operator=(Model &&other) noexcept {
        Model old(std::exchange(raw_, other.release()));
        return *this;
    }
    Model(const Model &) = delete;
    Model &operator=(const Model &) = delete;
    ~Model() { locutor_model_destroy(raw_); }

    locutor_model *raw() const noexcept { return raw_; }
    /* Gives the object up: the caller destroys it. */
    locutor_model *release() noexcept { return std::exchange(raw_, nullptr); }

    Result<ModelInfo> info() const {
        ModelInfo info;
        if (const Status status = locutor_model_get_info(raw_, &info); !status.ok()) return status;
        return info;
    }

    /* Text to tokens in memory of the caller; the number of tokens. LOCUTOR_ERR_BUFFER: *needed is that number. */
    Result<size_t, Error> tokenize(std::string_view text, uint32_t flags, uint32_t *tokens, size_t capacity,
                                   size_t *needed = nullptr) const {
        size_t n = 0;
        Error error;
        const int32_t code =
            locutor_model_tokenize(raw_, text.data(), text.size(), flags, tokens, capacity, &n, error.raw());
        if (needed) *needed = n;
        if (code) return error;
        return n;
    }

    /* Text to tokens. */
    Result<std::vector<uint32_t>, Error> tokenize(std::string_view text, uint32_t flags = 0) const {
        std::vector<uint32_t> tokens(text.size() + 1);
        for (;;) {
            size_t needed = 0;
            auto n = tokenize(text, flags, tokens.data(), tokens.size(), &needed);
            if (!n && (n.error().code() != LOCUTOR_ERR_BUFFER || needed <= tokens.size())) return n.error();
            tokens.resize(n ? *n : needed);
            if (n) return tokens;
        }
    }

    /* Tokens to text in memory of the caller; the number of bytes. LOCUTOR_ERR_BUFFER: *needed is that number. */
    Result<size_t, Error> detokenize(const uint32_t *tokens, size_t n, char *text, size_t capacity,
                                     size_t *needed = nullptr) const {
        size_t len = 0;
        Error error;
        const int32_t code = locutor_model_detokenize(raw_, tokens, n, text, capacity, &len, error.raw());
        if (needed) *needed = len;
        if (code) return error;
        return len;
    }

    /* Tokens to bytes of text. */
    Result<std::vector<char>, Error> detokenize(const uint32_t *tokens, size_t n) const {
        std::vector<char> text;
        for (;;) {
            size_t needed = 0;
            auto len = detokenize(tokens, n, text.data(), text.size(), &needed);
            if (!len && (len.error().code() != LOCUTOR_ERR_BUFFER || needed <= text.size())) return len.error();
            text.resize(len ? *len : needed);
            if (len) return text;
        }
    }

    /* What a session will need. */
    Result<SessionPlan, Error> plan(const locutor_session_params &params) const {
        SessionPlan plan;
        Error error;
        if (locutor_session_get_plan(raw_, &params, &plan, error.raw())) return error;
        return plan;
    }

  private:
    template <class F> static Result<Model, Error> made(F make) {
        locutor_model *raw = nullptr;
        Error error;
        if (make(&raw, error.raw())) return error;
        return Model(raw);
    }

    static Result<Model, Error> of_path(const char *path, uint32_t flags) {
        ModelParams params;
        params.path = path;
        params.flags = flags;
        return create(params);
    }

    locutor_model *raw_ = nullptr;
};

/* ------------------------------------------------------------------------------------------------------- session -- */

struct SamplerParams : locutor_sampler_params {
    SamplerParams() noexcept { locutor_sampler_params_init(this, sizeof(locutor_sampler_params)); }
};

/* How much one call may compute. */
struct Budget : locutor_budget {
    Budget() noexcept { locutor_budget_init(this, sizeof(locutor_budget)); }

    /* So many units of work. */
    static Budget of_units(uint64_t units) noexcept {
        Budget budget;
        budget.units = units;
        return budget;
    }

    /* Until a time of the monotonic clock. */
    static Budget until_time(std::chrono::steady_clock::time_point time) noexcept {
        Budget budget;
        budget.until = nanoseconds(time);
        budget.clock = [](void *) { return nanoseconds(std::chrono::steady_clock::now()); };
        return budget;
    }

    /* So much time from now on. */
    template <class Rep, class Period> static Budget of_time(std::chrono::duration<Rep, Period> time) noexcept {
        return until_time(std::chrono::steady_clock::now() +
                          std::chrono::duration_cast<std::chrono::steady_clock::duration>(time));
    }

  private:
    static uint64_t nanoseconds(std::chrono::steady_clock::time_point time) noexcept {
        const auto since = std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
        return static_cast<uint64_t>(since);
    }
};

/* What a step reached. Its text is good until the next call with the session. */
class Event {
  public:
    Event() noexcept { locutor_event_init(&raw_, sizeof raw_); }
    int32_t kind() const noexcept { return raw_.kind; }
    bool is_pending() const noexcept { return raw_.kind == LOCUTOR_EVENT_PENDING; }
    bool is_done() const noexcept { return raw_.kind == LOCUTOR_EVENT_DONE; }
    /* LOCUTOR_FINISH_*. */
    int32_t finish() const noexcept { return raw_.finish; }
    /* LOCUTOR_NO_TOKEN where there is none. */
    uint32_t token() const noexcept { return raw_.token; }
    /* Whole characters; empty but for LOCUTOR_EVENT_PIECE. */
    std::string_view text() const noexcept { return detail::text(raw_.text, raw_.text_len); }
    locutor_event *raw() noexcept { return &raw_; }

  private:
    locutor_event raw_;
};

/* Pages of 16 positions. */
struct Pages {
    size_t free;
    size_t all;
};

/* A conversation with a model. One call at a time; `cancel` at any time, from any thread. */
class Session {
  public:
    static Result<Session, Error> create(const Model &model, const locutor_session_params &params = SessionParams()) {
        return made([&](locutor_session **session, locutor_error *error) {
            return locutor_session_create(model.raw(), &params, session, error);
        });
    }

    /* A session in memory of the caller, which is kept. */
    static Result<Session, Error> init(const Model &model, const locutor_session_params &params, void *memory,
                                       size_t len) {
        return made([&](locutor_session **session, locutor_error *error) {
            return locutor_session_init(model.raw(), &params, memory, len, session, error);
        });
    }

    Session() noexcept = default;
    /* Takes what locutor_session_create gave. */
    explicit Session(locutor_session *raw) noexcept : raw_(raw) {}
    Session(Session &&other) noexcept : raw_(other.release()) {}
    Session &operator=(Session &&other) noexcept {
        Session old(std::exchange(raw_, other.release()));
        return *this;
    }
    Session(const Session &) = delete;
    Session &operator=(const Session &) = delete;
    ~Session() { locutor_session_destroy(raw_); }

    locutor_session *raw() const noexcept { return raw_; }
    /* Gives the object up: the caller destroys it. */
    locutor_session *release() noexcept { return std::exchange(raw_, nullptr); }

    /* The words for the last call that failed. */
    Result<Error> last_error() {
        Error error;
        if (const Status status = locutor_session_get_error(raw_, error.raw()); !status.ok()) return status;
        return error;
    }

    /* The name of the kernels in use. */
    Result<std::string_view> isa() {
        const char *name = nullptr;
        size_t len = 0;
        if (const Status status = locutor_session_isa(raw_, &name, &len); !status.ok()) return status;
        return std::string_view(name, len);
    }

    /* Adds text; the number of tokens that were added. */
    Result<size_t> feed(std::string_view text, uint32_t flags = 0) {
        return got<size_t>([&](size_t *n) { return locutor_session_feed_text(raw_, text.data(), text.size(), flags, n); });
    }

    Result<void> feed_tokens(const uint32_t *tokens, size_t n) {
        return Status(locutor_session_feed_tokens(raw_, tokens, n));
    }

    /* Forgets all tokens from position len on. */
    Result<void> truncate(size_t len) { return Status(locutor_session_truncate(raw_, len)); }

    Result<View<uint32_t>> tokens() {
        return viewed<uint32_t>([&](const uint32_t **data, size_t *n) { return locutor_session_tokens(raw_, data, n); });
    }

    Result<size_t> position() {
        return got<size_t>([&](size_t *n) { return locutor_session_position(raw_, n); });
    }

    Result<size_t> room() {
        return got<size_t>([&](size_t *n) { return locutor_session_room(raw_, n); });
    }

    /* Ends the call that is computing. From any thread, and from signal handlers. */
    Result<void> cancel() const noexcept { return Status(locutor_session_cancel(raw_)); }

    /* Sequences. */
    Result<uint64_t> create_sequence() {
        return got<uint64_t>([&](uint64_t *id) { return locutor_session_create_sequence(raw_, id); });
    }
    Result<uint64_t> fork_sequence() {
        return got<uint64_t>([&](uint64_t *id) { return locutor_session_fork_sequence(raw_, id); });
    }
    Result<void> select_sequence(uint64_t id) { return Status(locutor_session_select_sequence(raw_, id)); }
    Result<uint64_t> selected_sequence() {
        return got<uint64_t>([&](uint64_t *id) { return locutor_session_selected_sequence(raw_, id); });
    }
    Result<void> close_sequence(uint64_t id) { return Status(locutor_session_close_sequence(raw_, id)); }
    Result<Pages> pages() {
        Pages pages{0, 0};
        if (const Status status = locutor_session_pages(raw_, &pages.free, &pages.all); !status.ok()) return status;
        return pages;
    }

    /* Saved states. what: LOCUTOR_SAVE_*. */
    Result<uint64_t> state_hash() {
        return got<uint64_t>([&](uint64_t *hash) { return locutor_session_state_hash(raw_, hash); });
    }
    Result<size_t> save_size(uint32_t what) {
        return got<size_t>([&](size_t *n) { return locutor_session_save_size(raw_, what, n); });
    }
    /* In memory of the caller; the number of bytes. */
    Result<size_t> save(uint32_t what, void *memory, size_t capacity) {
        return got<size_t>([&](size_t *n) { return locutor_session_save(raw_, what, memory, capacity, n); });
    }
    Result<std::vector<unsigned char>> save(uint32_t what = LOCUTOR_SAVE_SEQUENCE) {
        const auto size = save_size(what);
        if (!size) return size.error();
        std::vector<unsigned char> state(*size);
        const auto used = save(what, state.data(), state.size());
        if (!used) return used.error();
        state.resize(*used);
        return state;
    }
    Result<void> restore(const void *state, size_t len) { return Status(locutor_session_restore(raw_, state, len)); }

    /* How tokens are chosen. params.logit_bias is kept. */
    Result<void> set_sampler(const locutor_sampler_params &params) {
        return Status(locutor_session_set_sampler(raw_, &params));
    }
    Result<uint64_t> rng() {
        return got<uint64_t>([&](uint64_t *state) { return locutor_session_get_rng(raw_, state); });
    }
    Result<void> set_rng(uint64_t state) { return Status(locutor_session_set_rng(raw_, state)); }
    Result<void> set_max_tokens(uint64_t n) { return Status(locutor_session_set_max_tokens(raw_, n)); }
    Result<void> set_ignore_end(bool ignore) { return Status(locutor_session_set_ignore_end(raw_, ignore ? 1 : 0)); }

    /* At most LOCUTOR_MAX_STOPS texts. */
    Result<void> set_stops(const std::string_view *stops, size_t n) {
        const char *texts[LOCUTOR_MAX_STOPS];
        size_t lens[LOCUTOR_MAX_STOPS];
        if (n > LOCUTOR_MAX_STOPS) return Status(LOCUTOR_ERR_PARAM);
        for (size_t i = 0; i < n; i++) {
            texts[i] = stops[i].data();
            lens[i] = stops[i].size();
        }
        return Status(locutor_session_set_stops(raw_, texts, lens, n));
    }

    /* Generates one token, or as far as the budget goes. */
    Result<Event> step() { return stepped(locutor_session_step, nullptr); }
    Result<Event> step(const locutor_budget &budget) { return stepped(locutor_session_step, &budget); }

    /* Token by token. */
    Result<Event> step_token() { return stepped(locutor_session_step_token, nullptr); }
    Result<Event> step_token(const locutor_budget &budget) { return stepped(locutor_session_step_token, &budget); }

    /* Computes what was fed; whether all is computed. */
    Result<bool> advance() { return advanced(nullptr); }
    Result<bool> advance(const locutor_budget &budget) { return advanced(&budget); }

    Result<View<float>> logits() {
        return viewed<float>([&](const float **data, size_t *n) { return locutor_session_logits(raw_, data, n); });
    }

    /* Feeds tokens; the natural logarithm of their probability. `each`, if not NULL, gets n terms. */
    Result<double> log_prob(const uint32_t *tokens, size_t n, double *each = nullptr) {
        return got<double>([&](double *sum) { return locutor_session_log_prob(raw_, tokens, n, each, sum); });
    }

  private:
    template <class F> static Result<Session, Error> made(F make) {
        locutor_session *raw = nullptr;
        Error error;
        if (make(&raw, error.raw())) return error;
        return Session(raw);
    }

    template <class T, class F> static Result<T> got(F get) {
        T value{};
        if (const Status status = get(&value); !status.ok()) return status;
        return value;
    }

    template <class T, class F> static Result<View<T>> viewed(F get) {
        const T *data = nullptr;
        size_t n = 0;
        if (const Status status = get(&data, &n); !status.ok()) return status;
        return View<T>(data, n);
    }

    template <class F> Result<Event> stepped(F step, const locutor_budget *budget) {
        Event event;
        if (const Status status = step(raw_, budget, event.raw()); !status.ok()) return status;
        return event;
    }

    Result<bool> advanced(const locutor_budget *budget) {
        int32_t ready = 0;
        if (const Status status = locutor_session_advance(raw_, budget, &ready); !status.ok()) return status;
        return ready != 0;
    }

    locutor_session *raw_ = nullptr;
};

} // namespace locutor

#endif
