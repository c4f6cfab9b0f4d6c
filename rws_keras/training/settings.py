"""Files of settings, TOML or JSON: their content, and all that is wrong with it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from rws_keras.errors import UserError
from rws_keras.suggestions import unknown

# Classes of the parts of a file, by the names that lead to them.
Sections = dict[tuple[str, ...], type[BaseModel]]


def read_file(path: Path, what: str) -> Any:
    """The content of a TOML or JSON file.

    Args:
        path: The file.
        what: What an error calls it.

    Raises:
        ValueError: If it cannot be read, or has a syntax error.
    """
    try:
        text = path.read_text()
        return json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise UserError(f"{what} {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:  # of the syntax, or bytes that are not text
        raise UserError(f"{what} {path}: {error}.") from error


def problems(error: ValidationError, where: str, sections: Sections) -> str:
    """All that is wrong with a file in one message.

    Args:
        error: What pydantic found.
        where: What the file is called.
        sections: The classes of its parts.
    """
    messages = [_problem(problem, sections) for problem in error.errors()]
    separator = " " if len(messages) == 1 else "\n  "
    return separator.join([f"{where}:", *messages])


def _problem(problem: Any, sections: Sections) -> str:
    """One of pydantic's problems in words, with a suggestion for a misspelt key."""
    *section, key = problem["loc"] or ("file",)
    if problem["type"] == "extra_forbidden":
        names = tuple(part for part in section if isinstance(part, str))
        message = unknown("key", key, sections[names].model_fields)
    elif problem["type"] == "value_error":
        message = str(problem["ctx"]["error"])
    else:
        message = f"{problem['msg']}."
    where = ".".join(map(str, problem["loc"]))
    return f"{where}: {message}" if where else message
