"""The command line: `edgegw NOUN VERB …`.

The first argument picks a noun from NOUNS, and only that noun's module is imported, so that `edgegw run` does not pay for
what other commands need, nor they for the gateway. Such a module has

    def build(parser: argparse.ArgumentParser) -> None

which adds its verbs and options, and sets for each the function to call: `parser.set_defaults(call=function)`, where
`function(args: argparse.Namespace) -> int` returns the exit code. It writes results to stdout, raises GatewayError for what
goes wrong, and imports inside functions what is slow to load. Errors become one line on stderr: `edgegw: CODE: WHAT (HINT)`.
"""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Final, NoReturn

from edgegw import __version__
from edgegw.errors import ConfigError, GatewayError, PeerError
from edgegw.limits import CONFIG_FAULTS_SHOWN_MAX

NOUNS: Final = {
    "run": ("edgegw.cli.run", "run the gateway in the foreground"),
    "check": ("edgegw.cli.check", "whether the machine and the gateway are well"),
    "config": ("edgegw.cli.config_commands", "show or check the configuration"),
    "token": ("edgegw.cli.token", "make, list and revoke tokens"),
    "message": ("edgegw.cli.message", "publish, list and follow messages; replay recordings"),
    "completion": ("edgegw.cli.completion", "print a script that completes commands in a shell"),
}

EXIT_OK: Final = 0
EXIT_OTHER: Final = 1
EXIT_USAGE: Final = 2
EXIT_PEER_UNAVAILABLE: Final = os.EX_UNAVAILABLE
EXIT_CONFIG: Final = os.EX_CONFIG
EXIT_INTERRUPTED: Final = 130


class UsageError(GatewayError):
    """The command line itself is wrong (exit 2)."""


class Parser(argparse.ArgumentParser):
    """argparse, with errors in the house's one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError("usage", message, f"see {self.prog} --help")


def main(argv: Sequence[str] | None = None, nouns: Mapping[str, tuple[str, str]] = NOUNS) -> int:
    """Run one command; returns the exit code."""
    try:
        code = _dispatch(list(sys.argv[1:] if argv is None else argv), nouns)
        # Here, where a closed pipe can still be caught.
        sys.stdout.flush()
    except GatewayError as error:
        _report(error)
        return exit_code(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough. Without this the interpreter would flush again at exit, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OTHER
    return code


def exit_code(error: GatewayError) -> int:
    """The code a process ends with when `error` ends it."""
    if isinstance(error, ConfigError):
        return EXIT_CONFIG
    if isinstance(error, PeerError):
        return EXIT_PEER_UNAVAILABLE
    return EXIT_USAGE if isinstance(error, UsageError) else EXIT_OTHER


def _dispatch(arguments: list[str], nouns: Mapping[str, tuple[str, str]]) -> int:
    noun = arguments[0] if arguments else ""
    try:
        if noun not in nouns:
            _parse_without_noun(arguments, nouns)
        module, about = nouns[noun]
        parser = Parser(prog=f"edgegw {noun}", description=about, allow_abbrev=False)
        import_module(module).build(parser)
        args = parser.parse_args(arguments[1:])
    except SystemExit:  # argparse, after --help and --version
        return EXIT_OK
    call: Callable[[argparse.Namespace], int] = args.call
    return call(args)


def _parse_without_noun(arguments: list[str], nouns: Mapping[str, tuple[str, str]]) -> NoReturn:
    width = max(map(len, nouns))
    listed = "\n".join(f"  {noun:{width}}  {about}" for noun, (_, about) in nouns.items())
    parser = Parser(
        prog="edgegw",
        usage="edgegw NOUN ...",
        description="A gateway that never loses what it acknowledged.",
        epilog=f"nouns:\n{listed}\n\n`edgegw NOUN --help` tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"edgegw {__version__}")
    parser.add_argument("noun", nargs="?", help=argparse.SUPPRESS)
    args, others = parser.parse_known_args(arguments)
    if args.noun in nouns:
        parser.error(f'options stand behind the command "{args.noun}"')
    if args.noun:
        from edgegw.config_source import did_you_mean

        parser.error(f'unknown command "{args.noun}", {did_you_mean(args.noun, nouns)}')
    parser.error(f'unknown option "{others[0]}"' if others else "a command is missing")


def _report(error: GatewayError) -> None:
    lines = [error.line()]
    if isinstance(error, ConfigError) and error.faults:
        lines = [f"{error.code}: {fault}" for fault in error.faults[:CONFIG_FAULTS_SHOWN_MAX]]
        if len(error.faults) > len(lines):
            lines.append(f"{error.code}: and {len(error.faults) - len(lines)} more faults")
    for line in lines:
        print("edgegw:", line, file=sys.stderr)
