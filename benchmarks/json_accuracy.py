"""Does asking for JSON cost a model right answers? Facts are read out of sentences, with and without a format.

Run: python benchmarks/json_accuracy.py [--model smollm2] [--prompts 240] [--sampled]          Prints one JSON line.
Each prompt is a sentence made from a table of facts, so the right answer is known. Counted are answers that hold
exactly these facts: `free` (no format; a code fence around it counts as right), `json_object`, `json_schema` and `tool`
(a forced call of one function). `cut_off`: answers that did not end within --tokens. `lost`: right without a format and
wrong with it; `won`: the reverse. Greedy by default; --sampled draws at temperature 1 with the prompt's number as seed.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from deepseek.engine.engine import Engine
from deepseek.engine.outputs import Generation
from deepseek.sampling import SamplingParams, StructuredOutput
from deepseek.server import forced_calls, tool_prompt

AT_ONCE = 32
KINDS = ("free", "json_object", "json_schema", "tool")
NAMES = ("Bob", "Maria", "Chen Wei", "Zoë", "Aisha Khan", "José", "Ingrid Larsen", "Tom O'Neil", "Søren", "Anna-Lena")
CITIES = ("Paris", "São Paulo", "Tokyo", "Köln", "New York", "Oslo", "Nairobi", "Lyon")
ITEMS = ("red lamp", "wooden chair", "steel kettle", "blue umbrella", "cotton shirt", "desk fan", "oak table")
COMPANIES = ("Acme", "Blue Harbor", "Nordwind", "Sunrise Foods", "Delta Systems", "Müller & Sons", "Quickbyte")
BOOKS = ("The Quiet River", "Winter in Malmö", "A Map of Salt", "Seven Doors", "The Glass Bridge", "El último tren")
FIELD = {"s": {"type": "string"}, "i": {"type": "integer"}, "n": {"type": "number"}, "b": {"type": "boolean"}}
KIND = {"s": "string", "i": "integer", "n": "number", "b": "true or false"}


@dataclass(frozen=True, kw_only=True)
class Task:
    sentence: str
    keys: str
    schema: Mapping[str, Any]
    right: Mapping[str, Any]

    @property
    def question(self) -> str:
        return f"{self.sentence} Answer with a JSON object with the keys {self.keys} only, no code fence."


def flat(sentence: str, kinds: Mapping[str, str], right: Mapping[str, Any]) -> Task:
    keys = ", ".join(f"{key} ({KIND[kind]})" for key, kind in kinds.items())
    return Task(sentence=sentence, keys=keys, right=right, schema=_object({key: FIELD[kinds[key]] for key in kinds}))


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": list(properties)}


def tasks(count: int) -> list[Task]:
    return [SHAPES[number % len(SHAPES)](number // len(SHAPES)) for number in range(count)]


def person(at: int) -> Task:
    name, age, city = NAMES[at % len(NAMES)], 18 + at * 7 % 60, CITIES[at % len(CITIES)]
    return flat(
        f"{name} is {age} years old and lives in {city}.",
        {"name": "s", "age": "i", "city": "s"},
        {"name": name, "age": age, "city": city},
    )


def product(at: int) -> Task:
    item, price, is_left = ITEMS[at % len(ITEMS)], round(4.5 + at * 13.25 % 200, 2), at % 3 != 0
    left = "It is in stock." if is_left else "It is not in stock."
    return flat(
        f"The {item} costs {price} euros. {left}",
        {"item": "s", "price": "n", "in_stock": "b"},
        {"item": item, "price": price, "in_stock": is_left},
    )


def guests(at: int) -> Task:
    who = [NAMES[(at + step) % len(NAMES)] for step in (0, 3, 7)]
    return Task(
        sentence=f"{who[0]}, {who[1]} and {who[2]} came to the party.",
        keys="guests (list of strings)",
        schema=_object({"guests": {"type": "array", "items": {"type": "string"}}}),
        right={"guests": who},
    )


def employee(at: int) -> Task:
    name, company, city = NAMES[at % len(NAMES)], COMPANIES[at % len(COMPANIES)], CITIES[at % len(CITIES)]
    inner = _object({"name": FIELD["s"], "city": FIELD["s"]})
    return Task(
        sentence=f"{name} works for {company}, a company in {city}.",
        keys="employee (string) and company (an object with the keys name and city)",
        schema=_object({"employee": FIELD["s"], "company": inner}),
        right={"employee": name, "company": {"name": company, "city": city}},
    )


def book(at: int) -> Task:
    title, author, year = BOOKS[at % len(BOOKS)], NAMES[at % len(NAMES)], 1950 + at * 11 % 70
    return flat(
        f'The book "{title}" by {author} appeared in {year}.',
        {"title": "s", "author": "s", "year": "i"},
        {"title": title, "author": author, "year": year},
    )


def orders(at: int) -> Task:
    first, second = ITEMS[at % len(ITEMS)], ITEMS[(at + 2) % len(ITEMS)]
    counts = (2 + at % 5, 3 + at % 7)
    entry = _object({"item": FIELD["s"], "count": FIELD["i"]})
    return Task(
        sentence=f"The order is {counts[0]} times {first} and {counts[1]} times {second}.",
        keys="orders (a list of objects with the keys item and count)",
        schema=_object({"orders": {"type": "array", "items": entry}}),
        right={"orders": [{"item": first, "count": counts[0]}, {"item": second, "count": counts[1]}]},
    )


SHAPES = (person, product, guests, employee, book, orders)


def is_right(text: str, right: Mapping[str, Any]) -> bool:
    text = text.strip()
    if text.startswith("```"):
        text = text.partition("\n")[2].rpartition("```")[0]
    try:
        return bool(_plain(json.loads(text)) == _plain(right))
    except ValueError:
        return False


def _plain(value: Any) -> Any:
    """Upper and lower case alike; true is not 1."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.casefold() if isinstance(value, str) else (type(value) is bool, value)


def _knows_tools(engine: Engine) -> bool:
    tokenizer: Any = engine.tokenizer
    return tool_prompt.knows_tools(tokenizer.chat_template or "")


def _arguments(engine: Engine, text: str) -> str:
    if not _knows_tools(engine):
        return text
    calls = forced_calls.CallsParser(str)
    pieces = [*calls.feed(text), *calls.finish()]
    return "".join(piece.tool_call.arguments for piece in pieces if piece.tool_call)


def prompt(engine: Engine, task: Task, *, as_call: bool) -> list[int]:
    tokenizer: Any = engine.tokenizer
    if not as_call:
        return list(tokenizer.encode_chat([{"role": "user", "content": task.question}]))
    messages: Sequence[Mapping[str, Any]] = [{"role": "user", "content": f"{task.sentence} Record this."}]
    tools: Any = [{"type": "function", "function": _function(task)}]
    if not _knows_tools(engine):
        messages, tools = tool_prompt.with_tools(messages, tools), None
    return list(tokenizer.encode_chat(messages, tools=tools))


def _function(task: Task) -> dict[str, Any]:
    return {"name": "record", "description": "Record facts.", "parameters": dict(task.schema)}


def structured(engine: Engine, kind: str, task: Task) -> StructuredOutput | None:
    match kind:
        case "json_object":
            return StructuredOutput(json_object=True)
        case "json_schema":
            return StructuredOutput(json_schema=task.schema)
        case "tool":
            if not _knows_tools(engine):
                return forced_calls.schema_of_arguments(_function(task))
            return forced_calls.schema_of_calls([_function(task)], several=False)
    return None


def answers(engine: Engine, kind: str, given: Sequence[Task], tokens: int, *, sampled: bool) -> list[Generation]:
    """Many at once, each with a format of its own."""

    def ask(number: int) -> Generation:
        params = SamplingParams(
            max_tokens=tokens,
            temperature=1.0 if sampled else 0.0,
            seed=number,
            structured=structured(engine, kind, given[number]),
        )
        answer = engine.generate(prompt(engine, given[number], as_call=kind == "tool"), params)
        assert isinstance(answer, Generation)
        return answer

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(ask, range(len(given))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--prompts", type=int, default=240)
    parser.add_argument("--tokens", type=int, default=160)
    parser.add_argument("--sampled", action="store_true")
    parser.add_argument("--kinds", nargs="*", default=KINDS, choices=KINDS)
    parser.add_argument("--wrong", type=int, default=0, help="Print so many wrong answers of each kind.")
    arguments = parser.parse_args()
    given = tasks(arguments.prompts)
    line: dict[str, Any] = {
        "benchmark": "json_accuracy", "model": arguments.model, "prompts": len(given), "sampled": arguments.sampled,
    }  # fmt: skip
    begun = time.perf_counter()
    with Engine.from_pretrained(arguments.model, max_model_len=1024, max_num_seqs=AT_ONCE) as engine:
        free: list[bool] = []
        for kind in arguments.kinds:
            found = answers(engine, kind, given, arguments.tokens, sampled=arguments.sampled)
            texts = [_arguments(engine, str(one.text)) if kind == "tool" else str(one.text) for one in found]
            right = [is_right(text, task.right) for text, task in zip(texts, given, strict=True)]
            free = free or right
            line[kind] = sum(right)
            line[f"{kind}_cut_off"] = sum(one.finish_reason == "length" for one in found)
            if kind != "free" and "free" in arguments.kinds:
                line[f"{kind}_lost"] = sum(was and not now for was, now in zip(free, right, strict=True))
                line[f"{kind}_won"] = sum(now and not was for was, now in zip(free, right, strict=True))
            wrong = [one.text for one, fits in zip(found, right, strict=True) if not fits]
            for text in wrong[: arguments.wrong]:
                print(f"{kind}: {text!r}")
    line["seconds"] = round(time.perf_counter() - begun, 1)
    print(json.dumps(line))


if __name__ == "__main__":
    main()
