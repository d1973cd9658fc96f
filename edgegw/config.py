"""The configuration: one frozen value, read once; each service gets its section.

A field of a section is a setting; its metadata says what it takes and means, for the checks here, for `edgegw config show`
and for the table in README.md. Where values come from, and in which order, is `config_source.py`'s.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from edgegw.config_source import LISTS, Given, Origin, Sources, collect, environment_name
from edgegw.config_values import (
    Kind,
    Setting,
    choice,
    filters,
    flag,
    integer,
    is_loopback,
    name,
    name_or_none,
    number,
    one_filter,
    path,
    prefix,
    setting,
    shown,
    split_address,
    tcp_address,
    url,
)
from edgegw.errors import ConfigError, Fault
from edgegw.limits import (
    CONNECTIONS_MAX,
    HOST_AGE_S_MAX,
    HOST_BYTES_MAX,
    HOST_INTERVAL_S_MAX,
    LINK_BATCH_MESSAGES_MAX,
    LINK_CONCURRENCY_MAX,
    LINK_RATE_MAX,
    LINK_TIMEOUT_S_MAX,
    LINKS_MAX,
    REQUEST_TIMEOUT_S_MAX,
    REQUEST_TIMEOUT_S_MIN,
    STOP_TIMEOUT_S_MAX,
    STREAM_AGE_S_MAX,
    STREAM_BYTES_MIN,
    STREAM_BYTES_SETTING_MAX,
    STREAM_ROWS_MAX,
    STREAMS_MAX,
)


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """[gateway]: the process."""

    data: Path = field(
        default=Path("/var/lib/edgegw"),
        metadata=setting(path(), "folder of the store; one gateway owns it at a time"),
    )
    name: str = field(
        default="",
        metadata=setting(name_or_none(), "what this gateway is called upstream; the host's name when empty"),
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
        metadata=setting(
            tcp_address(),
            "address and port of the API; beyond loopback it needs a token or `tls_client_ca`, and TLS or `allow_plaintext`",
        ),
    )
    allow_plaintext: bool = field(
        default=False,
        metadata=setting(flag(), "listen beyond loopback without TLS: tokens and data can be read on the way"),
    )
    tls_certificate: Path | None = field(
        default=None,
        metadata=setting(path(), "certificate for TLS, with its chain, as PEM; `listen` then takes TLS only"),
    )
    tls_key: Path | None = field(
        default=None,
        metadata=setting(path(), "private key of the certificate, as PEM without a passphrase"),
    )
    tls_client_ca: Path | None = field(
        default=None,
        metadata=setting(path(), "CA certificates as PEM; every client must then show a certificate of theirs"),
    )
    socket: Path | None = field(
        default=None,
        metadata=setting(
            path(),
            "Unix socket of the API; when not set, `/run/edgegw/edgegw.sock` if that folder is there, else `DATA/edgegw.sock`",
        ),
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
class HostConfig:
    """[host]: readings of the machine itself."""

    interval_s: float = field(
        default=10.0,
        metadata=setting(
            number(0, HOST_INTERVAL_S_MAX),
            "how often load, memory, disk, network and temperature are published under `host/…`; 0 is never",
        ),
    )


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """[[stream]]: which topics are kept together, and for how long. A topic goes to the first stream that matches it."""

    name: str = field(
        metadata=setting(name(), "name; `default`, `dead-letter` and `host` change the bounds of the built-in streams")
    )
    topics: tuple[str, ...] = field(
        default=(),
        metadata=setting(filters(), "MQTT topic filters that this stream takes; none for a built-in one"),
    )
    bytes_max: int | None = field(
        default=None,
        metadata=setting(
            integer(STREAM_BYTES_MIN, STREAM_BYTES_SETTING_MAX),
            "bytes on disk; when not set, 25 % of the space free when it is made,"
            " at most 512 MiB (`dead-letter`: 64 MiB; `host`: 8 MiB)",
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


# Streams that are always there: a [[stream]] of this name changes their bounds, and names no topics. `host` has what
# sources/host.py publishes, and no more: another `host/…` is somebody's own topic.
BUILT_IN_STREAMS: Final[Mapping[str, StreamConfig]] = {
    "default": StreamConfig(name="default"),
    "dead-letter": StreamConfig(name="dead-letter"),
    "host": StreamConfig(
        name="host",
        topics=(
            "host/load", "host/memory", "host/pressure", "host/uptime",
            "host/disk", "host/disk/+", "host/network/+", "host/temperature/+",
        ),
        bytes_max=HOST_BYTES_MAX,
        age_max_s=HOST_AGE_S_MAX,
        policy="drop-oldest",
    ),
}  # fmt: skip


_NAME = name()  # inside a class with a field of that name it is hidden


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """[[link]]: an HTTP upstream that gets the messages of a stream."""

    name: str = field(metadata=setting(name(), "name; the link's cursor is the consumer `link.NAME`"))
    url: str = field(
        metadata=setting(url(), "where batches are posted; of another gateway `https://HOST:PORT/v1/messages`"),
    )
    stream: str = field(default="default", metadata=setting(_NAME, "stream that is sent"))
    filter: str = field(default="#", metadata=setting(one_filter(), "which topics of it"))
    start: str = field(
        default="all", metadata=setting(choice("all", "new"), "where a new link begins: with what is stored, or with what comes")
    )
    prefix: str = field(default="", metadata=setting(prefix(), "put before each topic on its way, as `plant-7/`"))
    format: str = field(
        default="columns",
        metadata=setting(
            choice("columns", "msgpack", "json"),
            "of a batch: `columns` for another gateway; `msgpack` or `json` for others, an array as `POST /v1/messages` takes it",
        ),
    )
    token_file: Path | None = field(default=None, metadata=setting(path(), "file with the token for `Authorization: Bearer`"))
    ca_file: Path | None = field(
        default=None, metadata=setting(path(), "who may sign the upstream's certificate; else the system's")
    )
    certificate: Path | None = field(default=None, metadata=setting(path(), "client certificate (PEM)"))
    key: Path | None = field(default=None, metadata=setting(path(), "its key (PEM); when not set, it stands in `certificate`"))
    batch_messages_max: int = field(default=1000, metadata=setting(integer(1, LINK_BATCH_MESSAGES_MAX), "messages in a request"))
    concurrency_max: int = field(
        default=4,
        metadata=setting(integer(1, LINK_CONCURRENCY_MAX), "requests under way at once, at most"),
    )
    messages_per_s: float = field(default=0.0, metadata=setting(number(0, LINK_RATE_MAX), "rate limit; 0 is none"))
    bytes_per_s: float = field(default=0.0, metadata=setting(number(0, LINK_RATE_MAX), "rate limit of request bodies; 0 is none"))
    live_share: float = field(
        default=0.8,
        metadata=setting(
            number(0, 0.95),
            "share of live data beside a backlog; 0 is one line, in order with `concurrency_max = 1`",
        ),
    )
    timeout_s: float = field(default=30.0, metadata=setting(number(1, LINK_TIMEOUT_S_MAX), "how long a request may take in all"))


@dataclass(frozen=True, slots=True)
class Config:
    """All of it. `streams` stand in the order in which they match."""

    gateway: GatewayConfig = field(default_factory=GatewayConfig)
    http: HttpConfig = field(default_factory=HttpConfig)
    log: LogConfig = field(default_factory=LogConfig)
    host: HostConfig = field(default_factory=HostConfig)
    streams: tuple[StreamConfig, ...] = ()
    links: tuple[LinkConfig, ...] = ()


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


class Inputs(NamedTuple):
    """What a configuration is read from, at the start and at each reload; `overrides` come from the command line."""

    file: Path
    environ: Mapping[str, str]
    overrides: Mapping[str, str]
    must_exist: bool = True

    def read(self) -> Reading:
        """Read all of it now. Raises ConfigError with all faults."""
        return read_config(self.file, self.environ, self.overrides, must_exist=self.must_exist)


Section = type[GatewayConfig] | type[HttpConfig] | type[LogConfig] | type[HostConfig] | type[StreamConfig] | type[LinkConfig]
SECTIONS: Final[Mapping[str, Section]] = {
    "gateway": GatewayConfig,
    "http": HttpConfig,
    "log": LogConfig,
    "host": HostConfig,
    "stream": StreamConfig,
    "link": LinkConfig,
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
    streams = {name: _decode(StreamConfig, given, faults) for name, given in sources.lists["stream"].items()}
    links = {name: _decode(LinkConfig, given, faults) for name, given in sources.lists["link"].items()}
    _check_http(values["http"], sources)
    _check_streams(streams, sources)
    _check_links(links, streams, sources)
    if faults:
        sources.sort_faults()
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise ConfigError("config_invalid", f"{count} in the configuration", "see edgegw config check", faults=tuple(faults))
    config = Config(
        gateway=GatewayConfig(**values["gateway"]),
        http=HttpConfig(**values["http"]),
        log=LogConfig(**values["log"]),
        host=HostConfig(**values["host"]),
        streams=tuple(_stream(stream) for stream in streams.values()),
        links=tuple(LinkConfig(**link) for link in links.values()),
    )
    return Reading(config, _origins(sources), tuple(sources.files))


def setting_rows() -> Iterator[SettingRow]:
    """Every setting there is, in order."""
    for section, cls in SECTIONS.items():
        for f in fields(cls):
            about: Setting = f.metadata["setting"]
            env = "" if section in LISTS else environment_name(section, f.name)
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


def _stream(values: Mapping[str, Any]) -> StreamConfig:
    """What is not given of a built-in stream is as it is built in, except its topics, which are not the configuration's."""
    built_in = BUILT_IN_STREAMS.get(values["name"])
    return StreamConfig(**values) if built_in is None else replace(built_in, **{"topics": (), **values})


def _check_streams(streams: Mapping[str, Mapping[str, Any]], sources: Sources) -> None:
    """What concerns several fields or streams."""
    owners: dict[str, str] = {}
    for stream, values in streams.items():
        given, head = sources.lists["stream"][stream], sources.heads["stream", stream]
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
        last = [head for (section, _), head in sources.heads.items() if section == "stream"][-1]
        sources.faults.append(last.fault(f"makes {count} streams with the built-in ones, more than {STREAMS_MAX}"))


def _check_http(values: Mapping[str, Any], sources: Sources) -> None:
    """Who listens beyond this machine says how that is guarded; what TLS consists of is complete."""
    given = sources.sections["http"]
    for key, other in (("tls_certificate", "tls_key"), ("tls_key", "tls_certificate"), ("tls_client_ca", "tls_certificate")):
        if key in values and other not in given and sources.is_complete:
            sources.faults.append(given[key].origin.fault(f"stands without {other}"))
    if "listen" not in values or is_loopback(split_address(values["listen"])[0]) or not sources.is_complete:
        return
    if not ("tls_certificate" in given or values.get("allow_plaintext") or "allow_plaintext" in given.keys() - values.keys()):
        sources.faults.append(
            given["listen"].origin.fault(
                f"{shown(values['listen'])} is not on loopback: set tls_certificate and tls_key, or allow_plaintext = true"
            )
        )


def _check_links(links: Mapping[str, Mapping[str, Any]], streams: Mapping[str, object], sources: Sources) -> None:
    for link, values in links.items():
        given, head = sources.lists["link"][link], sources.heads["link", link]
        if "url" not in given and sources.is_complete:
            sources.faults.append(head._replace(key=f"{head.key}.url").fault("is missing: where should the messages go?"))
        stream = values.get("stream", "default")
        if stream not in streams and stream not in BUILT_IN_STREAMS and sources.is_complete:
            at = given["stream"].origin if "stream" in given else head
            sources.faults.append(at.fault(f"is {shown(stream)}, and there is no such stream"))
        if "key" in values and "certificate" not in values:
            sources.faults.append(given["key"].origin.fault("stands without a certificate"))
    if len(links) > LINKS_MAX:
        sources.faults.append(sources.heads["link", list(links)[-1]].fault(f"is link {len(links)}, more than {LINKS_MAX}"))


def _origins(sources: Sources) -> dict[str, Origin]:
    found = {f"{section}.{key}": value.origin for section, given in sources.sections.items() for key, value in given.items()}
    for section, tables in sources.lists.items():
        for table, given in tables.items():
            found.update({f"{section}[{table}].{key}": value.origin for key, value in given.items()})
    return found
