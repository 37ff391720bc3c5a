"""What a newcomer's first questions are answered: how many rightly, how fast, and how sampling changes it.

Run: python benchmarks/first_answers.py [--model smollm2] [--seeds 20]          Prints one JSON line.
`right`: of the questions below, greedily; `tokens_per_second`: the median of their answers, the prompt's time included.
`paris_...`: of so many seeds, those whose answer to the first question names Paris: with the sampling that the server
takes by default, at 0.2 with top_p 0.9, and at 1.0. Compare models for the default one with it.
"""

import argparse
import json
import statistics
import time
from collections.abc import Mapping
from typing import Any

from deepseek.engine.engine import Engine
from deepseek.engine.outputs import Generation

# One of several texts, parted by |, must be in the answer; parts joined by & all of them.
QUESTIONS = {
    "What is the capital of France?": "paris",
    "What is the capital of Japan?": "tokyo",
    "What is 7 times 8?": "56",
    "What is 12 plus 30?": "42",
    "Who wrote Romeo and Juliet?": "shakespeare",
    "How many days are in a week?": "7|seven",
    "What color is the sky on a clear day?": "blue",
    "What is the largest planet in our solar system?": "jupiter",
    "Translate 'good morning' to Spanish.": "buenos d",
    "Translate 'thank you' to French.": "merci",
    "What is the chemical symbol for water?": "h2o|h₂o",
    "What is the opposite of hot?": "cold",
    "Name three primary colors.": "red&blue",
    "How many legs does a spider have?": "8|eight",
    "What is the plural of mouse?": "mice",
    "Write a Python function that adds two numbers.": "return a + b|return x + y|return num1 + num2",
    "Who was the first person on the moon?": "armstrong",
    "What is the square root of 81?": "9|nine",
    "Is a whale a fish or a mammal?": "mammal",
    "What language is spoken in Brazil?": "portuguese",
    "What do bees make?": "honey",
    "Write a one-line Python list comprehension for the squares of 0 to 9.": "for x in range(10)|for i in range(10)",
    "How do I undo the last git commit but keep my changes?": "reset",
    "Which ocean is the largest?": "pacific",
    "In which year did the Second World War end?": "1945",
    "What is the boiling point of water in Celsius?": "100",
    "Which HTML tag makes a link?": "<a",
    "Which SQL statement reads rows from a table?": "select",
    "Sort these numbers: 3, 1, 2": "1, 2, 3|1,2,3",
    "What is 15 percent of 200?": "30",
}
TOKENS = 80


def is_right(answer: str, wanted: str) -> bool:
    return any(all(part in answer.lower() for part in option.split("&")) for option in wanted.split("|"))


def named_paris(engine: Engine, seeds: int, sampling: Mapping[str, Any]) -> int:
    prompt = engine.chat_prompt(next(iter(QUESTIONS)))
    answers = [engine.generate(prompt, seed=seed, max_tokens=TOKENS, **sampling) for seed in range(seeds)]
    return sum("Paris" in str(answer.text) for answer in answers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--seeds", type=int, default=20)
    arguments = parser.parse_args()
    with Engine.from_pretrained(arguments.model, max_model_len=1024, max_num_seqs=4) as engine:
        rates, right = [], 0
        for question, wanted in QUESTIONS.items():
            begun = time.perf_counter()
            answer: Generation = engine.chat(question, max_tokens=TOKENS, temperature=0.0, repetition_penalty=1.0)
            rates.append(len(answer.token_ids) / (time.perf_counter() - begun))
            right += is_right(str(answer.text), wanted)
        line = {
            "benchmark": "first_answers", "model": arguments.model, "questions": len(QUESTIONS), "right": right,
            "tokens_per_second": round(statistics.median(rates), 1), "seeds": arguments.seeds,
            "paris_by_default": named_paris(engine, arguments.seeds, engine.recommended_sampling),
            "paris_at_0.2": named_paris(engine, arguments.seeds, {"temperature": 0.2, "top_p": 0.9}),
            "paris_at_1.0": named_paris(engine, arguments.seeds, {"temperature": 1.0}),
        }  # fmt: skip
    print(json.dumps(line))


if __name__ == "__main__":
    main()
