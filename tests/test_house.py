"""Is the house in order? Sizes, words, names and files that no other tool looks at."""

from __future__ import annotations

import ast
import os
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("raft", "wal", "kvstore", "gateway")
FILE_LINES_MAX = 499
FUNCTION_LINES_MAX = 59
LINE_LENGTH_MAX = 100

# Put together, so that this file passes its own test.
BANNED = re.compile(
    r"\b(?:" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b"
    r"|(?<![\w.$}])/(?:wo" + r"rk|ro" + r"ot|tm" + r"p|ho" + r"me/\w+|Us" + r"ers)/"
)
TEXT_SUFFIXES = {".py", ".pyi", ".md", ".toml", ".yml", ".yaml", ".lock", ".sh", ".txt", ".js"}
TEXT_NAMES = {"Makefile", "Dockerfile", "run"}
STATE_MACHINE = "The state machine knows only the nouns of raft and their bytes"
LEFT_OUT = {"build", "dist", "htmlcov", "data", "__pycache__"}


@cache
def _files() -> tuple[Path, ...]:
    """Every text file of ours, without environments, caches and what a run leaves behind."""
    found = []
    for directory, subdirectories, names in os.walk(ROOT):
        subdirectories[:] = sorted(
            name
            for name in subdirectories
            if name not in LEFT_OUT
            and not name.endswith((".egg-info", ".kvstore"))
            and (not name.startswith(".") or name in {".ci", ".github"})
        )
        found += [
            Path(directory, name)
            for name in sorted(names)
            if name in TEXT_NAMES or Path(name).suffix in TEXT_SUFFIXES
        ]
    return tuple(found)


def _python_files() -> list[Path]:
    """Our Python, generated code aside (it says so in its first line)."""
    sources = [path for path in _files() if path.suffix == ".py"]
    return [path for path in sources if "generated" not in _text(path).partition("\n")[0].lower()]


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _where(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def _lock(name: str) -> dict[str, str]:
    """The pins of a lock file: canonical name to exact version. Anything but a pin is an error."""
    pins: dict[str, str] = {}
    for line in _text(ROOT / name).splitlines():
        if line.startswith("#"):
            continue
        requirement = Requirement(line)
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", line
        assert requirement.url is None, line
        pins[str(canonicalize_name(requirement.name))] = specifier.version
    return pins


@cache
def _project() -> dict[str, list[Requirement]]:
    """What pyproject.toml asks for: at run time, and for tests, fuzzer and benchmark."""
    project = tomllib.loads(_text(ROOT / "pyproject.toml"))["project"]
    return {
        "requirements.lock": [Requirement(line) for line in project["dependencies"]],
        "requirements-dev.lock": [
            Requirement(line)
            for line in project["dependencies"] + project["optional-dependencies"]["dev"]
        ],
        "requirements-fuzz.lock": [
            Requirement(line)
            for line in project["dependencies"] + project["optional-dependencies"]["fuzz"]
        ],
        "requirements-bench.lock": [
            Requirement(line)
            for line in project["dependencies"] + project["optional-dependencies"]["bench"]
        ],
    }


def test_the_house_is_found() -> None:
    # Without this, a wrong root would let every other test here pass over nothing.
    names = {str(path.relative_to(ROOT)) for path in _python_files()}
    assert {"raft/types.py", "kvstore/__init__.py", "tests/test_house.py"} <= names
    assert ROOT / ".ci" / "run" in _files()


def test_files_stay_under_500_lines() -> None:
    sizes = {path: len(_text(path).splitlines()) for path in _python_files()}
    assert [
        f"{_where(path, size)} has {size} lines"
        for path, size in sizes.items()
        if size > FILE_LINES_MAX
    ] == []


def test_functions_stay_under_60_lines() -> None:
    too_long = []
    for path in _python_files():
        for node in ast.walk(ast.parse(_text(path))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                if size > FUNCTION_LINES_MAX:
                    too_long.append(f"{_where(path, node.lineno)} {node.name} has {size} lines")
    assert too_long == []


def test_lines_stay_within_100_characters() -> None:
    assert [
        _where(path, number)
        for path in _python_files()
        for number, line in enumerate(_text(path).splitlines(), start=1)
        if len(line) > LINE_LENGTH_MAX
    ] == []


def test_nothing_sleeps_outside_the_tests_of_real_processes() -> None:
    # A test that sleeps is slow when it passes and fails when the machine is busy.
    sleeping = re.compile(r"\btime\.sle" + r"ep\(|\bfrom time import .*\bsle" + r"ep\b")
    assert [
        _where(path, number)
        for path in _python_files()
        if path.is_relative_to(ROOT / "tests") and not path.is_relative_to(ROOT / "tests" / "e2e")
        for number, line in enumerate(_text(path).splitlines(), start=1)
        if sleeping.search(line)
    ] == []


def test_no_banned_words_and_no_paths_of_a_machine() -> None:
    assert [
        f"{_where(path, number)}: {match.group()}"
        for path in _files()
        for number, line in enumerate(_text(path).splitlines(), start=1)
        if (match := BANNED.search(line))
    ] == []


@pytest.mark.parametrize(
    ("line", "banned"),
    [
        ("# TO" + "DO: later", True),
        ('open("/tm' + 'p/x")', True),
        ("cd /wo" + "rk/main", True),
        ("/ho" + "me/ada/kv", True),
        ("todos = 1", False),
        ("/v3/kv/range", False),
        ("Path.home()", False),
        ("https://example.com/work" + "/x", False),
    ],
)
def test_banned_words_are_recognised(line: str, banned: bool) -> None:
    assert bool(BANNED.search(line)) is banned


def test_every_package_asks_its_question_on_line_1() -> None:
    wrong = []
    for name in PACKAGES:
        files = [path for path in _python_files() if path.is_relative_to(ROOT / name)]
        for directory in sorted({path.parent for path in files}):
            init = directory / "__init__.py"
            first = _text(init).partition("\n")[0] if init.exists() else ""
            if not re.match(r'"""[A-Z][^.!?"]*\?', first):
                wrong.append(f"{_where(init, 1)}: {first}")
    assert wrong == []


def test_every_room_below_the_server_is_held_pure() -> None:
    settings = tomllib.loads(_text(ROOT / "pyproject.toml"))["tool"]["importlinter"]
    contracts = {contract["name"]: contract for contract in settings["contracts"]}
    layers = contracts["Arrows point down only"]["layers"]
    below = re.findall(r"\w+", " ".join(layers[layers.index("(apply)") :]))
    existing = {
        f"kvstore.{room}" for room in below if list((ROOT / "kvstore").glob(f"{room}/*.py"))
    } | {f"kvstore.{room}" for room in below if (ROOT / "kvstore" / f"{room}.py").exists()}
    assert existing >= {"kvstore.commands", "kvstore.types", "kvstore.mvcc"}
    assert existing - set(contracts["Pure rooms touch nothing outside"]["source_modules"]) == set()
    assert existing - set(contracts[STATE_MACHINE]["source_modules"]) == set()


def _make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", _text(ROOT / "Makefile"), flags=re.MULTILINE))


def _make_commands() -> list[tuple[Path, str]]:
    """Every `make x` that a document tells its reader to type, in a code block or between ticks."""
    commands = []
    for path in _files():
        if path.suffix == ".md":
            for code in re.findall(r"```.*?```|`[^`\n]+`", _text(path), flags=re.DOTALL):
                commands += [(path, name) for name in re.findall(r"\bmake ([a-z][a-z-]*)", code)]
    return commands


def test_documents_name_only_make_targets_that_exist() -> None:
    commands = _make_commands()
    assert {"run", "test", "check"} <= {name for _, name in commands}
    targets = _make_targets()
    assert [
        f"{path.relative_to(ROOT)}: make {name}" for path, name in commands if name not in targets
    ] == []


def test_make_help_describes_every_target_a_person_uses() -> None:
    described = set(re.findall(r"^([a-z-]+):.*## \w", _text(ROOT / "Makefile"), re.MULTILINE))
    assert _make_targets() - described == {"pytest", "pytest-quick"}


LOCKS = (
    "requirements.lock",
    "requirements-dev.lock",
    "requirements-fuzz.lock",
    "requirements-bench.lock",
)


@pytest.mark.parametrize("name", LOCKS)
def test_locks_satisfy_pyproject_and_name_no_host(name: str) -> None:
    pins = _lock(name)
    assert "://" not in _text(ROOT / name)
    assert [
        str(requirement)
        for requirement in _project()[name]
        if not requirement.specifier.contains(pins.get(canonicalize_name(requirement.name), "0"))
    ] == []


@pytest.mark.parametrize("name", LOCKS[1:])
def test_all_locks_agree(name: str) -> None:
    assert _lock("requirements.lock").items() <= _lock(name).items()


def test_every_dependency_is_accounted_for_with_its_version() -> None:
    pins: dict[str, str] = {}
    for name in LOCKS:
        pins |= _lock(name)
    table = _text(ROOT / "docs" / "dependencies.md")
    rows = dict(re.findall(r"^\|[^|]*\| (\S+) \| (\S+) \|", table, re.MULTILINE))
    expected = {
        requirement.name: pins[canonicalize_name(requirement.name)]
        for name in LOCKS[1:]
        for requirement in _project()[name]
    }
    assert {name: rows.get(name) for name in expected} == expected


def test_scripts_of_ci_can_be_executed() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
