"""Writes config/README.md, the reference of the config file, from the pydantic models."""

import json
from pathlib import Path
from typing import Any

from mlip_auto.config import CampaignConfig
from mlip_auto.structures import write_atomically

REFERENCE = Path(__file__).parents[2] / "config" / "README.md"

INTRODUCTION = """\
# The config file

Generated from the models in `scripts/mlip_auto/config*.py` by `python -m mlip_auto.config_reference`: edit those, not
this page.

Start from [config.yaml](config.yaml) (silicon, GFN1-xTB) or an [example](examples). Unknown keys are refused, and
`mlip-auto check` reports every error at once. Units: K, bar, fs, Å, eV. `[]` in a heading stands for one entry of a
list.
"""

Schema = dict[str, Any]


def render_reference() -> str:
    """The reference page: a table of keys for each section of the config, in the order of the models."""
    root = CampaignConfig.model_json_schema()
    lines = [INTRODUCTION]
    _add_section(lines, "", root, root["$defs"])
    return "\n".join(lines)


def _add_section(lines: list[str], prefix: str, section: Schema, definitions: Schema) -> None:
    """Append the table of one section, then those of the sections inside it."""
    lines += [f"## {f'`{prefix}`' if prefix else 'Top level'}\n", f"{section['description']}\n"]
    lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
    inner = []
    for key, field in section["properties"].items():
        name, suffix = _find_section(field)
        if name is None:
            meaning = field["description"]
        else:
            path = (f"{prefix}." if prefix else "") + key + suffix
            inner.append((path, definitions[name]))
            meaning = field.get("description", definitions[name]["description"])
            meaning += f" Keys: [`{path}`](#{''.join(c for c in path.lower() if c.isalnum() or c == '_')})."
        default = "required" if key in section.get("required", []) else _format_default(field, name)
        bar = r"\|"  # a plain one would end the cell
        lines.append(f"| `{key}` | {_describe_type(field)} | {default} | {meaning.replace('|', bar)} |")
    lines.append("")
    for path, definition in inner:
        _add_section(lines, path, definition, definitions)


def _find_section(field: Schema) -> tuple[str | None, str]:
    """Name of the model that a field holds, and `[]` when it is a list of them."""
    if "$ref" in field:
        return field["$ref"].rpartition("/")[2], ""
    if "items" in field and "$ref" in field["items"]:
        return field["items"]["$ref"].rpartition("/")[2], "[]"
    for option in field.get("anyOf", []):
        name, suffix = _find_section(option)
        if name is not None:
            return name, suffix
    return None, ""


def _format_default(field: Schema, section: str | None) -> str:
    default = field.get("default")
    if section is not None and default is not None:
        return "as below"
    if default is None:
        return "none"
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def _describe_type(field: Schema) -> str:
    """A JSON schema in a user's words, e.g. `list of number > 0`."""
    if "$ref" in field:
        return "section"
    if "anyOf" in field:
        return " or ".join(_describe_type(option) for option in field["anyOf"] if option.get("type") != "null")
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    match field["type"]:
        case "array" if "prefixItems" in field:
            return f"list of {len(field['prefixItems'])} {field['prefixItems'][0]['type']}s"
        case "array":
            return f"list of {_describe_type(field['items'])}"
        case "object" if isinstance(field.get("additionalProperties"), dict):
            return f"mapping to {_describe_type(field['additionalProperties'])}"
        case "object":
            return "mapping"
        case "string" if field.get("format") == "path":
            return "path"
        case name:
            return f"{name} {_describe_limits(field)}".rstrip()


def _describe_limits(field: Schema) -> str:
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    return ", ".join(f"{sign} {field[key]}" for key, sign in signs.items() if key in field)


if __name__ == "__main__":
    with write_atomically(REFERENCE) as aside:
        aside.write_text(render_reference())
