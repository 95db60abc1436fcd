"""Run the tests of sentence-transformers' CrossEncoder or FlagEmbedding's FlagReranker against this package's classes.

    python tests/support/peers.py CHECKOUT [--original] [PYTEST'S OPTIONS]

CHECKOUT holds the peer's sources. Its tests read models of the hub: a hub cache is filled with the embedded model and a
tiny BERT under their names, and the network is left alone. With --original the peer's own class is tested.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))
REPLACED, CACHE = "PEERS_REPLACED", "HF_HUB_CACHE"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TANH = "torch.nn.modules.activation.Tanh"
BERT = "cross-encoder-testing/reranker-bert-tiny-gooaq-bce"
MODELS: dict[str, dict[str, object]] = {  # with what else is in their config.json
    BERT: {},
    f"{BERT}-STv54": {},
    f"{BERT}-tanh-v3": {"sbert_ce_default_activation_function": TANH},
    f"{BERT}-tanh-v4": {"sentence_transformers": {"activation_fn": TANH, "version": "4.0.1"}},
    "cross-encoder/stsb-distilroberta-base": {},
    "sentence-transformers-testing/stsb-bert-tiny-safetensors": {},
    "BAAI/bge-reranker-base": {},
}
TESTS = {  # of each peer, by a file that it has
    "tests/cross_encoder": ["test_model.py", "evaluation", "test_multi_process.py"],
    "tests/test_infer_reranker_basic.py": ["", "../test_imports_v5.py"],
}


def fill(cache: Path) -> None:
    """Write the models into a hub cache."""
    from checkpoints import write_mini
    from families.checks import seeded, write
    from families.test_bert import FAMILY, TestBert, wordpiece

    mini = write_mini(cache / "mini")
    bert = write(cache / "bert", TestBert.config, seeded(FAMILY, TestBert.config), wordpiece())
    for name, more in MODELS.items():
        directory, source = cache / f"models--{name.replace('/', '--')}", bert if name.startswith(BERT) else mini
        shutil.copytree(source, snapshot := directory / "snapshots" / COMMIT)
        config = json.loads((source / "config.json").read_text())
        (snapshot / "config.json").write_text(json.dumps(config | more))
        (directory / "refs").mkdir()
        (directory / "refs" / "main").write_text(COMMIT)


def replace() -> None:
    """Put this package's classes in the place of the peers', before their tests import them."""
    import FlagEmbedding
    import sentence_transformers

    import mlx_rerank

    sentence_transformers.CrossEncoder = mlx_rerank.CrossEncoder
    FlagEmbedding.FlagReranker = mlx_rerank.FlagReranker


@pytest.fixture(autouse=True)
def _logged_again() -> None:
    """Let what is logged once be logged in each test, as the peer's own fixture does for its own."""
    from mlx_rerank.compat import warning

    warning.log_once.cache_clear()


def main(checkout: str, *options: str) -> int:
    """Run the tests of a checkout and return pytest's exit code."""
    place, files = next((Path(checkout) / at, names) for at, names in TESTS.items() if (Path(checkout) / at).exists())
    paths = [str((place / name).resolve()) if name else str(place.resolve()) for name in files]
    with tempfile.TemporaryDirectory() as cache:
        fill(Path(cache))
        os.environ |= {CACHE: cache, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join([*sys.path, checkout])}
        if "--original" not in options:
            os.environ[REPLACED] = "1"
        os.chdir(checkout)
        rest = [option for option in options if option != "--original"]
        return pytest.main(["-p", "peers", "-m", "not custom", "-q", *rest, *paths])


if __name__ == "peers" and REPLACED in os.environ:  # pytest's plugin, not a process that it started
    replace()
if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
