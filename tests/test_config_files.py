"""A look at the files of a configuration: another one for every way in which people change files, the same one for the rest."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgegw.config import Config, GatewayConfig, HttpConfig, LinkConfig
from edgegw.config_files import look_at, look_at_named


def write_in_place(file: Path) -> None:
    with file.open("r+") as stream:
        stream.write("b")


def exchange(file: Path) -> None:
    """As editors and package tools do, with the old times."""
    other = file.with_name("other")
    other.write_text("b")
    found = file.stat()
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.rename(file)


def allow(file: Path) -> None:
    file.chmod(0o600)


def drop_in(file: Path) -> None:
    (file.parent / "conf.d" / "20.toml").write_text("")


def touch_dropped(file: Path) -> None:
    os.utime(file.parent / "conf.d" / "10.toml", (1, 1))


@pytest.mark.parametrize("change", [write_in_place, exchange, allow, drop_in, touch_dropped, Path.unlink])
def test_a_change_is_seen(tmp_path: Path, change: Callable[[Path], object]) -> None:
    file = tmp_path / "edgegw.toml"
    file.write_text("a")
    os.utime(file, (1, 1))  # so that the clock's grain hides nothing
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "10.toml").write_text("")
    before = look_at(file)
    assert look_at(file) == before
    change(file)
    assert look_at(file) != before


def test_what_is_not_read_is_no_change(tmp_path: Path) -> None:
    file = tmp_path / "edgegw.toml"
    assert look_at(file) == {str(file): ()}
    (tmp_path / "conf.d").mkdir()
    for name in (".10.toml.swp", ".hidden.toml", "notes.txt"):
        (tmp_path / "conf.d" / name).write_text("")
    assert look_at(file) == {str(file): ()}


def test_the_exchanged_target_of_a_link_is_a_change(tmp_path: Path) -> None:
    old, new, file = tmp_path / "old", tmp_path / "new", tmp_path / "edgegw.toml"
    old.write_text("a")
    new.write_text("a")
    file.symlink_to(old)
    before = look_at(file)
    file.unlink()
    file.symlink_to(new)
    assert look_at(file) != before


def test_files_that_it_names_are_looked_at_and_folders_are_not(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    config = Config(
        gateway=GatewayConfig(data=tmp_path),
        http=HttpConfig(tls_certificate=tmp_path / "cert.pem"),
        links=(LinkConfig(name="up", url="http://example.org/", token_file=secret),),
    )
    before = look_at_named(config)
    assert before == {str(tmp_path): (), str(tmp_path / "cert.pem"): (), str(secret): ()}
    secret.write_text("x")  # which changes the folder too
    after = look_at_named(config)
    assert [path for path in after if after[path] != before[path]] == [str(secret)]
    assert look_at_named(replace(config, links=())).keys() == before.keys() - {str(secret)}
