"""The house rules that a machine can hold. Each fault names its cure; each list of exemptions says why and only shrinks.

A rule is a function from a tree (the folder that holds edgegw/ and tests/) to its faults, so that the tests at the end can
show it a small broken tree and see it bite. A rule about a part that a tree does not have finds nothing there.
"""

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TREE = Path(__file__).parent.parent

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500

# Modules without a test file of their own, and why.
UNTESTED = {
    "edgegw/__main__.py": "two lines; tests/cli/ and tests/e2e/ start the program through it",
    "edgegw/errors.py": "declarations; the rules below hold them",
    "edgegw/limits.py": "declarations; the rules below hold them",
}
# Constants of limits.py that are units of the others, not bounds.
UNITS = {"KIB", "MIB", "GIB"}
# Roots of the error tree: never raised themselves.
ROOTS = {"GatewayError"}
# Who makes errors with a code that comes from outside, and why.
RELAYS = {
    "edgegw/cli/client.py": "repeats the code that the gateway answered",
}
# Where a test may sleep, and why.
SLEEPERS = {
    "tests/bench": "measures over time",
    "tests/crash": "kills after a stretch of time",
}

BANNED_WORDS = {"manager", "managers", "helper", "helpers", "util", "utils", "common", "base", "misc"}
ERROR_CODE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
# Put together here, so that this file does not hold what it looks for.
MACHINE_PATHS = re.compile("|".join(f"(?<![\\w.])/{place}/" for place in ("work", "tmp")))
SQL_CALLS = {"execute", "executemany", "executescript"}

Rule = Callable[[Path], list[str]]
Function = ast.FunctionDef | ast.AsyncFunctionDef


def _sources(tree: Path, *folders: str) -> Iterator[tuple[str, ast.Module]]:
    for folder in folders:
        for path in sorted((tree / folder).rglob("*.py")):
            yield str(path.relative_to(tree)), ast.parse(path.read_text())


def _named(node: ast.expr) -> str:
    """The last part of a name: `X` of `X`, `errors.X`."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


# --- files ---------------------------------------------------------------------------------------


def basename_faults(tree: Path) -> list[str]:
    """One search finds one file."""
    faults: list[str] = []
    for folder, pattern in (("edgegw", "*.py"), ("tests", "test_*.py")):
        paths = [path for path in sorted((tree / folder).rglob(pattern)) if path.name != "__init__.py"]
        counts = Counter(path.name for path in paths)
        faults += [
            f"{path.relative_to(tree)}: another file has this name: call it by what it does in its own folder"
            for path in paths
            if counts[path.name] > 1
        ]
    return faults


def mirror_faults(tree: Path) -> list[str]:
    """Each module has its test file."""
    faults: list[str] = []
    for path in sorted((tree / "edgegw").rglob("*.py")):
        module = path.relative_to(tree)
        test = Path("tests", *module.parts[1:-1], f"test_{module.name}")
        if path.name != "__init__.py" and str(module) not in UNTESTED and not (tree / test).is_file():
            faults.append(f"{module}: no {test}: write it, or add the module to UNTESTED of tests/test_tidy.py with a reason")
    faults += [
        f"{module} is in UNTESTED and not in the tree: take it out" for module in UNTESTED if not (tree / module).is_file()
    ]
    return faults


def length_faults(tree: Path) -> list[str]:
    """Functions and files that hold more than one thing."""
    faults: list[str] = []
    for place, module in _sources(tree, "edgegw", "tests"):
        lines = len((tree / place).read_text().splitlines())
        if lines > FILE_LINES_MAX:
            faults.append(f"{place}: {lines} lines, at most {FILE_LINES_MAX}: split it by reason to change")
        for node in ast.walk(module):
            if isinstance(node, Function):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    faults.append(
                        f"{place}:{node.lineno}: {node.name} has {lines} lines, at most {FUNCTION_LINES_MAX}: name its parts"
                    )
    return faults


def docstring_faults(tree: Path) -> list[str]:
    """Each module says what it is for."""
    return [
        f"{place}: no docstring: say in one line what the module is for"
        for place, module in _sources(tree, "edgegw")
        if ast.get_docstring(module) is None
    ]


def machine_path_faults(tree: Path) -> list[str]:
    """Paths of one machine."""
    faults: list[str] = []
    paths = [
        *(tree / "edgegw").rglob("*"),
        *(tree / "tests").rglob("*.py"),
        *tree.glob("*.sh"),
        *tree.glob("*.toml"),
        *tree.glob("*.md"),
    ]
    for path in sorted(path for path in paths if path.suffix in {".py", ".sql", ".sh", ".toml", ".md", ".html", ".js"}):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if MACHINE_PATHS.search(line):
                faults.append(
                    f"{path.relative_to(tree)}:{number}: a path of this machine: take it as an argument or from tmp_path"
                )
    return faults


# --- names and imports ---------------------------------------------------------------------------


def _defined_names(module: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(module):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.arg(arg=name):
                yield node.lineno, name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.alias(asname=str(name)):
                yield node.lineno, name


def word_faults(tree: Path) -> list[str]:
    """Names that say nothing."""
    faults: list[str] = []
    for place, module in _sources(tree, "edgegw", "tests"):
        names = [(1, part) for part in Path(place).with_suffix("").parts]
        for line, name in [*names, *_defined_names(module)]:
            words = {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name)}
            faults += [
                f"{place}:{line}: {name}: '{word}' says nothing: name what it does" for word in sorted(words & BANNED_WORDS)
            ]
    return faults


def relative_import_faults(tree: Path) -> list[str]:
    """Relative imports."""
    return [
        f"{place}:{node.lineno}: relative import: write `from edgegw.… import …`, which one search finds"
        for place, module in _sources(tree, "edgegw", "tests")
        for node in ast.walk(module)
        if isinstance(node, ast.ImportFrom) and node.level > 0
    ]


def sql_faults(tree: Path) -> list[str]:
    """SQL outside the store."""
    return [
        f"{place}:{node.lineno}: .{node.func.attr}() outside store/: give the store a method for it"
        for place, module in _sources(tree, "edgegw")
        if not place.startswith("edgegw/store/")
        for node in ast.walk(module)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SQL_CALLS
    ]


def sleep_faults(tree: Path) -> list[str]:
    """Tests that hope a stretch of time is long enough."""
    # asyncio.sleep(0) only lets others run.
    return [
        f"{place}:{node.lineno}: a test sleeps: wait for the event itself, with a deadline"
        for place, module in _sources(tree, "tests")
        if not any(place == sleeper or place.startswith(sleeper + "/") for sleeper in SLEEPERS)
        for node in ast.walk(module)
        if isinstance(node, ast.Call) and _named(node.func) == "sleep" and not _is_zero(node.args)
    ]


def _is_zero(args: list[ast.expr]) -> bool:
    return len(args) == 1 and isinstance(args[0], ast.Constant) and args[0].value == 0


# --- bounds --------------------------------------------------------------------------------------


def limit_faults(tree: Path) -> list[str]:
    """Bounds without a reason, and bounds that bound nothing."""
    path = tree / "edgegw" / "limits.py"
    if not path.is_file():
        return []
    lines = path.read_text().splitlines()
    used = {
        name
        for place, module in _sources(tree, "edgegw")
        if place != "edgegw/limits.py"
        for node in ast.walk(module)
        for name in _used_names(node)
    }
    faults: list[str] = []
    for node in ast.parse(path.read_text()).body:
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0] if isinstance(node, ast.Assign) else None
        if not isinstance(target, ast.Name) or target.id in UNITS:
            continue
        above = lines[node.lineno - 2].strip() if node.lineno > 1 else ""
        if not above.startswith("#") or above.startswith("# ---"):
            faults.append(f"edgegw/limits.py:{node.lineno}: {target.id} has no comment above: say why this number and no other")
        if target.id not in used:
            faults.append(
                f"edgegw/limits.py:{node.lineno}: {target.id} bounds nothing: use it where the thing is bounded, or take it out"
            )
    return faults


def _used_names(node: ast.AST) -> list[str]:
    match node:
        case ast.Name(id=name, ctx=ast.Load()) | ast.Attribute(attr=name):
            return [name]
    return []


# --- errors --------------------------------------------------------------------------------------


def _errors(tree: Path) -> dict[str, str]:
    """Every class of errors.py that is an error, with its parent."""
    path = tree / "edgegw" / "errors.py"
    classes = {
        node.name: _named(node.bases[0]) if node.bases else ""
        for node in (ast.parse(path.read_text()).body if path.is_file() else [])
        if isinstance(node, ast.ClassDef)
    }
    return {name: parent for name, parent in classes.items() if _line_of(name, classes)[-1] == "Exception"}


def _line_of(name: str, classes: dict[str, str]) -> list[str]:
    """The class, its parent, and so on up."""
    line = [name]
    while line[-1] in classes:
        line.append(classes[line[-1]])
    return line


def _constructions(tree: Path, errors: dict[str, str]) -> Iterator[tuple[str, str, ast.Call]]:
    for place, module in _sources(tree, "edgegw"):
        for node in ast.walk(module):
            if isinstance(node, ast.Call) and place != "edgegw/errors.py" and _named(node.func) in errors:
                yield place, _named(node.func), node


def raiser_faults(tree: Path) -> list[str]:
    """Errors that nobody raises."""
    errors = _errors(tree)
    raised = {name for _, name, _ in _constructions(tree, errors)}
    return [
        f"edgegw/errors.py: nobody raises {name}: take it out; its first raiser brings it"
        for name in errors
        if name not in raised | ROOTS
    ]


def code_faults(tree: Path) -> list[str]:
    """Codes that one search does not find, and codes with two meanings."""
    faults: list[str] = []
    owners: dict[str, tuple[str, str]] = {}
    for place, name, call in _constructions(tree, _errors(tree)):
        where = f"{place}:{call.lineno}"
        code = call.args[0] if call.args else next((word.value for word in call.keywords if word.arg == "code"), None)
        if place in RELAYS or (isinstance(code, ast.Attribute) and code.attr == "code"):
            continue  # The code of another error, handed on.
        if not isinstance(code, ast.Constant) or not isinstance(code.value, str):
            faults.append(f"{where}: the code of this {name} is put together: write it as a literal, which one search finds")
        elif not ERROR_CODE.fullmatch(code.value):
            faults.append(f"{where}: code '{code.value}': write small letters, digits and single underscores")
        elif owners.setdefault(code.value, (name, where))[0] != name:
            other, there = owners[code.value]
            faults.append(f"{where}: code '{code.value}' is a {name} here and a {other} at {there}: one code, one class")
    return faults


def status_faults(tree: Path) -> list[str]:
    """Errors that have no HTTP status."""
    path = tree / "edgegw" / "api" / "problems.py"
    if not path.is_file():
        return []
    mapped = {
        name
        for statement in ast.parse(path.read_text()).body
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None
        for node in ast.walk(statement.value)
        for name in _used_names(node)
    }
    errors = _errors(tree)
    return [
        f"edgegw/errors.py: {name} has no status: add it, or its parent, to the table of edgegw/api/problems.py"
        for name in errors
        if name not in ROOTS and not mapped.intersection(_line_of(name, errors)) - ROOTS
    ]


RULES: list[Rule] = [
    basename_faults,
    mirror_faults,
    length_faults,
    docstring_faults,
    machine_path_faults,
    word_faults,
    relative_import_faults,
    sql_faults,
    sleep_faults,
    limit_faults,
    raiser_faults,
    code_faults,
    status_faults,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_tidy(rule: Rule) -> None:
    faults = rule(TREE)
    assert not faults, "\n" + "\n".join(faults)


_ERRORS = "class GatewayError(Exception): ...\nclass Busy(GatewayError): ...\nclass Full(Busy): ...\n"

BREAKAGES: dict[str, tuple[Rule, dict[str, str]]] = {
    "a name twice": (basename_faults, {"edgegw/mqtt/server.py": "", "edgegw/api/server.py": ""}),
    "a test name twice": (basename_faults, {"tests/a/test_x.py": "", "tests/b/test_x.py": ""}),
    "no test": (mirror_faults, {"edgegw/api/server.py": "", "tests/test_server.py": ""}),
    "a long file": (length_faults, {"edgegw/bus.py": "x = 1\n" * 501}),
    "a long function": (length_faults, {"tests/test_bus.py": "async def f():\n" + "    x = 1\n" * 70}),
    "no docstring": (docstring_faults, {"edgegw/bus.py": "# The bus.\n"}),
    "a path of a machine": (machine_path_faults, {"edgegw/bus.py": f"PATH = '/{'tmp'}/x'\n"}),
    "a banned file": (word_faults, {"edgegw/bus_utils.py": ""}),
    "a banned class": (word_faults, {"edgegw/bus.py": "class TaskManager: ...\n"}),
    "a banned argument": (word_faults, {"edgegw/bus.py": "def f(base_url): ...\n"}),
    "a banned attribute": (word_faults, {"edgegw/bus.py": "self.http_helper = 1\n"}),
    "a relative import": (relative_import_faults, {"edgegw/bus.py": "from . import errors\n"}),
    "SQL in the bus": (sql_faults, {"edgegw/bus.py": "db.execute('SELECT 1')\n"}),
    "a test that sleeps": (sleep_faults, {"tests/test_bus.py": "await asyncio.sleep(0.1)\n"}),
    "a test that imports sleep": (sleep_faults, {"tests/test_bus.py": "from time import sleep\nsleep(1)\n"}),
    "a bound without a reason": (limit_faults, {"edgegw/limits.py": "X: int = 1\n", "edgegw/bus.py": "limits.X\n"}),
    "a bound under a heading": (limit_faults, {"edgegw/limits.py": "# --- x ---\nX = 1\n", "edgegw/bus.py": "limits.X\n"}),
    "a bound of nothing": (limit_faults, {"edgegw/limits.py": "# Why.\nX = 1\n", "edgegw/bus.py": "x = 1\n"}),
    "an error nobody raises": (raiser_faults, {"edgegw/errors.py": _ERRORS, "edgegw/bus.py": "raise Busy('busy', '')\n"}),
    "a code put together": (code_faults, {"edgegw/errors.py": _ERRORS, "edgegw/bus.py": "raise Busy(f'x_{1}', '')\n"}),
    "a code in capitals": (code_faults, {"edgegw/errors.py": _ERRORS, "edgegw/bus.py": "raise Busy('BUSY', '')\n"}),
    "a code of two": (code_faults, {"edgegw/errors.py": _ERRORS, "edgegw/bus.py": "Busy('x', '')\nerrors.Full('x', '')\n"}),
    "an error without a status": (status_faults, {"edgegw/errors.py": _ERRORS, "edgegw/api/problems.py": "T = {Full: 503}\n"}),
    "an error whose root has one": (
        status_faults,
        {"edgegw/errors.py": _ERRORS, "edgegw/api/problems.py": "T = {GatewayError: 500}\n"},
    ),
}


def _grow(tree: Path, files: dict[str, str]) -> None:
    for place, text in files.items():
        (tree / place).parent.mkdir(parents=True, exist_ok=True)
        (tree / place).write_text(text)


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_breakage_is_seen(name: str, tmp_path: Path) -> None:
    rule, files = BREAKAGES[name]
    _grow(tmp_path, {**dict.fromkeys(UNTESTED, '"""."""\n'), **files})
    assert rule(tmp_path)


def test_a_tidy_tree_passes(tmp_path: Path) -> None:
    _grow(
        tmp_path,
        {
            "edgegw/__main__.py": '"""Start."""\n',
            "edgegw/errors.py": '"""Errors."""\n' + _ERRORS,
            "edgegw/limits.py": '"""Bounds."""\nKIB = 1024\n# A page.\nX_BYTES_MAX: int = 4 * KIB\n',
            "edgegw/api/problems.py": '"""Statuses."""\nSTATUS = {Busy: 503}\n',
            "edgegw/bus.py": '"""The bus."""\nimport base64\nraise Busy("busy", limits.X_BYTES_MAX)\nraise Full(code="full")\n',
            "edgegw/store/disk.py": '"""The disk."""\nimport sqlite3\nsqlite3.connect("").execute("SELECT 1")\n',
            "tests/api/test_problems.py": "",
            "tests/test_bus.py": "await asyncio.sleep(0)\n",
            "tests/store/test_disk.py": "",
        },
    )
    assert [fault for rule in RULES for fault in rule(tmp_path)] == []


def test_each_rule_has_bitten() -> None:
    assert {rule for rule, _ in BREAKAGES.values()} == set(RULES)
