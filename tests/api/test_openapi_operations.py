"""edgegw/api/openapi_operations.py; what it says is held by test_openapi.py and test_openapi_fuzz.py."""

import re

from edgegw.api.openapi_operations import operations
from edgegw.api.openapi_parts import CODES


def test_codes_are_known() -> None:
    assert {code for operation in operations() for code in operation.all_codes} <= CODES.keys()


def test_names_in_a_path_are_parameters_and_the_reverse() -> None:
    for operation in operations():
        named = {parameter["name"] for parameter in operation.parameters if parameter["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", operation.path)), operation.path


def test_no_parameter_stands_twice() -> None:
    for operation in operations():
        names = [(parameter["in"], parameter["name"]) for parameter in operation.parameters]
        assert len(set(names)) == len(names), operation.path
