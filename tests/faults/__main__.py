"""The fault matrix: real jobs, broken at a moment of choice; what they say, what is lost, and how they go on.

    python -m tests.faults [--only WORDS] [--parallel 2] [--write docs/reliability.md]

The last line counts. Exit code 1 if a row is not as it has to be. `--write` puts the table between two comments of the
page; a row that failed stands in it as such.
"""

import argparse
import re
import shutil
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from tests.faults.job import Job
from tests.faults.rows import Row, environment, rows
from tests.launching import launch
from tests.run.test_resume import assert_same, outcome

BLOCK = re.compile(r"(<!--faults-->\n).*?(<!---->)", re.DOTALL)


@dataclass(frozen=True)
class Found:
    """A row's outcome. `problem` is empty if it is as it has to be."""

    row: Row
    said: str
    steps_lost: int | None
    is_same: bool | None
    seconds: float
    problem: str = ""


class Matrix:
    """Runs rows, each in a folder of its own, and compares what becomes of them with runs that nobody broke."""

    def __init__(self, carry: Path, folder: Path):
        self.carry, self.folder = carry, folder
        self._whole: dict[tuple, tuple] = {}
        self._lock = Lock()

    def whole(self, row: Row) -> tuple:
        """The outcome of the row's job without a fault."""
        key = (row.processes, tuple(option for option in row.more if not option.startswith("monitor.")))
        with self._lock:
            if key not in self._whole:
                job = Job(self.carry, self.folder / f"whole_{len(self._whole)}", *key)
                assert job.ended(job.start()) == 0, job.said()[-3000:]
                self._whole[key] = outcome(job.folder)
            return self._whole[key]

    def run(self, number: int, row: Row) -> Found:
        """Breaks a job of the row, and goes on with it."""
        began = time.monotonic()
        job = Job(self.carry, self.folder / f"row_{number:02d}", row.processes, row.more)
        said, lost, is_same, problem = "", None, None, ""
        try:
            code = row.do(job)
            text = job.said()
            said = _last_line(text, row.says)
            lost = job.steps_done() - job.newest_checkpoint()
            if code not in row.codes if row.codes is not None else code == 0:
                problem = f"exit code {code}"
            elif row.says and not re.search(row.says, text):
                problem = f"the log has no {row.says!r}"
            elif "Traceback" in text:
                problem = "a traceback"
            if row.is_gone_on and not problem:
                if code != 0 and job.ended(job.start()) != 0:
                    problem = "it does not go on"
                else:
                    assert_same(outcome(job.folder), self.whole(row))
                    is_same = True
        except AssertionError as error:
            problem = problem or " ".join(str(error).split())[-300:] or traceback.format_exc()[-300:]
        except Exception:
            problem = traceback.format_exc()[-600:]
        finally:
            if job.still and job.still.is_waiting():
                job.go_on()
            job.close()
        if problem:
            print(f"--- {row.fault}, {row.phase}: {problem}\n{job.said()[-1500:]}", file=sys.stderr, flush=True)
        else:
            shutil.rmtree(job.folder)
        return Found(row, said, lost, is_same, time.monotonic() - began, problem)


def _last_line(text: str, pattern: str) -> str:
    """The last line of a log with the pattern; the last one if there is none to look for and the job failed."""
    lines = [line for line in text.splitlines() if pattern and re.search(pattern, line)]
    return re.sub(r"/\S*/(?=[\w.]+)", "", lines[-1]).strip() if lines else ""


def table(found: list[Found]) -> str:
    """The rows as Markdown."""
    lines = [
        "| fault | phase | ranks | the log | steps made again | goes on, to the bit |",
        "|---|---|---|---|---|---|",
    ]
    for each in found:
        row, said = each.row, each.said.replace("|", "\\|")
        said = f"`{said[:140]}`" if said else "-"
        lost = "-" if each.steps_lost is None or not row.is_gone_on else each.steps_lost
        same = "yes" if each.is_same else "no" if row.is_gone_on else "refused"
        if each.problem:
            same = f"**not as it has to be**: {each.problem.splitlines()[-1][:100]}".replace("|", "\\|")
        lines.append(f"| {row.fault} | {row.phase} | {row.processes} | {said} | {lost} | {same} |")
    return "\n".join([*lines, "", f"{len(found)} rows; {', '.join(environment())}.", ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose fault or phase has these words")
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--write", type=Path, help="a page with the comment <!--faults-->")
    args = parser.parse_args()
    chosen = [row for row in rows() if args.only in f"{row.fault}, {row.phase}"]
    with tempfile.TemporaryDirectory() as folder:
        carry = Path(folder) / "carry"
        made = launch("tools/prepare.py", "--out", str(carry), "--skip-starter")
        assert made.returncode == 0, made.stderr
        matrix = Matrix(carry, Path(folder))
        found: list[Found] = []
        with ThreadPoolExecutor(args.parallel) as pool:
            for each in pool.map(matrix.run, range(len(chosen)), chosen):
                found.append(each)
                verdict = f"FAILED: {each.problem.splitlines()[-1][:200]}" if each.problem else "ok"
                print(f"{each.seconds:5.0f} s  {each.row.fault}, {each.row.phase}: {verdict}", flush=True)
    failed = [each for each in found if each.problem]
    if args.write:  # failed rows too, and said to be so: one that flakes does not cost the others' half hour
        args.write.write_text(BLOCK.sub(lambda m: m[1] + table(found) + m[2], args.write.read_text()))
    print(f"{len(failed)} failed, {len(found) - len(failed)} passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
