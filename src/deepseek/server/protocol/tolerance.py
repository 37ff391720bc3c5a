"""How all request bodies are read: in one form natively, in every other form after a rewrite.

A body in the server's own form is validated as it is, which costs nothing more than Pydantic. Whatever does not fit is
rewritten once, by the tables of the classes, and validated again:

- null is the same as left out;
- `aliases`: other servers' names of a field;
- `adapt`: other shapes of a field, such as OpenAI's older `functions`;
- `refused`: fields without which the answer would silently be another; their neutral values pass;
- `ignored`: known fields that change nothing here; they and unknown fields are dropped and recorded;
- 100.0 for a whole number, "0.7" for a number, "true" and 1 for a flag.

With `serve --strict` an unknown field stays in, so that validation refuses it by name.
"""

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from deepseek.server.protocol.ignored_fields import IgnoredFields, current

UNSUPPORTED, CONTRADICTION = "unsupported_field", "contradicting_fields"
_EMPTY: tuple[Any, ...] = (False, "", [], {})


@dataclass(frozen=True, slots=True)
class Refused:
    """A field with which the answer would be another one. fix: what to do instead.

    neutral: further values that change nothing, beside null, false, 0 and what is empty; or a test for them.
    """

    fix: str
    neutral: tuple[Any, ...] | Callable[[Any], bool] = ()

    def allows(self, value: Any) -> bool:
        if callable(self.neutral):
            return self.neutral(value)
        return any(value == one for one in (*_EMPTY, *self.neutral))


@dataclass(frozen=True, slots=True)
class Shape:
    """What the rewrite needs to know of a class. names: of its fields in JSON; bounds: of them upper bounds, of which
    the lower one holds where both names are given."""

    names: frozenset[str]
    nested: Mapping[str, "type[RequestModel]"]
    kinds: Mapping[str, frozenset[type]]
    aliases: Mapping[str, str]
    adapted: Mapping[str, str]
    ignored: Mapping[str, str]
    refused: Mapping[str, Refused]
    bounds: frozenset[str]


@dataclass(frozen=True, slots=True)
class Notes:
    """Where to record what is ignored in an object. path: of the object, with `[]` for any item of a list; place: the
    same with the item's number."""

    fields: IgnoredFields
    path: str = ""
    place: str = ""

    def ignore(self, name: str, *, known: bool = True) -> None:
        self.fields.add(self.path + name, known=known)

    def refuse(self, name: str, what: str, kind: str = UNSUPPORTED) -> typing.NoReturn:
        place = self.place + name
        raise PydanticCustomError(kind, "{place} {what}", {"place": place, "what": what})

    def below(self, name: str) -> "Notes":
        return Notes(self.fields, f"{self.path}{name}.", f"{self.place}{name}.")

    def item(self, name: str, number: int) -> "Notes":
        return Notes(self.fields, f"{self.path}{name}[].", f"{self.place}{name}.{number}.")


def _shape(model: "type[RequestModel]") -> Shape:
    def merged(table: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for base in reversed(model.__mro__):
            found |= vars(base).get(table, {})
        return found

    names = {info.alias or name: info.annotation for name, info in model.model_fields.items()}
    parts = {name: _parts(annotation) for name, annotation in names.items()}
    bounds = frozenset[str]().union(*(vars(base).get("bounds", ()) for base in model.__mro__))
    return Shape(
        frozenset(names),
        {name: found[0] for name, each in parts.items() if (found := [one for one in each if _is_model(one)])},
        {name: frozenset(one for one in each if not _is_model(one)) for name, each in parts.items()},
        merged("aliases"), merged("adapted"), merged("ignored"), merged("refused"), bounds,
    )  # fmt: skip


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, RequestModel)


def _parts(annotation: Any) -> list[Any]:
    """The classes in an annotation: of `str | list[ContentPart] | None` str and ContentPart; of a dict none."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _parts(get_args(annotation)[0])
    if origin in (Union, types.UnionType, list):
        return [one for each in get_args(annotation) for one in _parts(each)]
    if origin is typing.Literal:
        return list({type(value) for value in get_args(annotation)})
    return [annotation] if isinstance(annotation, type) and origin is None else []


def _allow_more(schema: dict[str, Any]) -> None:
    """The OpenAPI document must not say that other fields are refused."""
    schema.pop("additionalProperties", None)


class RequestModel(BaseModel):
    """Types are not converted, unknown fields are refused, numbers are finite: the server's own form.

    Subclasses add to the tables of their bases: see the module. bounds: fields that say "at most".
    """

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, json_schema_extra=_allow_more)
    aliases: ClassVar[Mapping[str, str]] = {}
    adapted: ClassVar[Mapping[str, str]] = {}
    """What `adapt` reads beside the fields, with what it becomes."""
    ignored: ClassVar[Mapping[str, str]] = {}
    refused: ClassVar[Mapping[str, Refused]] = {}
    bounds: ClassVar[frozenset[str]] = frozenset()
    shape: ClassVar[Shape]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls.shape = _shape(cls)

    @classmethod
    def adapt(cls, values: dict[str, Any], notes: Notes) -> None:
        """Bring other shapes of this object's fields into the server's own; in place."""


class RequestBody(RequestModel):
    """A whole body."""

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(data, dict):
            return handler(data)
        try:
            return handler(data)
        except ValidationError:
            return handler(rewritten(cls, data, Notes(current())))


def set_within(values: dict[str, Any], name: str, inner: str, value: Any) -> None:
    """`values[name][inner] = value`, unless it is given there, or something else than an object is."""
    if value is not None and isinstance(values.get(name), dict | None):
        values[name] = {inner: value, **(values.get(name) or {})}


def rewritten(model: type[RequestModel], given: Mapping[str, Any], notes: Notes) -> dict[str, Any]:
    """An object in the server's own form. Raises PydanticCustomError for what would change the answer silently."""
    shape = model.shape
    values = dict(given)
    model.adapt(values, notes)
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if value is None:
            continue
        if name in shape.names:
            if name not in kept:
                kept[name] = _value(value, name, shape, notes)
        elif name in shape.aliases:
            _add_alias(kept, values, name, shape, notes)
        elif name in shape.refused:
            if not shape.refused[name].allows(value):
                notes.refuse(name, f"is not supported: {shape.refused[name].fix}")
            notes.ignore(name)
        elif name in shape.ignored:
            notes.ignore(name)
        elif notes.fields.strict:
            kept[name] = value
        else:
            notes.ignore(name, known=False)
    return kept


def _add_alias(kept: dict[str, Any], values: Mapping[str, Any], alias: str, shape: Shape, notes: Notes) -> None:
    name = shape.aliases[alias]
    value = _value(values[alias], name, shape, notes)
    if values.get(name) is not None and name not in kept:
        kept[name] = _value(values[name], name, shape, notes)
    if name not in kept or kept[name] == value:
        kept[name] = value
    elif value in ("", [], {}):
        notes.ignore(alias)
    elif name in shape.bounds and _are_numbers(value, kept[name]):
        kept[name] = min((value, kept[name]), key=lambda bound: bound if bound >= 0 else float("inf"))
    else:
        notes.refuse(alias, f"means the same as {name}, but their values differ: give one", CONTRADICTION)


def _are_numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) for value in values)


def _value(value: Any, name: str, shape: Shape, notes: Notes) -> Any:
    model = shape.nested.get(name)
    if model is not None:
        if isinstance(value, dict):
            return rewritten(model, value, notes.below(name))
        if isinstance(value, list):
            return [
                rewritten(model, one, notes.item(name, number)) if isinstance(one, dict) else one
                for number, one in enumerate(value)
            ]
        return value
    kinds = shape.kinds[name]
    if isinstance(value, float) and int in kinds and float not in kinds and value.is_integer():
        return int(value)
    if isinstance(value, str) and str not in kinds:
        return _from_text(value, kinds)
    if bool in kinds and not kinds & {int, float} and isinstance(value, int) and value in (0, 1):
        return bool(value)
    return value


def _from_text(text: str, kinds: frozenset[type]) -> Any:
    """The number or flag that a text spells, where only such is taken; else the text."""
    if bool in kinds and text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                continue
    return text
