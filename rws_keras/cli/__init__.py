"""The command `rws-keras`.

One file for each group of commands. Each command imports what it needs when it runs: `--help`
answers without TensorFlow.
"""

import sys


def main() -> None:
    """Runs the command line.

    The exit code is 0 on success, 2 for a user error, 130 after Ctrl-C, and 1 for any other error.
    """
    try:
        from rws_keras.cli import program

        program.run(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
