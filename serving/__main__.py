"""`python -m serving`: starts TensorFlow without its notices, then runs the command."""

from training.start import quiet


def main() -> None:
    """Runs the command."""
    with quiet():
        import tensorflow as tf

        tf.config.list_logical_devices()
        from serving.cli import run_app
    run_app()


if __name__ == "__main__":
    main()
