#!/usr/bin/env python3
"""Checks that every value of the chart is tried: set to something else than its default by a file of values.

    check-coverage.py VALUES FILE...

What no file sets is rendered with its default alone, where a template that ignores it, or that breaks on it, shows nothing.
"""

import sys
from pathlib import Path

import yaml

# check.sh renders this one by itself: checkov wants the high ids that it leaves to the cluster.
ELSEWHERE = {"podSecurity.fixedIds"}


def leaves(value, path=()):
    """The paths of what can be set, with what is there. Lists, and maps that are empty by default, are one."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    else:
        yield path, value


def at(values, path):
    """What a file sets there, or None."""
    for key in path:
        if not isinstance(values, dict) or key not in values:
            return None
        values = values[key]
    return values


def main():
    defaults, *files = (yaml.safe_load(Path(path).read_text(encoding="utf-8")) for path in sys.argv[1:])
    missing = [
        ".".join(path) for path, default in leaves(defaults)
        if ".".join(path) not in ELSEWHERE and all(at(values, path) in (None, default) for values in files)
    ]
    if missing:
        raise SystemExit(f"no file of helm/ci sets, or with its default only: {', '.join(missing)}")


if __name__ == "__main__":
    main()
