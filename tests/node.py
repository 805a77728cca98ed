"""The browser's files without a browser: node, which Playwright brings along, imports them one by one."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import playwright

from pipelab.viz.modules import STATIC

NODE = Path(playwright.__file__).parent / "driver" / "node"
_LOOP = """
import { createInterface } from "node:readline";
const [folder] = process.argv.slice(-1);
const load = (name) => import(`file://${folder}/${name}`);
const AsyncFunction = (async () => {}).constructor;
for await (const line of createInterface({ input: process.stdin })) {
  const { body, args } = JSON.parse(line);
  let answer;
  try {
    answer = { value: await new AsyncFunction("load", "args", body)(load, args) };
  } catch (error) {
    answer = { error: error.stack };
  }
  console.log(JSON.stringify(answer));
}
"""


class Node:
    """A node process that imports files of `static/`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(self, body: str, *args: Any) -> Any:
        """What the body of an async function returns, given `load(file)` and `args`; raises what it raises."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"body": body, "args": args}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer.get("value")


@contextmanager
def started() -> Iterator[Node]:
    """A process, ended at the end."""
    command = [str(NODE), "--input-type=module", "--eval", _LOOP, "--", str(STATIC)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Node(process)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=10)
