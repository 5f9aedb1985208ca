#!/usr/bin/env python3
"""Tests of locutor.py: the standard library alone, against the ids of the command-line tool.

    cargo build --release -p locutor-ffi
    cargo build --release --example locutor
    python3 examples/python/test_locutor.py
"""

import gc
import math
import os
import signal
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path

import locutor
from locutor import Model, Sampler

ROOT = Path(__file__).resolve().parent.parent.parent
STORY = ROOT / "examples" / "model" / "story.gguf"
TARGET = Path(locutor.load().path).resolve().parent
TOOL = Path(os.environ.get("LOCUTOR_TOOL", TARGET / "examples" / "locutor"))
PROMPT = "Once upon a time"
# What the tool takes if not told otherwise.
LIKE_TOOL = {"temperature": 0.7, "min_p": 0.0}

# Goes on for ever until Ctrl-C, and then for three tokens.
INTERRUPTED = """
import locutor, signal, sys
# Whoever runs the tests may have set Ctrl-C aside.
signal.signal(signal.SIGINT, signal.default_int_handler)
session = locutor.Model(sys.argv[1]).session(policy="shift", context=64)
session.feed("Once upon a time")
try:
    for piece in session.generate(locutor.Sampler(seed=1), ignore_end=True):
        print(repr(piece))
except KeyboardInterrupt:
    before = session.position
    more = list(session.generate_tokens(max_tokens=3, ignore_end=True))
    print("<", len(more), session.position - before, ">")
"""


def tool(*options) -> str:
    command = [TOOL, "generate", "-m", STORY, *options, PROMPT]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Python(unittest.TestCase):
    def setUp(self):
        self.model = Model(STORY)
        self.addCleanup(self.model.close)

    def session(self, **limits):
        session = self.model.session(**limits)
        self.addCleanup(session.close)
        return session

    def ids(self, session, n=24, **sampler):
        return list(session.generate_tokens(Sampler(**sampler), max_tokens=n))

    def test_ids_are_those_of_the_tool(self):
        for options, sampler in [
            (["--greedy"], Sampler.greedy()),
            (["--seed", "42"], Sampler(seed=42, **LIKE_TOOL)),
            (["--seed", "7", "--temperature", "1.3"], Sampler(seed=7, temperature=1.3, min_p=0.0)),
        ]:
            expected = [int(id) for id in tool("--ids", "-n", "48", *options).split()]
            self.assertGreater(len(expected), 40)
            for threads in (1, 2):
                session = self.session(threads=threads)
                session.feed(PROMPT, markup=True)
                given = len(session.tokens)
                generated = list(session.generate_tokens(sampler, max_tokens=48))
                self.assertEqual(session.tokens, expected)
                self.assertEqual(generated, expected[given:])
                self.assertEqual(session.position, len(expected))

    def test_text_streams(self):
        session = self.session()
        session.feed(PROMPT, markup=True)
        pieces = list(session.generate(Sampler(seed=42, **LIKE_TOOL), max_tokens=60))
        self.assertGreater(len(pieces), 20)
        self.assertEqual(PROMPT + "".join(pieces) + "\n", tool("-n", "60", "--seed", "42"))
        self.assertEqual(session.finish, "max_tokens")

    def test_stop_strings(self):
        whole, session = tool("--greedy", "-n", "60"), self.session()
        session.feed(PROMPT, markup=True)
        stop = whole[len(PROMPT) + 40 : len(PROMPT) + 52]
        text = "".join(session.generate(Sampler.greedy(), max_tokens=60, stop=["no such text", stop]))
        self.assertEqual(PROMPT + text, whole[: whole.index(stop, len(PROMPT))])
        self.assertEqual(session.finish, "stop")
        with self.assertRaises(TypeError):
            next(session.generate(stop="a text and not a list"))

    def test_the_program(self):
        command = [sys.executable, locutor.__file__, "-m", STORY, "-n", "30", "--seed", "5"]
        run = subprocess.run([*command, PROMPT], check=True, capture_output=True, text=True)
        self.assertEqual(run.stdout, tool("-n", "30", "--seed", "5"))
        run = subprocess.run([*command, "--ids", PROMPT], check=True, capture_output=True, text=True)
        self.assertEqual(run.stdout, tool("-n", "30", "--seed", "5", "--ids"))
        run = subprocess.run([*command[:3], "no-such-file", PROMPT], capture_output=True, text=True)
        self.assertEqual((run.returncode, run.stdout), (1, ""))
        self.assertIn("cannot open", run.stderr)

    def test_every_source_is_the_same_model(self):
        raw, expected = STORY.read_bytes(), None
        pack = ROOT / "target" / "python-test.pack"
        pack.parent.mkdir(exist_ok=True)
        pack.write_bytes(b"\xee" * 1234 + raw + b"\xee" * 99)
        self.addCleanup(pack.unlink)
        for model in [
            Model(str(STORY)), Model(STORY, map=True), Model(data=raw), Model(data=bytearray(raw)),
            Model(pack, offset=1234, length=len(raw)),
        ]:
            # Nothing but the session holds the model and its bytes from here on.
            session = model.session()
            is_mapped = model.is_mapped
            model.close()
            del model
            gc.collect()
            session.feed(PROMPT)
            ids = self.ids(session, seed=3)
            expected = expected or ids
            self.assertEqual(ids, expected)
            self.assertIn(is_mapped, (True, False))
            session.close()

    def test_what_a_model_is(self):
        model = self.model
        self.assertEqual((model.architecture, model.context), ("gpt2", 256))
        self.assertTrue(model.has_tokenizer)
        self.assertEqual(model.file_bytes, STORY.stat().st_size)
        text = "Two birds, naïve ones: 🐦🐦."
        ids = model.tokenize(text)
        self.assertTrue(all(0 <= id < model.vocab for id in ids))
        self.assertEqual(model.detokenize(ids).decode(), text)
        self.assertEqual(model.tokenize(""), [])
        header = Model(STORY, header=True)
        self.assertEqual(header.plan(context=64), model.plan(context=64))
        self.assertEqual(header.tokenize(text), ids)
        with self.assertRaises(locutor.LocutorError):
            header.session()

    def test_plans_and_limits(self):
        small, large = self.model.plan(context=32), self.model.plan(context=64, kv="f32")
        self.assertEqual(small["context"], 32)
        self.assertEqual(small["bytes"], small["kv_bytes"] + small["logits_bytes"] + small["scratch_bytes"])
        self.assertGreater(large["kv_bytes"], 3 * small["kv_bytes"])
        self.assertEqual(self.session(isa="scalar").isa, "scalar")
        for limits, error in [({"contxt": 3}, TypeError), ({"policy": "flee"}, ValueError),
                              ({"isa": "abacus"}, locutor.LocutorError)]:
            with self.assertRaises(error):
                self.model.session(**limits)

    def test_logits_and_probabilities(self):
        session = self.session()
        session.feed(PROMPT)
        with self.assertRaises(locutor.LocutorError):
            session.logits()
        session.advance()
        logits = session.logits()
        self.assertEqual(len(logits), self.model.vocab)
        best = max(range(len(logits)), key=lambda id: logits[id])
        exact = logits[best] - math.log(sum(math.exp(logit) for logit in logits))
        (term,) = session.log_prob([best])
        self.assertAlmostEqual(term, exact, places=4)
        self.assertEqual(session.tokens[-1], best)

    def test_biases(self):
        session = self.session()
        session.feed(PROMPT)
        first = self.ids(session, 1, temperature=0.0)[0]
        session.truncate(session.position - 1)
        banned = Sampler(temperature=0.0, logit_bias={first: -math.inf})
        self.assertNotEqual(list(session.generate_tokens(banned, max_tokens=1)), [first])
        session.truncate(session.position - 1)
        gc.collect()
        self.assertNotIn(first, list(session.generate_tokens(max_tokens=1)))

    def test_sequences(self):
        session = self.session(sequences=3, context=128)
        session.feed(PROMPT)
        alone = self.session(context=128)
        alone.feed(PROMPT + " there was a cat")
        expected = self.ids(alone, seed=9)
        first, fork = session.sequence, session.fork_sequence()
        free, every = session.pages
        self.assertLess(free, every)
        left = self.ids(session, seed=1)
        session.sequence = fork
        self.assertEqual(session.sequence, fork)
        session.feed(" there was a cat")
        self.assertEqual(self.ids(session, seed=9), expected)
        session.sequence = first
        self.assertEqual(session.tokens[-len(left) :], left)
        third = session.create_sequence()
        with self.assertRaises(locutor.LocutorError):
            session.create_sequence()
        session.close_sequence(third)
        session.close_sequence(fork)
        with self.assertRaises(locutor.LocutorError):
            session.sequence = fork

    def test_saved_states(self):
        session = self.session()
        session.feed(PROMPT)
        list(session.generate(Sampler(seed=11), max_tokens=10))
        for whole in (False, True):
            state, hash = session.save(whole=whole), session.state_hash
            other = self.session()
            other.restore(state)
            self.assertEqual(other.save(whole=whole), state)
            self.assertEqual(other.rng, session.rng)
            expected = session.tokens
            # Random numbers are part of the state: both go on alike.
            theirs, ours = list(other.generate(max_tokens=10)), list(session.generate(max_tokens=10))
            self.assertEqual(theirs, ours)
            session.restore(state)
            self.assertEqual((session.tokens, session.state_hash), (expected, hash))
        damaged = bytearray(state)
        damaged[len(damaged) // 2] ^= 1
        with self.assertRaises(locutor.DamagedState):
            session.restore(bytes(damaged))
        with self.assertRaises(locutor.DamagedState):
            self.session(kv="f32").restore(state)
        self.assertEqual(session.tokens, expected)

    def test_cancel_from_another_thread(self):
        session = self.session(policy="shift", context=64)
        session.feed(PROMPT)
        cancelled, seen = threading.Event(), []

        def generate():
            try:
                for id in session.generate_tokens(Sampler(seed=1), ignore_end=True):
                    seen.append(id)
            except locutor.Cancelled:
                cancelled.set()

        thread = threading.Thread(target=generate)
        thread.start()
        while len(seen) < 20:
            time.sleep(0.001)
        session.cancel()
        thread.join(30)
        self.assertTrue(cancelled.is_set())
        # The session is as it was before the call that was ended, and goes on to the same text.
        count = len(seen)
        seen.extend(session.generate_tokens(max_tokens=20, ignore_end=True))
        again = self.session(policy="shift", context=64)
        again.feed(PROMPT)
        self.assertEqual(list(again.generate_tokens(Sampler(seed=1), max_tokens=count + 20, ignore_end=True)), seen)

    def test_a_session_does_one_call_at_a_time(self):
        prompt, continuation = (self.model.tokenize(text) for text in (PROMPT, "One day " * 90))

        def begun():
            session = self.session()
            session.feed_tokens(prompt)
            return session

        expected = begun().log_prob(continuation)
        session, refused, answers, failures = begun(), threading.Event(), [], []

        def patiently(call, *arguments):
            # Whichever thread comes second is refused, this one or the other.
            while True:
                try:
                    return call(*arguments)
                except locutor.Busy as error:
                    self.assertEqual(error.status, -400)
                    refused.set()

        def compute():
            # Again and again, as a thread may sleep for as long as one call takes.
            end = time.monotonic() + 60
            try:
                while not answers or not refused.is_set() and time.monotonic() < end:
                    answers.append(patiently(session.log_prob, continuation))
                    patiently(session.truncate, len(prompt))
            except Exception as error:
                failures.append(error)

        thread = threading.Thread(target=compute)
        thread.start()
        while thread.is_alive() and not refused.is_set():
            try:
                patiently(session.truncate, 10_000)
            except locutor.LocutorError:
                pass  # Nothing lies behind that many tokens.
        thread.join()
        self.assertEqual(failures, [])
        self.assertTrue(refused.is_set())
        # What was refused changed nothing.
        self.assertEqual(session.tokens, prompt)
        for answer in answers:
            self.assertEqual(answer, expected)

    @unittest.skipIf(os.name == "nt", "signals of POSIX")
    def test_interrupt(self):
        command = [sys.executable, "-u", "-c", INTERRUPTED, STORY]
        path = str(Path(locutor.__file__).parent)
        environment = {**os.environ, "LOCUTOR_LIBRARY": locutor.load().path, "PYTHONPATH": path}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            for _ in range(5):
                self.assertTrue(process.stdout.readline())
            process.send_signal(signal.SIGINT)
            rest = process.stdout.read()
            self.assertEqual(process.wait(30), 0)
        self.assertTrue(rest.endswith("< 3 3 >\n"), rest[-200:])

    def test_errors_leave_things_as_they_were(self):
        session = self.session(context=32)
        session.feed(PROMPT)
        before = session.tokens
        with self.assertRaises(locutor.ContextFull):
            session.feed_tokens([5] * 40)
        with self.assertRaisesRegex(locutor.LocutorError, "token"):
            session.feed_tokens([1, self.model.vocab])
        self.assertEqual(session.tokens, before)
        with self.assertRaises(locutor.LocutorError):
            session.generate(Sampler(temperature=-1.0)).__next__()
        with self.assertRaises(locutor.ContextFull):
            list(session.generate(Sampler(seed=1), ignore_end=True))
        self.assertEqual(session.room, 0)
        session.close()
        with self.assertRaises(ValueError):
            session.position
        self.model.close()
        with self.assertRaises(ValueError):
            self.model.tokenize("text")
        for arguments in ({}, {"data": b"GGUF"}, {"path": ROOT / "Cargo.toml"}):
            with self.assertRaises(locutor.LocutorError):
                Model(**arguments)


if __name__ == "__main__":
    unittest.main()
