"""`edgegw run --lan`: from loopback to "my sensor on the LAN posts" in one command."""

import socket
import sys
from typing import Final

from edgegw.config import Config
from edgegw.config_values import is_loopback, split_address
from edgegw.errors import RequestError

TOKEN_NAME: Final = "lan"  # noqa: S105  its name, not its secret
# RFC 5737: an address that nobody has. A datagram socket that is "connected" to it sends nothing, and knows its own end.
_ELSEWHERE = ("192.0.2.1", 9)


def lan_overrides(listen: str) -> dict[str, str]:
    """The settings with which others reach the port of `listen`. Raises RequestError(no_port)."""
    host, port = split_address(listen)
    if port == 0:
        raise RequestError("no_port", "--lan tells others the port, and 0 is any", "name one with --listen, as 127.0.0.1:8080")
    if is_loopback(host):
        listen = f"[::]:{port}" if ":" in host else f"0.0.0.0:{port}"
    return {"http.listen": listen, "http.allow_plaintext": "true"}


def introduce(config: Config) -> None:
    """Make the first token, and print what a sensor needs; with a token there already, only the address.

    Raises ConfigError, StoreError.
    """
    from edgegw.cli.token import make_first_token

    secret = make_first_token(config.gateway.data, TOKEN_NAME, ["publish", "subscribe"])
    host, port = split_address(config.http.listen)
    if host in ("0.0.0.0", "::"):  # noqa: S104  compared, not listened on
        host = own_address() or socket.gethostname()
    scheme = "http" if config.http.tls_certificate is None else "https"
    url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
    lines = [f"on the LAN: {url}"]
    if secret is None:
        lines.append("it has tokens already: `edgegw token list` names them, `edgegw token create` makes another")
    else:
        lines += [
            f"token `{TOKEN_NAME}`, shown this once: {secret}",
            "from a sensor:",
            f"  curl -i -H 'Authorization: Bearer {secret}' -H 'Content-Type: application/json' -d '{{\"celsius\": 21.5}}'"
            f" {url}/v1/topics/cellar/temperature",
        ]
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


def own_address() -> str | None:
    """The address of this machine as others on its network see it; None without a network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ELSEWHERE)
        except OSError:
            return None
        return str(probe.getsockname()[0])
