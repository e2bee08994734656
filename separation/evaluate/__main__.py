"""`python -m separation.evaluate`."""

from separation.evaluate.command import main

if __name__ == "__main__":
    raise SystemExit(main())
