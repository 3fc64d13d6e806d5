#!/usr/bin/env python3
"""Prints the table of a chart's values, from the comments of its values.yaml; or, with a README, checks or updates it.

    values-table.py values.yaml values.schema.json README.md            # exits with 1 if the README's table is stale
    values-table.py values.yaml values.schema.json README.md --update

A comment belongs to the key below it. Every key that has no keys of its own, or is a list or a flow mapping ({…}), needs one.
What Kubernetes defines, `resources` and `behavior`, stands in the table as a whole. The schema must know the same keys.
"""

import json
import re
import sys

import yaml

BEGIN, END = "<!-- values: begin -->", "<!-- values: end -->"
WHOLE = ("resources", "behavior")
KEY = re.compile(r"^( *)([A-Za-z0-9_.-]+):(.*)$")


def comments_of(text):
    """What stands above each key, by its path."""
    comments, path, above = {}, [], []
    for line in text.splitlines():
        stripped = line.strip()
        key = KEY.match(line)
        if stripped.startswith("#"):
            above.append(stripped.lstrip("#").strip())
        elif key:
            indent = len(key[1]) // 2
            path[indent:] = [key[2]]
            if indent == len(path) - 1:
                comments[".".join(path)] = (" ".join(above), key[3].strip())
            above = []
        else:
            above = []
    return comments


def rows_of(values, comments, prefix=""):
    """Path, default and meaning of everything that can be set; the meaning of a section, with no default, before its keys."""
    for key, value in values.items():
        path = f"{prefix}{key}"
        comment, rest = comments[path]
        flow = rest.startswith("{")
        whole = not isinstance(value, dict) or not value or flow or key in WHOLE
        if whole:
            if not comment:
                raise SystemExit(f"values.yaml: {path} has no comment")
            yield path, value, comment
        else:
            if comment:
                yield path, None, comment
            yield from rows_of(value, comments, f"{path}.")


def resolve(schema, node):
    while "$ref" in node:
        node = schema["definitions"][node["$ref"].rsplit("/", 1)[1]]
    return node


def schema_differences(schema, node, values, prefix=""):
    """Keys that the schema knows and the values lack. The other way round, helm finds them itself."""
    node = resolve(schema, node)
    for key, child in node.get("properties", {}).items():
        path = f"{prefix}{key}"
        if path == "global":
            continue
        child = resolve(schema, child)
        if key not in values:
            if prefix and not values:
                continue
            yield path
        elif isinstance(values[key], dict) and values[key] and child.get("additionalProperties") is False:
            if prefix.endswith(("resources.", "behavior.")) or key in ("resources", "behavior", "authenticationRef"):
                continue
            yield from schema_differences(schema, child, values[key], f"{path}.")


def cell(text):
    return text.replace("|", "\\|")


def default_of(value):
    text = json.dumps(value, ensure_ascii=False)
    return f"`{text}`" if len(text) <= 160 else "see values.yaml"


def table_of(values, comments):
    lines = ["| value | default | what it is |", "|---|---|---|"]
    for path, value, comment in rows_of(values, comments):
        is_section = value is None
        default = "" if is_section else cell(default_of(value))
        lines.append(f"| {f'**`{path}`**' if is_section else f'`{path}`'} | {default} | {cell(comment)} |")
    return "\n".join(lines)


def main():
    values_path, schema_path, readme_path, *flags = sys.argv[1:]
    with open(values_path, encoding="utf-8") as file:
        text = file.read()
    values = yaml.safe_load(text)
    with open(schema_path, encoding="utf-8") as file:
        schema = json.load(file)
    missing = list(schema_differences(schema, schema, values))
    if missing:
        raise SystemExit(f"values.schema.json knows keys that values.yaml lacks: {', '.join(missing)}")
    with open(readme_path, encoding="utf-8") as file:
        readme = file.read()
    before, found, rest = readme.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        raise SystemExit(f"{readme_path}: expected a table between {BEGIN} and {END}")
    updated = f"{before}{BEGIN}\n\n{table_of(values, comments_of(text))}\n\n{END}{after}"
    if "--update" in flags:
        with open(readme_path, "w", encoding="utf-8") as file:
            file.write(updated)
    elif updated != readme:
        raise SystemExit(f"{readme_path}: the table of values is stale: run helm/check.sh --update")


if __name__ == "__main__":
    main()
