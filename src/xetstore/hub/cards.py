"""Cards: the metadata at the head of a README.md, as YAML between two lines of three dashes.

It is a stranger's text. It is read by the safe loader, is bounded in length and in what it unfolds to, and has no
merge keys, because these multiply while they are read.
"""

from __future__ import annotations

import datetime
import math
import re
from typing import Any, Final

import yaml

from xetstore.errors import FormatError

FILE: Final = "README.md"
MAX_CARD_BYTES: Final = 512 << 10
"""Metadata that is longer is not read. That of a model with a thousand results has some 300 KB."""
MAX_VALUES: Final = 200_000
"""Values of all metadata, those that an alias repeats counted each time."""
MAX_CHARS: Final = 2 * MAX_CARD_BYTES
"""Characters of all texts in metadata, counted in the same way."""
MAX_DEPTH: Final = 64
MAX_NUMBER_CHARS: Final = 400
"""The longest number. To read ``1:1:1…``, which is one to the base of 60, takes time by the square of its length."""

_BEGIN: Final = re.compile(r"\ufeff?\s*---[ \t]*\r?\n")
_HEAD: Final = re.compile(rf"{_BEGIN.pattern}(.*?)(?:^---[ \t]*\r?$)", re.DOTALL | re.MULTILINE)
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_LOADER):  # type: ignore[misc, valid-type]  # the one of libyaml, where that is there
    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.constructor.ConstructorError(None, None, "merge keys are not taken", node.start_mark)

    def construct_number(self, node: yaml.ScalarNode) -> object:
        """An int or a float."""
        if len(node.value) > MAX_NUMBER_CHARS:
            raise yaml.constructor.ConstructorError(None, None, "a number is too long", node.start_mark)
        return self.construct_yaml_int(node) if node.tag.endswith(":int") else self.construct_yaml_float(node)


for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.construct_number)


def metadata_of(readme: str) -> dict[str, Any] | None:
    """The metadata of a README.md, as JSON has values; None if there is none. Raises FormatError.

    >>> metadata_of("---\\nlicense: mit\\ntags: [a]\\n---\\n# Model")
    {'license': 'mit', 'tags': ['a']}
    """
    head = _HEAD.match(readme[:MAX_CARD_BYTES])
    if head is None:
        if len(readme) > MAX_CARD_BYTES and _BEGIN.match(readme):
            raise FormatError("card.length", 0, f"the metadata is longer than {MAX_CARD_BYTES} bytes")
        return None
    try:
        value = yaml.load(head[1], _Loader)  # a safe one
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f", in line {mark.line + 2}"
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise FormatError("card.yaml", 0, f"the metadata is not YAML: {problem}{where}") from None
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise FormatError("card.yaml", 0, f"the metadata is not YAML: {str(error)[:200]}") from None
    if value is None:
        return None
    if not isinstance(value, dict):
        raise FormatError("card.mapping", 0, "the metadata is no mapping of names to values")
    found = _Plain().of(value, 0)
    assert isinstance(found, dict)
    return found


def errors_of(metadata: dict[str, Any]) -> list[str]:
    """The errors in metadata that tools would stumble over: a text each."""
    errors = []
    results = metadata.get("model-index")
    if results is not None:
        if not isinstance(results, list):
            errors.append('"model-index" must be an array')
        else:
            for number, model in enumerate(results[:1000]):
                if not isinstance(model, dict) or not isinstance(model.get("results", []), list):
                    errors.append(f'"model-index[{number}]" must be an object with an array of results')
    errors += [
        f'"{name}" must be a string or an array of strings'
        for name in ("tags", "language", "datasets", "metrics", "base_model")
        if not _is_texts(metadata.get(name))
    ]
    return errors


def tags_of(metadata: dict[str, Any]) -> list[str]:
    """The tags by which a repository is found: its own, and what else its metadata says of it, as ``name:value``.

    >>> tags_of({"tags": ["a"], "license": "mit", "language": "en", "library_name": "x", "datasets": ["d/e"]})
    ['a', 'x', 'en', 'license:mit', 'dataset:d/e']
    """
    tags = _texts(metadata.get("tags"))
    tags += _texts(metadata.get("library_name")) + _texts(metadata.get("pipeline_tag"))
    tags += _texts(metadata.get("language"))
    tags += [f"license:{text}" for text in _texts(metadata.get("license"))]
    tags += [f"dataset:{text}" for text in _texts(metadata.get("datasets"))]
    tags += [f"base_model:{text}" for text in _texts(metadata.get("base_model"))]
    tags += [f"task_categories:{text}" for text in _texts(metadata.get("task_categories"))]
    tags += [f"size_categories:{text}" for text in _texts(metadata.get("size_categories"))]
    return list(dict.fromkeys(tags))


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _is_texts(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(text, str | int | float | bool) for text in value)
    return value is None or isinstance(value, str | bool | int | float)


class _Plain:
    """Turns values of YAML into those of JSON, as many as there may be."""

    def __init__(self) -> None:
        self._count = 0
        self._chars = 0

    def of(self, value: object, depth: int) -> object:
        self._count += 1
        if self._count > MAX_VALUES or depth > MAX_DEPTH:
            raise FormatError("card.values", 0, "the metadata has too many values, or too many in each other")
        if isinstance(value, dict):
            return {self._key(key): self.of(inner, depth + 1) for key, inner in value.items()}
        if isinstance(value, list | tuple | set):
            return [self.of(inner, depth + 1) for inner in value]
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, bool | None):
            return value
        if isinstance(value, int):
            return value if abs(value) < 1 << 63 else str(value)
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, datetime.date):
            return value.isoformat()
        return None

    def _key(self, key: object) -> str:
        return self._text(key if isinstance(key, str) else str(key)[:200])

    def _text(self, text: str) -> str:
        """The text itself: an alias repeats a long one at no cost to its author."""
        self._chars += len(text)
        if self._chars > MAX_CHARS:
            raise FormatError("card.values", 0, "the texts of the metadata are too long")
        return text
