"""The server's models, as the page uses them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from rws_keras.serving.predictor import Predictor
from rws_keras.serving.repository import Target


class ServedModels:
    """What serves, asked by the page within the limits of other clients.

    Args:
        predictor: Answers requests.
    """

    def __init__(self, predictor: Predictor):
        self._predictor = predictor

    def directories(self) -> dict[str, Path]:
        """The directory of the newest version of each model that serves."""
        repository = self._predictor.repository
        names = [name for name, versions in repository.serving().items() if versions]
        return {name: repository.servable(Target(name))[1].path for name in names}

    async def predict(
        self, model: str, signature: str, inputs: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Runs a signature of the newest version.

        Raises:
            ServingError: If the model does not serve any more, or the server is too busy.
        """
        _, servable = self._predictor.repository.servable(Target(model))
        called = servable.signature(signature)
        with self._predictor.admitted():
            return await asyncio.wait_for(
                self._predictor.run(model, called, inputs), self._predictor.limits.seconds
            )
