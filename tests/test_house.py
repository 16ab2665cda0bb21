"""The plan of the house: every import points down the list of rooms, and no room is too large to be read at once."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A room may import those before it. Names of single files are rooms of their own.
ROOMS = [
    "libs.core", "libs", "libs.nms", "libs.datasets", "libs.extraction", "libs.modeling", "libs.training",
    "libs.evaluation", "libs.inference", "libs.utils",
    "actionformer_nt", "actionformer_nt.methods", "actionformer_nt.config", "actionformer_nt.protocol",
    "actionformer_nt.self_training", "actionformer_nt.spot", "actionformer_nt.snapshots", "actionformer_nt.report",
    "actionformer_nt.run", "actionformer_nt.study", "actionformer_nt.commands", "actionformer_nt.__main__",
]  # fmt: skip
MOST_LINES, MOST_LINES_OF_FUNCTION = 300, 70

FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("libs", "actionformer_nt")
    for path in (ROOT / package).rglob("*.py")
}


def imports(module):
    """Modules of the house that a file imports anywhere, for types alone as well, and in functions."""
    path = FILES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            up = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}  # a package runs before its modules
    return {name for name in found if name in FILES} - {module}


def room(module):
    return max((r for r in ROOMS if module == r or module.startswith(r + ".")), key=len)


def test_imports_point_down():
    up = [
        f"{module} imports {other}"
        for module in FILES
        for other in imports(module)
        if ROOMS.index(room(other)) > ROOMS.index(room(module)) and module != "actionformer_nt"  # its names are lazy
    ]
    assert not up


def test_there_is_no_circle():
    left = {module: imports(module) for module in FILES if module != "actionformer_nt"}
    while free := [module for module, others in left.items() if not others & left.keys()]:
        for module in free:
            del left[module]
    assert not left


@pytest.mark.parametrize("folder", ["libs", "actionformer_nt", "tools", "benchmarks"])
def test_files_and_functions_can_be_read_at_once(folder):
    for path in (ROOT / folder).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= MOST_LINES, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < MOST_LINES_OF_FUNCTION, (path, node.name)


def test_an_architecture_is_named_only_where_it_is_registered():
    for module, path in FILES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                values = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
                assert not {"SPOT", "LocPointTransformer"} & set(values), (module, node.lineno)
