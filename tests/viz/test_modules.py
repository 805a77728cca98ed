"""The files that Python joins into one module: each imports what it uses, and no two name the same thing."""

import re
import subprocess
from pathlib import Path

import pytest
from node import NODE

from pipelab.viz.modules import STATIC, module

FILES = sorted(STATIC.glob("*.js"))
WIDGETS = [file.name for file in FILES if "export default" in file.read_text("utf-8")]
_EXPORTED = re.compile(r"^export (?:function|class|const) (\w+)", re.MULTILINE)
_IMPORTED = re.compile(r"^import \{([^}]*)\}", re.MULTILINE)
_STRINGS = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)

EXPORTED = {name: file.name for file in FILES for name in _EXPORTED.findall(file.read_text("utf-8"))}


@pytest.mark.parametrize("name", WIDGETS)
def test_the_joined_module_is_one_without_imports(name: str, tmp_path: Path) -> None:
    joined = tmp_path / "joined.mjs"
    joined.write_text(module(name), "utf-8")  # two constants of one name are a syntax error here
    subprocess.run([str(NODE), "--check", str(joined)], check=True)
    assert not re.search(r"^(import|export (?!default))", joined.read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_imports_what_it_uses_and_nothing_else(file: Path) -> None:
    text = file.read_text("utf-8")
    imported = {name.strip() for names in _IMPORTED.findall(text) for name in names.split(",") if name.strip()}
    code = _STRINGS.sub("", _IMPORTED.sub("", text)).replace("...", " ")
    used = {name for name in re.findall(r"(?<![.\w])\w+", code) if name in EXPORTED}
    own = {name for name, home in EXPORTED.items() if home == file.name}
    # A parameter or a method of the same name.
    local = {name for name in used if re.search(rf"[{{,(] *{name} *[,}})]|^  {name}\(.*{{$", code, re.MULTILINE)}
    assert imported - used == set(), "imported, not used"
    assert {
        name for name in used - own - local - imported if re.search(rf"(?<![.\w]){name}\(|new {name}\b", code)
    } == set()
