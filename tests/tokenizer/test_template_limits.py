"""A hostile chat template is stopped: soon, with little memory, from any thread, with one clear error."""

import contextlib
import threading
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepseek.errors import TokenizerError
from deepseek.tokenizer.chat_template import TemplateLimits, render

MESSAGES = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": None, "tool_calls": [{"a": [1]}]}]
LIMITS = TemplateLimits(
    steps=200_000, seconds=1000.0, string_characters=500_000, built_characters=5_000_000, container_items=50_000,
    output_characters=500_000,
)  # fmt: skip
FOREVER = [
    "{% for i in range(10**9) %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{{ i }}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) if j > 99998 %}{% endfor %}{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% for i in range(9) recursive %}{{ loop(range(9)) }}{% endfor %}",
    "{% block b %}{{ self.b() }}{% endblock %}",
    "{% for i in range(99999) recursive %}{% if depth0 < 5 %}{{ loop(range(99999)) }}{% endif %}{% endfor %}",
]
LARGE = [
    "{{ 'a' * 10**10 }}",
    "{{ 10**10 * 'a' }}",
    "{{ [0] * 10**9 }}",
    "{{ (0,) * 10**9 }}",
    "{{ 9**9**9 }}",
    "{% set ns = namespace(x=3) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = {'a': ns.x, 'b': ns.x} %}{% endfor %}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = dict(a=ns.x, b=ns.x) %}{% endfor %}",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x %}{{ ns.x }}{{ ns.x }}"
    "{% endset %}{% endfor %}",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] | join %}{% endfor %}",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x.replace('a', ns.x) %}{% endfor %}",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x | replace('a', ns.x) %}{% endfor %}",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = '%s%s' % (ns.x, ns.x) %}{% endfor %}",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = '{0}{0}'.format(ns.x) %}{% endfor %}",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = '%s%s' | format(ns.x, ns.x) %}{% endfor %}",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x.join([ns.x, ns.x]) %}{% endfor %}",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] | tojson %}{% endfor %}",
    "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] | string %}{% endfor %}",
    "{% macro f(x) %}{{ x }}{{ x }}{% endmacro %}{% set ns = namespace(x='ab') %}"
    "{% for i in range(60) %}{% set ns.x = f(ns.x) %}{% endfor %}",
    "{{ 'x'.center(10**9) }}",
    "{{ 'x'.zfill(10**9) }}",
    "{{ 'x' | center(10**9) }}",
    "{{ 'x' | center(1000000000) }}",
    "{{ 'x\n' | indent(1000000000) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '%.1000000000f' % 1.5 }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ '{:{w}}'.format(1, w=1000000000) }}",
    "{{ '{x:1000000000}'.format_map({'x': 1}) }}",
    "{{ [1] | batch(1000000000, 0) | list }}",
    "{{ [1] | slice(1000000000) | list }}",
    "{{ [1] | tojson(indent=1000000000) }}",
    "{{ 1.5 | round(1000000000, 'ceil') }}",
    "{{ (5).to_bytes(10**10) }}",
    "{{ 'a'.translate({97: 'b' * 400000}) }}",
    "{{ 'a'.encode().hex() }}",
    "{{ lipsum(n=10**9) }}",
    "{{ range(10**9) | list }}",
    "{% for i in range(99999) %}{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' }}{% endfor %}",
    "{{ strftime_now('%1000000000Y') }}",
    "{{ strftime_now('%Y' * 100000) }}",
    "{{ ([[1]] * 10000) | sum(start=[]) }}",
]
ESCAPES = [
    "{{ ''.__class__.__mro__ }}",
    "{{ ''['__class__']['__mro__'] }}",
    "{{ '' | attr('__class__') | attr('__mro__') | first }}",
    "{{ messages | map(attribute='__class__') | first | map(attribute='x') | list }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(raise_exception) }}",
    "{{ ('{0.__class__.__mro__}' | attr('format'))('') }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__globals__['__builtins__'] }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ dict.__class__.__base__.__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os }}",
    "{{ self._TemplateReference__context.environment.filters }}",
    "{{ loop.__class__ }}{% for i in [1] %}{{ loop._iterator.gi_frame }}{% endfor %}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 'x'}) }}",
    "{% set ns = namespace(__class__=1) %}",
    "{% set ns = namespace() %}{% set ns._x = 1 %}",
    "{% include 'x' %}",
    "{% import 'x' as y %}",
    "{% extends '/etc/passwd' %}",
]
BROKEN = [
    "{% for %}",
    "{{ " + "(" * 5000 + ")" * 5000 + " }}",
    "{{ " + "-" * 20000 + "1 }}",
    "{{ 1" + "+1" * 20000 + " }}",
    "{% if 1 %}" * 300 + "{% endif %}" * 300,
    "{{ 1 / 0 }}",
    "{{ missing.a.b }}",
    "{{ messages | nofilter }}",
    "x" * 300_000,
]


def refused(template: str, limits: TemplateLimits = LIMITS) -> TokenizerError:
    with pytest.raises(TokenizerError) as caught:
        render(template, MESSAGES, limits=limits)
    return caught.value


@pytest.mark.parametrize("template", FOREVER)
def test_endless_work_is_stopped_by_counting(template: str) -> None:
    assert "seconds" not in str(refused(template))  # not by the clock, which differs between machines


@pytest.mark.parametrize("template", LARGE)
def test_large_results_are_refused_before_they_are_built(template: str) -> None:
    tracemalloc.start()
    try:
        refused(template)
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("template", ESCAPES)
def test_no_way_to_python_objects(template: str) -> None:
    try:
        text = render(template, MESSAGES, limits=LIMITS)
    except TokenizerError:
        return
    assert text.strip("[]") == ""


@pytest.mark.parametrize("template", BROKEN)
def test_broken_templates_are_one_error(template: str) -> None:
    assert "chat template" in str(refused(template))


def test_the_default_limits_stop_endless_work_too() -> None:
    assert "chat template" in str(refused(FOREVER[1], TemplateLimits()))


def test_the_clock_stops_what_steps_do_not() -> None:
    limits = TemplateLimits(steps=10**12, seconds=0.3)
    error = refused(FOREVER[1], limits)
    assert "longer than 0.3 seconds" in str(error)


def test_it_works_in_any_thread_and_leaves_none_behind() -> None:
    before, errors = threading.active_count(), []

    def work() -> None:
        try:
            render(FOREVER[1], MESSAGES, limits=LIMITS)
        except TokenizerError as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(errors) == 3
    assert threading.active_count() == before


def test_renders_of_one_template_do_not_share_a_budget() -> None:
    limits = TemplateLimits(steps=3000)
    for _ in range(20):
        assert render("{% for i in range(999) %}{% endfor %}x", MESSAGES, limits=limits) == "x"


def test_a_long_honest_chat_fits() -> None:
    messages = [{"role": "user", "content": "word " * 200}, {"role": "assistant", "content": "word " * 200}] * 2000
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' }}{% endfor %}"
    )
    assert len(render(template, messages)) > 4_000_000


TOKENS = st.sampled_from(
    "messages range(9) 'a' 5 [1] {'a':1} namespace(x=1) | join list map upper tojson format * + ** ~ % - ( ) . [ ] "
    "9999 content replace split is in if else none loop for".split()
)


@settings(deadline=None, max_examples=400)
@given(st.lists(TOKENS, max_size=12), st.booleans())
def test_random_templates_render_or_raise_one_error(words: list[Any], loop: bool) -> None:
    expression = " ".join(words)
    template = f"{{% for i in {expression} %}}{{{{ i }}}}{{% endfor %}}" if loop else f"{{{{ {expression} }}}}"
    with contextlib.suppress(TokenizerError):
        assert isinstance(render(template, MESSAGES, limits=LIMITS), str)
