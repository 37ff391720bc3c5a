"""The Jinja environment for chat templates: what Transformers offers, without what can hurt.

A template comes with a model file, so it is a stranger's program. Jinja's sandbox closes the ways to Python objects;
this adds the limits it lacks. Every loop, call, filter and growing operator goes through the `Meter`; methods of
built-in values are on a list; big numbers, wide padding and nested doubling are refused before they are computed.
`include`, `import` and the filters that invent text (`lipsum`, `random`, `urlize` ...) are not there.
"""

import datetime
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import Namespace

from deepseek.errors import TokenizerError
from deepseek.tokenizer.meter import TemplateLimitError, current, integer
from deepseek.tokenizer.template_guards import OPERATORS, check_method, guarded_filters

_STRING_METHODS = frozenset(
    "capitalize casefold center count endswith find format index isalnum isalpha isascii isdecimal isdigit "
    "isidentifier islower isnumeric isprintable isspace istitle isupper join ljust lower lstrip partition "
    "removeprefix removesuffix replace rfind rindex rjust rpartition rsplit rstrip split splitlines "
    "startswith strip swapcase title upper zfill".split()
)
_METHODS: dict[type, frozenset[str]] = {
    str: _STRING_METHODS,
    dict: frozenset(("get", "items", "keys", "values", "copy")),
    list: frozenset(("index", "count", "copy")),
    tuple: frozenset(("index", "count")),
    bool: frozenset(),
    int: frozenset(("bit_length",)),
    float: frozenset(("is_integer",)),
    range: frozenset(("index", "count")),
    set: frozenset(("union", "intersection", "difference", "copy")),
    bytes: frozenset(),
}


class ChatTemplateRefusal(TokenizerError):
    """The template itself called `raise_exception`: it does not accept these messages."""


class _GenerationTag(Extension):
    """`{% generation %}` marks what the model wrote, for training masks; here its body is simply printed."""

    tags = {"generation"}  # noqa: RUF012 (Jinja declares it so)

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class _TemplateNamespace(Namespace):
    """`namespace()` without private names, and printed flat: nested ones would print exponentially."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        attributes = dict(*rest, **kwargs)
        for name in attributes:
            _public(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _public(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<Namespace>"


def _public(name: object) -> None:
    if not isinstance(name, str) or name.startswith("_"):
        raise SecurityError(f"a chat template may not store {name!r} in a namespace")


class _TemplateDict:
    """`dict(...)` as a function: a class would offer attributes to climb."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


def _raise_exception(message: object) -> None:
    raise ChatTemplateRefusal(f"the chat template refuses these messages: {message}")


def _strftime_now(form: str) -> str:
    if len(form) > 256 or re.search(r"%[^a-zA-Z%]*\d", form):
        raise TemplateLimitError("strftime_now takes at most 256 characters, without widths")
    return datetime.datetime.now().strftime(form)


def _range(*args: Any) -> range:
    values = range(*args)
    if len(values) > 100_000:
        raise TemplateLimitError("a chat template may count to 100,000 at most; see range()")
    return values


class _Formatter(SandboxedFormatter):
    def format_field(self, value: Any, format_spec: str) -> Any:
        if re.search(r"\d{4,}", format_spec):
            raise TemplateLimitError("a format width in a chat template has at most 3 digits")
        text = super().format_field(value, format_spec)
        current().text(len(text))
        return text


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Compiles chat templates into metered code. Shared by all threads; the meter travels in a context variable."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            extensions=[_GenerationTag, loopcontrols],
            cache_size=0,
        )
        self.binop_table.update(OPERATORS)
        self.globals = {
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
            "dict": _TemplateDict(),
            "namespace": _TemplateNamespace,
            "range": _range,
            "cycler": self.globals["cycler"],
            "joiner": self.globals["joiner"],
        }
        self.filters = guarded_filters()

    @staticmethod
    def concat(parts: Any) -> str:
        return current().join(parts)

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(_Metering(self).rewrite(source), *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        current().step()
        value = super().call_binop(context, operator, left, right)
        return integer(value) if isinstance(value, int) else value

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        meter = current()
        meter.step()
        check_method(__obj, args)
        return meter.admit(super().call(__context, __obj, *args, **kwargs))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if not super().is_safe_attribute(obj, attr, value):
            return False
        for kind, methods in _METHODS.items():
            if isinstance(obj, kind):
                return attr in methods
        return not attr.startswith("gi_")

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        text = getattr(value, "__self__", None)
        if not isinstance(text, str) or getattr(value, "__name__", "") not in ("format", "format_map"):
            return None

        def formatted(*args: Any, **kwargs: Any) -> str:
            return _Formatter(self).vformat(text, args, kwargs)

        return formatted


class _Metering:
    """Rewrites a parsed template so that loops, literals and `~` go through the meter."""

    def __init__(self, environment: jinja2.Environment) -> None:
        self._environment = environment

    def rewrite(self, template: nodes.Template) -> nodes.Template:
        for kind in (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends):
            if next(template.find_all(kind), None) is not None:
                raise TokenizerError("a chat template is one text: include, import and extends are not allowed")
        for loop in list(template.find_all(nodes.For)):
            loop.iter = self._filter("_metered_iter", loop.iter)
        self._replace(template)
        return template

    def _replace(self, node: nodes.Node) -> None:
        for child in node.iter_child_nodes():
            self._replace(child)
        for name, value in node.iter_fields():
            if isinstance(value, list):
                setattr(node, name, [self._metered(item) for item in value])
            elif isinstance(value, nodes.Node):
                setattr(node, name, self._metered(value))

    def _metered(self, node: Any) -> Any:
        if isinstance(node, nodes.Concat):
            return self._filter("_concat", nodes.List(node.nodes, lineno=node.lineno, environment=self._environment))
        literal = isinstance(node, (nodes.List, nodes.Dict)) or (isinstance(node, nodes.Tuple) and node.ctx == "load")
        slow = isinstance(node, (nodes.Compare, nodes.Test)) or (
            isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)
        )
        return self._filter("_sized", node) if literal or slow else node

    def _filter(self, name: str, node: Any) -> nodes.Filter:
        return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno, environment=self._environment)


@lru_cache(maxsize=1)
def template_environment() -> TemplateEnvironment:
    return TemplateEnvironment()
