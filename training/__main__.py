"""`python -m training`."""

from training.start import start

if __name__ == "__main__":
    start("training.cli")
