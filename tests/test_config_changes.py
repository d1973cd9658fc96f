"""What differs between two configurations, by name."""

from dataclasses import replace

from edgegw.config import Config, HttpConfig, LinkConfig, LogConfig, StreamConfig
from edgegw.config_changes import changes

A = StreamConfig(name="a", topics=("a/#",))
B = StreamConfig(name="b", topics=("b/#",))
LINK = LinkConfig(name="up", url="https://example.org/")


def test_nothing() -> None:
    config = Config(streams=(A, B), links=(LINK,))
    assert changes(config, replace(config)) == ()


def test_settings_of_sections_and_of_tables() -> None:
    old = Config(streams=(A, B), links=(LINK,))
    new = Config(
        http=HttpConfig(connections_max=5),
        log=LogConfig(level="debug"),
        streams=(A, replace(B, rows_max=7, policy="drop-oldest")),
        links=(replace(LINK, prefix="x/"),),
    )
    assert changes(old, new) == (
        "http.connections_max", "log.level", "stream[b].rows_max", "stream[b].policy", "link[up].prefix",
    )  # fmt: skip


def test_what_came_and_went() -> None:
    assert changes(Config(streams=(A,)), Config(streams=(B,), links=(LINK,))) == ("stream[a]", "stream[b]", "link[up]")


def test_the_order_of_streams_counts() -> None:
    assert changes(Config(streams=(A, B)), Config(streams=(B, A))) == ("stream order",)
