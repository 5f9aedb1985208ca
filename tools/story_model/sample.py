"""Print stories from a GGUF file with llama-cpp-python, to read and judge them."""

import argparse

from llama_cpp import Llama

PROMPTS = ["Once upon a time", "One day, a little fox named Pip", "Lily was sad because", "There was a", "The old bear"]


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("model")
    ap.add_argument("--prompt", action="append", help="may be given several times")
    ap.add_argument("--temperature", type=float, action="append", help="may be given several times; 0 is greedy")
    ap.add_argument("--tokens", type=int, default=240)
    ap.add_argument("--seed", type=int, default=1)
    args = ap.parse_args()
    model = Llama(args.model, n_ctx=256, n_threads=1, seed=args.seed, verbose=False)
    for prompt in args.prompt or PROMPTS:
        for temperature in args.temperature or [0.0, 0.7]:
            out = model(prompt, max_tokens=args.tokens, temperature=temperature, top_k=0, top_p=0.95, min_p=0.0,
                        repeat_penalty=1.0)["choices"][0]
            print(f"--- temperature {temperature}, {out['finish_reason']}\n{prompt}|{out['text']}\n")


if __name__ == "__main__":
    main()
