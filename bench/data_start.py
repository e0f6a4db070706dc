"""What a source of prompts costs a node before its first step, and then a rank at each step.

    python bench/data_start.py [--rows 50000 1000000] [--words 130] [--formats jsonl parquet] [--ranks 2] [--out FILE]

Rows of so many words are made in a temporary folder, with a byte-level BPE of 32,000 tokens trained there. Then
so many processes start together, as the ranks of a node: with every row read by each (`listed`), for the first time
with prepared prompts (`first`), and again (`again`). Seconds from the call to a mixture that can be drawn from, of the
slowest process; GiB that the node's processes gained (anonymous memory, which a memory map is not); milliseconds a rank
to draw 512 prompts. --made-up prepares rows of 200 random token ids, without a tokenizer, and measures `again`.
"""

import argparse
import json
import multiprocessing
import random
import tempfile
import time
from functools import partial
from pathlib import Path

from gcpo_mcore.data.files import Row
from gcpo_mcore.data.prepared import Prepared
from gcpo_mcore.data.preparing import Made, prepare
from gcpo_mcore.data.prompts import Prompts
from gcpo_mcore.monitor.tables import print_results
from gcpo_mcore.samples import Prompt

WORDS = 20_000
DRAWN = 512


def texts(rows: int, length: int):
    """Texts of so many words, which are made up."""
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlucmfwypvbgkjqxz", k=rng.randint(2, 9))) for _ in range(WORDS)]
    for _ in range(rows):
        yield " ".join(rng.choices(words, k=length))


def write_tokenizer(folder: Path) -> None:
    """A byte-level BPE of those words, with a chat template."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(texts(2_000, 200), vocab_size=32_000, special_tokens=["<eos>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token="<eos>")
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>\n{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}<assistant>\n{% endif %}"
    )
    tokenizer.save_pretrained(folder)


def write_rows(file: Path, rows: int, length: int) -> None:
    """The rows as jsonl or parquet, by the file's ending."""
    made = ({"prompt": text, "answer": str(i), "level": i % 7} for i, text in enumerate(texts(rows, length)))
    if file.suffix == ".jsonl":
        with open(file, "w") as opened:
            opened.writelines(json.dumps(row) + "\n" for row in made)
        return
    import itertools

    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("prompt", pa.string()), ("answer", pa.string()), ("level", pa.int64())])
    with pq.ParquetWriter(file, schema) as writer:
        while some := list(itertools.islice(made, 50_000)):
            writer.write_table(pa.Table.from_pylist(some, schema))


def anonymous_bytes() -> int:
    """Of this process's memory what is no page of a file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


def prepared_made_up(folder: Path, rows: int) -> Prepared:
    """So many prompts of 200 random token ids and 1,000 letters, by all processes that ask for them."""
    rng = random.Random(0)
    ids = [[rng.randrange(32_000) for _ in range(200)] for _ in range(100)]
    text = "abcde" * 200

    def row(number: int) -> Row:
        return Row(number, "", {"prompt": text, "answer": str(number)})

    def make(row: Row) -> Made:
        n = row.number
        prompt = Prompt(f"train:{n}", "train", text, ids[n % len(ids)], str(n), columns=row.values)
        return Made(prompt, n, None)

    prepare(folder / "made-up", lambda: (partial(row, number) for number in range(rows)), make, lambda: "plain")
    return Prepared(folder / "made-up", "train", None)


def start(file: str, folder: str, above_mib: float, made_up: int, barrier, results) -> None:
    """One rank: loads the source, begins a mixture, draws from it."""
    from transformers import AutoTokenizer

    from gcpo_mcore.data.curriculum import kept_order
    from gcpo_mcore.data.cursor import Mixture
    from gcpo_mcore.data.dataset import load_train
    from gcpo_mcore.run.load import load_config

    config = load_config([
        "data=files", f"data.train.train.path={file}", "data.max_prompt_tokens=4096", f"data.cache.folder={folder}",
        f"data.cache.above_mib={above_mib}",
    ]).data  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(folder)
    import pyarrow  # noqa: F401  # its own memory is no part of the prompts'

    barrier.wait()
    before, started = anonymous_bytes(), time.monotonic()
    if made_up:
        prompts: Prompts = prepared_made_up(Path(folder), made_up)
    else:
        prompts = load_train(config, tokenizer)["train"].prompts
    mixture = Mixture({"train": prompts}, {"train": 1.0}, 0, kept_order(config.curriculum))
    ready, cpu = time.monotonic() - started, time.process_time()
    drawn = mixture.take(DRAWN)
    draw_ms = (time.process_time() - cpu) * 1e3
    gained = anonymous_bytes() - before
    tokens = sum(len(p.token_ids) for p in drawn) / len(drawn)
    results.put((ready, gained, draw_ms, tokens))


def measure(file: Path, folder: Path, above_mib: float, ranks: int, made_up: int = 0) -> dict[str, float]:
    """All ranks of the node at once."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(ranks), context.Queue()
    processes = [
        context.Process(target=start, args=(str(file), str(folder), above_mib, made_up, barrier, results))
        for _ in range(ranks)
    ]
    for process in processes:
        process.start()
    told = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return {
        "ready_s": round(max(t[0] for t in told), 2),
        "node_gib": round(sum(t[1] for t in told) / 2**30, 3),
        "draw_512_ms": round(max(t[2] for t in told), 1),
        "tokens_a_prompt": round(told[0][3]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", type=int, default=[50_000, 1_000_000])
    parser.add_argument("--words", type=int, default=130, help="of a prompt (default: %(default)s)")
    parser.add_argument("--formats", nargs="+", default=["jsonl", "parquet"])
    parser.add_argument("--made-up", nargs="*", type=int, default=[], help="rows without a tokenizer")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--listed-up-to", type=int, default=50_000, help="rows that are also read by every rank")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found = []
    for rows in args.rows:
        for ending in args.formats:
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place)
                write_tokenizer(folder)
                file = folder / f"rows.{ending}"
                write_rows(file, rows, args.words)
                ways = [("first", 0.0), ("again", 0.0)]
                ways = [("listed", 1e9), *ways] if rows <= args.listed_up_to else ways
                for way, above_mib in ways:
                    told = measure(file, folder, above_mib, args.ranks)
                    found.append({"rows": rows, "format": ending, "way": way, "ranks": args.ranks, **told})
                    print(json.dumps(found[-1]), flush=True)
    for rows in args.made_up:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            write_tokenizer(folder)
            for way in ("first, made up", "again, made up"):
                told = measure(folder / "none.jsonl", folder, 0.0, args.ranks, rows)
                found.append({"rows": rows, "format": "-", "way": way, "ranks": args.ranks, **told})
                print(json.dumps(found[-1]), flush=True)
    print_results("a source before the first step", list(found[0]), found)
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
