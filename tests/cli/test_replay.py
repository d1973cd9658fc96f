"""edgegw/cli/replay.py"""

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edgegw.cli.replay import BadRow, Reading, Recording, Row, TopicTemplate, complete, entry, key, read
from edgegw.errors import RequestError
from edgegw.limits import KEY_BYTES_MAX, RECORD_LINE_CHARS_MAX, SNIFF_ROWS_MAX

AIR_QUALITY = Path(__file__).parent.parent / "data" / "air-quality-uci.csv"
CSV = Recording("r.csv", "csv", TopicTemplate("s/{column}"), ("time",))
NDJSON = Recording("r.ndjson", "ndjson", TopicTemplate("s/{column}"), ("time",))
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
T = "2026-01-02T12:00:00Z"


def replayed(recording: Recording, text: str) -> list[Row | BadRow]:
    whole, lines = complete(recording, iter(text.splitlines(keepends=True)))
    return list(read(whole, lines))


def readings(recording: Recording, text: str) -> list[tuple[str, str]]:
    """Topic and payload of every reading; no row may be bad."""
    found = []
    for row in replayed(recording, text):
        assert isinstance(row, Row), row
        found += [(reading.topic, reading.payload) for reading in row.readings]
    return found


def bad(recording: Recording, text: str) -> list[tuple[int, str]]:
    return [(row.line, row.why) for row in replayed(recording, text) if isinstance(row, BadRow)]


# --- CSV -----------------------------------------------------------------------------------------


def test_air_quality_as_it_is() -> None:
    recording = Recording("a.csv", "csv", TopicTemplate("air-quality/{column}"), ("Date", "Time"), missing=("-200",))
    with AIR_QUALITY.open(encoding="utf-8", newline="") as file:
        whole, lines = complete(recording, file)
        rows = [row for row in read(whole, lines) if isinstance(row, Row)]
    assert (whole.delimiter, whole.decimal, whole.time_form) == (";", ",", "%d/%m/%Y %H.%M.%S")
    assert len(rows) == 9357
    assert rows[0].line == 2
    assert rows[0].time == datetime(2004, 3, 10, 18, tzinfo=UTC)
    assert rows[-1].time == datetime(2005, 4, 4, 14, tzinfo=UTC)
    assert rows[0].readings[0] == Reading("CO(GT)", "air-quality/CO(GT)", "2.6")
    assert rows[0].readings[-1] == Reading("AH", "air-quality/AH", "0.7578")
    with AIR_QUALITY.open(encoding="utf-8", newline="") as file:
        cells = [cell.replace(",", ".") for row in list(csv.reader(file, delimiter=";"))[1:] for cell in row[2:15]]
    expected = [cell for cell in cells if float(cell) != -200]
    assert [reading.payload for row in rows for reading in row.readings] == expected
    assert all(json.loads(payload) == float(payload) for payload in expected)


def test_rows_are_read_one_by_one() -> None:
    def endless() -> Iterator[str]:
        yield "time,a\n"
        while True:
            yield f"{T},1\n"

    whole, lines = complete(CSV, endless())
    rows = read(whole, lines)
    assert [next(rows) for _ in range(SNIFF_ROWS_MAX * 2)][-1] == Row(SNIFF_ROWS_MAX * 2 + 1, NOON, [Reading("a", "s/a", "1")])


@pytest.mark.parametrize(
    ("cell", "payload"),
    [
        ("13.6", "13.6"),
        ("9.00", "9.00"),
        ("-0.5", "-0.5"),
        ("+3", "3"),
        (".5", "0.5"),
        ("-.5", "-0.5"),
        ("1e5", "1e5"),
        ("1.5E-07", "1.5E-07"),
        ("0", "0"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("007", '"007"'),
        ("1.", '"1."'),
        ("1,5", '"1,5"'),
        ("0x10", '"0x10"'),
        ("nan", '"nan"'),
        ("Infinity", '"Infinity"'),
        ("٣", '"٣"'),
        ("on", '"on"'),
        ('say ""hi""\\', '"say \\"hi\\"\\\\"'),
        ("two words ", '"two words"'),
    ],
)
def test_numbers_keep_their_digits_and_the_rest_are_strings(cell: str, payload: str) -> None:
    assert readings(replace(CSV, decimal="."), f'time,a\n{T},"{cell}"\n') == [("s/a", payload)]


def test_empty_cells_and_empty_rows_are_left_out() -> None:
    text = f"time,a,b\n{T},,1\n\n,,\n , ,\t\n{T},2, \n"
    assert readings(CSV, text) == [("s/b", "1"), ("s/a", "2")]


def test_row_without_values_is_a_row_without_readings() -> None:
    assert replayed(CSV, f"time,a\n{T},\n") == [Row(2, NOON, [])]


@pytest.mark.parametrize("delimiter", [";", "\t", ",", "|"])
def test_finds_the_delimiter(delimiter: str) -> None:
    text = f"time,a,b\n{T},1,x\n".replace(",", delimiter)
    assert readings(CSV, text) == [("s/a", "1"), ("s/b", '"x"')]


def test_a_comma_in_names_and_numbers_is_no_delimiter() -> None:
    text = f"time;T, °C;RH, %\n{T};13,6;48,9\n"
    assert readings(CSV, text) == [("s/T, °C", "13.6"), ("s/RH, %", "48.9")]


def test_decimal_comma_inside_quotes() -> None:
    assert readings(CSV, f'time,a,b\n{T},"13,6","0,5"\n') == [("s/a", "13.6"), ("s/b", "0.5")]


def test_dots_in_the_time_do_not_make_a_decimal_point() -> None:
    recording = replace(CSV, time_columns=("day", "hour"))
    text = "day;hour;a\n13/03/2004;18.00.00;1,5\n"
    assert readings(recording, text) == [("s/a", "1.5")]


def test_what_is_told_is_not_looked_for() -> None:
    recording = replace(CSV, delimiter=",", decimal=".", time_form="%m/%d/%Y")
    assert replayed(recording, "time,a\n01/02/2026,1;5\n") == [
        Row(2, datetime(2026, 1, 2, tzinfo=UTC), [Reading("a", "s/a", '"1;5"')])
    ]


@pytest.mark.parametrize("missing", ["-200", "-200,0", "-2e2"])
def test_missing_values_are_compared_as_numbers(missing: str) -> None:
    text = f"time;a;b;c;d\n{T};-200;-200,0;-200,5;x-200\n"
    assert readings(replace(CSV, missing=(missing,)), text) == [("s/c", "-200.5"), ("s/d", '"x-200"')]


def test_missing_values_are_compared_as_text() -> None:
    text = f"time,a,b,c\n{T},n/a,NaN,1\n"
    assert readings(replace(CSV, missing=("n/a", "NaN", "nan", "sNaN")), text) == [("s/c", "1")]


def test_whole_rows() -> None:
    recording = replace(CSV, topic=TopicTemplate("s"), missing=("-1",))
    assert readings(recording, f'time,a,b,c\n{T},1.50,"x""y",-1\n') == [("s", f'{{"time":"{T}","a":1.50,"b":"x\\"y"}}')]


def test_unnamed_columns_are_ignored_and_may_be_missing() -> None:
    assert readings(CSV, f",time,a,,\n0,{T},1,,\n1,{T},2\n2,{T},3,,,,\n") == [("s/a", "1"), ("s/a", "2"), ("s/a", "3")]


def test_bad_rows_are_named_and_the_rest_goes_on() -> None:
    text = f"time,a,b\n{T},1\n{T},1,2,3\nsoon,1,2\n,1,2\n{T},\udcff,2\n{T},1,2\n"
    assert bad(CSV, text) == [
        (2, "2 cells under 3 column names"),
        (3, "4 cells under 3 column names"),
        (4, "the time 'soon' is not of the form 'iso'"),
        (5, "no value for 'time'"),
        (6, "not valid text in this encoding"),
    ]
    assert replayed(CSV, text)[-1] == Row(7, NOON, [Reading("a", "s/a", "1"), Reading("b", "s/b", "2")])


def test_line_numbers_count_lines_inside_quotes() -> None:
    rows = replayed(CSV, f'time,a\n{T},"one\ntwo"\n{T},3\nsoon,4\n')
    assert [(row.line, type(row)) for row in rows] == [(2, Row), (4, Row), (5, BadRow)]


def test_an_open_quote_is_a_bad_row_and_not_the_rest_of_the_file() -> None:
    text = f'time,a\n{T},1\n{T},"2\n' + f"{T},3\n" * 20_000
    rows = replayed(CSV, text)
    assert rows[0] == Row(2, NOON, [Reading("a", "s/a", "1")])
    assert isinstance(rows[1], BadRow)
    assert rows[1].line == 3
    assert rows[-1] == Row(20_003, NOON, [Reading("a", "s/a", "3")])


def test_a_line_that_is_too_long() -> None:
    long = "x" * RECORD_LINE_CHARS_MAX
    assert bad(CSV, f"time,a\n{T},{long}\n{T},1\n") == [(2, f"longer than {RECORD_LINE_CHARS_MAX} characters")]


def test_start_line_leaves_out_what_is_above_it_good_or_bad() -> None:
    text = f"time,a\nsoon,1\n{T},2\n{T},3\n"
    assert readings(replace(CSV, start_line=4), text) == [("s/a", "3")]


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("", "bad_recording", "one column only"),
        ("time\n", "bad_recording", "one column only"),
        ("time,a,a\n", "bad_recording", "two columns are named 'a'"),
        ("Time,a\n", "no_such_column", "r.csv:1: no column is named 'time'"),
        (f"time,a,\udcff\n{T},1,\n", "bad_recording", "r.csv:1: not valid text"),
        ("time,a\nnoon,1\n", "unknown_time_form", "r.csv: the form of the time 'noon' is not known"),
        ("time,a\n01/02/2026,1\n", "unknown_time_form", "can be read as '%d/%m/%Y' or '%m/%d/%Y'"),
    ],
)
def test_files_that_cannot_be_read(text: str, code: str, words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        replayed(CSV, text)
    assert caught.value.code == code


def test_no_column_names() -> None:
    with pytest.raises(RequestError, match="no column names"):
        replayed(replace(CSV, delimiter=","), "")


def test_a_header_alone_is_an_empty_recording() -> None:
    assert replayed(CSV, "time,a\n") == []


def test_byte_order_mark_is_not_part_of_a_name() -> None:
    assert readings(CSV, f"\ufefftime,a\n{T},1\n") == [("s/a", "1")]


# --- NDJSON --------------------------------------------------------------------------------------


def test_ndjson_fields() -> None:
    text = f'{{"time":"{T}","a":9.00,"b":"é","c":null,"d":true,"e":[1,{{"x":1e3}}]}}\n\n'
    assert replayed(NDJSON, text) == [
        Row(
            1,
            NOON,
            [
                Reading("a", "s/a", "9.00"),
                Reading("b", "s/b", '"é"'),
                Reading("c", "s/c", "null"),
                Reading("d", "s/d", "true"),
                Reading("e", "s/e", '[1,{"x":1e3}]'),
            ],
        )
    ]


def test_ndjson_whole_lines() -> None:
    recording = replace(NDJSON, topic=TopicTemplate("s"), missing=("null", "-1"))
    assert readings(recording, f'{{"time": "{T}", "a": 1.10, "b": null, "c": -1.0}}') == [("s", f'{{"time":"{T}","a":1.10}}')]


def test_ndjson_times_are_numbers_too() -> None:
    assert replayed(NDJSON, '{"time":1767355200,"a":1}\n') == [Row(1, NOON, [Reading("a", "s/a", "1")])]


def test_ndjson_looks_at_one_row_where_that_is_enough() -> None:
    def pipe() -> Iterator[str]:
        yield f'{{"time":"{T}","a":1}}\n'
        raise AssertionError("waits for a second row")

    whole, _ = complete(NDJSON, pipe())
    assert whole.time_form == "iso"


def test_ndjson_looks_further_where_it_must() -> None:
    text = "".join(f'{{"time":"{day}/01/2026","a":1}}\n' for day in range(1, 15))
    rows = replayed(NDJSON, "broken\n" + text)
    assert rows[0] == BadRow(1, "not JSON: Expecting value at column 1")
    assert rows[14] == Row(15, datetime(2026, 1, 14, tzinfo=UTC), [Reading("a", "s/a", "1")])


def test_ndjson_bad_rows() -> None:
    deep = "[" * 100_000
    lines = ["{", "[]", '{"a":1}', f'{{"time":"{T}","a":NaN}}', '{"time":{},"a":1}', f'{{"time":"{T}","a":"\\ud800"}}', deep]
    faults = bad(NDJSON, f'{{"time":"{T}"}}\n' + "\n".join(lines))
    assert [line for line, _ in faults] == [2, 3, 4, 5, 6, 7, 8]
    words = ["not JSON", "not a JSON object", "no value for 'time'", "NaN", "not a plain value", "not valid text", "recursion"]
    assert all(word in why for word, (_, why) in zip(words, faults, strict=True)), faults


def test_ndjson_without_any_time() -> None:
    with pytest.raises(RequestError, match="no row has a time"):
        replayed(NDJSON, '{"a":1}\n')


# --- topics and keys -----------------------------------------------------------------------------


def test_what_separates_or_matches_levels_is_replaced() -> None:
    assert TopicTemplate("a/{column}/b").fill("m/s+#\0$(x)", {}) == "a/m_s___$(x)/b"


def test_fields_in_the_topic_are_no_readings() -> None:
    recording = replace(CSV, topic=TopicTemplate("{site}/{device}/{column}"))
    text = f"time,site,device,a\n{T},north/1,7,1\n{T},,7,2\n"
    rows = replayed(recording, text)
    assert rows[0] == Row(2, NOON, [Reading("a", "north_1/7/a", "1")])
    assert rows[1] == BadRow(3, "no value for 'site'")


def test_unknown_field_in_the_topic() -> None:
    with pytest.raises(RequestError, match="no column is named 'device'") as caught:
        replayed(replace(CSV, topic=TopicTemplate("{device}/{column}")), f"time,a\n{T},1\n")
    assert caught.value.hint == "there are: time, a"


@pytest.mark.parametrize("text", ["a/{column", "a/column}", "a/{}", "{{column}}"])
def test_braces_that_do_not_pair(text: str) -> None:
    with pytest.raises(ValueError, match="braces"):
        TopicTemplate(text)


def test_keys() -> None:
    assert key("run", 7, "CO(GT)") == "run/7/CO(GT)"
    assert key("run", 7, "") == "run/7"
    odd = [key("run", 7, column) for column in ("é" * KEY_BYTES_MAX, "é" * KEY_BYTES_MAX + "x", "a\nb", "a\tb")]
    assert len(set(odd)) == len(odd)
    assert all(len(name.encode()) <= KEY_BYTES_MAX and name.isprintable() and name.startswith("run/7/#") for name in odd)


def test_entry_is_what_the_gateway_takes() -> None:
    encoded = entry("run", Row(7, NOON, []), Reading('"é', 's/"é', "9.00"))
    assert encoded == b'{"topic":"s/\\"\xc3\xa9","payload":9.00,"key":"run/7/\\"\xc3\xa9","time":"2026-01-02T12:00:00Z"}'
    assert json.loads(encoded)["topic"] == 's/"é'
