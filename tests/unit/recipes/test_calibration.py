"""The calibration script: the temperature that labels were drawn with is found, and goes into the head alone."""

import gzip
import importlib.util
import json
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from mlx_rerank import Reranker

PATH = Path(__file__).parents[3] / "recipes" / "mini" / "calibrate.py"


@pytest.fixture(scope="module")
def calibrate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("calibrate", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def drawn(calibrate: ModuleType) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are three times too large for how often they are right."""
    random = np.random.default_rng(0)
    honest = random.normal(-1, 1.5, 20_000)
    return 3 * honest, (random.random(len(honest)) < calibrate.sigmoid(honest)).astype(float)


def test_the_temperature_is_found(calibrate: ModuleType, drawn: tuple[np.ndarray, np.ndarray]) -> None:
    assert calibrate.fit(*drawn) == pytest.approx(3, rel=0.03)


def test_the_error_is_the_mean_distance_from_the_share_that_is_right(
    calibrate: ModuleType, drawn: tuple[np.ndarray, np.ndarray]
) -> None:
    logits, labels = drawn
    assert calibrate.calibration_error(calibrate.sigmoid(logits / 3), labels) < 0.01
    assert calibrate.calibration_error(calibrate.sigmoid(logits), labels) > 0.1
    assert calibrate.calibration_error(np.array([0.25, 0.25, 1.0]), np.array([1, 0, 0])) == pytest.approx(0.5)
    assert sum(each["pairs"] for each in calibrate.bins(calibrate.sigmoid(logits), labels)) == len(logits)


def test_precision_and_recall(calibrate: ModuleType) -> None:
    rows = calibrate.at_thresholds(np.array([0.95, 0.55, 0.5, 0.15]), np.array([1, 0, 1, 1]))
    by_threshold = {row["threshold"]: (row["precision"], row["recall"]) for row in rows}
    assert by_threshold[0.5] == pytest.approx((2 / 3, 2 / 3))
    assert by_threshold[0.9] == pytest.approx((1, 1 / 3))


def test_logits_are_divided_and_nothing_else(calibrate: ModuleType, tiny: Path, tmp_path: Path) -> None:
    calibrate.write(tiny, tmp_path / "out", 2.5)
    pairs = [("panda", "bear"), ("bear", "panda panda")]
    before, after = (Reranker(path, dtype="float32").logits(pairs).logits for path in (tiny, tmp_path / "out"))
    np.testing.assert_allclose(after, before / 2.5, rtol=1e-5)


def test_only_held_out_natural_questions_are_taken(calibrate: ModuleType, tmp_path: Path) -> None:
    documents = [{"_id": name, "text": f"text of {name}", "lang": "en"} for name in "abc"]
    rows = [
        {
            "_id": f"{source}:{i}",
            "text": f"{source} {i}?",
            "lang": "en",
            "source": source,
            "pos": ["a"],
            "neg": ["b", "c"],
        }
        for source in ("natural", "lohelp")
        for i in range(500)
    ]
    for name, content in (("corpus", documents), ("train", rows)):
        with gzip.open(tmp_path / f"{name}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in content)
    found = calibrate.held_out(tmp_path, 500, 0)
    expected = {f"natural {i}?" for i in range(500) if zlib.crc32(f"natural:{i}".encode()) % 50 == 0}
    assert {query for query, _ in found} == expected != set()
    assert all(texts == ["text of a", "text of b", "text of c"] for _, texts in found)
    assert len(calibrate.held_out(tmp_path, 2, 0)) == 2
