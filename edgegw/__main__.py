"""`python -m edgegw`, and where the installed `edgegw` script enters."""

from edgegw.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
