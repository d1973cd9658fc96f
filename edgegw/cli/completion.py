"""`edgegw completion bash|zsh|fish`: a script that completes commands, options and their values.

The script holds everything: a TAB starts no Python. It is made from the parsers, so it is as new as the program that printed
it. All three scripts do the same: go over the words so far to find the command, then look at the word before the cursor.
"""

import argparse
import shlex
from collections.abc import Iterator, Sequence

from edgegw.cli.command_tree import Command, Option, commands

_ABOUT = "print a script that completes commands in a shell"
_MORE = """\
bash:  edgegw completion bash > ~/.local/share/bash-completion/completions/edgegw
zsh:   edgegw completion zsh > "${fpath[1]}/_edgegw"
fish:  edgegw completion fish > ~/.config/fish/completions/edgegw.fish
or, for this shell only:  source <(edgegw completion bash)
"""


def build(parser: argparse.ArgumentParser) -> None:
    """Add the shells."""
    parser.description, parser.epilog, parser.formatter_class = _ABOUT, _MORE, argparse.RawDescriptionHelpFormatter
    parser.add_argument("shell", choices=tuple(_SCRIPTS), help="the shell")
    parser.set_defaults(call=completion)


def completion(args: argparse.Namespace) -> int:
    """Print the script."""
    from edgegw.cli import NOUNS

    for line in _SCRIPTS[args.shell](list(commands(NOUNS))):
        print(line)
    return 0


def _bash(tree: Sequence[Command]) -> Iterator[str]:
    yield "# Completes edgegw in bash. Made by `edgegw completion bash`; make it again after an update."
    yield "_edgegw() {"
    yield "    local command='' i word='' current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} words=''"
    yield "    COMPREPLY=()"
    yield "    for ((i = 1; i < COMP_CWORD; i++)); do"
    yield "        word=${command:+$command }${COMP_WORDS[i]}"
    yield f'        case "$word" in {_known(tree)}) command=$word ;; esac'
    yield "    done"
    yield '    case "$command|$before" in'
    for place, option in _valued(tree):
        if option.values:
            yield f'        {place}) mapfile -t COMPREPLY < <(compgen -W {_words(option.values)} -- "$current"); return ;;'
        elif option.is_file:
            yield f'        {place}) mapfile -t COMPREPLY < <(compgen -f -- "$current"); compopt -o filenames; return ;;'
        else:
            yield f"        {place}) return ;;"
    yield "    esac"
    yield '    case "$command" in'
    for command in tree:
        words = [*command.next, *(flag for option in command.options for flag in option.flags if flag[:2] == "--")]
        yield f"        {_quoted(command)}) words={_words(words)} ;;"
    yield "    esac"
    yield '    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")'
    if any(command.takes_file for command in tree):
        yield f"    case \"$command|$current\" in *'|-'*) ;; {_takers(tree)})"
        yield '        mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$current"); compopt -o filenames ;;'
        yield "    esac"
    yield "}"
    yield "complete -F _edgegw edgegw"


def _zsh(tree: Sequence[Command]) -> Iterator[str]:
    yield "#compdef edgegw"
    yield "# Completes edgegw in zsh. Made by `edgegw completion zsh`; make it again after an update."
    yield "_edgegw() {"
    yield "    local command='' i word=''"
    yield "    local -a found"
    yield "    for ((i = 2; i < CURRENT; i++)); do"
    yield "        word=${command:+$command }${words[i]}"
    yield f'        case "$word" in {_known(tree)}) command=$word ;; esac'
    yield "    done"
    yield '    case "$command|${words[CURRENT-1]}" in'
    for place, option in _valued(tree):
        if option.values:
            yield f"        {place}) compadd -- {' '.join(map(shlex.quote, option.values))}; return ;;"
        else:
            yield f"        {place}) {'_files; ' if option.is_file else ''}return ;;"
    yield "    esac"
    yield '    case "$command" in'
    for command in tree:
        told = [f"{word}:{about}" if about else word for word, about in _told(command)]
        yield f"        {_quoted(command)}) found=({' '.join(map(shlex.quote, told))}) ;;"
    yield "    esac"
    yield "    _describe edgegw found"
    if any(command.takes_file for command in tree):
        yield f'    case "$command|" in {_takers(tree)}) _files ;; esac'
    yield "}"
    yield 'if [[ ${funcstack[1]} == _edgegw ]]; then _edgegw "$@"; else compdef _edgegw edgegw; fi'


def _fish(tree: Sequence[Command]) -> Iterator[str]:
    yield "# Completes edgegw in fish. Made by `edgegw completion fish`; make it again after an update."
    yield "function __edgegw_at"
    yield "    set -l at ''"
    yield "    set -l words (commandline -opc)"
    yield "    for word in $words[2..-1]"
    yield '        set -l longer (string trim "$at $word")'
    yield f'        contains -- "$longer" {" ".join(_quoted(command) for command in tree if command.words)}; and set at $longer'
    yield "    end"
    yield '    test "$at" = "$argv[1]"'
    yield "end"
    yield "complete -c edgegw -f"
    for command in tree:
        at = f"complete -c edgegw -n {shlex.quote('__edgegw_at ' + _quoted(command))}"
        for word, about in command.next.items():
            yield f"{at} -a {shlex.quote(word)} -d {shlex.quote(about)}"
        for option in command.options:
            names = " ".join(f"-l {flag[2:]}" if flag[:2] == "--" else f"-s {flag[1:]}" for flag in option.flags)
            value = f" -x -a {_words(option.values)}" if option.values else " -r -F" if option.is_file else " -x"
            yield f"{at} {names}{value if option.takes_value else ''} -d {shlex.quote(option.about)}"
        if command.takes_file:
            yield f"{at} -F"


_SCRIPTS = {"bash": _bash, "zsh": _zsh, "fish": _fish}


def _told(command: Command) -> Iterator[tuple[str, str]]:
    # A colon would end the word in zsh's list.
    yield from ((word, about.replace(":", ",")) for word, about in command.next.items())
    for option in command.options:
        yield from ((flag, option.about.replace(":", ",")) for flag in option.flags if flag[:2] == "--")


def _valued(tree: Sequence[Command]) -> Iterator[tuple[str, Option]]:
    """Where an option's value is wanted, as a pattern of `command|word before`."""
    for command in tree:
        for option in command.options:
            if option.takes_value:
                yield "|".join(shlex.quote(f"{' '.join(command.words)}|{flag}") for flag in option.flags), option


def _known(tree: Sequence[Command]) -> str:
    return "|".join(_quoted(command) for command in tree if command.words)


def _takers(tree: Sequence[Command]) -> str:
    return "|".join(f"{_quoted(command)}'|'*" for command in tree if command.takes_file)


def _quoted(command: Command) -> str:
    return shlex.quote(" ".join(command.words))


def _words(words: Sequence[str]) -> str:
    return shlex.quote(" ".join(words))
