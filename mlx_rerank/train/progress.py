"""A run that was interrupted: its state in one file, from which the same command goes on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_rerank.errors import InputError, OutputError
from mlx_rerank.train.learner import Arrays, Learner

_FORMAT = 1


class Progress:
    """The file beside a run's output that holds its state while it is under way."""

    def __init__(self, output: Path, facts: Mapping[str, Any]) -> None:
        """Name the file.

        Args:
            output: the directory that the run will write.
            facts: what the run is about, in JSON: options, data and model. The state of another run is refused.
        """
        self.path = output.with_name(output.name + ".training")
        self._part = self.path.with_name(self.path.name + ".part.safetensors")  # MLX adds the ending if it is missing
        self._facts = json.loads(json.dumps({"format": _FORMAT, **facts}))

    def save(self, learner: Learner, history: list[dict[str, Any]], since: Mapping[str, Any]) -> None:
        """Write the state, whole or not at all.

        Args:
            learner: after a complete step.
            history: what was noted.
            since: what happened after that, in JSON.

        Raises:
            OutputError: the file cannot be written.
        """
        arrays, numbers = learner.state()
        text = json.dumps({"facts": self._facts, "numbers": numbers, "history": history, "since": since})
        part = self._part
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            mx.save_safetensors(str(part), arrays, metadata={"state": text})
            part.replace(self.path)
        except (OSError, RuntimeError) as error:
            part.unlink(missing_ok=True)
            raise OutputError(f"the state of the training run cannot be written to {self.path}: {error}") from error

    def restore(self, learner: Learner) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Restore a learner to where an interrupted run was, if there is one; return the history, and what came since.

        Raises:
            InputError: the file holds the state of another run, or none.
        """
        if not self.path.exists():
            return [], {}
        arrays, state = self._read()
        for name, value in self._facts.items():
            if state["facts"].get(name) != value:
                raise InputError(
                    f"{self.path} holds an interrupted run with another {name} ({state['facts'].get(name)!r}, not "
                    f"{value!r}): repeat its command to go on, or delete the file to begin anew"
                )
        learner.restore(arrays, state["numbers"])
        return state["history"], state["since"]

    def _read(self) -> tuple[Arrays, dict[str, Any]]:
        """Return the file's arrays and the rest."""
        try:
            loaded: Any = mx.load(str(self.path), format="safetensors", return_metadata=True)
            arrays, metadata = loaded
            mx.eval(arrays)
            return arrays, json.loads(metadata["state"])
        except (RuntimeError, KeyError, ValueError, TypeError) as error:
            raise InputError(
                f"{self.path} is not the state of a training run ({error}): delete it to begin anew"
            ) from error

    def remove(self) -> None:
        """Delete the file: the run is complete."""
        self.path.unlink(missing_ok=True)
