"""The ``xet`` command: parse, call the library, print. The only place that knows click."""
