"""The schema of a table that a machine keeps."""

import json

import keras
import numpy as np
import pytest

from rws_keras import HelmholtzMachine
from rws_keras.datasets import Schema
from rws_keras.errors import UserError
from rws_keras.files import read_json

SCHEMA = Schema.from_config(
    {
        "columns": [
            {"name": "smokes", "values": ["no", "yes"]},
            {"name": "drink", "values": ["beer", "milk", "tea"]},
        ]
    }
)


def test_it_is_kept_wherever_the_machine_is_saved(tmp_path):
    machine = HelmholtzMachine.from_sizes(4, [3], choices=SCHEMA.groups, schema=SCHEMA.get_config())
    machine.save(tmp_path / "survey.keras")
    again = [
        HelmholtzMachine.from_config(machine.get_config()),
        keras.saving.load_model(tmp_path / "survey.keras"),
        HelmholtzMachine.from_preset(machine.save_to_preset(tmp_path / "preset")),
    ]
    for each in again:
        assert Schema.of(each).columns == SCHEMA.columns
    assert read_json(tmp_path / "preset" / "config.json")["config"]["schema"] == SCHEMA.get_config()
    machine.schema["columns"].clear()  # a copy
    assert machine.schema == SCHEMA.get_config()


def test_a_schema_can_be_given_later(tmp_path):
    plain = HelmholtzMachine.from_sizes(4, [3], seed=0)
    folder = plain.save_to_preset(tmp_path / "preset")
    assert Schema.of(plain) is None
    named = HelmholtzMachine.from_preset(folder, schema=SCHEMA.get_config())
    assert Schema.of(named).units == ["smokes", "drink=beer", "drink=milk", "drink=tea"]
    np.testing.assert_array_equal(named.p_layers[0].get_weights()[0], plain.get_weights()[0])
    named.schema = None
    assert named.schema is None


def test_a_schema_of_something_else_is_refused():
    wide = HelmholtzMachine.from_sizes(5, [2], schema=SCHEMA.get_config())
    with pytest.raises(UserError, match="has 4 units, but the machine has 5 visible units"):
        Schema.of(wide)
    wide.schema = json.loads('{"columns": [{"title": "a"}]}')
    with pytest.raises(UserError, match=r"is not what Schema.get_config\(\) returns"):
        Schema.of(wide)
    for wrong in ([1], {"a": print}):
        with pytest.raises(UserError, match="`schema` must be a dict that can be written as JSON"):
            HelmholtzMachine.from_sizes(5, [2], schema=wrong)
