"""What differs between two configurations, by the names under which people know the settings. No I/O."""

from dataclasses import fields, is_dataclass

from edgegw.config import Config


def changes(old: Config, new: Config) -> tuple[str, ...]:
    """`http.listen`, `stream[NAME].rows_max`, or `stream[NAME]` for one that came or went; `stream order` where that counts."""
    found: list[str] = []
    for each in fields(Config):
        before, after = getattr(old, each.name), getattr(new, each.name)
        if is_dataclass(before):
            found += _differing(each.name, before, after)
        elif before != after:
            found += _list_changes(each.name.removesuffix("s"), before, after)
    return tuple(found)


def _list_changes(section: str, before: tuple[object, ...], after: tuple[object, ...]) -> list[str]:
    """Tables of a list are known by their name."""
    olds, news = _by_name(before), _by_name(after)
    found: list[str] = []
    for name in dict.fromkeys((*olds, *news)):
        if name in olds and name in news:
            found += _differing(f"{section}[{name}]", olds[name], news[name])
        else:
            found.append(f"{section}[{name}]")
    kept = [name for name in olds if name in news]
    if kept != [name for name in news if name in olds]:
        found.append(f"{section} order")
    return found


def _differing(section: str, before: object, after: object) -> list[str]:
    assert is_dataclass(before)
    names = [each.name for each in fields(before)]
    return [f"{section}.{name}" for name in names if getattr(before, name) != getattr(after, name)]


def _by_name(tables: tuple[object, ...]) -> dict[str, object]:
    return {str(getattr(table, "name")): table for table in tables}  # noqa: B009  every table of a list has one
