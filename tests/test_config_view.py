"""A configuration as the API tells it."""

import json
from pathlib import Path

from edgegw.config import SECTIONS, read_config
from edgegw.config_view import config_view


def test_values_with_their_origins(tmp_path: Path) -> None:
    file = tmp_path / "edgegw.toml"
    file.write_text('[http]\nconnections_max = 5\n[[stream]]\nname = "a"\ntopics = ["a/#"]\n')
    view = config_view(read_config(file, {"EDGEGW_LOG__LEVEL": "debug"}, {"gateway.data": "/srv/x"}))
    assert view["files"] == [str(file)]
    config = view["config"]
    assert config.keys() == SECTIONS.keys()
    assert config["http"]["connections_max"] == {"value": 5, "origin": f"{file}:2"}
    assert config["http"]["listen"]["origin"] == "default"
    assert config["log"]["level"] == {"value": "debug", "origin": "environment: EDGEGW_LOG__LEVEL"}
    assert config["gateway"]["data"] == {"value": "/srv/x", "origin": "command line: gateway.data"}
    (stream,) = config["stream"]
    assert stream["topics"] == {"value": ("a/#",), "origin": f"{file}:5"}
    assert stream["rows_max"]["origin"] == "default"
    json.dumps(view)


def test_no_secret_is_told(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("egw_hush")
    file = tmp_path / "edgegw.toml"
    file.write_text(f'[[link]]\nname = "up"\nurl = "https://example.org/in?key=hush"\ntoken_file = "{tmp_path}/token"\n')
    text = json.dumps(config_view(read_config(file, {}, {})), ensure_ascii=False)
    assert "hush" not in text
    assert "https://example.org/in?…" in text
