"""`python -m separation.evaluate`."""

from separation.evaluate.command import main
from separation.process import call

if __name__ == "__main__":
    raise SystemExit(call("separation.evaluate", main))
