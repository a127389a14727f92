"""Who may import whom: functions know nothing of each other, and nothing of what runs, measures or tests them."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support import ROOT

FUNCTIONS = ("ingest", "average", "simulate", "watch")
LAYERS = {
    "functions/shared": {"shared"},
    **{f"functions/{name}": {name, "shared"} for name in FUNCTIONS},
    "migrations": {"migrations", "shared"},
    "local": {"local", "migrations", "shared"},
    "openapi": {"openapi", "shared", *FUNCTIONS},
}
"""Of the project's own packages, those that the modules of a folder may import."""
OWN = {*FUNCTIONS, "shared", "migrations", "local", "openapi", "bench", "tests", "examples"}
# A revision that has run somewhere does the same for ever, whatever becomes of the modules around it.
REVISIONS = ROOT / "migrations" / "versions"


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    """The name by which others import a module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[1:] if parts[0] == "functions" else parts).removesuffix(".__init__")


def imports(tree: ast.AST) -> Iterator[str]:
    """What a module imports anywhere: `from a.b import c` is `a.b.c`, which may be no module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(path: Path) -> set[str]:
    """Which packages of the project a module imports."""
    return {name.partition(".")[0] for name in imports(ast.parse(path.read_text()))} & OWN


@pytest.mark.parametrize("folder", LAYERS)
def test_a_folder_imports_only_what_is_below_it(folder: str) -> None:
    assert modules(folder)
    beyond = {str(path.relative_to(ROOT)): own(path) - LAYERS[folder] for path in modules(folder)}
    assert {path: names for path, names in beyond.items() if names} == {}


def test_a_revision_imports_nothing_that_may_change() -> None:
    revisions = sorted(REVISIONS.glob("*.py"))
    assert revisions
    assert {path.name: own(path) for path in revisions if own(path)} == {}


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Not even later, within a function, or for a type checker."""
    paths = {name_of(path): path for folder in LAYERS for path in modules(folder)}
    graph = {
        name: {known(each, paths) or name for each in imports(ast.parse(path.read_text()))} - {name}
        for name, path in paths.items()
    }
    order = [*TopologicalSorter(graph).static_order()]
    assert len(order) == len(paths)
    # So that it is a graph: a layer comes before whoever is above it.
    places = [order.index(name) for name in ("shared.settings", "shared.database", "ingest.committing", "ingest.main")]
    assert all(first < second for first, second in pairwise(places))


def known(imported: str, paths: dict[str, Path]) -> str | None:
    """The module of the project that this is, or is something of."""
    return next((name for name in (imported, imported.rpartition(".")[0]) if name in paths), None)


def test_an_import_of_any_form_is_seen() -> None:
    source = "import a.b\nfrom c import d\ndef f():\n    from e.f import g as h\nif True:\n    import i as j"
    assert {*imports(ast.parse(source))} == {"a.b", "c.d", "e.f.g", "i"}


def test_what_several_tests_use_is_in_no_module_of_tests() -> None:
    """A newcomer looks for it elsewhere, and pytest would run its tests twice where these come with it."""
    imported = {str(path.relative_to(ROOT)): imports(ast.parse(path.read_text())) for path in modules("tests")}
    assert imported
    of_tests = re.compile(r"tests\.(\w+\.)*test_")
    assert {path: name for path, names in imported.items() for name in names if of_tests.match(name)} == {}
