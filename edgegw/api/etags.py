"""Answers that change with a release only: an ETag of the content, and 304 for who has it already."""

import hashlib
from collections.abc import Mapping

from edgegw.api.routing import Answer, Call


def etag_of(content: bytes) -> str:
    """A strong ETag: as long as the bytes are the same, so is it."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def answer_unless_known(call: Call, content: bytes, headers: Mapping[str, str]) -> Answer:
    """The content with its ETag, or 304 when the request says that it is known."""
    etag = etag_of(content)
    call.take()
    with_etag = {**headers, "ETag": etag}
    if _is_known(call.request.headers.get("If-None-Match", ""), etag):
        return Answer(304, b"", with_etag)
    return Answer(200, content, with_etag)


def _is_known(field: str, etag: str) -> bool:
    """If-None-Match, RFC 9110 section 13.1.2: a list, compared weakly, or `*`."""
    return field.strip() == "*" or etag in (tag.strip().removeprefix("W/") for tag in field.split(","))
