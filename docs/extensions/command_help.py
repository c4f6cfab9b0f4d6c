"""The directive `command-help`: what a command of `rws-keras` says with `--help`."""

import re

from docutils import nodes
from sphinx.util.docutils import SphinxDirective
from typer.testing import CliRunner

from rws_keras.cli.program import app as program


def help_of(command: str) -> str:
    """The help of a command, without colours and in lines of a fixed width."""
    result = CliRunner().invoke(
        program, [*command.split(), "--help"], prog_name="rws-keras", terminal_width=90
    )
    if result.exit_code:
        raise ValueError(f"rws-keras {command} --help: {result.output}")
    return re.sub(r"\x1b\[[0-9;]*m", "", result.output).strip("\n")


class CommandHelp(SphinxDirective):
    """A literal block with the help of the command in the argument."""

    required_arguments = 0
    optional_arguments = 1
    final_argument_whitespace = True

    def run(self):
        text = help_of(" ".join(self.arguments))
        return [nodes.literal_block(text, text, language="text")]


def setup(app):
    """Registers the directive."""
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True}
