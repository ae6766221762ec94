"""The floors of the house: a room imports only from the floors below it."""

import ast
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "speechbrain_hyperbolic"
FLOORS = [
    {"errors"},
    {"geometry", "hparams", "dataio", "augment"},
    {"nnet", "evaluation"},
    {"inference"},
    {"lobes"},
    {"training"},
    {"hub", "analysis"},
    {"cli", "__main__"},
]
FLOOR = {room: n for n, rooms in enumerate(FLOORS, 1) for room in rooms}
# On one floor, but not strangers
NEIGHBORS = {("augment", "dataio"), ("hparams", "dataio"), ("__main__", "cli")}
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in PACKAGE.rglob("*.py")
    if path.parts[-2] != "recipes" and path != PACKAGE / "__init__.py"
}


def imports(path):
    """Modules of this package that a file imports, anywhere in it."""
    found, text = set(), path.read_text(encoding="utf-8")
    assert "TYPE_CHECKING" not in text, f"{path} hides an import"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] != PACKAGE.name:
                continue
            while len(parts) > 1 and ".".join(parts[1:]) not in MODULES:
                parts.pop()
            if len(parts) > 1:
                found.add(".".join(parts[1:]))
    return found


def room(module):
    return module.split(".")[0]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_down(module):
    here = room(module)
    assert here in FLOOR, f"{here} stands on no floor"
    for other in imports(MODULES[module]):
        there = room(other)
        allowed = (
            there == here
            or FLOOR[there] < FLOOR[here]
            or (here, there) in NEIGHBORS
        )
        assert allowed, f"{module} imports {other}, on or above its own floor"


def test_no_circle():
    arrows = {module: imports(path) for module, path in MODULES.items()}
    while arrows:
        free = [m for m, others in arrows.items() if not others & set(arrows)]
        assert free, f"these import each other in a circle: {sorted(arrows)}"
        for module in free:
            del arrows[module]


def test_the_command_tells_its_use_without_torch():
    """And the package gives its names all the same, at first use."""
    script = """
import sys
import speechbrain_hyperbolic as package
from speechbrain_hyperbolic import cli
cli.make_parser().format_help()
assert "torch" not in sys.modules and "speechbrain" not in sys.modules
for name in package.__all__:
    assert getattr(package, name).__doc__, name
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_no_file_is_longer_than_a_reader_can_hold():
    for folder in (PACKAGE.name, "app", "recipes", "tests"):
        for path in ROOT.glob(f"{folder}/**/*.py"):
            lines = path.read_text(encoding="utf-8").splitlines()
            assert len(lines) <= 500, path
