"""A real JupyterLab, with Notebook 7, and pages for the tests: fresh configuration, no network, ended by pid."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import nbformat
from playwright.sync_api import Page

START_S = 60.0
CELL_MS = 60_000
OPTIONS = (
    "--no-browser",
    "--allow-root",
    "--ServerApp.ip=127.0.0.1",
    "--ServerApp.port_retries=0",
    "--IdentityProvider.token=",
    "--ServerApp.password=",
    "--ServerApp.disable_check_xsrf=True",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.expose_app_in_browser=True",
    "--JupyterNotebookApp.expose_app_in_browser=True",
)


class Lab(NamedTuple):
    """A JupyterLab server.

    Attributes:
        address: Where it answers.
        root: The folder it shows.
    """

    address: str
    root: Path

    def folder(self, name: str) -> Path:
        """A new folder for one module's notebooks."""
        folder = self.root / name
        folder.mkdir()
        return folder

    def end_kernels(self) -> None:
        """End what one module's notebooks leave, before the next one's begin."""
        for kernel in json.load(urllib.request.urlopen(f"{self.address}/api/kernels", timeout=10)):
            address = f"{self.address}/api/kernels/{kernel['id']}"
            urllib.request.urlopen(urllib.request.Request(address, method="DELETE"), timeout=30).close()


@contextmanager
def jupyterlab(root: Path) -> Iterator[Lab]:
    """A JupyterLab server over a folder; at the end it is ended, and its kernels."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (root / "server.log").open("w")
    command = [
        sys.executable,
        "-m",
        "jupyter",
        "lab",
        *OPTIONS,
        f"--ServerApp.port={port}",
        f"--ServerApp.root_dir={root}",
    ]
    server = subprocess.Popen(
        command, cwd=root, env=_environment(root), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(address, server, root / "server.log")
        yield Lab(address, root)
    finally:
        _end(address, server)
        log.close()


def _environment(root: Path) -> dict[str, str]:
    """Folders of its own: nobody's settings, and no news dialog, which would ask the network."""
    folders = {name: root / ".jupyter" / name for name in ("config", "data", "runtime", "ipython")}
    labconfig = folders["config"] / "labconfig"
    labconfig.mkdir(parents=True)
    disabled = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    (labconfig / "page_config.json").write_text(json.dumps(disabled))
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    repository = Path(__file__).parents[1]
    path = os.pathsep.join([str(repository), str(repository / "tests")])
    return {**os.environ, **{name: str(f) for name, f in zip(names, folders.values(), strict=True)}, "PYTHONPATH": path}


def _wait(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"{address}/api", timeout=5).close()
        except OSError:
            time.sleep(0.1)  # a server that starts has no other sign of readiness
        else:
            return
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


def _end(address: str, server: subprocess.Popen[bytes]) -> None:
    if server.poll() is not None:
        return
    try:
        urllib.request.urlopen(urllib.request.Request(f"{address}/api/shutdown", method="POST"), timeout=10).close()
        server.wait(timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def write_notebook(path: Path, cells: Sequence[str]) -> None:
    """A notebook of code cells."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


@dataclass
class Notebook:
    """A notebook open in JupyterLab, or in Notebook 7."""

    page: Page

    @classmethod
    def open(cls, page: Page, lab: Lab, name: str, *, place: str = "doc/tree") -> "Notebook":
        """Open a notebook and wait until its kernel is idle; `place` is "notebooks" for Notebook 7."""
        page.goto(f"{lab.address}/{place}/{name}?reset")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
        page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']", timeout=60_000)
        return cls(page)

    def run(self, index: int, *, wait: bool = True) -> None:
        """Run one cell, through JupyterLab's own command; a cell that raises fails the test."""
        errors = self.page.evaluate(
            """async ([index, wait, limit]) => {
              const app = window.jupyterapp;
              await app.restored;
              const panel = app.shell.currentWidget;
              panel.content.activeCellIndex = index;
              await panel.sessionContext.ready;
              const ran = app.commands.execute("notebook:run-cell");
              if (!wait) return [];
              const late = new Promise((_, no) => setTimeout(() => no(new Error("the cell does not end")), limit));
              await Promise.race([ran, late]);
              const outputs = panel.content.widgets[index].model.outputs.toJSON();
              return outputs.filter((output) => output.output_type === "error").map((output) => output.evalue);
            }""",
            [index, wait, CELL_MS],
        )
        assert errors == [], f"cell {index}: {errors}"

    def run_all(self, limit_ms: int) -> None:
        """Run every cell, as the menu does; a cell that raises fails the test."""
        errors = self.page.evaluate(
            """async (limit) => {
              const app = window.jupyterapp;
              await app.restored;
              const panel = app.shell.currentWidget;
              await panel.sessionContext.ready;
              const late = new Promise((_, no) => setTimeout(() => no(new Error("Run All does not end")), limit));
              await Promise.race([app.commands.execute("notebook:run-all-cells"), late]);
              const outputs = panel.content.widgets.flatMap((cell) => cell.model.outputs?.toJSON() ?? []);
              return outputs.filter((output) => output.output_type === "error").map((output) => output.evalue);
            }""",
            limit_ms,
        )
        assert errors == []

    def output(self, index: int) -> str:
        """Text of a cell's outputs."""
        return str(
            self.page.evaluate(
                """(index) => {
                  const outputs = window.jupyterapp.shell.currentWidget.content.widgets[index].model.outputs.toJSON();
                  const text = (output) => output.text ?? output.data?.["text/plain"] ?? output.evalue ?? "";
                  return outputs.map(text).flat().join("");
                }""",
                index,
            )
        )

    def ask(self, index: int) -> str:
        """Run a cell and return what it printed."""
        self.run(index)
        return self.output(index).strip()

    @property
    def num_cells(self) -> int:
        """Number of cells."""
        return int(self.page.evaluate("() => window.jupyterapp.shell.currentWidget.content.widgets.length"))

    def command(self, name: str, arguments: dict[str, str] | None = None) -> None:
        """Execute a command of JupyterLab."""
        self.page.evaluate(
            "async ([name, arguments]) => { await window.jupyterapp.commands.execute(name, arguments); }",
            [name, arguments or {}],
        )
