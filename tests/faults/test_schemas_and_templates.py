"""Grammars, schemas and templates made to hurt: lines 15 to 21 of the list of faults.

What they cost in themselves is tested in tests/engine/test_structured.py and tests/tokenizer; here a server meets them.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deepseek.server import parsing
from deepseek.server.chat import _INTERNAL
from live_server import Live, live, tiny_engine, write_tiny_moe

CHAT = "/v1/chat/completions"


@pytest.fixture(autouse=True)
def still_well(target: Live) -> Iterator[None]:
    yield
    assert target.chat("hi", max_tokens=2, guided_regex="[ab]{2}").status_code == 200
    load = target.engine.load()
    assert (load.running, load.waiting, load.used_blocks, load.broken) == (0, 0, 0, False)


def structured(target: Live, **fields: Any) -> Any:
    return target.chat("hi", max_tokens=24, temperature=1.0, seed=1, **fields)


@pytest.mark.parametrize("regex", ["(a+)+$", "(a|a)*b", "((a*)*)*c", "(.*)*x" * 20, "(x+x+)+y", "a{1,500}b{1,500}"])
def test_regexes_without_end(target: Live, regex: str) -> None:
    """They run in linear time, or are refused."""
    answer = structured(target, guided_regex=regex)
    assert answer.status_code in (200, 400), answer.text


@pytest.mark.parametrize("regex", ["*a", "a**", "+", "(", "[", "a{2,1}", "\\", "(?P<a", "(?<=a)b", "\\1", "[z-a]", ""])
def test_regexes_that_are_none(target: Live, regex: str) -> None:
    answer = structured(target, guided_regex=regex)
    if answer.status_code != 200:  # some dialects know some of them
        assert answer.status_code == 400
        assert "regex" in answer.json()["error"]["message"]


def nested(depth: int) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


LOOP = {"$ref": "#"}
ENDLESS = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}
TREE = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"], "additionalProperties": False}


@pytest.mark.parametrize(
    "schema",
    [
        LOOP, ENDLESS, TREE, nested(25), {"$ref": "http://169.254.169.254/schema"}, {"$ref": "file:///etc/passwd"},
        {"$ref": "#/nowhere"}, {"type": "robot"}, {"allOf": [{"type": "string"}, {"type": "number"}]},
        {"type": "string", "minLength": 5, "maxLength": 2}, {"type": "integer", "minimum": 2, "maximum": 1},
        {"enum": []}, {"not": {}}, False, {"type": "string", "pattern": "(a+)+$"}, {"type": "array", "minItems": 10**9},
        {"enum": [str(number) for number in range(20_000)]}, {"type": "string", "maxLength": 10**12},
        {"type": "object", "properties": {f"p{number}": {"type": "integer"} for number in range(3000)}},
    ],
    ids=lambda schema: repr(schema)[:40],
)  # fmt: skip
def test_schemas_that_have_no_end_or_no_answer(target: Live, schema: Any) -> None:
    """Each is refused by name, or the answer ends by its length."""
    answer = structured(
        target, response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    )  # fmt: skip
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 400:
        assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "grammar",
    [
        "start: " + "(" * 60_000 + '"a"' + ")" * 60_000, "start: start", "start: a\na: b\nb: a", "start: nothing", "",
        'start: "a" | start "b"', "root ::= root", "start: /(a+)+$/", "start: " + '"a"? ' * 20_000, "%import common.X",
    ],
    ids=lambda grammar: repr(grammar)[:30],
)  # fmt: skip
def test_grammars_without_end(target: Live, grammar: str) -> None:
    assert structured(target, guided_grammar=grammar).status_code in (200, 400)


def test_bad_grammars_between_good_ones_and_a_flood_of_them(target: Live) -> None:
    """What is good stays good; what was kept is bounded (tests/engine/test_structured.py counts it)."""
    good = structured(target, guided_choice=["yes", "no"]).json()["choices"][0]["message"]["content"]
    for number in range(150):
        assert structured(target, guided_regex=f"({number}").status_code == 400
        assert structured(target, guided_regex=f"{number}{{1,3}}").status_code == 200
    again = structured(target, guided_choice=["yes", "no"]).json()["choices"][0]["message"]["content"]
    assert good == again
    assert good in ("yes", "no")


TEMPLATES = {
    "objects": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "attr": "{{ ''|attr('__class__') }}",
    "files": "{% include '/etc/passwd' %}",
    "loop": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "doubling": "{% set n = namespace(x='aa') %}{% for a in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "power": "{{ 9 ** 9 ** 9 }}",
    "wide": "{{ '%999999999d' % 1 }}",
    "broken": "{% if %}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_model_with_a_hostile_template(name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Chats are refused; what needs no template is served."""
    template = tmp_path / "template.jinja"
    template.write_text(TEMPLATES[name])
    folder = write_tiny_moe(tmp_path_factory.mktemp("hostile"))
    with live(tiny_engine(folder), chat_template=str(template)) as server:
        refused = server.chat("hi", max_tokens=2)
        assert refused.status_code == 400, refused.text
        assert "root:" not in refused.text
        assert "uid=" not in refused.text
        assert server.post("/v1/completions", {"prompt": "hi", "max_tokens": 2}).status_code == 200


@pytest.mark.parametrize("name", sorted(_INTERNAL))
def test_template_values_that_are_the_servers(target: Live, name: str) -> None:
    answer = target.chat("hi", max_tokens=1, chat_template_kwargs={name: "{{ 7 * 7 }}"})
    assert answer.status_code == 400
    assert name in answer.json()["error"]["message"]


def test_no_parser_runs_what_a_model_wrote() -> None:
    """The rest of line 21, every split of malformed calls, is in tests/server/test_parsing*.py."""
    forbidden = {"eval", "exec", "compile", "literal_eval", "loads_pickle", "__import__"}
    for path in Path(parsing.__file__).parent.glob("*.py"):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        names = {call.id if isinstance(call, ast.Name) else getattr(call, "attr", "") for call in calls}
        assert not (names & forbidden) - ({"compile"} if "re.compile" in path.read_text() else set()), path
