"""Does a format beside tools cost calls, or tools beside a format right JSON?

Run: python benchmarks/format_beside_tools.py [--model MODEL] [--url http://127.0.0.1:8000]       Prints one JSON line.
Asks a running server, greedily, with two tools that look things up. 20 questions need a tool: counted are answers that
call the right one with the right value, with tools alone and with a format beside them. 20 questions bring their facts
along: counted are answers that hold them as JSON, with the format alone, the tools alone, and both.
"""

import argparse
import json
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

CITIES = ("Paris", "Tokyo", "Oslo", "Nairobi", "Lyon", "Berlin", "Lima", "Cairo", "Rome", "Delhi")
PEOPLE = ("Bob", "Maria", "Aisha", "Tom", "Ingrid", "Chen", "Omar", "Julia", "Pedro", "Nina")


def _tool(name: str, description: str, parameter: str) -> dict[str, Any]:
    properties = {parameter: {"type": "string"}}
    parameters = {"type": "object", "properties": properties, "required": [parameter], "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TOOLS = (
    _tool("get_weather", "The weather in a city now.", "city"),
    _tool("get_stock_price", "The price of a company's stock now.", "company"),
)
COMPANIES = ("Apple", "Siemens", "Toyota", "Nestle", "Samsung", "Intel", "Volvo", "Adidas", "Sony", "Shell")
ANSWER = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
PERSON = {
    "type": "object",
    "properties": {"person": {"type": "string"}, "age": {"type": "integer"}, "city": {"type": "string"}},
    "required": ["person", "age", "city"],
}


def ask(url: str, text: str, tools: Sequence[Any], schema: Mapping[str, Any] | None) -> dict[str, Any]:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 120}
    if tools:
        body["tools"] = list(tools)
    if schema is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    answer: dict[str, Any] = json.load(urllib.request.urlopen(request, timeout=600))
    return dict(answer["choices"][0]["message"])


def called(message: Mapping[str, Any], name: str, value: str) -> bool:
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    return bool(calls) and calls[0]["name"] == name and value in json.loads(calls[0]["arguments"]).values()


def holds(message: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    try:
        return bool(json.loads(message.get("content") or "") == facts)
    except ValueError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", default="", help="only named in the result")
    args = parser.parse_args()
    needing = [(f"What is the weather in {city} right now?", "get_weather", city) for city in CITIES]
    needing += [(f"What is the stock price of {one} right now?", "get_stock_price", one) for one in COMPANIES]
    told = {"model": args.model, "calls_without_format": 0, "calls_with_format": 0, "text_in_format": 0}
    told |= {"json_without_tools": 0, "json_without_format": 0, "json_with_both": 0, "calls_where_none_is_needed": 0}
    for question, name, value in needing:
        told["calls_without_format"] += called(ask(args.url, question, TOOLS, None), name, value)
        message = ask(args.url, question, TOOLS, ANSWER)
        told["calls_with_format"] += called(message, name, value)
        told["text_in_format"] += not message.get("tool_calls")
    for number in range(20):
        facts = {"person": PEOPLE[number % 10], "age": 20 + 3 * number, "city": CITIES[(number + number // 10) % 10]}
        sentence = f"{facts['person']} is {facts['age']} years old and lives in {facts['city']}."
        question = f"{sentence} Answer with a JSON object with the keys person, age and city only, no code fence."
        told["json_without_tools"] += holds(ask(args.url, question, (), PERSON), facts)
        told["json_without_format"] += holds(ask(args.url, question, TOOLS, None), facts)
        message = ask(args.url, question, TOOLS, PERSON)
        told["json_with_both"] += holds(message, facts)
        told["calls_where_none_is_needed"] += bool(message.get("tool_calls"))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
