"""edgegw/api/etags.py"""

import pytest

from edgegw.api.etags import etag_of
from tests.api.in_process import Api


def test_an_etag_is_of_the_content() -> None:
    assert etag_of(b"a") == etag_of(b"a") != etag_of(b"b")
    assert etag_of(b"a")[0] == etag_of(b"a")[-1] == '"'


@pytest.mark.parametrize("field", ["{}", "W/{}", '"x", {}', '"x",W/{}', "*"])
async def test_who_has_it_gets_no_more(api: Api, field: str) -> None:
    first = await api.request("GET", "/openapi.json")
    assert first.status == 200
    again = await api.request("GET", "/openapi.json", If_None_Match=field.format(first.headers["etag"]))
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])


@pytest.mark.parametrize("field", ["", '"x"', "x", '"*"'])
async def test_who_has_another_gets_it(api: Api, field: str) -> None:
    assert (await api.request("GET", "/openapi.json", If_None_Match=field)).status == 200
