"""The rooms of the project: which may know which."""

import ast
import graphlib

import pytest
from conftest import ROOT

FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in [ROOT / "lstm.py", ROOT / "configs.py", *(ROOT / "ptb").rglob("*.py")]
}


def imported(name):
    """Returns the modules of the project that a module imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.update([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
    return names & {*FILES}


def test_imports_point_one_way():
    graph = {name: imported(name) for name in FILES}
    assert graph["lstm"] >= {"ptb.reader", "ptb.rnn", "ptb.run"} and graph["ptb.run"]
    graphlib.TopologicalSorter(graph).prepare()  # It raises CycleError.
    assert not [name for name in graph if "lstm" in graph[name]]


@pytest.mark.parametrize("room", ["ptb.saving", "ptb.terminal"])
def test_saving_and_terminal_are_told_and_never_ask(room):
    for name in FILES:
        if name.startswith(f"{room}."):
            others = [it for it in imported(name) if not it.startswith(("ptb.saving.", "ptb.term"))]
            assert not others, f"{name} imports {', '.join(others)}"
