"""What guessing tokens brings, through `Engine.generate`, where texts repeat themselves and where they do not.

Run: python benchmarks/speculation.py [--model smollm2] [--tokens 200] [--rounds 3]        Prints one JSON line.
For a text with much repetition, one that looks like it but goes on otherwise (digits, drawn at temperature 1) and one
without: tokens a second with speculation off, "auto" (measured to pay) and "always"; the median of the rounds, which
take turns. Greedy but for the second, one request, the prompt's time included, no prefix cache.
The texts that the settings give are compared: `same_text`.
"""

import argparse
import json
import statistics
import time
from typing import Any

from deepseek.engine.engine import Engine
from deepseek.engine.outputs import Generation

LINE = "INSERT INTO stock (item, colour, price) VALUES ('lamp', 'green', 12);\n"
PROMPTS = {
    "repetitive": LINE * 6,
    "misleading": "Digits: " + " ".join(str(place * place * 7 % 11) for place in range(60)),
    "plain": "Here is a story that nobody has told before. On a Tuesday in late autumn, the lighthouse keeper",
}
SETTINGS = ("off", "auto", "always")


def measure(
    engine: Engine, prompt: str, tokens: int, temperature: float, repetition_penalty: float
) -> tuple[float, Generation]:
    begun = time.perf_counter()
    answer = engine.generate(
        prompt,
        max_tokens=tokens,
        temperature=temperature,
        seed=1,
        ignore_eos=True,
        repetition_penalty=repetition_penalty,
    )
    assert isinstance(answer, Generation)
    return len(answer.token_ids) / (time.perf_counter() - begun), answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    engines = {
        setting: Engine.from_pretrained(
            arguments.model, speculation=setting, enable_prefix_caching=False, max_model_len=2048, max_num_seqs=4
        )
        for setting in SETTINGS
    }
    result: dict[str, Any] = {"benchmark": "speculation", "model": arguments.model, "unit": "tokens a second"}
    for name, prompt in PROMPTS.items():
        temperature = 1.0 if name == "misleading" else 0.0
        penalty = 1.3 if name == "plain" else 1.0  # small models repeat themselves unless told not to
        rates: dict[str, list[float]] = {setting: [] for setting in SETTINGS}
        answers: dict[str, Generation] = {}
        for turn in range(arguments.rounds + 1):
            for setting, engine in engines.items():
                rate, answers[setting] = measure(engine, prompt, arguments.tokens, temperature, penalty)
                rates[setting] += [rate] if turn else []  # the first round warms up
        for setting in SETTINGS:
            metrics = answers[setting].metrics
            result[f"{name}_{setting}"] = round(statistics.median(rates[setting]), 1)
            if setting != "off":
                result[f"{name}_{setting}_drafted"] = metrics.drafted_tokens
                result[f"{name}_{setting}_accepted"] = metrics.accepted_tokens
        result[f"{name}_same_text"] = len({tuple(answer.token_ids) for answer in answers.values()}) == 1
    print(json.dumps(result))
    for engine in engines.values():
        engine.close()


if __name__ == "__main__":
    main()
