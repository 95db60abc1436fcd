"""The audit of checkpoints: what it covers, that it reads no weight, and how the command shows it."""

import json
import struct
from pathlib import Path

import mlx.core as mx
import pytest
from checkpoints import FAMILY, TINY, shape_of, tiny_tokenizer, write_checkpoint
from mlx.utils import tree_flatten

from mlx_rerank import cli
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.mapped import MappedEmbeddings
from mlx_rerank.checkpoints.packing import Quantization
from mlx_rerank.convert import convert
from mlx_rerank.dtypes import NAMES
from mlx_rerank.errors import CheckpointNotFoundError, InputError, WeightsError
from mlx_rerank.models.encoders import post_norm
from mlx_rerank.proof.audit import audit_checkpoint


@pytest.fixture(scope="module")
def packed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(tiny, tmp_path_factory.mktemp("packed") / "model", layers=Quantization(32, 8, "affine"))


@pytest.mark.parametrize("source", ["tiny", "packed", "mini"])
def test_every_form_of_a_checkpoint_stays_in_every_dtype(source: str, request: pytest.FixtureRequest) -> None:
    model = source if source == "mini" else str(request.getfixturevalue(source))
    cells = audit_checkpoint(model)
    forms = [False] if source == "tiny" else [True, False]
    assert [(cell.dtype, cell.packed, cell.mapped, cell.padded) for cell in cells] == [
        (dtype, packed, *batch)
        for dtype in NAMES
        for packed in forms
        for batch in ((False, True), (False, False), (True, True))
    ]
    assert all(cell.report.violations == () for cell in cells)
    for padded, equal, mapped in zip(cells[::3], cells[1::3], cells[2::3], strict=True):
        assert padded.report.operations > equal.report.operations > 60  # the mask's
        assert padded.report.operations > mapped.report.operations > 60  # the look-up's


def test_a_dtype_can_be_chosen(tiny: Path) -> None:
    assert {cell.dtype for cell in audit_checkpoint(str(tiny), dtype="bfloat16")} == {"bfloat16"}
    with pytest.raises(InputError, match="'half' is not one of"):
        audit_checkpoint(str(tiny), dtype="half")
    with pytest.raises(CheckpointNotFoundError):
        audit_checkpoint(str(tiny / "nothing"))


def sparse_checkpoint(directory: Path, config: dict) -> Path:
    """Write a checkpoint whose weights are a hole in the file: they take no room until they are read."""
    write_checkpoint(directory)
    (directory / "config.json").write_text(json.dumps(config))
    header, end = {}, 0
    for name, shape in FAMILY.source_shapes(shape_of(config)).items():
        start, end = end, end + 4 * shape[0] * (shape[1] if len(shape) == 2 else 1)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (directory / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return directory


def test_no_weight_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = sparse_checkpoint(tmp_path / "sparse", TINY | {"vocab_size": 50_000})  # a table of 12.8 MB
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"<{i}>" for i in range(25_000)])
    tokenizer.save(str(source / "tokenizer.json"))
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    assert len(audit_checkpoint(str(source))) == 9
    assert mx.get_peak_memory() - before < 1e5
    load = Checkpoint.load
    monkeypatch.setattr(Checkpoint, "load", lambda *args, **options: load(*args, **options | {"evaluate": True}))
    audit_checkpoint(str(source))
    assert mx.get_peak_memory() - before > 12e6  # so that the test sees a weight that is read


@pytest.mark.parametrize("keep_quantized", [True, False])
def test_unread_weights_have_the_dtypes_and_shapes_of_read_ones(packed: Path, keep_quantized: bool) -> None:
    checkpoint = Checkpoint.open(packed)
    read, unread = (
        dict(tree_flatten(checkpoint.load(mx.float16, keep_quantized=keep_quantized, evaluate=evaluate)))
        for evaluate in (True, False)
    )
    assert {name: (value.dtype, value.shape) for name, value in unread.items()} == {
        name: (value.dtype, value.shape) for name, value in read.items()
    }
    assert all(mx.array_equal(unread[name], value) for name, value in read.items())


def test_mapped_words_of_another_dtype_are_named(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = MappedEmbeddings.__call__
    monkeypatch.setattr(MappedEmbeddings, "__call__", lambda *args: original(*args).astype(mx.float32))
    resident, equal, mapped = audit_checkpoint(str(tiny), dtype="float16")
    assert resident.report.violations == equal.report.violations == ()
    assert [violation.reason for violation in mapped.report.violations] == ["argument 2 is float32"]


def test_names_and_shapes_are_checked_without_reading(tiny: Path, tmp_path: Path) -> None:
    source = sparse_checkpoint(tmp_path / "sparse", TINY)
    (source / "config.json").write_text(json.dumps(TINY | {"intermediate_size": 96}))
    with pytest.raises(WeightsError, match=r"has shape \[128, 64\]; config.json asks for \[96, 64\]"):
        audit_checkpoint(str(source))


def run(capfdbinary: pytest.CaptureFixture[bytes], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as left:
        cli.main(["audit", *arguments])
    return int(left.value.code or 0), capfdbinary.readouterr().out.decode()


def test_the_command_reports_a_clean_model(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    code, shown = run(capfdbinary, "mini", "--dtype", "float16")
    lines = shown.splitlines()
    assert code == 0
    assert [(line.split()[1], line[20:43].strip()) for line in lines[:6]] == [
        (form, batch)
        for form in ("packed", "unpacked")
        for batch in ("padded        resident", "equal lengths resident", "padded        mapped")
    ]
    assert all(line.endswith("operations, 0 violations") for line in lines[:6])
    assert [line.split(":")[0] for line in lines[7:]] == [
        "  attention (6 calls)",
        "  gelu (6 calls)",
        "  layer_norm (13 calls)",
    ]


def test_the_command_names_causes(
    tiny: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = post_norm.SelfAttention.__call__
    monkeypatch.setattr(
        post_norm.SelfAttention, "__call__", lambda own, x, *args, **kw: original(own, x * mx.array(3.0), *args, **kw)
    )
    code, shown = run(capfdbinary, str(tiny), "--dtype", "float16")
    assert code == 1
    cause = "\n  layers.0.attention: constant 3 is float32 in Multiply(float16 [2, 16, 64], float32 [] con"
    assert shown.count(cause) == 3
    code, shown = run(capfdbinary, str(tiny), "--json")
    cells = [json.loads(line) for line in shown.splitlines()]
    assert code == 1
    assert [len(cell["violations"]) for cell in cells] == [1, 1, 1, 1, 1, 1, 0, 0, 0]
    assert [cell["mapped"] for cell in cells] == [False, False, True] * 3
    assert (cells[0]["dtype"], cells[0]["packed"], cells[0]["padded"]) == ("float16", False, True)
    assert cells[0]["violations"][0]["operands"][1] == {"dtype": "float32", "shape": [], "name": "constant 3"}
    assert cells[0]["float32_inside"]["layer_norm"] == 5
