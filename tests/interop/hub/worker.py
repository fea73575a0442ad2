"""A process of its own for one version of huggingface_hub: functions as lines of JSON in, their results out.

Run as a script, not imported. It knows nothing of xetstore, so that any version of the client can be on its path.
"""

from __future__ import annotations
import __future__

import inspect
import json
import os
import sys
import traceback
import warnings
from typing import Any

import huggingface_hub

warnings.simplefilter("ignore")

FLAGS = __future__.annotations.compiler_flag
"""Annotations of the functions are not looked at: their names need not be known here."""


def run(source: str, name: str, arguments: list[Any]) -> dict[str, Any]:
    """The result of a function, or the error that it raised."""
    known: dict[str, Any] = {"huggingface_hub": huggingface_hub}
    exec(compile(source, "<test>", "exec", flags=FLAGS), known)
    function = known[name]
    if next(iter(inspect.signature(function).parameters), None) == "api":
        arguments = [huggingface_hub.HfApi(), *arguments]
    try:
        return {"result": function(*arguments)}
    except Exception as error:
        traceback.print_exc()
        status = getattr(getattr(error, "response", None), "status_code", None)
        return {"names": [kind.__name__ for kind in type(error).__mro__], "message": str(error), "status": status}


def main() -> None:
    """Answer each line of stdin on what was stdout; whatever else is printed goes to stderr."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            asked = json.loads(line)
            print(json.dumps(run(**asked)), file=answers, flush=True)


if __name__ == "__main__":
    main()
