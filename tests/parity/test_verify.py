"""The parity report: it passes a sound model, and says what is wrong with a damaged one."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import pytest
from checkpoints import TINY, random_tensors, write_checkpoint
from commands import run_here

from mlx_rerank.checkpoints.packing import Quantization
from mlx_rerank.convert import convert
from mlx_rerank.errors import CheckpointError, InputError
from mlx_rerank.pairs.samples import sample_pairs
from mlx_rerank.proof import verify as module
from mlx_rerank.proof.verification import failed_verification, store
from mlx_rerank.proof.verify import verify

SHORT = [pair for pair in sample_pairs() if len(pair[1]) < 200]
FEW = [("what is a panda", "the bear"), ("what is a panda", "er"), ("熊", "a bear is the panda"), ("the", "")]


@pytest.mark.one_kernel
@pytest.mark.numeric
def test_the_embedded_model_in_float32() -> None:
    pairs = sample_pairs()[::13]  # of each query, and one that fills all positions
    report = verify("mini", pairs=pairs, dtype="float32", device="cpu")
    print(dict(report.rows()))
    assert report.passed
    assert report.fidelity is not None
    assert report.fidelity.max_logit <= 1e-4
    assert report.fidelity.pairs == len(pairs)
    assert report.fidelity.tau == pytest.approx(1)
    assert report.different_tokens == 0
    assert list(report.drifts) == ["embeddings", *(f"layers.{n}" for n in range(6))]
    assert 0 < max(report.drifts.values()) < 1e-4
    assert report.peak.path == "layers.0.output_norm"  # what it is given: the sum of two larger than either
    assert 200 < report.peak.value < 260


def test_the_embedded_model_in_float16() -> None:
    report = verify("mini", pairs=SHORT[:40:13], dtype="float16", device="cpu")  # few, of two queries: it is slow
    print(dict(report.rows()))
    assert report.passed
    assert report.fidelity is not None
    assert report.fidelity.tau is not None
    assert 1e-4 < report.fidelity.max_logit <= 2e-2
    assert report.fidelity.tau >= 0.99


@pytest.fixture(scope="module")
def converted(mini_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(mini_directory, tmp_path_factory.mktemp("converted") / "model")


@pytest.fixture
def damaged(converted: Path, tmp_path: Path) -> Callable[[str, Callable[[mx.array], mx.array]], Path]:
    """Return a copy of the converted model in which one parameter is changed."""

    def damage(name: str, change: Callable[[mx.array], mx.array]) -> Path:
        target = tmp_path / "damaged"
        shutil.copytree(converted, target)
        tensors = mx.load(str(target / "model.safetensors"))
        assert isinstance(tensors, dict)
        tensors[name] = change(tensors[name])
        mx.eval(tensors)  # before the file that they are read from is written
        mx.save_safetensors(str(target / "model.safetensors"), tensors)
        return target

    return damage


def test_a_corrupted_layer_is_named(damaged: Callable[..., Path], mini_directory: Path) -> None:
    target = damaged("layers.3.down_proj.weight", lambda weight: weight[::-1])
    report = verify(target, against=mini_directory, pairs=SHORT[::6], device="cpu")
    assert not report.passed
    assert report.first_drift == "layers.3"
    assert report.fidelity is not None
    assert report.fidelity.max_logit > 0.1
    assert any("hidden states drift from layers.3 on" in problem for problem in report.problems)
    assert any("largest |delta logit|" in problem for problem in report.problems)
    assert "FAILED" in dict(report.rows())["result"]


def test_a_layer_of_nan_is_named(damaged: Callable[..., Path], mini_directory: Path) -> None:
    target = damaged("layers.2.attention.out_proj.bias", lambda bias: bias * float("nan"))
    report = verify(target, against=mini_directory, pairs=FEW, device="cpu")
    assert report.first_drift == "layers.2"
    assert report.fidelity is None
    assert report.error is not None
    assert "have a logit of NaN" in report.error
    assert (report.peak.value, report.peak.path) == (float("inf"), "layers.2.attention.out_proj")
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["peak"]["value"] is None
    alone = verify(target, pairs=FEW, device="cpu")  # the reference has the same weights
    assert not alone.passed
    assert alone.first_drift == "layers.2"


def test_another_tokenizer_is_noticed(converted: Path, mini_directory: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    shutil.copytree(converted, target)
    tokenizer = json.loads((target / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["normalizer"] = None
    (target / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    pairs = [("what is ﬁne?", "① ｆｕｌｌ ｗｉｄｔｈ"), ("plain", "text")]
    report = verify(target, against=mini_directory, pairs=pairs, device="cpu")
    assert report.different_tokens == 1
    assert any("1 pairs are tokenised otherwise" in problem for problem in report.problems)


@pytest.mark.numeric
def test_packed_weights_may_be_further_from_their_source_than_from_themselves(tmp_path: Path, tiny: Path) -> None:
    target = convert(tiny, tmp_path / "target", layers=Quantization(32, 8, "affine"))
    itself, source = verify(target, pairs=FEW, dtype="float32"), verify(target, pairs=FEW, against=tiny)
    assert (itself.tolerance.logit, source.tolerance.logit) == (1e-4, 0.25)
    assert itself.fidelity is not None
    assert source.fidelity is not None
    assert itself.fidelity.max_logit < 1e-4 < source.fidelity.max_logit
    assert itself.passed
    assert not verify(target, pairs=FEW, against=tiny, tolerance=1e-6).passed


def test_a_revision_of_no_model(tiny: Path) -> None:
    with pytest.raises(InputError, match="against_revision 'v1' is of the model of against: give that too"):
        verify(tiny, pairs=FEW, against_revision="v1")


def test_an_activation_beyond_float16_is_told(tmp_path: Path) -> None:
    tensors = random_tensors(TINY)
    tensors["roberta.encoder.layer.1.intermediate.dense.weight"] *= 60000
    tensors["roberta.encoder.layer.1.output.dense.weight"] /= 60000
    source = write_checkpoint(tmp_path / "large", tensors=tensors)
    report = verify(source, pairs=FEW, dtype="float32", device="cpu")
    assert report.passed
    assert report.peak.path in ("layers.1.up_proj", "layers.1.down_proj")
    assert report.peak.float16_share > 1
    assert not verify(source, pairs=FEW, dtype="float16", device="cpu").passed


def test_published_logits_are_compared(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = verify(tiny, pairs=FEW, dtype="float32")
    assert honest.published == ()
    monkeypatch.setitem(module.PUBLISHED, str(tiny), {FEW[0]: 1000.0})
    report = verify(str(tiny), pairs=FEW, dtype="float32")
    assert [one.expected for one in report.published] == [1000.0]
    assert any(problem.startswith("published 1000.0000, found") for problem in report.problems)
    monkeypatch.setitem(module.PUBLISHED, str(tiny), {FEW[0]: report.published[0].found + 0.1})
    assert not verify(str(tiny), pairs=FEW, dtype="float32").passed
    assert verify(str(tiny), pairs=FEW, dtype="bfloat16").passed  # which may differ by more
    assert verify(str(tiny), pairs=FEW, dtype="float32", max_length=8).published == ()  # it would be cut


@pytest.mark.numeric
def test_equal_documents_have_no_order(tiny: Path) -> None:
    report = verify(tiny, pairs=[("panda", "the bear")] * 20 + [("panda", " the  bear ")] * 3, dtype="float32")
    assert report.passed
    assert report.fidelity is not None
    assert report.fidelity.pairs <= 2


def test_the_report_says_what_was_not_read(tiny: Path) -> None:
    report = verify(tiny, pairs=[*FEW, ("panda", "bear " * 100)], dtype="float32")
    assert (report.max_length, report.truncated_pairs, report.followed) == (64, 1, 5)
    assert dict(report.rows())["pairs"] == "5, of which 1 cut to 64 tokens"


def test_models_of_different_shapes_are_not_compared(tiny: Path, tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other", TINY | {"num_hidden_layers": 3})
    with pytest.raises(InputError, match="the model has num_hidden_layers 2, the one to compare with 3"):
        verify(tiny, against=other, pairs=FEW)


@pytest.mark.parametrize("tolerance", [0, -1, float("nan"), float("inf")])
def test_tolerances_that_are_none(tiny: Path, tolerance: float) -> None:
    with pytest.raises(InputError, match="a tolerance is a number above 0, not"):
        verify(tiny, pairs=FEW, tolerance=tolerance)


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_damaged_directories(tiny: Path, tmp_path: Path, file: str) -> None:
    target = convert(tiny, tmp_path / "target")
    content = (target / file).read_bytes()
    (target / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError):
        verify(target, pairs=FEW)
    with pytest.raises(CheckpointError, match=r"damaged or cut short|cannot be used"):
        verify(tiny, against=target, pairs=FEW)


@pytest.mark.parametrize("dtype", [None, "float64", "torch.float32"])
def test_odd_dtypes_in_the_config(tiny: Path, tmp_path: Path, dtype: str | None) -> None:
    target = tmp_path / "target"
    shutil.copytree(tiny, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | {"torch_dtype": dtype}))
    report = verify(target, against=tiny, pairs=FEW, dtype="float32")
    assert report.tolerance.logit == (1e-4 if dtype == "torch.float32" else 0.25)
    assert report.passed


def test_the_report_is_kept_in_the_directory_and_its_card(tiny: Path, tmp_path: Path) -> None:
    target = convert(tiny, tmp_path / "target")
    card = (target / "README.md").read_text(encoding="utf-8")
    report = verify(target, against=tiny, pairs=FEW)
    store(report, target)
    once = (target / "README.md").read_text(encoding="utf-8")
    store(report, target)
    assert (target / "README.md").read_text(encoding="utf-8") == once  # replaced, not repeated
    assert once.startswith(card.rstrip())
    (target / "README.md").write_text(once + "\n## My notes\n\nkept\n", encoding="utf-8")
    store(report, target)
    assert (target / "README.md").read_text(encoding="utf-8") == once + "\n## My notes\n\nkept\n"
    assert "## Verified against PyTorch" in once
    assert str(tmp_path) not in once
    kept = json.loads((target / "verification.json").read_text(encoding="utf-8"))
    assert kept["passed"] is True
    assert kept["fidelity"]["pairs"] == len(FEW)
    assert {path.name for path in target.iterdir()} == {
        "README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "verification.json"
    }  # fmt: skip


def test_a_failed_report_is_kept_too(tiny: Path, tmp_path: Path) -> None:
    target = convert(tiny, tmp_path / "target")
    assert not failed_verification(target)
    report = verify(target, against=tiny, pairs=FEW, tolerance=1e-9)
    (target / "README.md").unlink()
    store(report, target)
    assert failed_verification(target)
    (target / "README.md").write_text("# a card without a line break at its end", encoding="utf-8")
    store(report, target)
    card = (target / "README.md").read_text(encoding="utf-8")
    assert "the largest \\|delta logit\\| is" in card
    assert all(line.count("|") - line.count("\\|") == 3 for line in card.splitlines() if line.startswith("| "))


def test_no_pairs(tiny: Path) -> None:
    with pytest.raises(InputError, match="there are no pairs"):
        verify(tiny, pairs=[])


def cli(*arguments: str, blocked: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process without a module; the other ones are empty, so that they are quickly imported."""
    there = dict.fromkeys(("torch", "transformers", "scipy"), "types.ModuleType('empty')") | {blocked: "None"}
    block = "".join(f"sys.modules[{name!r}] = {module}; " for name, module in there.items())
    code = f"import sys, types; {block}from mlx_rerank.cli import main; main({list(arguments)!r})"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)


def test_the_command_line(damaged: Callable[..., Path], mini_directory: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("what is a panda?\tA bear.\nwhat is a panda?\tIt rains.\n")
    options = ["--pairs", str(pairs), "--device", "cpu"]
    done = run_here("verify", "mini", *options, "--dtype", "float32", "--json")
    assert json.loads(done.stdout)["fidelity"]["pairs"] == 2
    target = damaged("layers.4.up_proj.weight", lambda weight: weight * 0)
    done = run_here("verify", str(target), "--against", str(mini_directory), "--pairs", str(pairs), code=1)
    assert "hidden states drift from layers.4 on" in done.stdout


def test_converting_with_verification(tiny: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    done = run_here("convert", "--hf-path", str(tiny), "--mlx-path", str(target), "--verify")
    assert json.loads((target / "verification.json").read_text())["reference"].endswith("weights of tiny")
    assert "passed" in done.stdout


@pytest.mark.parametrize("blocked", ["torch", "scipy"])
def test_without_the_extra_nothing_is_begun(tiny: Path, tmp_path: Path, blocked: str) -> None:
    done = cli("convert", "--hf-path", str(tiny), "--mlx-path", str(tmp_path / "target"), "--verify", blocked=blocked)
    assert done.returncode == 1
    assert f"this needs {blocked}, which is not installed: pip install 'mlx-rerank[reference]'" in done.stderr
    assert not (tmp_path / "target").exists()
    alone = cli("verify", "mini", blocked=blocked)
    assert (alone.returncode, alone.stdout) == (1, "")
    assert alone.stderr.startswith(f"mlx-rerank: this needs {blocked}")
