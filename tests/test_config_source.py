"""Reading and merging: files that cannot be read, what wins, names in the environment, lines of keys."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgegw.config_source import Given, Origin, Sources, collect, did_you_mean, line_index, locate
from edgegw.limits import CONFIG_FILE_BYTES_MAX, CONFIG_FILES_MAX

KNOWN = {"http": ("listen", "connections_max"), "log": ("level",), "stream": ("name", "topics", "rows_max")}


def collected(file: Path, environ: dict[str, str] | None = None, *, must_exist: bool = True) -> Sources:
    return collect(file, environ or {}, {}, must_exist=must_exist, known=KNOWN)


def faults(file: Path, environ: dict[str, str] | None = None, *, must_exist: bool = True) -> list[str]:
    sources = collected(file, environ, must_exist=must_exist)
    return [str(fault).replace(f"{file.parent}/", "") for fault in sources.faults]


def values(sources: Sources) -> dict[str, dict[str, object]]:
    return {section: {key: given.value for key, given in keys.items()} for section, keys in sources.sections.items()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "conf.d").mkdir()
    return tmp_path / "edgegw.toml"


# --- files --------------------------------------------------------------------------------------


def test_a_named_file_must_exist_and_the_default_one_need_not(tmp_path: Path) -> None:
    file = tmp_path / "none" / "edgegw.toml"
    assert faults(file) == ["edgegw.toml: cannot be read: No such file or directory"]
    assert not collected(file).is_complete
    assert faults(file, must_exist=False) == []
    assert collected(file, must_exist=False).files == []


def test_conf_d_counts_without_the_main_file(file: Path) -> None:
    (file.parent / "conf.d" / "a.toml").write_text('[log]\nlevel = "x"\n')
    sources = collected(file, must_exist=False)
    assert values(sources)["log"] == {"level": "x"}
    assert sources.files == [str(file.parent / "conf.d" / "a.toml")]


def test_tables_merge_by_key_in_name_order(file: Path) -> None:
    file.write_text('[http]\nlisten = "main"\nconnections_max = 1\n[log]\nlevel = "main"\n')
    (file.parent / "conf.d" / "20.toml").write_text('[http]\nlisten = "20"\n')
    (file.parent / "conf.d" / "10.toml").write_text('[http]\nlisten = "10"\n[log]\nlevel = "10"\n')
    sources = collected(file)
    assert values(sources) == {"http": {"listen": "20", "connections_max": 1}, "log": {"level": "10"}}
    assert [Path(path).name for path in sources.files] == ["edgegw.toml", "10.toml", "20.toml"]
    assert sources.sections["http"]["listen"].origin == Origin(str(file.parent / "conf.d" / "20.toml"), 2, "http.listen")


def test_files_are_read_in_the_order_of_their_names(file: Path) -> None:
    file.write_text("")
    names = [f"{i:02}.toml" for i in range(20)]
    for name in (*names[10:], *names[:10]):
        (file.parent / "conf.d" / name).write_text(f'[log]\nlevel = "{name}"\n')
    sources = collected(file)
    assert [Path(path).name for path in sources.files[1:]] == names
    assert values(sources)["log"] == {"level": "19.toml"}


def test_a_pipe_is_not_waited_for(file: Path) -> None:
    file.write_text("")
    os.mkfifo(file.parent / "conf.d" / "a.toml")
    assert faults(file) == ["conf.d/a.toml: is a pipe, and no file"]


def test_streams_merge_by_name(file: Path) -> None:
    file.write_text('[[stream]]\nname = "b"\ntopics = ["b"]\nrows_max = 1\n[[stream]]\nname = "a"\nrows_max = 2\n')
    (file.parent / "conf.d" / "x.toml").write_text(
        '[[stream]]\nname = "c"\n[[stream]]\ntopics = ["x"]\nrows_max = 3\nname = "b"\n[[stream]]\nname = "a"\n'
    )
    sources = collected(file)
    assert sources.faults == []
    assert {name: {key: given.value for key, given in keys.items()} for name, keys in sources.lists["stream"].items()} == {
        "b": {"name": "b", "topics": ["x"], "rows_max": 3},
        "a": {"name": "a", "rows_max": 2},
        "c": {"name": "c"},
    }
    assert list(sources.lists["stream"]) == ["b", "a", "c"]
    assert sources.heads["stream", "b"] == Origin(str(file), 1, "stream[b]")


def test_a_stream_stands_once_in_a_file(file: Path) -> None:
    file.write_text('[[stream]]\nname = "a"\n\n[[stream]]\nname = "a"\n')
    assert faults(file) == ["edgegw.toml:4: stream[a]: stands in this file already on line 1; write its settings in one place"]


def test_streams_without_a_name_are_apart(file: Path) -> None:
    file.write_text("[[stream]]\nrows_max = 1\n[[stream]]\nrows_max = 2\nx = 1\n")
    (file.parent / "conf.d" / "a.toml").write_text("[[stream]]\nrows_max = 3\n")
    assert [fault.split(": ")[:2] for fault in faults(file)] == [
        ["edgegw.toml:1", "stream[#1]"],
        ["edgegw.toml:3", "stream[#2]"],
        ["edgegw.toml:5", "stream[#2].x"],
        ["conf.d/a.toml:1", "stream[#1]"],
    ]
    assert [keys["rows_max"].value for keys in collected(file).lists["stream"].values()] == [1, 2, 3]


def test_other_files_in_conf_d_are_let_be(file: Path) -> None:
    file.write_text("")
    for name in (".hidden.toml", "a.toml~", "a.toml.dpkg-old", "README"):
        (file.parent / "conf.d" / name).write_text("not = = toml")
    (file.parent / "conf.d" / ".#a.toml").symlink_to("user@host.1")
    assert faults(file) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[http]\nlisten 5\n", ":2: is not valid TOML: Expected '=' after a key in a key/value pair at column 8"),
        ("[http]\nlisten = [\n", ":2: is not valid TOML: "),
        ("a = 1\n\na = 2\n", ":3: is not valid TOML: "),
        ("[http]\n[http]\n", ":2: is not valid TOML: "),
        ("a = " + "9" * 5000, ": is not valid TOML: Exceeds the limit"),
        ("a = " + "[" * 20_000, ": is not valid TOML: nested too deep"),
    ],
    ids=["key", "end", "key twice", "table twice", "integer", "depth"],
)
def test_a_file_that_is_not_toml(file: Path, text: str, fault: str) -> None:
    file.write_text(text)
    (found,) = faults(file)
    assert found.startswith(f"edgegw.toml{fault}")
    assert not collected(file).is_complete


def test_a_file_that_is_not_utf8(file: Path) -> None:
    file.write_bytes(b"[log]\n# Stra\xdfe\n")
    assert faults(file) == ["edgegw.toml:2: is not valid UTF-8"]


def test_a_byte_order_mark_is_taken(file: Path) -> None:
    file.write_bytes(b'\xef\xbb\xbf[log]\r\nlevel = "x"\r\n')
    assert values(collected(file))["log"] == {"level": "x"}
    assert collected(file).sections["log"]["level"].origin.line == 2


def test_a_file_of_the_largest_size_is_taken_and_no_larger(file: Path) -> None:
    file.write_text("#" * CONFIG_FILE_BYTES_MAX)
    assert faults(file) == []
    file.write_text("#" * (CONFIG_FILE_BYTES_MAX + 1))
    assert faults(file) == [f"edgegw.toml: has more than {CONFIG_FILE_BYTES_MAX} bytes; is this a configuration?"]


def test_a_device_without_end_is_told_from_a_file() -> None:
    (found,) = faults(Path("/dev/zero"))
    assert "is this a configuration?" in found


def test_a_folder_is_no_file(file: Path) -> None:
    file.mkdir()
    assert faults(file) == ["edgegw.toml: cannot be read: Is a directory"]


@contextmanager
def without_rights(*paths: Path) -> Iterator[None]:
    """Nobody may read `paths`, nor is this process root meanwhile."""
    user = os.geteuid()
    for path in paths:
        path.chmod(0)
    if user == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(user)
        for path in paths:
            path.chmod(0o700)


@pytest.mark.parametrize("must_exist", [True, False])
def test_files_without_rights(file: Path, must_exist: bool) -> None:
    file.write_text("")
    with without_rights(file, file.parent / "conf.d"):
        found = faults(file, must_exist=must_exist)
    assert found == ["edgegw.toml: cannot be read: Permission denied", "conf.d: cannot be read: Permission denied"]


@pytest.mark.parametrize("must_exist", [True, False])
def test_a_folder_without_rights(file: Path, must_exist: bool) -> None:
    with without_rights(file.parent):
        found = faults(file, must_exist=must_exist)
    assert found == ["edgegw.toml: cannot be read: Permission denied", "conf.d: cannot be read: Permission denied"]


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("")
    assert faults(tmp_path / "etc" / "edgegw.toml") == ["edgegw.toml: cannot be read: Not a directory"]


def test_conf_d_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "edgegw.toml").write_text("")
    (tmp_path / "conf.d").write_text("")
    assert faults(tmp_path / "edgegw.toml") == ["conf.d: cannot be read: Not a directory"]


def test_a_loop_of_links_is_one_fault(file: Path) -> None:
    file.write_text("")
    (file.parent / "conf.d" / "a.toml").symlink_to("a.toml")
    (found,) = faults(file)
    assert found.startswith("conf.d/a.toml: cannot be read: Too many levels")


def test_conf_d_has_a_largest_number_of_files(file: Path) -> None:
    file.write_text("")
    for i in range(CONFIG_FILES_MAX + 1):
        (file.parent / "conf.d" / f"{i:04}.toml").write_text("")
    assert faults(file) == [f"conf.d: has {CONFIG_FILES_MAX + 1} files, more than {CONFIG_FILES_MAX}"]
    assert len(collected(file).files) == 1 + CONFIG_FILES_MAX


def test_a_file_name_or_key_cannot_break_the_line(tmp_path: Path) -> None:
    file = tmp_path / "a\nb.toml"
    file.write_text('"x\\n\\u001b[31m" = 1\n')
    (found,) = faults(file)
    assert found == "a\\nb.toml:1: x\\n\\x1b[31m: unknown section (known: http, log, stream)"


# --- environment --------------------------------------------------------------------------------


def test_variables_are_given_as_text(tmp_path: Path) -> None:
    sources = collected(tmp_path / "x", {"EDGEGW_HTTP__CONNECTIONS_MAX": "5"}, must_exist=False)
    origin = Origin("environment", None, "EDGEGW_HTTP__CONNECTIONS_MAX")
    assert sources.sections["http"] == {"connections_max": Given("5", origin, is_text=True)}


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("EDGEGW_HTTP__LISTN", 'unknown name (did you mean "EDGEGW_HTTP__LISTEN"?)'),
        ("EDGEGW_HTTP_LISTEN", 'unknown name (did you mean "EDGEGW_HTTP__LISTEN"?)'),
        ("EDGEGW_HTTP__CONNECTIONS__MAX", 'unknown name (did you mean "EDGEGW_HTTP__CONNECTIONS_MAX"?)'),
        ("EDGEGW_http__listen", "unknown name ("),
        ("EDGEGW___", "unknown name (known: EDGEGW_HTTP__CONNECTIONS_MAX, EDGEGW_HTTP__LISTEN, EDGEGW_LOG__LEVEL)"),
        ("EDGEGW_STREAM__NAME", "streams are set in files only, by [[stream]]"),
        ("EDGEGW_STREAM__A__ROWS_MAX", "streams are set in files only, by [[stream]]"),
    ],
)
def test_a_variable_that_sets_nothing(tmp_path: Path, name: str, fault: str) -> None:
    (found,) = faults(tmp_path / "x", {name: "1"}, must_exist=False)
    assert found.startswith(f"environment: {name}: {fault}")


def test_variables_of_others_are_let_be(tmp_path: Path) -> None:
    names = (
        "EDGEGW_URL",
        "EDGEGW_TOKEN",
        "EDGEGW_SOCKET",
        "EDGEGW_X",
        "EDGEGW_",
        "EDGEGW",
        "HTTP__LISTEN",
        "XEDGEGW_HTTP__LISTN",
    )
    sources = collected(tmp_path / "x", dict.fromkeys(names, "1"), must_exist=False)
    assert sources.faults == []
    assert values(sources) == {"http": {}, "log": {}}


def test_the_nearest_name_is_offered() -> None:
    assert did_you_mean("lisen", ["listen", "level"]) == 'did you mean "listen"?'
    assert did_you_mean("zzz", ["listen", "level"]) == "known: level, listen"


# --- lines --------------------------------------------------------------------------------------

TOML = """# comment = 1
[http]  # the [api]
listen = "x"
  connections_max=5

log.level = "no: this is http.log.level"
[ log ]
"level" = "x"  # level = 2
'odd key' . inner = { deep = 1 }
text = '''
level2 = 1
[gone]
'''
[[stream]]
name = "a"
topics = [
  "a = b",
  "[c]",
]
policy = "hold"
[[ stream ]] # second
name = "b"
[stream.sub]
x = 1
[[stream.parts]]
y = 1
[[stream.parts]]
y = 2
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("http",), 2),
        (("http", "listen"), 3),
        (("http", "connections_max"), 4),
        (("http", "log"), 6),
        (("http", "log", "level"), 6),
        (("log",), 7),
        (("log", "level"), 8),
        (("log", "odd key"), 9),
        (("log", "odd key", "inner"), 9),
        (("log", "odd key", "inner", "deep"), 9),
        (("log", "text"), 10),
        (("log", "level2"), 7),
        (("gone",), None),
        (("stream",), 14),
        (("stream", 0), 14),
        (("stream", 0, "name"), 15),
        (("stream", 0, "topics"), 16),
        (("stream", 0, "a"), 14),
        (("stream", 0, "policy"), 20),
        (("stream", 1), 21),
        (("stream", 1, "name"), 22),
        (("stream", 1, "topics"), 21),
        (("stream", 1, "sub"), 23),
        (("stream", 1, "sub", "x"), 24),
        (("stream", 1, "parts", 0, "y"), 26),
        (("stream", 1, "parts", 1, "y"), 28),
        ((), None),
    ],
)
def test_the_line_of_a_key(path: tuple[str | int, ...], line: int | None) -> None:
    assert locate(line_index(TOML), path) == line


def test_a_key_with_escapes_is_found_by_its_meaning() -> None:
    assert line_index('\n"a\\u0062\\"=" = 1\n') == {('ab"=',): 2}


def test_the_line_of_a_key_in_an_inline_table_is_that_of_the_table(file: Path) -> None:
    file.write_text('\nhttp = { listn = 1 }\nstream = [\n  { name = "a", nam = 1 },\n]\n')
    assert [fault.split(": ")[:2] for fault in faults(file)] == [
        ["edgegw.toml:2", "http.listn"],
        ["edgegw.toml:3", "stream[a].nam"],
    ]
