"""Raw rows to a tokenised split: the step itself, on conversations made up in place."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from benchmarks.memory import MB, Measured, in_own_process
from benchmarks.rows import Row, at_least, no_growth, reported
from forgetting_core.config import DataConfig, SplitConfig
from forgetting_core.data.split import split_data
from forgetting_core.progress import Progress

ROWS = 50_000
WORDS, VOCABULARY = 20_000, 8_000
ROWS_AT_ONCE = 1024
SPEED = 5
"""MB of text per second."""


def measure(quick: bool) -> list[Row]:
    """The rows of the input, which are as many when it is to be `quick`."""
    with TemporaryDirectory() as folder:
        return list(_rows(Path(folder), ROWS))


def _rows(root: Path, rows: int) -> Iterator[Row]:
    model = write_tokenizer(root / "model")
    few, _ = _split(root, model, rows // 4)
    many, text = _split(root, model, rows)
    seconds, busy = many.result
    note = f"{text / MB:.0f} MB in {seconds:.1f} s"
    yield at_least(f"{rows} rows to tokens", text / MB / seconds, "MB/s of text", SPEED, note)
    yield reported("cores busy meanwhile", busy / seconds, "", f"of {psutil.cpu_count()}")
    alone: float = in_own_process(encode, root / f"{rows}.jsonl", model).result
    yield reported(
        "the same, by the tokenizer's library alone", text / MB / alone, "MB/s of text", "of one string each"
    )
    note = f"{few.peak / MB:.0f} MB with {rows // 4} rows, {many.peak / MB:.0f} MB with {rows}"
    yield no_growth("memory of four times the rows", many.peak / few.peak, note)


def _split(root: Path, model: Path, rows: int) -> tuple[Measured, int]:
    """The step in a process of its own, and the bytes of text that it reads."""
    data = root / f"{rows}.jsonl"
    text = write_conversations(data, rows)
    return in_own_process(split, data, model, root / f"split-{rows}"), text


def split(data: Path, model: Path, out: Path) -> tuple[float, float]:
    """Seconds and processor seconds of the step."""
    started, process = time.perf_counter(), time.process_time()
    config = SplitConfig(reference_rows=0, validation_rows=0)
    split_data(
        DataConfig(template="tulu"), config, train=[data], reference=None, model=model, out=out, progress=Progress()
    )
    return time.perf_counter() - started, time.process_time() - process


def encode(data: Path, model: Path) -> float:
    """Seconds of the tokenizer's own call, for rows that are in memory already."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    with data.open(encoding="utf-8") as file:
        texts = [" ".join(json.loads(line).values()) for line in file]
    started = time.perf_counter()
    for first in range(0, len(texts), ROWS_AT_ONCE):
        tokenizer.encode_batch(texts[first : first + ROWS_AT_ONCE], add_special_tokens=False)
    return time.perf_counter() - started


def write_conversations(path: Path, rows: int) -> int:
    """Write `rows` questions with answers of 20 to 400 words, as frequent as words of a language; their bytes."""
    generator = np.random.Generator(np.random.PCG64(rows))
    words = _words()
    text = 0
    with path.open("w", encoding="utf-8") as file:
        for length in generator.integers(20, 401, rows):
            chosen = [words[place] for place in generator.zipf(1.3, length + 20) % WORDS]
            row = {"prompt": " ".join(chosen[:20]), "completion": " ".join(chosen[20:])}
            text += sum(map(len, row.values()))
            file.write(json.dumps(row) + "\n")
    return text


def write_tokenizer(folder: Path) -> Path:
    """A byte-level BPE trained on such words, and the config of a model that can embed its tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([" ".join(_words())], trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>").save_pretrained(folder)
    LlamaConfig(vocab_size=VOCABULARY).save_pretrained(folder)
    return folder


def _words() -> list[str]:
    """Distinct-looking words of 2 to 11 letters, the same every time."""
    generator = np.random.Generator(np.random.PCG64(1))
    letters = generator.integers(ord("a"), ord("z") + 1, (WORDS, 11), dtype=np.uint8)
    return [bytes(row[:size]).decode() for row, size in zip(letters, generator.integers(2, 12, WORDS), strict=True)]
