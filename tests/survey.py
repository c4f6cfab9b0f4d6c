"""A small machine of a survey: a yes or no and a choice of three."""

from pathlib import Path

from rws_keras import HelmholtzMachine
from rws_keras.datasets import Column, Schema

SCHEMA = Schema([Column("smokes", ("no", "yes")), Column("drink", ("beer", "milk", "tea"))])
# Of the second row the first answer is missing, of the third one the second.
TABLE = "smokes,drink\nyes,tea\n,beer\nno,\n"


def save_machine(path: Path) -> Path:
    """Saves the machine, calibrated with K = 20 as its exports for tests are."""
    machine = HelmholtzMachine.from_sizes(
        4, [3], choices=SCHEMA.groups, schema=SCHEMA.get_config(), seed=0
    )
    machine.calibrate(machine.sample(50, seed=1).x, 20)
    machine.save(path)
    return path
