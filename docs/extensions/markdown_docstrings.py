"""Docstrings in Markdown, for autodoc.

The docstrings are written for people who read the code: code in single backticks, examples in
fences, links as in Markdown. Autodoc and napoleon take reStructuredText. The two differ in little
else, so that is rewritten here, before napoleon turns the Google sections into fields. Extensions
that parse whole docstrings as Markdown replace autodoc, and with it napoleon.
"""

import importlib
import inspect
import re

from sphinx.util.inspect import stringify_signature

_PACKAGES = ("baselines", "callbacks", "datasets", "layers", "models", "objectives")

_FENCE = re.compile(r"^(\s*)```(\w*)\s*$")
_ITEM = re.compile(r"^(\s*)- ")
# Code, or a link.
_INLINE = re.compile(r"`([^`]+)`|\[([^\]]+)\]\((https?://(?:[^()]|\([^()]*\))+)\)")
# An exception in the section "Raises".
_RAISED = re.compile(r"^(\s+)(\w+Error)(?=: )", re.MULTILINE)


def names() -> dict[str, str]:
    """The full names of what the site documents, by what docstrings may call it."""
    found = {"UserError": "rws_keras.errors.UserError"}
    top = importlib.import_module("rws_keras")
    for package in _PACKAGES:
        module = importlib.import_module(f"rws_keras.{package}")
        for name in module.__all__:
            full = f"rws_keras.{name}" if name in top.__all__ else f"rws_keras.{package}.{name}"
            spellings = {full, f"rws_keras.{package}.{name}", f"{package}.{name}"}
            if inspect.isclass(getattr(module, name)):
                spellings.add(name)
            found.update(dict.fromkeys(spellings, full))
    return found


def rewritten(lines: list[str], known: dict[str, str]) -> list[str]:
    """The lines of a docstring as reStructuredText.

    Args:
        lines: The lines.
        known: What `names` returns: code that is one of its keys becomes a link.
    """
    text: list[str] = []
    prose: list[str] = []  # since the last fence: code may go on in the next line
    indent = None

    def finish():
        if prose:
            text.extend(_with_roles("\n".join(prose), known).split("\n"))
            prose.clear()

    for line in lines:
        fence = _FENCE.match(line)
        if fence and indent is None:
            finish()
            indent = fence[1]
            text += ["", f"{indent}.. code-block:: {fence[2] or 'text'}", ""]
        elif fence:
            indent = None
            text.append("")
        elif indent is not None:
            text.append(f"    {line}" if line.strip() else "")
        else:
            if _begins_a_list(line, prose[-1] if prose else ""):
                prose.append("")
            prose.append(line)
    finish()
    return text


def _begins_a_list(line: str, before: str) -> bool:
    """Whether a list begins here right below a paragraph, which only Markdown allows."""
    item = _ITEM.match(line)
    if not item or not before.strip():
        return False
    return len(before) - len(before.lstrip()) == len(item[1]) and not _ITEM.match(before)


def _with_roles(text: str, known: dict[str, str]) -> str:
    def role(match):
        code, title, address = match.groups()
        if address:
            return f"`{title} <{address}>`__"
        # A letter right behind the code, as in "`UserError`s", needs a separator.
        end = r"\ " if text[match.end() : match.end() + 1].isalnum() else ""
        code = " ".join(code.split())
        if code in known:
            return f":py:obj:`{code} <{known[code]}>`{end}"
        return f"``{code}``{end}"

    def raised(match):
        return f"{match[1]}~{known[match[2]]}" if match[2] in known else match[0]

    return _INLINE.sub(role, _RAISED.sub(raised, text))


def _skip(app, what, name, obj, skip, options):
    """Leaves out fields of named tuples, which their class describes, and what others defined."""
    if type(obj).__name__ == "_tuplegetter":
        return True
    defined = getattr(obj, "fget", None) or getattr(obj, "__func__", obj)
    module = getattr(defined, "__module__", None) or ""
    return True if module.startswith(("keras.", "tensorflow")) else None


def _signature_of_init(app, what, name, obj, options, signature, returned):
    """The arguments of a class's constructor: Keras's `__new__` hides them from autodoc."""
    if what != "class" or obj.__init__ is object.__init__:
        return None
    found = inspect.signature(obj.__init__)
    arguments = list(found.parameters.values())[1:]
    return stringify_signature(found.replace(parameters=arguments), show_annotation=False), None


def setup(app):
    """Connects the hooks, before napoleon's."""
    known = names()

    def rewrite(app, what, name, obj, options, lines):
        lines[:] = rewritten(lines, known)
        if what in ("property", "attribute", "data"):
            # Napoleon takes what is before the first colon for a type: here it is nothing.
            lines[:1] = [f": {line}" for line in lines[:1]]

    app.connect("autodoc-process-docstring", rewrite, priority=400)
    app.connect("autodoc-process-signature", _signature_of_init)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True}
