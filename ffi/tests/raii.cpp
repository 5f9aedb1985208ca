/*
 * locutor.hpp as a program uses it: every class and every function once.
 *
 *     raii MODEL
 *
 * The model has a tokenizer. Exit status 1 if something is not as it should be.
 */
#include "locutor.hpp"
/* Twice is once. */
#include "locutor.hpp"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

static int failures;

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            std::printf("%s:%d: %s\n", __FILE__, __LINE__, #condition);                                                  \
            failures++;                                                                                                \
        }                                                                                                              \
    } while (0)

static std::vector<unsigned char> file(const char *path) {
    std::vector<unsigned char> bytes;
    if (std::FILE *f = std::fopen(path, "rb")) {
        unsigned char part[4096];
        for (size_t n; (n = std::fread(part, 1, sizeof part, f)) > 0;) bytes.insert(bytes.end(), part, part + n);
        std::fclose(f);
    }
    return bytes;
}

/* Memory at a multiple of LOCUTOR_ALIGN. */
struct Memory {
    explicit Memory(size_t size) : bytes(size + LOCUTOR_ALIGN) {}
    void *start() {
        const auto address = reinterpret_cast<uintptr_t>(bytes.data());
        return bytes.data() + (LOCUTOR_ALIGN - address % LOCUTOR_ALIGN) % LOCUTOR_ALIGN;
    }
    std::vector<unsigned char> bytes;
};

static std::string answer(locutor::Session &session, const locutor_budget *budget) {
    std::string text;
    CHECK(session.set_max_tokens(12) && session.set_ignore_end(true));
    CHECK(session.feed("One day").value() > 0);
    for (;;) {
        auto event = budget ? session.step(*budget) : session.step();
        CHECK(event);
        if (!event || event->is_done()) break;
        text += event->text();
    }
    return text;
}

static void models(const char *path, const std::vector<unsigned char> &bytes) {
    using locutor::Model;
    const auto missing = Model::open("/nowhere.gguf");
    CHECK(!missing && missing.error().code() == LOCUTOR_ERR_IO && std::strlen(missing.error().text()) > 0);
    CHECK(!std::strcmp(locutor::Status(LOCUTOR_ERR_IO).text(), locutor_status_text(LOCUTOR_ERR_IO)));
    const Model empty;
    CHECK(empty.info().error() == locutor::Status(LOCUTOR_ERR_ARGUMENT));
    CHECK(Model::open(path) && Model::map(path));
    const auto header = Model::open_header(path);
    CHECK(header && header->plan(locutor::SessionParams()));
    CHECK(!locutor::Session::create(*header));
    locutor::ModelParams params;
    params.data = bytes.data();
    params.data_len = bytes.size();
    Memory memory(Model::size(params).value());
    auto model = Model::init(params, memory.start(), memory.bytes.size() - LOCUTOR_ALIGN);
    CHECK(model);
    const auto info = model->info();
    CHECK(info && info->vocab > 0 && !info->architecture_text().empty() && info->has_tokenizer());
    CHECK(info->name_text().size() == info->name_len && info->chat_template_text().size() == info->chat_template_len);
    const auto tokens = model->tokenize("One day, one day.");
    CHECK(tokens && !tokens->empty());
    const auto text = model->detokenize(tokens->data(), tokens->size());
    CHECK(text && std::string(text->begin(), text->end()) == "One day, one day.");
    size_t needed = 0;
    const auto none = model->tokenize("One day", 0, nullptr, 0, &needed);
    CHECK(none.error().code() == LOCUTOR_ERR_BUFFER && needed > 0);
    Model moved(std::move(*model)), other;
    CHECK(!model->raw() && moved.raw());
    other = std::move(moved);
    locutor::Model taken(other.release());
    CHECK(!other.raw() && taken.info());
}

static void sessions(const std::vector<unsigned char> &bytes) {
    using locutor::Session;
    auto model = locutor::Model::from_memory(bytes.data(), bytes.size());
    CHECK(model);
    locutor::SessionParams params;
    params.context = 96;
    params.batch = 8;
    params.sequences = 2;
    uint32_t calls = 0;
    auto jobs = [&calls](uint32_t workers, uint32_t n, locutor::SessionParams::Job job) {
        calls++;
        for (uint32_t i = 0; i < n; i++) job(i, i % workers);
    };
    params.threads = 2;
    params.set_parallel_for(jobs);
    const auto plan = model->plan(params);
    CHECK(plan && plan->context == 96);
    Memory memory(static_cast<size_t>(plan->bytes));
    auto made = Session::init(*model, params, memory.start(), static_cast<size_t>(plan->bytes));
    CHECK(made);
    Session session = std::move(*made);
    /* The session keeps its model. */
    *model = locutor::Model();

    locutor::SamplerParams sampler;
    sampler.seed = 7;
    CHECK(session.set_sampler(sampler) && !session.isa()->empty() && session.room().value() == 96);
    const auto first = session.selected_sequence(), fork = session.fork_sequence();
    const std::string plain = answer(session, nullptr);
    const auto tokens = session.tokens();
    CHECK(!plain.empty() && calls > 0 && tokens->size() == session.position().value() && !tokens->empty());
    const std::vector<uint32_t> ids(tokens->begin(), tokens->end());
    CHECK(session.logits().error() == locutor::Status(LOCUTOR_ERR_NOT_READY) || session.logits());
    const auto hash = session.state_hash();
    const auto state = session.save();
    CHECK(state && state->size() == session.save_size(LOCUTOR_SAVE_SEQUENCE).value());
    CHECK(session.truncate(0) && session.restore(state->data(), state->size()));
    CHECK(session.state_hash().value() == hash.value());
    CHECK(!session.restore(state->data(), state->size() - 1) && session.last_error()->code() == LOCUTOR_ERR_STATE);

    /* Slices of work, and of time, end in the same text. */
    CHECK(session.select_sequence(*fork) && session.set_rng(session.rng().value()) && session.set_sampler(sampler));
    const auto units = locutor::Budget::of_units(100);
    CHECK(answer(session, &units) == plain);
    CHECK(session.truncate(0) && session.set_sampler(sampler));
    locutor::Budget time = locutor::Budget::of_time(std::chrono::hours(1));
    CHECK(answer(session, &time) == plain);
    CHECK(session.pages()->all >= session.pages()->free);
    CHECK(session.select_sequence(*first) && session.close_sequence(*fork) && session.create_sequence());
    CHECK(session.select_sequence(*fork).error() == locutor::Status(LOCUTOR_ERR_SEQUENCE));

    CHECK(session.truncate(0) && session.feed_tokens(ids.data(), 1) && session.advance().value());
    CHECK(session.logits()->size() > 0 && std::isfinite((*session.logits())[0]));
    std::vector<double> each(ids.size() - 1);
    const auto sum = session.log_prob(ids.data() + 1, each.size(), each.data());
    CHECK(sum && *sum < 0 && each[0] <= 0);
    const std::string_view stops[] = {"a", "e"};
    CHECK(session.set_stops(stops, 2) && session.set_max_tokens(3));
    CHECK(session.step_token()->token() != LOCUTOR_NO_TOKEN);
    CHECK(session.cancel() && session.step_token().error() == locutor::Status(LOCUTOR_ERR_CANCELLED));
    CHECK(session.step_token(units) && session.advance(units));
    Session empty;
    CHECK(empty.step().error() == locutor::Status(LOCUTOR_ERR_ARGUMENT) && !empty.last_error());
    empty = std::move(session);
    Session again(empty.release());
    CHECK(again.position());
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    CHECK(!std::strcmp(locutor::version(), LOCUTOR_VERSION) && locutor::is_compatible());
    const auto bytes = file(argv[1]);
    models(argv[1], bytes);
    sessions(bytes);
    return failures != 0;
}
