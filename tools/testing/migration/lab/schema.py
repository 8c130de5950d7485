# SPDX-License-Identifier: GPL-2.0
"""Reads TOML into dataclasses, and says in one line which key of which file is wrong.

A dataclass is the schema of a table.  Each of its fields is a key, and a field without a default is
a key that must be there.  A key that is no field, a value of another type, and one that is empty
are errors: a typo must not pass for a default.
"""

import dataclasses
import re
import tomllib
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from lab.errors import LabError

T = TypeVar("T")

# What a value may be, in words.
_WORDS: dict[Any, str] = {
    str: "a string", bool: "true or false", int: "a whole number",
    tuple[str, ...]: "a list of strings", tuple[int, int]: "two whole numbers",
    dict[str, str]: "a table of strings"}


def read(path: Path) -> dict[str, Any]:
    """All that a file says; LabError where it is no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise LabError(f"{path} cannot be read: {' '.join(str(err).split())}") from err


def fill(cls: type[T], path: Path, table: str, said: object, **given: object) -> T:
    """A `cls` from `said`, which is table [`table`] of the file `path`, or all of it for "".

    The fields `given` are no keys.  LabError where a key is unknown, missing, empty or of another
    type.
    """
    where = f"{path}: [{table}]" if table else f"{path}:"
    if not isinstance(said, dict):
        raise LabError(f"{where} must be a table")
    hints = typing.get_type_hints(cls)
    keys = [field for field in dataclasses.fields(cls) if field.name not in given]
    if unknown := sorted(said.keys() - {field.name for field in keys}):
        raise LabError(f"{where} {unknown[0]}: there is no such key, only "
                       f"{', '.join(field.name for field in keys)}")
    for field in keys:
        if field.name not in said and field.default is dataclasses.MISSING:
            raise LabError(f"{where} {field.name} is missing")
    values = {name: _value(hints[name], value, f"{where} {name}") for name, value in said.items()}
    make: Callable[..., T] = cls
    return make(**values, **given)


def tables(cls: type[T], path: Path, table: str, said: object) -> tuple[T, ...]:
    """A `cls` from each table of the list `said`, which is [[`table`]] of the file `path`."""
    if not isinstance(said, list):
        raise LabError(f"{path}: [{table}] must be a list of tables, [[{table}]]")
    return tuple(fill(cls, path, table, one) for one in said)


def _value(kind: Any, value: Any, where: str) -> object:
    """`value` as a field of the type `kind` holds it."""
    if isinstance(kind, types.UnionType):
        # Of "str | None": None stands for no such key.
        kind = typing.get_args(kind)[0]
    inner = typing.get_args(kind)
    if inner and isinstance(value, list):
        value = tuple(value)
        right = all(_is(one, inner[0]) for one in value) \
            and (inner[-1] is ... or len(value) == len(inner))
    else:
        right = not inner and _is(value, kind)
    if not right:
        raise LabError(f"{where} must be {_WORDS[kind]}")
    if value == () or any(one.strip() == "" for one in (value if inner else [value])
                          if isinstance(one, str)):
        raise LabError(f"{where} is empty")
    return value


def _is(value: object, kind: type) -> bool:
    # To isinstance() a bool is an int.
    return type(value) is kind and not (isinstance(value, int) and value < 0)


def expressions(path: Path, key: str, lines: tuple[str, ...]) -> tuple[str, ...]:
    """`lines`, each of which is a regular expression; LabError for one that is none."""
    for line in lines:
        try:
            re.compile(line)
        except re.error as err:
            raise LabError(f"{path}: {key}: {line}: {err}") from err
    return lines
