"""The configuration: one frozen value, read once; each service gets its section.

A field of a section is a setting; its metadata says what it takes and means, for the checks here, for `edgegw config show`
and for the table in README.md. Where values come from, and in which order, is `config_source.py`'s.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, NamedTuple

from edgegw.config_source import Given, Origin, Sources, collect, environment_name
from edgegw.config_values import Kind, Setting, choice, filters, integer, loopback_address, name, number, path, setting, shown
from edgegw.errors import ConfigError, Fault
from edgegw.limits import (
    CONNECTIONS_MAX,
    REQUEST_TIMEOUT_S_MAX,
    REQUEST_TIMEOUT_S_MIN,
    STOP_TIMEOUT_S_MAX,
    STREAM_AGE_S_MAX,
    STREAM_BYTES_MIN,
    STREAM_BYTES_SETTING_MAX,
    STREAM_ROWS_MAX,
    STREAMS_MAX,
)

# Streams that are always there: a [[stream]] of this name changes their bounds, and names no topics.
BUILT_IN_STREAMS: Final = ("default", "dead-letter")


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """[gateway]: the process."""

    data: Path = field(
        default=Path("/var/lib/edgegw"),
        metadata=setting(path(), "folder of the store; one gateway owns it at a time"),
    )
    stop_timeout_s: float = field(
        default=30.0,
        metadata=setting(number(0, STOP_TIMEOUT_S_MAX), "how long a graceful stop waits for requests under way"),
    )


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """[http]: the API for devices and people."""

    listen: str = field(
        default="127.0.0.1:8080",
        metadata=setting(loopback_address(), "address and port of the API"),
    )
    connections_max: int = field(
        default=1024,
        metadata=setting(integer(1, CONNECTIONS_MAX), "connections held open at once"),
    )
    request_timeout_s: float = field(
        default=10.0,
        metadata=setting(
            number(REQUEST_TIMEOUT_S_MIN, REQUEST_TIMEOUT_S_MAX),
            "how long a publish or a read may wait for the disk before it is answered 429 or 503",
        ),
    )


@dataclass(frozen=True, slots=True)
class LogConfig:
    """[log]: what is written to stderr."""

    level: str = field(
        default="info",
        metadata=setting(choice("debug", "info", "warning", "error"), "the least severe events that are written"),
    )
    format: str = field(
        default="auto",
        metadata=setting(choice("auto", "json", "text"), "`auto` is text on a terminal, else one JSON object a line"),
    )


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """[[stream]]: which topics are kept together, and for how long. A topic goes to the first stream that matches it."""

    name: str = field(metadata=setting(name(), "name; `default` and `dead-letter` change the bounds of the built-in streams"))
    topics: tuple[str, ...] = field(
        default=(),
        metadata=setting(filters(), "MQTT topic filters that this stream takes; none for a built-in one"),
    )
    bytes_max: int | None = field(
        default=None,
        metadata=setting(
            integer(STREAM_BYTES_MIN, STREAM_BYTES_SETTING_MAX),
            "bytes on disk; when not set, 25 % of the space free when it is made, at most 512 MiB (`dead-letter`: 64 MiB)",
        ),
    )
    rows_max: int = field(default=0, metadata=setting(integer(0, STREAM_ROWS_MAX), "messages kept; 0 is no bound"))
    age_max_s: float = field(
        default=604_800.0,
        metadata=setting(number(0, STREAM_AGE_S_MAX), "age at which messages go; 0 is no bound, 604800 is a week"),
    )
    policy: str = field(
        default="hold",
        metadata=setting(
            choice("hold", "drop-oldest"),
            "at `bytes_max`: `hold` refuses publishes rather than drop what a named consumer still wants, `drop-oldest` drops it",
        ),
    )


@dataclass(frozen=True, slots=True)
class Config:
    """All of it. `streams` stand in the order in which they match."""

    gateway: GatewayConfig = field(default_factory=GatewayConfig)
    http: HttpConfig = field(default_factory=HttpConfig)
    log: LogConfig = field(default_factory=LogConfig)
    streams: tuple[StreamConfig, ...] = ()


class SettingRow(NamedTuple):
    """A setting as people look for it; `env` is empty for those of a stream, which no variable sets."""

    section: str
    key: str
    kind: Kind
    meaning: str
    default: object
    env: str


class Reading(NamedTuple):
    """A configuration and how it came about: `origins` has `http.listen` or `stream[NAME].topics` for what was given."""

    config: Config
    origins: Mapping[str, Origin]
    files: tuple[str, ...]


Section = type[GatewayConfig] | type[HttpConfig] | type[LogConfig] | type[StreamConfig]
SECTIONS: Final[Mapping[str, Section]] = {
    "gateway": GatewayConfig,
    "http": HttpConfig,
    "log": LogConfig,
    "stream": StreamConfig,
}


def load_config(file: Path, environ: Mapping[str, str], overrides: Mapping[str, str], *, must_exist: bool = True) -> Config:
    """The configuration from `file`, `conf.d/*.toml` beside it, `environ` and `overrides`. Raises ConfigError with all faults."""
    return read_config(file, environ, overrides, must_exist=must_exist).config


def read_config(file: Path, environ: Mapping[str, str], overrides: Mapping[str, str], *, must_exist: bool = True) -> Reading:
    """The same with the origin of each value; `overrides` has `section.key` → text. Raises ConfigError with all faults."""
    known = {section: tuple(f.name for f in fields(cls)) for section, cls in SECTIONS.items()}
    sources = collect(file, environ, overrides, must_exist=must_exist, known=known)
    faults = sources.faults
    values = {section: _decode(SECTIONS[section], given, faults) for section, given in sources.sections.items()}
    streams = {name: _decode(StreamConfig, given, faults) for name, given in sources.streams.items()}
    _check_streams(streams, sources)
    if faults:
        sources.sort_faults()
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise ConfigError("config_invalid", f"{count} in the configuration", "see edgegw config check", faults=tuple(faults))
    config = Config(
        gateway=GatewayConfig(**values["gateway"]),
        http=HttpConfig(**values["http"]),
        log=LogConfig(**values["log"]),
        streams=tuple(StreamConfig(**stream) for stream in streams.values()),
    )
    return Reading(config, _origins(sources), tuple(sources.files))


def setting_rows() -> Iterator[SettingRow]:
    """Every setting there is, in order."""
    for section, cls in SECTIONS.items():
        for f in fields(cls):
            about: Setting = f.metadata["setting"]
            env = "" if section == "stream" else environment_name(section, f.name)
            yield SettingRow(section, f.name, about.kind, about.meaning, f.default, env)


def _decode(cls: Section, given: Mapping[str, Given], faults: list[Fault]) -> dict[str, Any]:
    """The values given for a section's fields; what is wrong is left out and becomes a fault."""
    values: dict[str, Any] = {}
    for f in fields(cls):
        if f.name in given:
            value, origin, is_text = given[f.name]
            kind: Kind = f.metadata["setting"].kind
            try:
                values[f.name] = kind.decode(kind.parse(str(value)) if is_text else value)
            except ValueError as error:
                faults.extend(origin.fault(what) for what in error.args)
    return values


def _check_streams(streams: Mapping[str, Mapping[str, Any]], sources: Sources) -> None:
    """What concerns several fields or streams."""
    owners: dict[str, str] = {}
    for stream, values in streams.items():
        given, head = sources.streams[stream], sources.heads[stream]
        at = given["topics"].origin if "topics" in given else head._replace(key=f"{head.key}.topics")
        topics: tuple[str, ...] = values.get("topics", ())
        # A list that is wrong in itself has its fault already.
        is_missing = not topics and ("topics" in values or "topics" not in given) and sources.is_complete
        if stream in BUILT_IN_STREAMS and topics:
            sources.faults.append(at.fault("must be empty: this stream is built in, and only its bounds can be set"))
        elif stream not in BUILT_IN_STREAMS and is_missing:
            sources.faults.append(at.fault("names no topic filter, so nothing would reach the stream"))
        for topic_filter in topics:
            owner = owners.setdefault(topic_filter, head.key)
            if owner != head.key:
                sources.faults.append(at.fault(f"has the topic filter {shown(topic_filter)}, which {owner} has already"))
    count = len(streams.keys() | set(BUILT_IN_STREAMS))
    if count > STREAMS_MAX:
        last = list(sources.heads.values())[-1]
        sources.faults.append(last.fault(f"makes {count} streams with the built-in ones, more than {STREAMS_MAX}"))


def _origins(sources: Sources) -> dict[str, Origin]:
    found = {f"{section}.{key}": value.origin for section, given in sources.sections.items() for key, value in given.items()}
    for stream, given in sources.streams.items():
        found.update({f"stream[{stream}].{key}": value.origin for key, value in given.items()})
    return found
