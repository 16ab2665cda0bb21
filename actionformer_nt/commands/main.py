"""The command `actionformer-nt`: builds the parser from `commands/`, sets up logging, maps errors to exit codes."""

from __future__ import annotations

import argparse
import importlib
import io
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from . import COMMANDS

USER_ERRORS = (ValueError, OSError)  # mistakes of the user: printed as one line, exit status 2
MISTAKE, STOPPED, INTERRUPTED = 2, 3, 130
EXIT_CODES = (
    "exit status: 0 done; 2 a mistake in what was given; 3 training stopped, the loss was not finite or pseudo labels "
    "left the labeled range, or runs of a study failed; 4 check-data found errors; 5 videos could not be "
    "extracted; 130 interrupted; 143 terminated; 1 anything else"
)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="actionformer-nt", description="Temporal action localization with few labels.", epilog=EXIT_CODES
    )
    _add_verbosity(parser, default=False)
    parser.add_argument(
        "--completion",
        action=_Completion,
        choices=_Completion.SHELLS,
        help="print a script that completes this command in a shell",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = importlib.import_module(f".{name}", __package__)
        text = (module.__doc__ or name).strip()
        command = commands.add_parser(
            name.replace("_", "-"), help=text.splitlines()[0], description=text, epilog=f"example: {module.EXAMPLE}",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )  # fmt: skip
        _add_command(command, module, default=argparse.SUPPRESS)
    return parser


class _Completion(argparse.Action):
    """Prints the completion script of a shell."""

    SHELLS = ("bash", "zsh", "tcsh")

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: Any = None) -> None:
        import shtab

        print(shtab.complete(parser, values))
        parser.exit()


def _add_command(parser: argparse.ArgumentParser, module: Any, *, default: Any) -> None:
    _add_verbosity(parser, default=default)
    module.add_arguments(parser)
    parser.set_defaults(
        run=module.run, several_processes=getattr(module, "SEVERAL_PROCESSES", False),
        when_stopped=getattr(module, "WHEN_STOPPED", None),
    )  # fmt: skip


def _add_verbosity(parser: argparse.ArgumentParser, *, default: Any) -> None:
    quiet = "only warnings and results"
    parser.add_argument("-q", "--quiet", action="store_true", default=default, help=quiet)
    verbose = "also a line every few iterations, and the traceback of an error"
    parser.add_argument("-v", "--verbose", action="store_true", default=default, help=verbose)


def main(argv: list[str] | None = None) -> int:
    """Runs a command and returns its exit status, see `EXIT_CODES`."""
    return call(build_parser(), argv)


def tool(module: Any) -> int:
    """Runs one command as a script of `tools/`. `module`: a module with the attributes that `commands/__init__.py`
    describes."""
    parser = argparse.ArgumentParser(
        description=module.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter, epilog=EXIT_CODES
    )
    _add_command(parser, module, default=False)
    return call(parser, None)


def call(parser: argparse.ArgumentParser, argv: list[str] | None) -> int:
    """Parses the arguments, runs the command and returns its exit status."""
    for stream in (sys.stdout, sys.stderr):  # print class names even if the locale cannot encode them
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    args = parser.parse_args(argv)
    set_up_logging(quiet=args.quiet, verbose=args.verbose)
    run: Callable[[argparse.Namespace], int | None] = args.run
    if "" not in sys.path and os.getcwd() not in sys.path:  # find the user's plug-ins there, as with python -m
        sys.path.append(os.getcwd())
    try:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # set by torchrun
            _join_processes(args)
        return run(args) or 0
    except BrokenPipeError:  # the reader of our output has closed the pipe
        sys.stderr.close()
        return 0
    except USER_ERRORS as error:
        if args.verbose:
            raise
        print(f"error: {_message(error)}", file=sys.stderr)
        return MISTAKE
    except RuntimeError as error:
        from actionformer_nt.self_training.watch import CollapseError
        from actionformer_nt.study.runner import RunsFailedError
        from libs.training.update import NonFiniteLossError

        if not isinstance(error, NonFiniteLossError | CollapseError | RunsFailedError):
            raise
        print(f"error: {error}", file=sys.stderr)
        return STOPPED
    except KeyboardInterrupt as stop:
        print("; ".join(filter(None, ("interrupted", args.when_stopped))), file=sys.stderr)
        return getattr(stop, "exit_status", INTERRUPTED)


def _join_processes(args: argparse.Namespace) -> None:
    """Joins the processes that torchrun started; raises ValueError if the command supports only one."""
    if not args.several_processes:
        raise ValueError("this command runs in one process; torchrun is for train and eval")
    from libs.core import distributed

    distributed.start()


class _Console(logging.StreamHandler):
    """Writes log messages above progress bars instead of into them."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


def set_up_logging(*, quiet: bool = False, verbose: bool = False) -> None:
    """Sends the messages of this project's packages to the terminal, as plain lines."""
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    console = _Console()
    console.setLevel(level)
    console.setFormatter(logging.Formatter("%(message)s"))
    for name in ("libs", "actionformer_nt"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [console], False
        logger.setLevel(min(level, logging.INFO))


def _message(error: Exception) -> str:
    """The error's text; for an error from a loader worker, without the worker's traceback."""
    text = str(error).rstrip()
    return text.splitlines()[-1].partition(": ")[2] if text.startswith("Caught ") else text


if __name__ == "__main__":
    sys.exit(main())
