"""`python -m training`: starts TensorFlow without its notices, then runs the command."""

from __future__ import annotations

import os
import sys

from training.start import quiet


def main() -> None:
    """Runs the command."""
    with quiet():
        import tensorflow as tf

        # Now, for the notices that it brings; but workers must first tell of each other.
        if "TF_CONFIG" not in os.environ and "--workers" not in " ".join(sys.argv):
            tf.config.list_logical_devices()
        from training.cli import run_app
    run_app()


if __name__ == "__main__":
    main()
