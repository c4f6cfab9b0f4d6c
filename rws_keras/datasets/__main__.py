"""`python -m rws_keras.datasets NAME`: prepares a data set and says what is in it."""

import sys

from rws_keras.datasets import NAMES, load


def main() -> None:
    """Loads the data set named on the command line."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: python -m rws_keras.datasets NAME\nNAME is one of {', '.join(NAMES)}")
    try:
        data = load(sys.argv[1])
    except ValueError as error:
        sys.exit(str(error))
    sizes = ", ".join(f"{len(split):,}" for split in (data.train, data.validation, data.test))
    print(f"{data.name}: {data.train.shape[1]} binary variables; train, validation, test: {sizes}")


if __name__ == "__main__":
    main()
