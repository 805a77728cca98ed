"""What the README shows works as it stands."""

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_its_examples_run_as_a_script(tmp_path: Path) -> None:
    # That of a pretrained model reads its configuration from the network.
    local = [block for block in BLOCKS if "trace_pretrained" not in block]
    assert len(local) == len(BLOCKS) - 1
    script = tmp_path / "readme.py"
    script.write_text("\n".join(local), encoding="utf-8")
    result = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Sequential in 4 stages, uniform (batch of 64)" in result.stdout
    assert "predicted" in result.stdout
    assert (tmp_path / "timeline.png").stat().st_size > 1000


def test_it_is_short() -> None:
    assert len(README.splitlines()) < 150
