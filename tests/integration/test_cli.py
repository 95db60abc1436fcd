"""The command line as a person uses it: real processes, pipes and a terminal, where these are what it is about."""

import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import bounds
import pytest
from commands import COMMAND, run, run_here

from mlx_rerank import Reranker

PASSAGES = Path(__file__).parents[2] / "examples" / "passages.jsonl"
QUERY = "How does a vaccine protect against disease?"


def rows(output: str) -> list[dict]:
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.one_kernel
@pytest.mark.numeric
def test_rank_writes_json_lines_into_a_pipe(mini: Reranker) -> None:
    found = rows(run("rank", QUERY, str(PASSAGES), "--top-n", "3").stdout)
    documents = rows(PASSAGES.read_text(encoding="utf-8"))
    expected = mini.rank(QUERY, documents, top_n=3)
    assert [row["id"] for row in found][:2] == ["en-vaccine", "es-vacunas"]
    assert [row["rank"] for row in found] == [1, 2, 3]
    for row, result in zip(found, expected, strict=True):
        document = documents[result.index]
        assert row == {
            "rank": row["rank"], "index": result.index, "score": bounds.near(result.score), "truncated_tokens": 0,
            "span": [0, len(document["text"])], "id": document["id"], "text": document["text"],
        }  # fmt: skip


def test_explain(mini: Reranker, tmp_path: Path) -> None:
    document = "Trains run on rails.\nPandas eat <bamboo>."
    expected = mini.explain("what do pandas eat?", document)
    [found] = rows(run_here("explain", "what do pandas eat?", stdin=document).stdout)
    assert found["logit"] == pytest.approx(expected.logit, abs=1e-4)
    strongest = max(found["document_highlights"], key=lambda highlight: highlight["weight"])
    assert document[strongest["start"] : strongest["end"]] == "Pandas"
    (tmp_path / "panda.txt").write_text(document)
    fragment = run_here("explain", "what do pandas eat?", str(tmp_path / "panda.txt"), "--html").stdout
    assert ("&lt;bamboo&gt;" in fragment, "<bamboo>" in fragment) == (True, False)


def test_rank_in_windows(mini: Reranker) -> None:
    document = {"text": "The train leaves at nine. " * 60 + "\n\nPandas eat bamboo.\n\n" + "It is late. " * 200}
    options = ["--long-documents", "windows", "--max-length", "128"]
    [found] = rows(run_here("rank", "what do pandas eat?", *options, stdin=json.dumps(document)).stdout)
    begin, end = found["span"]
    assert document["text"][begin:end].strip().startswith("Pandas eat bamboo.")
    assert found["truncated_tokens"] == 0
    assert "allows: shorten it" in run_here("rank", "q", "--long-documents", "error", stdin="a " * 999, code=1).stderr


def test_rank_reads_lines_from_standard_input() -> None:
    found = rows(run("rank", "熊猫吃什么？", stdin="今天下雨。\n大熊猫几乎只吃竹子。\n").stdout)
    assert [row["index"] for row in found] == [1, 0]


@pytest.mark.one_kernel
@pytest.mark.numeric
def test_scores_are_kept_between_commands(tmp_path: Path) -> None:
    options = ["--score-cache", str(tmp_path / "scores.db")]
    first = run("rank", QUERY, str(PASSAGES), *options).stdout
    assert (tmp_path / "scores.db").stat().st_size > 0
    with sqlite3.connect(tmp_path / "scores.db") as connection:
        before = connection.execute("SELECT count(*) FROM scores").fetchone()
    assert run_here("rank", QUERY, str(PASSAGES), *options).stdout == first
    pairs = "\n".join(json.dumps({"query": QUERY, "document": row["text"]}) for row in rows(first))
    scored = rows(run_here("score", "-", *options, stdin=pairs).stdout)
    assert [row["score"] for row in scored] == [row["score"] for row in rows(first)]
    with connection:
        assert connection.execute("SELECT count(*) FROM scores").fetchone() == before == (len(scored),)
    connection.close()
    assert "--score-cache is about MLX" in run_here("score", "-", "--reference", *options, stdin=pairs, code=1).stderr


def test_rank_of_files_and_options(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("It rains\ntoday.")
    (tmp_path / "b.txt").write_text("Pandas eat bamboo.\n" * 200)
    paths = [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    options = ["--raw", "--max-length", "32", "--dtype", "bfloat16", "--device", "cpu"]
    found = rows(run_here("rank", "what do pandas eat", *paths, *options).stdout)
    assert found[0]["id"] == paths[1]
    assert found[0]["truncated_tokens"] > 100


@pytest.mark.one_kernel
@pytest.mark.numeric
def test_the_reference_gives_the_same_ranking() -> None:
    reference = run_here("rank", QUERY, str(PASSAGES), "--reference", "-v")
    assert re.match("18 pairs in", reference.stderr)
    found = rows(reference.stdout)
    expected = rows(run_here("rank", QUERY, str(PASSAGES)).stdout)
    bounds.apart([row["score"] for row in expected], logit=1e-4)
    assert [row["index"] for row in found] == [row["index"] for row in expected]
    assert [row["score"] for row in found] == pytest.approx([row["score"] for row in expected], abs=1e-4)


@pytest.mark.one_kernel
@pytest.mark.numeric
def test_score(mini: Reranker) -> None:
    found = rows(run_here("score", "-", stdin="panda\tA bear.\npanda\tRain.\n").stdout)
    expected = mini.score([("panda", "A bear."), ("panda", "Rain.")])
    assert [row["score"] for row in found] == [bounds.near(score) for score in expected.tolist()]
    raw = rows(run_here("score", "-", "--raw", stdin='{"query": "panda", "document": "A bear."}').stdout)
    expected = mini.score([("panda", "A bear.")], raw_scores=True)
    assert raw[0]["score"] == bounds.near(float(expected[0]), raw=True)


def test_verbose_says_what_it_took() -> None:
    said = "2 pairs, 18 tokens in # s; MLX # MB active, # MB peak; process (# MB resident, )?# MB peak\n"
    said = said.replace("#", r"\d+\.\d+")
    results = [run("score", "-", "-v", *options, stdin="panda\tA bear.\npanda\tRain.\n")
               for options in (["--embeddings", "mapped"], ["--embeddings", "resident"])]  # fmt: skip
    assert all(re.fullmatch(said, result.stderr) for result in results)
    assert results[0].stdout == results[1].stdout
    held = [float(re.findall(r"MLX (\S+) MB", result.stderr)[0]) for result in results]
    assert held[1] - held[0] > 90  # the embedded model's table, in float32
    assert re.match("2 pairs, 1", run_here("rank", "panda", "--verbose", stdin="A bear.\nRain.\n").stderr)


def test_info_measures() -> None:
    assert json.loads(run("info", "--measure", "--json").stdout)["measured_bytes"]["process_peak"] > 40e6


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "message"),
    [
        (["rank", "q"], "", 1, "there are no documents"),
        (["rank", "q", "/no/such/file"], "", 1, "/no/such/file cannot be read"),
        (["rank", "q", "--model", "nothing"], "a\n", 1, "'nothing' is not a directory"),
        (["rank", "q", "--dtype", "int8"], "a\n", 1, "'int8' is not one of float16"),
        (["rank", "q", "--max-length", "9999"], "a\n", 1, "exceeds this model's limit of 512"),
        (["rank", "q", "--top-n", "0"], "a\n", 2, "--top-n"),
        (["rank"], "", 2, "Missing argument"),
        (["nonsense"], "", 2, "nonsense"),
        (
            ["rank", "q", "--timeout", "0.000001"],
            "a\n",
            1,
            "0 of 1 pairs were scored in 1e-06 s: allow more than timeout",
        ),
        (["score", "-", "--timeout", "0.000001"], "a\tb", 1, "0 of 1 pairs were scored in 1e-06 s"),
        (["rank", "q", "--timeout", "0"], "a\n", 1, "timeout must be a finite number of seconds above 0"),
        (["rank", "q", "--timeout", "9", "--reference"], "a\n", 1, "--timeout is about MLX"),
        (["score", "-"], "no tab", 1, "is not a pair"),
        (["score", "-"], "", 1, "- holds no pairs"),
        (["convert"], "", 2, "--hf-path"),
        (["convert", "--hf-path", "x", "--q-bits", "4"], "", 1, "only along with --quantize"),
        (["rank", "q", "--reference", "--device", "gpu"], "a\n", 1, "has no effect with --reference"),
        (["rank", "q", "--reference", "--embeddings", "mapped"], "a\n", 1, "--embeddings is about MLX"),
        (["rank", "q", "--embeddings", "disk"], "a\n", 2, "--embeddings"),
    ],
)
def test_errors_are_one_line_and_have_their_code(arguments: list[str], stdin: str, code: int, message: str) -> None:
    result = run_here(*arguments, stdin=stdin, code=code)
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert code == 2 or len(result.stderr.splitlines()) == 1


def test_version_and_help() -> None:
    assert run("--version").stdout.startswith("mlx-rerank ")
    assert "Exit codes" in run_here("--help").stdout
    assert "--top-n" in run_here("rank", "--help").stdout
    assert "Missing argument" in run("rank", code=2).stderr


def test_interrupting_leaves_quietly() -> None:
    lines = "a line of text that is to be scored, one of very many\n"
    many = "".join(f"{i} {lines * (1 + i % 9)}".replace("\n", " ") + "\n" for i in range(30000))
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen([*COMMAND, "rank", "query"], **pipes)
    assert process.stdin
    process.stdin.write(many.encode())
    process.stdin.close()
    process.stdin = None
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()  # had it not left, it would compute for hours
    assert (process.returncode, out, err) == (130, b"", b"")


def test_a_closed_pipe_is_no_error(tiny: Path) -> None:
    many = "".join(f"document {i}\n" for i in range(300))
    result = subprocess.run(
        f"{sys.executable} -m mlx_rerank rank query --model {tiny} | head -n 1",
        input=many, shell=True, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert len(result.stdout.splitlines()) == 1
    assert result.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_one_line(tiny: Path) -> None:
    with Path("/dev/full").open("w") as full:
        command = [*COMMAND, "rank", "query", "--model", str(tiny)]
        result = subprocess.run(command, input="a\n", stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines() == ["mlx-rerank: [Errno 28] No space left on device"]


def test_a_terminal_gets_a_table(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(
        '{"id": "good", "text": "Pandas eat [bold]bamboo[/] and\\nnothing\\u001b[31m else."}\n'
        + json.dumps({"id": "other", "text": "It rains today, and it will rain tomorrow. " * 300})
    )
    leader, follower = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"}
    command = [*COMMAND, "rank", "what do pandas eat", str(tmp_path / "in.jsonl")]
    process = subprocess.Popen(command, stdout=follower, env=environment)
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # how Linux says that the other end has gone
            part = b""
        if not part:
            break
        shown += part
    os.close(leader)
    assert process.wait(timeout=60) == 0
    text = shown.decode()
    lines = re.sub("\x1b[^m]*m", "", text).splitlines()
    assert re.match(r" *score +id +document +unread", lines[0])
    assert re.match(r" 1 +0\.\d{4} +█[█▏▎▍▌▋▊▉]* +good +Pandas eat", lines[1])
    assert re.match(r" 2 +0\.\d{4} .* other +It rains today.*… +\d{4}", lines[2])
    assert "[bold]bamboo[/] and nothing" in text  # shown as it is, on one line, with no escape of its own
    assert "\x1b[31m else" not in text
    assert "█" in text
    assert "\x1b[" in text  # colours
