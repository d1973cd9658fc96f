"""Every command with its options, read from the parsers themselves: what completions are made from."""

import argparse
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

_FILES = {"FILE", "F", "DIR", "PATH"}


class Option(NamedTuple):
    """One option by all its names. `values` are all it may take; `is_file`: it takes a path."""

    flags: tuple[str, ...]
    about: str
    takes_value: bool
    values: tuple[str, ...]
    is_file: bool


class Command(NamedTuple):
    """`words` leads to it; `next` are the words that may follow, with what they mean."""

    words: tuple[str, ...]
    next: Mapping[str, str]
    options: tuple[Option, ...]
    takes_file: bool


def commands(nouns: Mapping[str, tuple[str, str]]) -> Iterator[Command]:
    """The program itself, then every noun and every verb."""
    yield Command((), {noun: about for noun, (_, about) in nouns.items()}, (_plain("--help"), _plain("--version")), False)
    for noun, (module, _) in nouns.items():
        parser = argparse.ArgumentParser(noun, allow_abbrev=False)
        import_module(module).build(parser)
        yield from _below((noun,), parser)


def _below(words: tuple[str, ...], parser: argparse.ArgumentParser) -> Iterator[Command]:
    following: dict[str, str] = {}
    options: list[Option] = []
    takes_file = False
    verbs: Mapping[str, argparse.ArgumentParser] = {}
    for action in parser._actions:  # no other door into a parser
        if isinstance(action, argparse._SubParsersAction):
            verbs = action.choices
            following |= {choice.dest: choice.help or "" for choice in action._choices_actions}
        elif action.option_strings:
            options.append(_option(action))
        else:
            following |= {str(choice): "" for choice in action.choices or ()}
            takes_file = takes_file or _is_file(action)
    yield Command(words, following, tuple(options), takes_file)
    for verb, below in verbs.items():
        yield from _below((*words, verb), below)


def _option(action: argparse.Action) -> Option:
    values = tuple(map(str, action.choices or ()))
    about = (action.help or "").partition(" (")[0]
    return Option(tuple(action.option_strings), about, action.nargs != 0, values, _is_file(action))


def _is_file(action: argparse.Action) -> bool:
    return action.type is Path or action.metavar in _FILES


def _plain(flag: str) -> Option:
    return Option((flag,), "", False, (), False)
