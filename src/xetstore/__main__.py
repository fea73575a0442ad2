"""``python -m xetstore`` is the ``xet`` command."""

from xetstore.cli.main import run

if __name__ == "__main__":
    run()
