"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Option

Model = Annotated[str, Option("--model", "-m", help="mini, a hub id, or a directory.")]
Dtype = Annotated[str | None, Option(help="float16, bfloat16 or float32; float16 on a GPU, float32 on a CPU.")]
Device = Annotated[str | None, Option(help="gpu or cpu; MLX's default.")]
MaxLength = Annotated[int | None, Option(help="Most tokens of a pair; 512, or what model and tokenizer allow.")]
Revision = Annotated[str | None, Option(help="Branch, tag or commit of a hub model.")]
AsJson = Annotated[bool, Option("--json", help="JSON lines even on a terminal.")]
Raw = Annotated[bool, Option("--raw", help="Logits instead of scores in 0..1.")]
Reference = Annotated[bool, Option("--reference", help="Score with PyTorch instead of MLX (extra: reference).")]
Deterministic = Annotated[bool, Option("--deterministic", help="Same bits whatever is scored beside; slower.")]
LongDocuments = Annotated[
    Literal["truncate", "windows", "error"],
    Option("--long-documents", help="Leave the end of a long document unread, read all in windows, or refuse it."),
]
FirstStage = Annotated[
    str | None, Option("--first-stage", metavar="MODEL", help="A faster model that chooses what --model ranks.")
]
Keep = Annotated[int | None, Option(min=1, help="Documents that the first stage chooses; 20.")]
Threshold = Annotated[
    float | None, Option(metavar="SCORE", help="Leave out what scores less: in 0..1, a logit with --raw.")
]
Timeout = Annotated[float | None, Option(metavar="SECONDS", help="Give up when scoring takes longer than this.")]
Embeddings = Annotated[
    Literal["resident", "mapped"] | None, Option(help="Word embeddings in memory, or in their file; by size.")
]
CpuThreads = Annotated[
    int | None, Option("--cpu-threads", help="Cores of a CPU to use, on Linux; this process's share of them.")
]
Template = Annotated[
    str | None,
    Option(metavar="NAME", help="The prompt of a language model, where its files do not say: qwen3-reranker."),
]
Instruction = Annotated[str | None, Option(metavar="TEXT", help="What such a model is told to do.")]
Verbose = Annotated[bool, Option("--verbose", "-v", help="Then print time and memory to standard error.")]
Scores = Annotated[Path | None, Option("--score-cache", metavar="FILE", help="Keep scores there, and look them up.")]
Private = Annotated[bool, Option("--private", help="Create a repository that only you can see.")]
DryRun = Annotated[bool, Option("--dry-run", help="Show what would be uploaded, and send nothing.")]
