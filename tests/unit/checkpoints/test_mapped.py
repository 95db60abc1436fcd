"""Mapped embeddings: the same bits as those in memory, for every form of a table, and what is refused."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from checkpoints import TINY, random_tensors, write_checkpoint
from mlx.utils import tree_flatten
from safetensors.numpy import save_file

from mlx_rerank import Reranker
from mlx_rerank.checkpoints import mapped
from mlx_rerank.checkpoints.checkpoint import Checkpoint
from mlx_rerank.checkpoints.files import Identity
from mlx_rerank.checkpoints.mapped import MappedEmbeddings, choose_embeddings, table_bytes, weights_bytes
from mlx_rerank.checkpoints.packing import PACKINGS, Quantization
from mlx_rerank.convert import convert
from mlx_rerank.dtypes import NAMES, audit, parse_dtype
from mlx_rerank.errors import ChangedCheckpointError, CheckpointError, InputError, WeightsError

PAIRS = [("panda", "the bear"), ("what is panda", ""), ("熊", "a bear is the panda")]
IDS = np.array([[0, 5, 2, 2, 119, 7, 2], [0, 9, 2, 2, 5, 2, 1]])
MASK = mx.array([[True] * 7, [True] * 6 + [False]])
PACKED = [
    Quantization(sizes[0], width, mode) for mode, (sizes, widths) in PACKINGS.items() for width in widths
]  # fmt: skip


def tensors(directory: Path) -> dict[str, mx.array]:
    loaded = mx.load(str(directory / "model.safetensors"))
    assert isinstance(loaded, dict)
    return loaded


def assert_same_bits(directory: Path, dtype: mx.Dtype, *, keep_quantized: bool = False) -> None:
    """Compare logits of a batch with the table in memory and in its file, whose words must keep the dtype."""
    checkpoint = Checkpoint.open(directory)
    whole = checkpoint.load(dtype, keep_quantized=keep_quantized)
    without = checkpoint.load(dtype, keep_quantized=keep_quantized, words=False)
    names, rest = (dict(tree_flatten(model.parameters())).keys() for model in (whole, without))
    assert names - rest == names & checkpoint.table_names != set()
    words = MappedEmbeddings.open(checkpoint, dtype)(IDS)
    assert (words.shape, words.dtype) == ((2, 7, 64), dtype)
    ids = mx.array(IDS)
    np.testing.assert_array_equal(np.array(whole(ids, MASK)), np.array(without(ids, MASK, words=words)))
    assert audit(without, dtype, ids, MASK, words=words) == []


def write_shards(source: Path, directory: Path) -> Path:
    shutil.copytree(source, directory)
    (directory / "model.safetensors").unlink()
    names = sorted(held := tensors(source))
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, part in shards.items():
        mx.save_safetensors(str(directory / shard), {name: held[name] for name in part})
    weight_map = {name: shard for shard, part in shards.items() for name in part}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return directory


@pytest.mark.parametrize("dtype", NAMES)
@pytest.mark.parametrize("stored", NAMES)
def test_the_same_bits_in_every_dtype(tiny: Path, tmp_path: Path, stored: str, dtype: str) -> None:
    source = shutil.copytree(tiny, tmp_path / "source")
    cast = {name: value.astype(parse_dtype(stored)) for name, value in tensors(tiny).items()}
    mx.save_safetensors(str(source / "model.safetensors"), cast)
    assert_same_bits(source, parse_dtype(dtype))
    assert_same_bits(write_shards(source, tmp_path / "shards"), parse_dtype(dtype))
    target = convert(tiny, tmp_path / "target", dtype=stored)
    assert_same_bits(target, parse_dtype(dtype))
    assert_same_bits(write_shards(target, tmp_path / "other shards"), parse_dtype(dtype))


@pytest.mark.numeric
@pytest.mark.parametrize("packing", PACKED, ids=lambda p: f"{p.mode}-{p.bits}")
def test_the_same_bits_in_every_packing(tiny: Path, tmp_path: Path, packing: Quantization) -> None:
    target = convert(tiny, tmp_path / "target", dtype="bfloat16", layers=Quantization(32, 8, "affine"),
                     embeddings=packing)  # fmt: skip
    for dtype in NAMES:
        for keep_quantized in (True, False):
            assert_same_bits(target, parse_dtype(dtype), keep_quantized=keep_quantized)


@pytest.mark.numeric
def test_a_reranker_scores_the_same(tiny: Path) -> None:
    for model, dtype in ((tiny, "float16"), (tiny, "float32"), ("mini", "float32")):
        resident, from_file = (
            Reranker(model, dtype=dtype, device="cpu", embeddings=where, deterministic=True)
            for where in ("resident", "mapped")
        )
        assert (resident.embeddings, from_file.embeddings) == ("resident", "mapped")
        np.testing.assert_array_equal(resident.score(PAIRS), from_file.score(PAIRS))


@pytest.mark.numeric
def test_the_file_may_be_deleted_or_replaced(tiny: Path, tmp_path: Path) -> None:
    source = shutil.copytree(tiny, tmp_path / "source")
    reranker = Reranker(source, embeddings="mapped", deterministic=True)
    expected = Reranker(tiny, embeddings="resident", deterministic=True).score(PAIRS)
    other = random_tensors(TINY, seed=1)
    (source / "model.safetensors").unlink()
    save_file(other, source / "model.safetensors")
    np.testing.assert_array_equal(reranker.score(PAIRS), expected)
    assert (Reranker(source).score(PAIRS) != expected).all()


@pytest.mark.parametrize("by", [lambda path: path.write_bytes(path.read_bytes()), lambda path: os.truncate(path, 999)])
def test_the_file_must_not_be_overwritten(tiny: Path, tmp_path: Path, by: Callable[[Path], object]) -> None:
    source = shutil.copytree(tiny, tmp_path / "source")
    reranker = Reranker(source, embeddings="mapped")
    reranker.score(PAIRS)
    by(source / "model.safetensors")
    with pytest.raises(ChangedCheckpointError, match="was overwritten while it was in use: load the model again"):
        reranker.score(PAIRS)


def test_large_tables_are_mapped_unless_told_otherwise(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Reranker(tiny).embeddings == "resident"
    monkeypatch.setattr(mapped, "MAPPED_ABOVE", 120 * 64 * 4)
    assert Reranker(tiny, dtype="float32").embeddings == "resident"
    monkeypatch.setattr(mapped, "MAPPED_ABOVE", 120 * 64 * 4 - 1)
    assert Reranker(tiny, dtype="float32").embeddings == "mapped"
    assert Reranker(tiny, dtype="float16").embeddings == "resident"
    assert Reranker(tiny, dtype="float32", embeddings="resident").embeddings == "resident"
    with pytest.raises(InputError, match="embeddings 'disk' is not one of resident, mapped"):
        Reranker(tiny, embeddings="disk")


def test_a_large_table_has_more_than_64_megabytes(tiny: Path) -> None:
    checkpoint = Checkpoint.open(tiny)
    for rows, expected in ((2**18, "resident"), (2**18 + 1, "mapped")):  # of 256 bytes
        other = replace(checkpoint, shape=replace(checkpoint.shape, vocab_size=rows))
        assert choose_embeddings(other, mx.float32, keep_quantized=False, wanted=None) == expected


@pytest.mark.parametrize("packing", [None, *PACKED], ids=lambda p: p and f"{p.mode}-{p.bits}")
def test_the_size_of_a_table(tiny: Path, tmp_path: Path, packing: Quantization | None) -> None:
    checkpoint = Checkpoint.open(convert(tiny, tmp_path / "target", embeddings=packing))
    for dtype, keep_quantized in product((mx.float16, mx.float32), (True, False)):
        model = checkpoint.load(dtype, keep_quantized=keep_quantized)
        held = sum(
            value.nbytes
            for name, value in dict(tree_flatten(model.parameters())).items()
            if name in checkpoint.table_names
        )
        assert table_bytes(checkpoint, dtype, keep_quantized=keep_quantized) == held
        whole = sum(value.nbytes for value in dict(tree_flatten(model.parameters())).values())
        assert weights_bytes(checkpoint, dtype, keep_quantized) == {"resident": whole, "mapped": whole - held}


def test_a_pytorch_file_cannot_be_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    directory = write_checkpoint(tmp_path)
    (directory / "model.safetensors").unlink()
    state = {name: torch.from_numpy(value) for name, value in random_tensors(TINY).items()}
    torch.save(state, directory / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"has no safetensors, and a pytorch_model\.bin cannot be mapped: write"):
        Reranker(directory, embeddings="mapped")
    monkeypatch.setattr(mapped, "MAPPED_ABOVE", 0)
    assert Reranker(directory).embeddings == "resident"


NAME = "embeddings.word_embeddings."


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": mx.zeros((120, 64), mx.int32)}, r"embeddings\.weight is .*int32; only float16"),
        ({"weight": mx.zeros((120, 64), mx.uint8)}, r"word embeddings are .*uint8, not .*float16"),
        ({"weight": mx.zeros((120, 64), mx.int64)}, r"embeddings\.weight is .*int64; only float16"),
        ({"weight": mx.zeros((119, 64))}, r"weight has shape \[119, 64\]; config.json asks for 120 rows"),
        ({"weight": mx.zeros((120,))}, r"weight has shape \[120\]; config.json asks for 120 rows"),
        ({"weight": mx.zeros((120, 63))}, r"are 63 wide; config.json asks for 64"),
        ({"weight": None}, r"has no word embeddings"),
        ({"weight": mx.zeros((120, 0))}, r"are 0 wide; config.json asks for 64"),
        ({"scales": mx.zeros((120, 2))}, r"no 'quantization' entry"),
    ],
)
def test_tables_that_do_not_fit(tiny: Path, tmp_path: Path, changes: dict[str, mx.array | None], message: str) -> None:
    target = convert(tiny, tmp_path / "target")
    checkpoint = Checkpoint.open(target)  # before the file is changed: it would be refused as a whole
    changed = tensors(target) | {NAME + kind: value for kind, value in changes.items()}
    mx.save_safetensors(
        str(target / "model.safetensors"), {name: value for name, value in changed.items() if value is not None}
    )
    with pytest.raises(CheckpointError, match=message):
        MappedEmbeddings.open(replace(checkpoint, identity=Identity.of(target)), mx.float16)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("scales", lambda value: value[:100], r"scales has shape \[100, 2\]; config.json asks for 120 rows"),
        ("scales", lambda value: value[:, :1], "not packed as config.json says"),
        ("weight", lambda value: value.astype(mx.float32), r"are .*float32, not .*uint32"),
        ("weight", lambda value: value[:, :4], "not packed as config.json says"),
    ],
)
def test_packed_tables_that_do_not_fit(tiny: Path, tmp_path: Path, kind: str, change, message: str) -> None:
    target = convert(tiny, tmp_path / "target", embeddings=Quantization(32, 4, "affine"))
    checkpoint, changed = Checkpoint.open(target), tensors(target)
    mx.save_safetensors(str(target / "model.safetensors"), {**changed, NAME + kind: change(changed[NAME + kind])})
    with pytest.raises(WeightsError, match=message):
        MappedEmbeddings.open(replace(checkpoint, identity=Identity.of(target)), mx.float16)


def test_the_rest_of_a_checkpoint_is_checked_as_strictly(tiny: Path, tmp_path: Path) -> None:
    target = convert(tiny, tmp_path / "target")
    mx.save_safetensors(str(target / "model.safetensors"), tensors(target) | {NAME + "extra": mx.zeros((3,))})
    with pytest.raises(WeightsError, match=r"unexpected: embeddings\.word_embeddings\.extra"):
        Reranker(target, embeddings="mapped")


@pytest.mark.parametrize("keep", [4, 100, 0.5, 0.999])
def test_a_file_that_was_cut_short(tmp_path: Path, keep: float) -> None:
    path = write_checkpoint(tmp_path) / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data) if isinstance(keep, float) else keep)])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        MappedEmbeddings.open(Checkpoint.open(tmp_path), mx.float16)


def test_a_table_at_an_odd_place_in_its_file(tiny: Path, tmp_path: Path) -> None:
    source = shutil.copytree(tiny, tmp_path / "source")
    data = (source / "model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    padded = (length + 3).to_bytes(8, "little") + data[8 : 8 + length] + b"   " + data[8 + length :]
    (source / "model.safetensors").write_bytes(padded)
    found, expected = (MappedEmbeddings.open(Checkpoint.open(path), mx.float32)(IDS) for path in (source, tiny))
    assert mx.array_equal(found, expected)


def test_values_beyond_float16_never_reach_a_caller(tmp_path: Path) -> None:
    held = random_tensors(TINY)
    held["roberta.embeddings.word_embeddings.weight"][4] = (
        1e6  # "▁panda"; the table is not read when the model is loaded
    )
    reranker = Reranker(write_checkpoint(tmp_path, tensors=held), dtype="float16", embeddings="mapped")
    assert np.isfinite(reranker.score([("what", "bear")])).all()
    with pytest.raises(ArithmeticError, match="try dtype='float32'"):
        reranker.score([("panda", "bear")])
