"""The configuration: defaults, what wins, every kind of fault, all at once."""

from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgegw.config import (
    BUILT_IN_STREAMS,
    SECTIONS,
    Config,
    HttpConfig,
    Inputs,
    StreamConfig,
    load_config,
    read_config,
    setting_rows,
)
from edgegw.errors import ConfigError
from edgegw.limits import NAME_BYTES_MAX, STREAMS_MAX


def load(tmp_path: Path, text: str, environ: dict[str, str] | None = None, overrides: dict[str, str] | None = None) -> Config:
    file = tmp_path / "edgegw.toml"
    file.write_text(text)
    return load_config(file, environ or {}, overrides or {})


def faults(
    tmp_path: Path, text: str, environ: dict[str, str] | None = None, overrides: dict[str, str] | None = None
) -> list[str]:
    """The faults of a configuration, without the folder."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, environ, overrides)
    assert caught.value.code == "config_invalid"
    return [str(fault).replace(f"{tmp_path}/", "") for fault in caught.value.faults]


def test_nothing_given_is_the_defaults(tmp_path: Path) -> None:
    config = load_config(tmp_path / "edgegw.toml", {"PATH": "x"}, {}, must_exist=False)
    assert config == Config()
    assert config.gateway.data == Path("/var/lib/edgegw")
    assert config.http == HttpConfig(listen="127.0.0.1:8080", connections_max=1024, request_timeout_s=10.0)
    assert (config.log.level, config.log.format, config.streams) == ("info", "auto", ())


def test_every_default_is_a_value_its_setting_takes() -> None:
    for row in setting_rows():
        if isinstance(row.default, str | int | float):
            assert row.kind.decode(row.default) == row.default
            assert type(row.kind.decode(row.default)) is type(row.default)


def test_every_field_is_a_setting() -> None:
    rows = [(row.section, row.key) for row in setting_rows()]
    assert rows == [(section, f.name) for section, cls in SECTIONS.items() for f in fields(cls)]
    assert all(row.meaning and row.kind.takes for row in setting_rows())


def test_it_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Config().http.listen = "127.0.0.1:1"  # type: ignore[misc]
    assert hash(Config()) == hash(Config())


def test_every_setting_from_a_file(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
        [gateway]
        data = "var"
        stop_timeout_s = 5
        [http]
        listen = "[::1]:0"
        connections_max = 7
        request_timeout_s = 2.5
        [log]
        level = "debug"
        format = "json"
        [[stream]]
        name = "sensors"
        topics = ["air/#", "water/+/level"]
        bytes_max = 1_048_576
        rows_max = 1000
        age_max_s = 60
        policy = "drop-oldest"
        """,
    )
    assert config.gateway.data == Path("var")
    assert (config.gateway.stop_timeout_s, type(config.gateway.stop_timeout_s)) == (5.0, float)
    assert config.http == HttpConfig(listen="[::1]:0", connections_max=7, request_timeout_s=2.5)
    assert (config.log.level, config.log.format) == ("debug", "json")
    assert config.streams == (StreamConfig("sensors", ("air/#", "water/+/level"), 1_048_576, 1000, 60.0, "drop-oldest"),)


def test_a_stream_has_defaults(tmp_path: Path) -> None:
    (stream,) = load(tmp_path, '[[stream]]\nname = "a"\ntopics = ["a"]\n').streams
    assert stream == StreamConfig("a", ("a",), bytes_max=None, rows_max=0, age_max_s=604_800.0, policy="hold")


def test_streams_keep_their_order(tmp_path: Path) -> None:
    text = "".join(f'[[stream]]\nname = "{name}"\ntopics = ["{name}"]\n' for name in ("z", "a", "m"))
    assert [stream.name for stream in load(tmp_path, text).streams] == ["z", "a", "m"]


def test_the_built_in_streams_take_bounds(tmp_path: Path) -> None:
    streams = load(
        tmp_path, '[[stream]]\nname = "default"\nrows_max = 5\n[[stream]]\nname = "dead-letter"\ntopics = []\n'
    ).streams
    assert [(stream.name, stream.topics, stream.rows_max) for stream in streams] == [("default", (), 5), ("dead-letter", (), 0)]


def test_the_environment_beats_files_and_the_command_line_beats_both(tmp_path: Path) -> None:
    text = '[http]\nlisten = "127.0.0.1:1"\nconnections_max = 1\n[log]\nlevel = "error"\n'
    environ = {"EDGEGW_HTTP__LISTEN": "127.0.0.1:2", "EDGEGW_HTTP__CONNECTIONS_MAX": "2"}
    config = load(tmp_path, text, environ, {"http.listen": "127.0.0.1:3"})
    assert config.http.listen == "127.0.0.1:3"
    assert config.http.connections_max == 2
    assert config.log.level == "error"


def test_variables_are_read_by_the_type_of_their_field(tmp_path: Path) -> None:
    environ = {
        "EDGEGW_GATEWAY__DATA": "some where",
        "EDGEGW_GATEWAY__STOP_TIMEOUT_S": "1.5",
        "EDGEGW_HTTP__CONNECTIONS_MAX": "20",
        "EDGEGW_HTTP__REQUEST_TIMEOUT_S": "3",
        "EDGEGW_LOG__FORMAT": "text",
        "EDGEGW_URL": "http://127.0.0.1:1",
        "EDGEGW_TOKEN": "t",
        "EDGEGW_SOCKET": "s",
        "EDGEGW_UNRELATED": "x",
        "HTTP__LISTEN": "x",
    }
    config = load(tmp_path, "", environ)
    assert config.gateway.data == Path("some where")
    assert (config.gateway.stop_timeout_s, config.http.connections_max, config.http.request_timeout_s) == (1.5, 20, 3.0)
    assert config.log.format == "text"


def test_where_each_value_came_from(tmp_path: Path) -> None:
    file = tmp_path / "edgegw.toml"
    file.write_text('[http]\nconnections_max = 5\n\n[[stream]]\nname = "a"\ntopics = ["a"]\n')
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "a.toml").write_text('[[stream]]\nname = "a"\nrows_max = 5\n')
    reading = read_config(file, {"EDGEGW_LOG__LEVEL": "error"}, {"gateway.data": "x"})
    assert {key: str(origin).replace(f"{tmp_path}/", "") for key, origin in reading.origins.items()} == {
        "gateway.data": "command line: gateway.data",
        "http.connections_max": "edgegw.toml:2",
        "log.level": "environment: EDGEGW_LOG__LEVEL",
        "stream[a].name": "conf.d/a.toml:2",
        "stream[a].topics": "edgegw.toml:6",
        "stream[a].rows_max": "conf.d/a.toml:3",
    }
    assert reading.files == (str(file), str(tmp_path / "conf.d" / "a.toml"))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[http]\nlistn = "x"', 'edgegw.toml:2: http.listn: unknown key (did you mean "listen"?)'),
        ("[log]\nqqqq = 1", "edgegw.toml:2: log.qqqq: unknown key (known: format, level)"),
        ("[htp]\n", 'edgegw.toml:1: htp: unknown section (did you mean "http"?)'),
        ('listen = "x"', "edgegw.toml:1: listen: unknown section (a key listen belongs under [http])"),
        ("http = 5", "edgegw.toml:1: http: must be a table, [http], is 5"),
        ("[[http]]", "edgegw.toml:1: http: must be a table, [http], is a list"),
        ('[stream]\nname = "a"', "edgegw.toml:1: stream: must be a list of tables, each headed [[stream]]"),
        ("stream = [1]", "edgegw.toml:1: stream: must be a list of tables, each headed [[stream]]"),
        ("[http]\nconnections_max = true", "edgegw.toml:2: http.connections_max: must be an integer, is true"),
        ("[http]\nconnections_max = 1.0", "edgegw.toml:2: http.connections_max: must be an integer, is 1.0"),
        ('[http]\nconnections_max = "5"', 'edgegw.toml:2: http.connections_max: must be an integer, is "5"'),
        ("[http]\n\nconnections_max = 0", "edgegw.toml:3: http.connections_max: must be 1 to 16384, is 0"),
        (
            f"[http]\nconnections_max = 0x{'f' * 5000}",
            "edgegw.toml:2: http.connections_max: must be 1 to 16384, is an enormous integer",
        ),
        ("[http]\nrequest_timeout_s = nan", "edgegw.toml:2: http.request_timeout_s: must be 0.1 to 60, is nan"),
        ("[http]\nrequest_timeout_s = inf", "edgegw.toml:2: http.request_timeout_s: must be 0.1 to 60, is inf"),
        ("[http]\nrequest_timeout_s = -inf", "edgegw.toml:2: http.request_timeout_s: must be 0.1 to 60, is -inf"),
        ("[gateway]\nstop_timeout_s = false", "edgegw.toml:2: gateway.stop_timeout_s: must be a number, is false"),
        ("[gateway]\ndata = 2024-01-01", "edgegw.toml:2: gateway.data: must be a string, is a date or time"),
        ('[gateway]\ndata = ""', 'edgegw.toml:2: gateway.data: must be a path, is ""'),
        ('[gateway]\ndata = "a\\u0000b"', 'edgegw.toml:2: gateway.data: must be a path, is "a\\x00b"'),
        (
            '[log]\nlevel = "warn"',
            'edgegw.toml:2: log.level: must be "debug" or "info" or "warning" or "error", is "warn"',
        ),
        ("[log]\nformat = {}", 'edgegw.toml:2: log.format: must be "auto" or "json" or "text", is a table'),
    ],
)
def test_a_wrong_setting(tmp_path: Path, text: str, fault: str) -> None:
    assert faults(tmp_path, text) == [fault]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('topics = ["a"]', "edgegw.toml:1: stream[#1]: has no name"),
        ('name = 5\ntopics = ["a"]', "edgegw.toml:2: stream[#1].name: must be a string, is 5"),
        (
            'name = "Über"\ntopics = ["a"]',
            "edgegw.toml:2: stream[Über].name: must be lowercase letters, digits, '-', '_' and '.', is \"Über\"",
        ),
        (
            'name = ""\ntopics = ["a"]',
            "edgegw.toml:2: stream[].name: must be lowercase letters, digits, '-', '_' and '.', is \"\"",
        ),
        ('name = "a"', "edgegw.toml:1: stream[a].topics: names no topic filter, so nothing would reach the stream"),
        ('name = "a"\ntopics = []', "edgegw.toml:3: stream[a].topics: names no topic filter, so nothing would reach the stream"),
        ('name = "a"\ntopics = "a"', 'edgegw.toml:3: stream[a].topics: must be a list of topic filters, is "a"'),
        ('name = "a"\ntopics = [1]', "edgegw.toml:3: stream[a].topics: a topic filter must be a string, is 1"),
        ('name = "a"\ntopics = ["b", "b"]', 'edgegw.toml:3: stream[a].topics: has the topic filter "b" twice'),
        (
            'name = "default"\ntopics = ["b"]',
            "edgegw.toml:3: stream[default].topics: must be empty: this stream is built in, and only",
        ),
        (
            'name = "dead-letter"\ntopics = ["b"]',
            "edgegw.toml:3: stream[dead-letter].topics: must be empty: this stream is built in",
        ),
        (
            'name = "a"\ntopics = ["a"]\nbytes_max = 1',
            "edgegw.toml:4: stream[a].bytes_max: must be 65536 to 17592186036224, is 1",
        ),
        ('name = "a"\ntopics = ["a"]\nrows_max = -1', "edgegw.toml:4: stream[a].rows_max: must be 0 to 281474976710655, is -1"),
        ('name = "a"\ntopics = ["a"]\nage_max_s = -0.1', "edgegw.toml:4: stream[a].age_max_s: must be 0 to 316224000, is -0.1"),
        (
            'name = "a"\ntopics = ["a"]\npolicy = "drop"',
            'edgegw.toml:4: stream[a].policy: must be "hold" or "drop-oldest", is "drop"',
        ),
        ('name = "a"\ntopics = ["a"]\nrow_max = 1', 'edgegw.toml:4: stream[a].row_max: unknown key (did you mean "rows_max"?)'),
    ],
)
def test_a_wrong_stream(tmp_path: Path, text: str, fault: str) -> None:
    (found,) = faults(tmp_path, f"[[stream]]\n{text}\n")
    assert found.startswith(fault)


@pytest.mark.parametrize("topic_filter", ["a/#/b", "a+", "#a", ""])
def test_a_wrong_topic_filter(tmp_path: Path, topic_filter: str) -> None:
    (found,) = faults(tmp_path, f'[[stream]]\nname = "a"\ntopics = ["ok", "{topic_filter}"]\n')
    assert found.startswith(f"edgegw.toml:3: stream[a].topics: the topic filter '{topic_filter}' ")


def test_a_name_has_a_longest_length(tmp_path: Path) -> None:
    text = '[[stream]]\nname = "{}"\ntopics = ["a"]\n'
    assert load(tmp_path, text.format("n" * NAME_BYTES_MAX)).streams
    (found,) = faults(tmp_path, text.format("n" * (NAME_BYTES_MAX + 1)))
    assert found.endswith(f"has {NAME_BYTES_MAX + 1} characters, more than {NAME_BYTES_MAX}")


def test_a_filter_belongs_to_one_stream(tmp_path: Path) -> None:
    text = '[[stream]]\nname = "a"\ntopics = ["x", "y"]\n[[stream]]\nname = "b"\ntopics = ["y"]\n'
    assert faults(tmp_path, text) == ['edgegw.toml:6: stream[b].topics: has the topic filter "y", which stream[a] has already']


def test_streams_have_a_largest_number(tmp_path: Path) -> None:
    streams = [f'[[stream]]\nname = "s{i}"\ntopics = ["t{i}"]\n' for i in range(STREAMS_MAX - 2)]
    assert len(load(tmp_path, '[[stream]]\nname = "default"\n' + "".join(streams[:-1])).streams) == STREAMS_MAX - 2
    (found,) = faults(tmp_path, "".join(streams))
    assert f"makes {STREAMS_MAX + 1} streams with the built-in ones, more than {STREAMS_MAX}" in found


def test_what_is_not_given_of_a_built_in_stream_is_as_it_is_built_in(tmp_path: Path) -> None:
    (stream,) = load(tmp_path, '[[stream]]\nname = "host"\nrows_max = 5\n').streams
    built_in = BUILT_IN_STREAMS["host"]
    assert stream == replace(built_in, rows_max=5, topics=())
    assert (built_in.policy, built_in.age_max_s) == ("drop-oldest", 86_400)
    (found,) = faults(tmp_path, '[[stream]]\nname = "host"\ntopics = ["x"]\n')
    assert "must be empty: this stream is built in" in found


def test_inputs_are_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "edgegw.toml"
    inputs = Inputs(file, {"EDGEGW_LOG__LEVEL": "debug"}, {"http.listen": "127.0.0.1:5"}, must_exist=False)
    assert inputs.read().config.http.connections_max == 1024
    file.write_text("[http]\nconnections_max = 7\n")
    config = inputs.read().config
    assert (config.http.connections_max, config.http.listen, config.log.level) == (7, "127.0.0.1:5", "debug")


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("EDGEGW_HTTP__CONNECTIONS_MAX", "many", 'must be an integer, is "many"'),
        ("EDGEGW_HTTP__CONNECTIONS_MAX", "1.5", 'must be an integer, is "1.5"'),
        ("EDGEGW_HTTP__CONNECTIONS_MAX", "", 'must be an integer, is ""'),
        ("EDGEGW_HTTP__CONNECTIONS_MAX", "0", "must be 1 to 16384, is 0"),
        ("EDGEGW_HTTP__REQUEST_TIMEOUT_S", "nan", 'must be a number, is "nan"'),
        ("EDGEGW_HTTP__REQUEST_TIMEOUT_S", "inf", 'must be a number, is "inf"'),
        ("EDGEGW_GATEWAY__DATA", "", 'must be a path, is ""'),
        ("EDGEGW_GATEWAY__DATA", "a\udcffb", 'is not valid UTF-8: "a\\udcffb"'),
        ("EDGEGW_LOG__LEVEL", "loud", 'must be "debug" or "info" or "warning" or "error", is "loud"'),
    ],
)
def test_a_wrong_variable(tmp_path: Path, name: str, text: str, fault: str) -> None:
    assert faults(tmp_path, "", {name: text}) == [f"environment: {name}: {fault}"]


def test_a_wrong_option(tmp_path: Path) -> None:
    (found,) = faults(tmp_path, "", {}, {"http.listen": "8080"})
    assert found.startswith("command line: http.listen: must be HOST:PORT")


def test_a_wrong_value_that_is_beaten_is_no_fault(tmp_path: Path) -> None:
    assert load(tmp_path, "[http]\nlisten = 5\n", {"EDGEGW_HTTP__LISTEN": "127.0.0.1:1"}).http.listen == "127.0.0.1:1"


def test_all_faults_at_once_in_the_order_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "a.toml").write_text("[gateway]\ndata = 1\nx = 2\n")
    (tmp_path / "conf.d" / "b.toml").write_text("[gateway\n")
    text = '[http]\nlisten = 1\nconnections_max = 0\n[[stream]]\ntopics = ["a+"]\npolicy = 5\n[nothing]\n'
    found = faults(tmp_path, text, {"EDGEGW_LOG__LEVEL": "loud", "EDGEGW_LOG__X": "1"}, {"gateway.stop_timeout_s": "x"})
    assert [": ".join(fault.split(": ")[:2]) for fault in found] == [
        "edgegw.toml:2: http.listen",
        "edgegw.toml:3: http.connections_max",
        "edgegw.toml:4: stream[#1]",
        "edgegw.toml:5: stream[#1].topics",
        "edgegw.toml:6: stream[#1].policy",
        "edgegw.toml:7: nothing",
        "conf.d/a.toml:2: gateway.data",
        "conf.d/a.toml:3: gateway.x",
        "conf.d/b.toml:1: is not valid TOML",
        "environment: EDGEGW_LOG__X",
        "environment: EDGEGW_LOG__LEVEL",
        "command line: gateway.stop_timeout_s",
    ]


def test_the_error_says_how_many(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^1 fault in the configuration$"):
        load(tmp_path, "[x]\n")
    with pytest.raises(ConfigError, match=r"^2 faults in the configuration$"):
        load(tmp_path, "[x]\n[y]\n")


def test_nothing_is_called_missing_while_a_file_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "topics.toml").write_text('[[stream]]\nname = "a"\ntopics = ["a"\n')
    (found,) = faults(tmp_path, '[[stream]]\nname = "a"\n')
    assert found.startswith("conf.d/topics.toml:3: is not valid TOML")


LINES = st.sampled_from(
    [
        "[gateway]", "[http]", "[[http]]", "[log]", "[[stream]]", "[stream]", "[stream.x]", "[[stream.name]]", "[x]", "]",
        'name = "a"', 'name = "default"', "name = 1",
        'topics = ["a/#"]', "topics = [1, [2], {}]", "bytes_max = 1", "rows_max = -1",
        'listen = "[::1]:1"', 'listen = "x"', "listen = {}", "http.listen = 1", "http = {listen = 1}", "connections_max = 1e3",
        'level = "info"', "data = 1979-05-27", 'data = "x"', "stop_timeout_s = nan", "stream = []", 'stream = [{name = "b"}, 1]',
        '"" = 1', "'a.b'.c = 1", 'x = """', "y = '''", "# '''", "a.b.c = true", "age_max_s = 0xffffffffffffffffffffffff",
    ]
)  # fmt: skip


@given(texts=st.lists(st.lists(LINES, max_size=8), min_size=1, max_size=3))
def test_whatever_stands_in_the_files_is_a_configuration_or_faults_of_one_line(
    texts: list[list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("config")
    (folder / "conf.d").mkdir()
    for i, lines in enumerate(texts):
        (folder / ("conf.d" if i else ".") / f"{i}.toml").write_text("\n".join(lines))
    try:
        config = load_config(folder / "0.toml", {}, {})
    except ConfigError as error:
        assert error.faults
        for fault in error.faults:
            assert "\n" not in str(fault)
            assert fault.line is None or 1 <= fault.line <= len(texts[int(Path(fault.file).stem)])
    else:
        assert all(stream.topics or stream.name in BUILT_IN_STREAMS for stream in config.streams)


# --- listening beyond loopback --------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        'listen = "0.0.0.0:80"\nallow_plaintext = true',
        'listen = "192.0.2.1:80"\ntls_certificate = "c"\ntls_key = "k"',
        'listen = "[::]:80"\ntls_certificate = "c"\ntls_key = "k"\ntls_client_ca = "a"',
        'listen = "127.0.0.2:80"',
        'listen = "127.0.0.1:80"\ntls_certificate = "c"\ntls_key = "k"',
    ],
)
def test_where_it_may_listen(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, f"[http]\n{text}\n").http.listen.endswith(":80")


@pytest.mark.parametrize("more", ["", "allow_plaintext = false"])
def test_beyond_loopback_without_tls_takes_a_word(tmp_path: Path, more: str) -> None:
    assert faults(tmp_path, f'[http]\nlisten = "0.0.0.0:80"\n{more}\n') == [
        'edgegw.toml:2: http.listen: "0.0.0.0:80" is not on loopback: set tls_certificate and tls_key, or allow_plaintext = true'
    ]


def test_a_word_that_is_wrong_in_itself_has_one_fault(tmp_path: Path) -> None:
    assert faults(tmp_path, '[http]\nlisten = "0.0.0.0:80"\nallow_plaintext = "yes"\n') == [
        'edgegw.toml:3: http.allow_plaintext: must be true or false, is "yes"'
    ]


@pytest.mark.parametrize(
    ("given", "missing"),
    [("tls_certificate", "tls_key"), ("tls_key", "tls_certificate"), ("tls_client_ca", "tls_certificate")],
)
def test_tls_is_whole(tmp_path: Path, given: str, missing: str) -> None:
    assert faults(tmp_path, f'[http]\n{given} = "x"\n') == [f"edgegw.toml:2: http.{given}: stands without {missing}"]
