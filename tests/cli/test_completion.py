"""edgegw/cli/completion.py: each script, sourced by its shell and asked."""

import shutil
import subprocess
from pathlib import Path

import pytest

from edgegw.cli import NOUNS, main

# What stands before the cursor, and what is offered there.
CASES = [
    (["me"], {"message"}),
    (["message", ""], {"publish", "tail", "list", "replay"}),
    (["message", "publish", "--cl"], {"--class"}),
    (["message", "publish", "a/b", "--class", ""], {"memory", "crash", "power"}),
    (["message", "publish", "--key", ""], set()),
    (["message", "publish", "--retain", "--jso"], {"--json", "--json-type"}),
    (["completion", "z"], {"zsh"}),
    (["config", "check", "--config", "here"], {"here.toml"}),
    (["message", "replay", "here"], {"here.toml"}),
]


def ask(shell: str, words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """What the shell would offer for the last word, in a folder with the file here.toml."""
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    assert main(["completion", shell]) == 0
    (folder / "script").write_text(capsys.readouterr().out)
    (folder / "here.toml").touch()
    ran = subprocess.run([shell, *_ASK[shell], *words], cwd=folder, capture_output=True, text=True, check=False)
    assert "rror" not in ran.stderr, ran.stderr
    # Descriptions stand behind a tabulator or a colon.
    offered = {line.split("\t")[0].split(":")[0] for line in ran.stdout.splitlines() if line}
    # Before a word begins some shells offer options as well.
    return {word for word in offered if word.startswith(words[-1]) and (words[-1] or word[0] != "-")}


_ASK = {
    "bash": [
        "-c",
        "compopt() { :; }; source ./script; COMP_WORDS=(edgegw \"$@\"); COMP_CWORD=$#; _edgegw;"
        " printf '%s\\n' \"${COMPREPLY[@]}\"",
        "bash",
    ],
    # Without its completion system, which needs a terminal: what the script hands to it is printed.
    "zsh": [
        "-fc",
        "compdef() { }; _describe() { print -l -- ${(P)2} }; compadd() { shift; print -l -- $@ }; _files() { print -l -- * };"
        " source ./script; words=(edgegw \"$@\"); CURRENT=$#words; _edgegw",
        "zsh",
    ],
    "fish": ["--no-config", "-c", "source ./script; complete -C \"edgegw $(string join ' ' -- $argv)\""],
}  # fmt: skip


@pytest.mark.parametrize("shell", _ASK)
@pytest.mark.parametrize(("words", "offered"), CASES, ids=" ".join)
def test_completion(shell: str, words: list[str], offered: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(shell, words, tmp_path, capsys) == offered


@pytest.mark.parametrize("shell", _ASK)
def test_every_noun_is_offered(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(shell, [""], tmp_path, capsys) >= NOUNS.keys()


def test_help_says_where_the_script_goes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "--help"]) == 0
    assert "edgegw completion fish > ~/.config/fish/completions/edgegw.fish" in capsys.readouterr().out
