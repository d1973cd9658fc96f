"""edgegw/cli/command_tree.py"""

from edgegw.cli import NOUNS
from edgegw.cli.command_tree import Option, commands


def test_every_command_is_there() -> None:
    tree = {" ".join(command.words): command for command in commands(NOUNS)}
    assert tree[""].next.keys() == NOUNS.keys()
    assert tree.keys() >= NOUNS.keys() | {"message publish", "message tail", "message list", "message replay", "config show"}
    assert tree["message"].next.keys() == {"publish", "tail", "list", "replay"}
    assert all(tree["message"].next.values())


def test_an_option_says_what_it_takes() -> None:
    tree = {" ".join(command.words): command for command in commands(NOUNS)}
    publish = {option.flags[-1]: option for option in tree["message publish"].options}
    assert publish["--class"].values == ("memory", "crash", "power")
    assert publish["--file"].is_file
    assert publish["--retain"] == Option(("--retain",), "keep it as the last value of its topic", False, (), False)
    assert publish["--help"].flags == ("-h", "--help")
    assert (tree["message replay"].takes_file, tree["message publish"].takes_file) == (True, False)
    assert tree["completion"].next.keys() == {"bash", "zsh", "fish"}
