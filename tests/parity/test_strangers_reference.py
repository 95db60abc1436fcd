"""What the reference is given of a stranger's files: no name of code, and no number that is too large."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from checkpoints import TINY, tiny_tokenizer, write_checkpoint

from mlx_rerank.convert import convert
from mlx_rerank.errors import CheckpointError
from mlx_rerank.proof.reference import ReferenceReranker

KERNEL = "someone/kernel"
NAMED = {
    "attn_implementation": KERNEL, "_attn_implementation": KERNEL, "_attn_implementation_internal": KERNEL,
    "experts_implementation": KERNEL, "_experts_implementation": KERNEL, "kernel_config": {"a": KERNEL},
    "auto_map": {"AutoConfig": f"{KERNEL}--x.X", "AutoModelForSequenceClassification": f"{KERNEL}--x.X"},
    "return_dict": True,
}  # fmt: skip


@pytest.mark.parametrize("converted", [False, True])
def test_no_code_that_a_config_names_is_looked_for(
    tmp_path: Path, converted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = write_checkpoint(tmp_path / "source", TINY | NAMED)
    if converted:
        directory = convert(directory, tmp_path / "target", dtype="float32")
    settings = json.loads((tmp_path / "source" / "tokenizer_config.json").read_text())
    (directory / "tokenizer_config.json").write_text(
        json.dumps(settings | {"auto_map": {"AutoTokenizer": [f"{KERNEL}--x.X", None]}})
    )
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("the terminal was asked"))
    reference = ReferenceReranker(directory)
    assert reference.model.config._attn_implementation == "eager"
    assert KERNEL not in str(vars(reference.model.config))
    assert 0 <= reference.score([("panda", "the bear")])[0] <= 1


def test_transformers_is_told_to_run_no_code(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (transformers.AutoTokenizer, transformers.XLMRobertaForSequenceClassification):
        load, told = kind.from_pretrained, {}
        monkeypatch.setattr(
            kind, "from_pretrained", lambda *a, _load=load, _told=told, **k: (_told.update(k), _load(*a, **k))[1]
        )
        ReferenceReranker(tiny)
        assert (told["trust_remote_code"], told["local_files_only"]) == (False, True)


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        ({"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 9_000_000], "trim_offsets": True,
          "add_prefix_space": False}, "joins the texts .*9000000"),
        ({"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}],
          "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 7}}],
          "special_tokens": {}}, "joins the texts .*segments .*7"),
    ],
)  # fmt: skip
def test_what_a_post_processor_adds_is_checked(tmp_path: Path, processor: dict[str, Any], message: str) -> None:
    directory = write_checkpoint(tmp_path / "model")
    tokenizer = json.loads(tiny_tokenizer().to_str()) | {"post_processor": processor}
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises((CheckpointError, ValueError), match=message):
        ReferenceReranker(directory).score([("panda", "the bear")])


@pytest.mark.parametrize("changes", [{"return_dict": False}, {"dtype": "nonsense"}])
def test_whatever_fails_in_pytorch_is_an_error_of_the_checkpoint(tmp_path: Path, changes: dict[str, Any]) -> None:
    directory = write_checkpoint(tmp_path / "model", TINY | changes)
    with pytest.raises(CheckpointError, match="cannot be run by PyTorch"):
        ReferenceReranker(directory).score([("panda", "the bear")])
