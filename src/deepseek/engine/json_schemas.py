"""JSON schemas as clients write them, made into what llguidance compiles.

Everything here keeps an answer valid under the schema as it was given; what cannot be kept so is left as it is, and
llguidance refuses it by name. Objects that declare their properties allow these alone, as with OpenAI's strict schemas
and the grammars of llama.cpp and xgrammar: a model that may invent keys does so until its tokens run out.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

Schema = dict[str, Any]

_FORMATS = frozenset((
    "date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri", "unknown",
))  # fmt: skip
"""Of strings, those that llguidance knows. Others are annotations, which the standard lets a validator ignore."""
_DIALECTS = frozenset(
    f"json-schema.org/{draft}/schema"
    for draft in ("draft-04", "draft-06", "draft-07", "draft/2019-09", "draft/2020-12")
)
_ANNOTATIONS = frozenset((
    "title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "$comment",
    "discriminator", "externalDocs", "xml", "$schema", "$id",
))  # fmt: skip
_OF_OBJECTS = frozenset(("type", "properties", "required", "$defs", "definitions"))
_SHARED = frozenset(("$defs", "definitions"))
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_SINGLE = ("items", "additionalItems", "additionalProperties", "propertyNames", "contains", "not", "if", "then", "else")
_NEUTRAL: tuple[tuple[str, Any], ...] = (
    ("uniqueItems", False), ("minProperties", 0), ("minItems", 0), ("minLength", 0), ("dependentRequired", {}),
    ("dependentSchemas", {}), ("dependencies", {}), ("patternProperties", {}), ("nullable", False), ("allOf", []),
    ("exclusiveMinimum", False), ("exclusiveMaximum", False), ("unevaluatedProperties", True),
    ("unevaluatedItems", True), ("propertyNames", True), ("propertyNames", {}), ("type", "any"),
    ("$recursiveAnchor", False),
)  # fmt: skip
_SHAPES: Mapping[str, tuple[type, str]] = {
    **dict.fromkeys((*_MAPS, "dependentRequired"), (dict, "an object")),
    **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems", "enum", "required"), (list, "a list")),
    **dict.fromkeys(("$ref", "pattern", "format"), (str, "a text")),
}
_KEEPS_NULL = frozenset(("const", "default", "example"))
_LOOK_AROUND = re.compile(r"\(\?<?[=!]")
_MOST_MERGED = 10_000
"""Properties written anew while merging; a schema that needs more is left as it is."""
_DEEPEST_MERGED = 16
_MOST_ROUNDS = 100


def prepared(schema: Schema) -> Schema:
    """The schema for llguidance. Raises ValueError for what is no schema."""
    return _Preparation(schema).result()


def has_finite_value(schema: Schema) -> bool:
    """False for a schema whose every value would have to hold another one of itself, without end."""
    open_references: dict[str, Any] = {}
    waiting = [schema]
    while waiting:
        for reference in _references(waiting.pop()):
            if reference not in open_references:
                open_references[reference] = _at(schema, reference)
                waiting.append(open_references[reference])
    for _ in range(_MOST_ROUNDS):
        ended = [name for name in reversed(open_references) if _is_finite(open_references[name], open_references)]
        if not ended:
            return _is_finite(schema, open_references)
        for name in ended:
            del open_references[name]
    return True


def refers(schema: Schema) -> bool:
    """Whether it refers to parts of itself."""
    return bool(_references(schema))


def _references(value: Any) -> list[str]:
    found: list[str] = []
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            found += [one["$ref"]] if isinstance(one.get("$ref"), str) else []
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    return found


def _is_finite(schema: Any, open_references: Mapping[str, Any]) -> bool:
    """Whether a value exists that needs none of these references."""
    if not isinstance(schema, dict):
        return True

    def every(parts: Any) -> bool:
        return not isinstance(parts, list) or all(_is_finite(part, open_references) for part in parts)

    if _checked(schema).get("$ref") in open_references:
        return False
    for key in ("anyOf", "oneOf"):
        options = schema.get(key)
        if isinstance(options, list) and not any(_is_finite(one, open_references) for one in options):
            return False
    properties, required = schema.get("properties"), schema.get("required")
    needed = (
        [properties.get(name) for name in required]
        if isinstance(required, list) and isinstance(properties, dict)
        else []
    )
    if isinstance(schema.get("minItems"), int) and schema["minItems"] > 0 and schema.get("type") == "array":
        needed += [*(schema.get("prefixItems") or []), schema.get("items")][: schema["minItems"]]
    return every(schema.get("allOf")) and every(needed)


def declares_no_properties(schema: Mapping[str, Any] | None) -> bool:
    """Whether the parameters of a tool are none at all: no schema, or an object about which nothing is said."""
    said = {key for key, value in (schema or {}).items() if value is not None} - _ANNOTATIONS
    return said <= {"type", "properties", "required"} and not (schema or {}).get("properties")


class _Preparation:
    def __init__(self, schema: Schema) -> None:
        self._root = schema
        self._budget = _MOST_MERGED
        self._tags: dict[str, set[str]] = {}
        """Of definitions that `oneOf` refers to: the properties that tell them apart."""

    def result(self) -> Schema:
        root = {key: value for key, value in self._root.items() if key != "x-guidance"}
        _, _, dialect = str(root.pop("$schema", "")).partition("://")
        if dialect.rstrip("#") in _DIALECTS:  # an unknown one means by the usual words the usual thing
            root["$schema"] = f"{'http' if 'draft-0' in dialect else 'https'}://{dialect}"
        prepared = self._walked(root)
        for reference, names in self._tags.items():
            node = _at(prepared, reference)
            if isinstance(node, dict) and isinstance(node.get("required", []), list):
                _require(node, names)
        return dict(prepared)

    def _walked(self, schema: Any) -> Any:
        """This schema and all below it."""
        if not isinstance(schema, dict):
            return schema
        node = _plain(self._as_one_object(_plain(schema)))
        node = self._with_names(node)
        _close(node)
        for key in _MAPS:
            if isinstance(node.get(key), dict):
                node[key] = {name: self._walked(value) for name, value in node[key].items()}
        for key in _LISTS:
            if isinstance(node.get(key), list):
                node[key] = [self._walked(value) for value in node[key]]
        for key in _SINGLE:
            if isinstance(node.get(key), dict):
                node[key] = self._walked(node[key])
        if isinstance(node.get("anyOf"), list):
            node["anyOf"] = _without_look_around(node["anyOf"])
        if isinstance(node.get("oneOf"), list):
            self._told_apart(node["oneOf"])
        return node

    def _as_one_object(self, node: Schema) -> Schema:
        """Properties that `allOf`, `anyOf`, `oneOf` or `$ref` add to others are put together with them.

        Otherwise each part would be closed by itself, and no object could have the properties of two.
        """
        members = node.get("allOf")
        if isinstance(members, list):
            rest = {key: value for key, value in node.items() if key != "allOf"}
            if len(members) == 1 and isinstance(members[0], dict) and not rest.keys() - _ANNOTATIONS - _SHARED:
                return {**rest, **members[0]}
            return self._merged([rest, *members]) or node
        if "properties" not in node:
            return node
        if "$ref" in node:
            rest = {key: value for key, value in node.items() if key != "$ref"}
            return self._merged([rest, {"$ref": node["$ref"]}]) or node
        for key in ("anyOf", "oneOf"):
            branches = node.get(key)
            if isinstance(branches, list) and any("properties" in self._resolved(one) for one in branches):
                rest = {name: value for name, value in node.items() if name not in {key, *_SHARED}}
                merged = [self._merged([rest, branch]) for branch in branches]
                if all(merged):
                    return {key: merged, **{name: node[name] for name in _SHARED if name in node}}
        return node

    def _merged(self, parts: Iterable[Any], depth: int = 0) -> Schema | None:
        """One object with the properties of all; None where they say more than that."""
        merged: Schema = {"type": "object", "properties": {}, "required": []}
        for part in parts:
            part = _plain(self._resolved(part))
            self._budget -= 1
            if isinstance(part.get("allOf"), list) and depth < _DEEPEST_MERGED and self._budget > 0:
                rest = {key: value for key, value in part.items() if key != "allOf"}
                part = self._merged([rest, *part["allOf"]], depth + 1) or part
            if not _is_plain_object(part):
                return None
            self._budget -= len(part.get("properties", {}))
            if self._budget < 0:
                return None
            for name, value in part.get("properties", {}).items():
                known = merged["properties"].get(name)
                merged["properties"][name] = value if known in (None, value) else {"allOf": [known, value]}
            merged["required"] += [name for name in part.get("required", []) if name not in merged["required"]]
            merged |= {key: part[key] for key in _SHARED if key in part}
        return merged

    def _resolved(self, schema: Any) -> Schema:
        """What a reference within the schema stands for; siblings of `$ref` other than annotations keep it."""
        for _ in range(16):
            if not isinstance(schema, dict):
                return {"not": {}}
            _checked(schema)
            if "$ref" not in schema or schema.keys() - {"$ref"} - _ANNOTATIONS:
                return schema
            schema = _at(self._root, schema["$ref"])
        return {"not": {}}

    def _with_names(self, node: Schema) -> Schema:
        """`propertyNames` said by other keywords, where that can be: llguidance has none."""
        names = self._resolved(node["propertyNames"]) if "propertyNames" in node else {}
        said = names.keys() - _ANNOTATIONS - {"type"}
        if not names or names.get("type", "string") != "string":
            return node
        rest = {key: value for key, value in node.items() if key != "propertyNames"}
        if not said:
            return rest
        values = rest.get("additionalProperties", {})
        if rest.keys() & {"properties", "patternProperties"} or values is False:
            return node
        if said <= {"enum", "const"} and isinstance(listed := names.get("enum", [names.get("const")]), list):
            return {**rest, "properties": dict.fromkeys(map(str, listed), values), "additionalProperties": False}
        pattern = names.get("pattern")
        if said <= {"minLength", "maxLength"}:
            pattern = f"^(?s:.){{{names.get('minLength', 0)},{names.get('maxLength', '')}}}$"
        elif said != {"pattern"}:
            return node
        return {**rest, "patternProperties": {pattern: values}, "additionalProperties": False}

    def _told_apart(self, branches: list[Any]) -> None:
        """Objects that differ in a constant property need it, so that at most one of them fits.

        Where that does not show that one alone fits, llguidance refuses `oneOf`.
        """
        objects = [self._resolved(branch) for branch in branches]
        common = set.intersection(*map(_tags, objects)) if objects else set()
        for branch in branches if common else ():
            if "$ref" in branch:
                self._tags.setdefault(branch["$ref"], set()).update(common)
            else:
                _require(branch, common)


def _tags(schema: Schema) -> set[str]:
    """Properties that are constants."""
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return set()
    return {name for name, value in properties.items() if isinstance(value, dict) and value.keys() & {"const", "enum"}}


def _at(root: Any, reference: Any) -> Any:
    """What a JSON pointer refers to; None where there is nothing."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    place = root
    for step in reference[1:].split("/")[1:]:
        if not isinstance(place, dict):
            return None
        place = place.get(step.replace("~1", "/").replace("~0", "~"))
    return place


def _require(node: Schema, names: Iterable[str]) -> None:
    required = node.get("required", [])
    node["required"] = [*required, *sorted(set(names) - set(map(str, required)))]


def _checked(schema: Schema) -> Schema:
    """The same; raises ValueError where a keyword has a value of the wrong kind."""
    for key, (kind, meaning) in _SHAPES.items():
        if not isinstance(schema.get(key), kind | None):
            raise ValueError(f"{key} must be {meaning}, not {schema[key]!r:.100}")
    if not all(isinstance(name, str) for name in schema.get("required") or ()):
        raise ValueError(f"required must be a list of texts, not {schema['required']!r:.100}")
    return schema


def _plain(schema: Schema) -> Schema:
    """Without what says nothing, and with what other dialects say in the words of JSON Schema."""
    node = {
        key: value
        for key, value in _checked(schema).items()
        if (value is not None or key in _KEEPS_NULL) and not any(_same(key, value, *pair) for pair in _NEUTRAL)
    }
    kind = node.get("type")
    if isinstance(kind, str) and kind.isupper():  # as Gemini's and OpenAPI's clients write it
        node["type"] = kind = kind.lower()
    if kind is None and not node.keys() & {"$ref", "anyOf", "oneOf", "allOf", "const", "enum"}:
        if node.keys() & {"properties", "additionalProperties", "patternProperties"}:
            node = {"type": "object", **node}
        elif node.keys() & {"items", "prefixItems"}:
            node = {"type": "array", **node}
    if isinstance(node.get("format"), str) and node["format"] not in _FORMATS:
        del node["format"]
    for name, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if node.get(name) is True and limit in node:  # draft 4
            node[name] = node.pop(limit)
    if node.pop("nullable", False) is True:
        node = _or_null(node)
    return node


def _same(key: str, value: Any, neutral_key: str, neutral: Any) -> bool:
    return key == neutral_key and type(value) is type(neutral) and value == neutral


def _or_null(node: Schema) -> Schema:
    if isinstance(node.get("type"), str) and not node.keys() & {"const", "enum"}:
        return {**node, "type": [node["type"], "null"]}
    shared = {key: node.pop(key) for key in _SHARED if key in node}
    return {"anyOf": [node, {"type": "null"}], **shared}


def _is_plain_object(part: Schema) -> bool:
    return (
        not part.keys() - _OF_OBJECTS - _ANNOTATIONS
        and part.get("type", "object") == "object"
        and isinstance(part.get("properties", {}), dict)
        and isinstance(part.get("required", []), list)
    )


def _close(node: Schema) -> None:
    """Objects that say which properties they have get no others."""
    unevaluated = node.get("unevaluatedProperties")
    if unevaluated is False:
        del node["unevaluatedProperties"]
    properties = node.get("properties")
    if not isinstance(properties, dict) and not isinstance(node.get("patternProperties"), dict):
        if unevaluated is False and "additionalProperties" not in node and node.get("type") == "object":
            node["additionalProperties"] = False
        return
    if "additionalProperties" in node or node.keys() & {"$ref", "allOf"}:
        return
    node["additionalProperties"] = False
    required = node.get("required")
    if isinstance(properties, dict) and isinstance(required, list):
        node["properties"] = {**properties, **{name: {} for name in required if name not in properties}}


def _without_look_around(branches: list[Any]) -> list[Any]:
    """pydantic's Decimal is a number or a string with a pattern that no automaton has: a number it is then."""
    kept = [one for one in branches if not (isinstance(one, dict) and _LOOK_AROUND.search(str(one.get("pattern", ""))))]
    return kept or branches


def moved(schema: Schema, place: str) -> Schema:
    """The schema as part of a larger one, at the JSON pointer `place`: its references follow."""
    text = json.dumps({key: value for key, value in schema.items() if key not in ("$schema", "$id", "id")})
    return dict(json.loads(text, object_hook=lambda node: _reference_moved(node, place)))


def _reference_moved(node: Schema, place: str) -> Schema:
    reference = node.get("$ref")
    if isinstance(reference, str) and (reference == "#" or reference.startswith("#/")):
        return {**node, "$ref": f"#{place}{reference[1:]}"}
    return node
