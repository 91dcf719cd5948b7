"""Configuration files as people write them: which kind a file is, and all that is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel

from ps.cluster.ray.deployment import Launch
from ps.config import ServiceConfig, TableConfig, yaml_file
from ps.errors import ConfigError

SERVICE, TABLES = "service", "tables"


class Problem(NamedTuple):
    """One thing that is wrong with a file."""

    field: str
    """The dotted name of the setting; for a table the table's name comes first. Empty where the file as a whole is
    wrong."""
    says: str


class Checked(NamedTuple):
    """A configuration file that was read and checked."""

    kind: str
    values: tuple[BaseModel, ...]
    """The parts of the file that are right."""
    problems: tuple[Problem, ...]


def check(path: Path, kind: str | None = None) -> Checked:
    """Reads and checks a file. By default it is of kind tables where it holds a list or a key `tables`, and of kind
    service otherwise. Raises NotFound."""
    problems: list[Problem] = []
    try:
        content = yaml_file.load(path, _loader(problems)) or {}
    except ConfigError as error:
        return Checked(kind or SERVICE, (), tuple(Problem(*problem) for problem in error.problems))
    if kind is None:
        kind = TABLES if isinstance(content, list) or (isinstance(content, dict) and "tables" in content) else SERVICE
    found = list(_service(content) if kind == SERVICE else _tables(content))
    problems += [item for item in found if isinstance(item, Problem)]
    return Checked(kind, tuple(item for item in found if isinstance(item, BaseModel)), tuple(problems))


def tables_of(path: Path) -> list[TableConfig]:
    """Reads the tables of a tables file. Raises NotFound, or ConfigError with all that is wrong."""
    checked = check(path, TABLES)
    if checked.problems:
        text = "; ".join(f"{field}: {says}" if field else says for field, says in checked.problems)
        raise ConfigError(f"{path}: {text}", checked.problems)
    return [value for value in checked.values if isinstance(value, TableConfig)]


def _service(content: Any) -> Iterator[BaseModel | Problem]:
    if not isinstance(content, dict):
        yield Problem("", f"expected a mapping of settings, found {type(content).__name__}")
        return
    launch = content.pop("launch", None)
    yield from _model(ServiceConfig, content, "")
    if isinstance(launch, dict):
        yield from _model(Launch, launch, "launch.")
    elif launch is not None:
        yield Problem("launch", f"expected a mapping of settings, found {type(launch).__name__}")


def _tables(content: Any) -> Iterator[BaseModel | Problem]:
    if isinstance(content, dict):
        yield from (Problem(str(key), "no such setting; do you mean tables?") for key in content if key != "tables")
        content = content.get("tables")
    if not isinstance(content, list):
        yield Problem("tables", f"expected a list of tables, found {type(content).__name__}")
        return
    for number, item in enumerate(content):
        name = item.get("name", number) if isinstance(item, dict) else number
        if isinstance(item, dict):
            yield from _model(TableConfig, item, f"tables[{name}].")
        else:
            yield Problem(f"tables[{name}]", f"expected a mapping of settings, found {item!r}")
    names = Counter(str(item["name"]) for item in content if isinstance(item, dict) and "name" in item)
    yield from (Problem(f"tables[{name}]", f"there are {n} of this name") for name, n in names.items() if n > 1)


def _model(kind: type[BaseModel], values: dict[Any, Any], where: str) -> Iterator[BaseModel | Problem]:
    try:
        yield kind(**{str(key): value for key, value in values.items()})
    except ConfigError as error:
        yield from (Problem(f"{where}{field}".rstrip("."), says) for field, says in error.problems)


def _loader(problems: list[Problem]) -> type[yaml.SafeLoader]:
    """Returns a YAML loader that notes keys which are given twice; YAML itself takes the last."""

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            keys = Counter(str(key.value) for key, _ in node.value)
            problems.extend(
                Problem(key, f"is given {n} times, near line {node.start_mark.line + 1}")
                for key, n in keys.items()
                if n > 1
            )
            return super().construct_mapping(node, deep)

    return Loader
