"""Reading a config file, and its errors in the user's words."""

from collections.abc import Hashable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from mlip_auto.config_types import Section

WANTED = {
    "list_type": "a list is needed, such as [a, b]",
    "tuple_type": "a list is needed, such as [a, b, c]",
    "dict_type": "a mapping is needed, such as {key: value}",
    "model_type": "a section is needed: keys below it, indented",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "too_short": "at least one entry is needed",
    "string_pattern_mismatch": "must be letters and digits, joined by single `-`, `_` or `.`",
}
"""What is needed, by pydantic's type of an error, where its own message speaks of Python."""

SYNTAX = {
    "expected <block end>": "; keys of one section are indented alike: compare this line with those above",
    "mapping values are not allowed": "; a blank follows each `:`, and a value with a `:` in it needs quotes: look at this line and the one above",
}
"""What to look for, by a part of PyYAML's message."""


class ConfigError(ValueError):
    """Every error of a config at once, one a line, in the user's words."""

    def __init__(self, errors: list[str]):
        self.errors = errors
        super().__init__("\n".join(errors))


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML in which a key stands once: PyYAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} stands in line {seen[key.value]} already; remove one of the two",
                    problem_mark=key.start_mark,
                )
            if isinstance(key, yaml.ScalarNode):
                seen[key.value] = line
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises
    ------
    ConfigError
        It is missing, cannot be read, is no YAML, or gives a key twice.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _UniqueKeyLoader)
    except FileNotFoundError:
        raise ConfigError(
            ["no such file; `mlip-auto init DIR` writes one, --configfile and --directory name one elsewhere"]
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"not text in UTF-8: {error.reason} at byte {error.start}; save it as UTF-8"]) from None
    except OSError as error:
        raise ConfigError([f"cannot be read: {error.strerror}"]) from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError([f"not valid YAML: {_describe_syntax(error)}"]) from None
    except yaml.YAMLError as error:
        raise ConfigError([f"not valid YAML: {error}"]) from None


def _describe_syntax(error: yaml.MarkedYAMLError) -> str:
    place = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
    problem = error.problem or str(error)
    if "\\t" in problem:
        return f"{place}indented by a tab; YAML takes spaces only"
    cure = next((cure for part, cure in SYNTAX.items() if part in problem), "")
    return f"{place}{problem}{f' ({error.context})' if error.context else ''}{cure}"


def describe_error(error: Any, model: type[Section]) -> str:
    """One pydantic error of the config `model` as `key: what was found; what is allowed`."""
    location = [part for part in error["loc"] if part != "[key]"]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    if error["type"] == "extra_forbidden":
        allowed = _allowed_keys(location, model)
        near = get_close_matches(str(location[-1]), allowed, n=1, cutoff=0.75)
        meant = near[:1] or _find_key(str(location[-1]), model, "")
        said = f" ({' or '.join(map(repr, meant))} was meant?)" if meant else ""
        return f"{key}: unknown key{said}; allowed here: {', '.join(allowed)}"
    if error["type"] == "missing":
        if isinstance(location[-1], int):
            return f"{key}: missing; the list is too short"
        return f"{key}: missing; this key is required"
    message = error["msg"].removeprefix("Value error, ").replace("Input should", "must")
    if error["type"] == "value_error" and isinstance(error["input"], dict):
        return f"{key}: {message}"
    found = "nothing" if error["input"] is None else repr(error["input"])
    return f"{key}: found {found}; {WANTED.get(error['type'], message)}"


def _allowed_keys(location: list[Any], model: Any) -> list[str]:
    """Keys of the section of `model` that holds the last part of `location`."""
    for part in location[:-1]:
        if not isinstance(part, int):
            model = _section_of(model.model_fields[part].annotation)
    return list(model.model_fields)


def _find_key(key: str, model: type[Section], prefix: str) -> list[str]:
    """Where else in the config a key of that name stands."""
    found = [f"{prefix}{key}"] if key in model.model_fields else []
    for name, field in model.model_fields.items():
        section = _section_of(field.annotation)
        if section is not None:
            found += _find_key(key, section, f"{prefix}{name}.")
    return found


def _section_of(annotation: Any) -> Any:
    """The Section class inside an annotation such as `list[Walker]` or `ReferenceMd | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        section = _section_of(argument)
        if section is not None:
            return section
    return None
