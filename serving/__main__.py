"""`python -m serving`."""

from training.start import start

if __name__ == "__main__":
    start("serving.cli")
