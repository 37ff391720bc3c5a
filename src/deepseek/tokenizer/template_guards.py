"""What a chat template may call, and how much of it: filters, operators and string methods behind the meter.

Each guard works out how large a result will be and asks the meter before the work is done.
"""

import json
import re
from collections.abc import Callable
from functools import wraps
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS
from jinja2.runtime import Undefined

from deepseek.tokenizer.meter import TemplateLimitError, current

WIDEST = 10_000
"""The largest width, count or precision a template may pass to padding, batching or rounding."""

_FILTERS = (
    "abs attr batch capitalize center count d default dictsort e escape filesizeformat first float forceescape format "
    "groupby indent int items join last length list lower map max min reject rejectattr replace reverse round safe "
    "select selectattr slice sort string sum title trim truncate unique upper urlencode wordcount"
).split()
_WIDTH_FILTERS = frozenset(("batch", "center", "indent", "round", "slice", "truncate"))
_PRINTF_WIDTH = re.compile(r"%(?:\([^)]*\))?[-+ #0]*(\*|\d{4,}|\d*\.(?:\*|\d{4,}))")


def guarded_filters() -> dict[str, Callable[..., Any]]:
    """The filters of a chat template, by name; `_names` are for the rewritten template itself."""
    known = {**FILTERS, "sum": _sum, "tojson": _tojson}
    filters = {name: _guard_filter(name, known[name]) for name in (*_FILTERS, "tojson")}
    return {**filters, "_concat": _concat, "_sized": _sized, "_metered_iter": _metered_iter}


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """JSON without HTML escapes. Noncharacters stay as they are even in ASCII: they guard control tokens."""
    if (indent if isinstance(indent, int) else len(indent or "")) > 16:
        raise TemplateLimitError("tojson takes an indent of 16 at most")
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)
    current().text(len(text))
    return re.sub(r"[^\x00-\x7f\ufdd0-\ufdef]", _json_escape, text) if ensure_ascii else text


def _json_escape(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1]


def _concat(parts: Any) -> str:
    return current().join(parts)


def _sized(value: Any) -> Any:
    return current().admit(value)


def _metered_iter(values: Any) -> Any:
    return values if isinstance(values, Undefined) else current().iterate(values)


def _sum(values: Any, start: Any = 0, attribute: str | None = None) -> Any:
    items = [item.get(attribute, 0) if attribute and isinstance(item, dict) else item for item in values]
    if not all(isinstance(item, (int, float)) for item in (start, *items)):
        raise SecurityError("in a chat template sum adds numbers only")
    return sum(items, start)


def _guard_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that asks the meter first. `wraps` keeps Jinja's mark of what it wants passed."""

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        meter = current()
        meter.step()
        if name in _WIDTH_FILTERS:
            _narrow((*args[1:], *kwargs.values()))
        if name == "indent":
            _narrow_indent(*args, **kwargs)
        if name == "format":
            check_printf(args[0])
        if name == "replace" and len(args) >= 4:
            _check_replace(str(args[1]), str(args[2]), str(args[3]))
        if name == "join":
            return _join_filter(function, args, kwargs)
        return meter.admit(function(*args, **kwargs))

    return guarded


def _join_filter(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Jinja's join with its result measured beforehand: a list of references to one long string costs nothing."""
    context, values, *rest = args
    values = list(values)
    separator = rest[0] if rest else kwargs.get("d", "")
    attribute = rest[1] if len(rest) > 1 else kwargs.get("attribute")
    if attribute is None:
        current().text(sum(len(str(value)) for value in values) + len(str(separator)) * len(values))
    else:
        current().text(len(str(separator)) * len(values))
        longest = max((len(str(value)) for value in values), default=0)
        current().text(longest * len(values))
    return current().admit(function(context, values, *rest, **kwargs))


def _narrow(values: Any) -> None:
    for value in values:
        if isinstance(value, (int, float)) and abs(value) > WIDEST or isinstance(value, str) and len(value) > WIDEST:
            raise TemplateLimitError(f"a width or count in a chat template is {WIDEST:,} at most")


def _narrow_indent(text: Any, width: Any = 4, *_: Any, **kwargs: Any) -> None:
    width = kwargs.get("width", width)
    size = width if isinstance(width, int) else len(str(width))
    current().text(len(text) + (str(text).count("\n") + 1) * size)


def _check_replace(text: str, old: str, new: str) -> None:
    current().text(len(text) + (text.count(old) if old else len(text) + 1) * len(new))


def check_printf(form: Any) -> None:
    if isinstance(form, str) and _PRINTF_WIDTH.search(form):
        raise TemplateLimitError("a format width in a chat template has at most 3 digits")


def check_method(method: Any, args: tuple[Any, ...]) -> None:
    """Before a string method whose result can be far longer than its arguments."""
    text, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
    if not isinstance(text, str):
        return
    if name in ("center", "ljust", "rjust", "zfill"):
        _narrow(args)
    elif name == "replace" and len(args) >= 2:
        _check_replace(text, str(args[0]), str(args[1]))
    elif name == "join" and args and isinstance(args[0], (list, tuple)):
        current().text(sum(len(part) for part in args[0] if isinstance(part, str)) + len(text) * len(args[0]))
    elif name in ("split", "rsplit", "splitlines"):
        current().step(1 + len(text) // 64)


def _multiply(left: Any, right: Any) -> Any:
    for one, other in ((left, right), (right, left)):
        if isinstance(one, str) and isinstance(other, int):
            current().text(len(one) * max(other, 0))
        elif isinstance(one, (list, tuple)) and isinstance(other, int):
            current().items(len(one) * max(other, 0))
    return left * right


def _power(left: Any, right: Any) -> Any:
    if abs(right) > 64 or abs(left) > 2**32:
        raise TemplateLimitError("a chat template may raise numbers below 2**32 to powers up to 64")
    return left**right


def _add(left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        current().text(len(left) + len(right))
        return left + right
    return current().admit(left + right)


def _modulo(left: Any, right: Any) -> Any:
    check_printf(left)
    if isinstance(left, str):
        values = right.values() if isinstance(right, dict) else right if isinstance(right, tuple) else (right,)
        longest = max((len(str(value)) for value in values), default=0)
        current().text(len(left) + left.count("%") * (1000 + longest))
    return left % right


OPERATORS: dict[str, Callable[[Any, Any], Any]] = {"+": _add, "*": _multiply, "**": _power, "%": _modulo}
