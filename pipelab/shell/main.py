"""The command line: what is asked, what is printed, and the exit code. Whatever is heavy loads with its command."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from pipelab import progress
from pipelab.errors import Cancelled, PipelabError
from pipelab.shell import generate, plan

_CODES = "exit codes: 0 done, 1 it cannot be done (the reason is on stderr), 2 wrong usage, 130 Ctrl-C"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Its words; None for the process's own.

    Returns:
        The exit code.
    """
    asked = _parser().parse_args(arguments)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it warns of configs that are right
    if asked.quiet:
        progress.mute()
        os.environ["TQDM_DISABLE"] = "1"  # for the bars of transformers
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # it tells of each time it tries again
    run: Callable[[argparse.Namespace], None] = asked.run
    try:
        run(asked)
        sys.stdout.flush()
    except (KeyboardInterrupt, Cancelled):
        return 130
    except PipelabError as error:
        print(f"pipelab: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `| head` has read enough; Python would complain when it flushes at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelab", description="Split a model of transformers into the stages of a pipeline.",
        epilog=_CODES,
    )  # fmt: skip
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (plan, generate):
        command.add_to(commands)
    return parser
