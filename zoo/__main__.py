"""`python -m zoo`."""

from training.start import start

if __name__ == "__main__":
    start("zoo.cli")
