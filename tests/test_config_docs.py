"""The table of settings in README.md says what the code says."""

from pathlib import Path

from edgegw.config import SettingRow, setting_rows
from edgegw.config_source import LISTS

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- config -->", "<!-- /config -->"


def default(row: SettingRow) -> str:
    """The default as it would stand in the file."""
    if row.section in LISTS and row.key in ("name", "url"):
        return "required"
    if row.default is None:
        return "not set"
    if isinstance(row.default, str | Path):
        return f'`"{row.default}"`'
    if isinstance(row.default, tuple):
        assert not row.default
        return "`[]`"
    if isinstance(row.default, bool):
        return f"`{str(row.default).lower()}`"
    assert isinstance(row.default, int | float)
    return f"`{row.default:.12g}`"


def table() -> str:
    """What must stand between the markers."""
    lines = ["| key | takes | default | environment | meaning |", "|---|---|---|---|---|"]
    for row in setting_rows():
        key = f"[[{row.section}]] {row.key}" if row.section in LISTS else f"{row.section}.{row.key}"
        env = f"`{row.env}`" if row.env else "-"
        lines.append(f"| `{key}` | {row.kind.takes} | {default(row)} | {env} | {row.meaning} |")
    return "\n".join(lines)


def test_the_readme_lists_every_setting() -> None:
    text = README.read_text()
    assert text.count(BEGIN) == 1 and text.count(END) == 1, f"README.md needs {BEGIN} and {END} around its table of settings"
    found = text.split(BEGIN)[1].split(END)[0].strip()
    assert found == table(), f"put this between {BEGIN} and {END} in README.md:\n\n{table()}\n"


def test_no_cell_breaks_the_table() -> None:
    assert all(line.count("|") == 6 for line in table().splitlines())
