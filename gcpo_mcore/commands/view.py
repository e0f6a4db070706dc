"""Shows runs in the browser: curves, time and memory, every rollout and its tokens, prompts over time.

    python tools/view.py runs/gcpo-carry-seed0                          # writes runs/gcpo-carry-seed0/view.html
    python tools/view.py runs/gcpo-carry-seed0 runs/grpo-carry-seed0 --out compared.html
    python tools/view.py runs/gcpo-carry-seed0 --serve                  # follows a run that is under way

The page is one file that needs no network: send it to whom you like. It has what the models wrote, so look at it as you
would at data.
"""

import sys
from pathlib import Path

from gcpo_mcore.base import program
from gcpo_mcore.base.errors import EXIT_CODE, UserError
from gcpo_mcore.monitor.run_log import log_to_stderr


def write(folders: list[Path], out: Path | None, samples: int) -> Path:
    """Writes the page of some run folders and returns its path. UserError for what is no run folder."""
    from gcpo_mcore.base.files import write_atomically
    from gcpo_mcore.viewing.page import page

    path = out or folders[0] / "view.html"
    write_atomically(path, "".join(page(_read(folders, samples), is_live=False)))
    return path


def serve(folders: list[Path], port: int, samples: int) -> None:
    """Serves the page of some run folders on this machine until it is interrupted."""
    from gcpo_mcore.viewing.server import LiveServer

    with LiveServer(_read(folders, samples), port) as server:
        print(f"{server.address}  (Ctrl-C ends it; on another machine: ssh -L {server.server_port}:localhost:"
              f"{server.server_port} HOST)", flush=True)  # fmt: skip
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def _read(folders: list[Path], samples: int):
    from gcpo_mcore.viewing.run_files import RunFiles

    runs = [RunFiles(folder, samples) for folder in folders]
    for run in runs:
        run.refresh()
    return runs


@log_to_stderr()
def main() -> None:
    """The command."""
    parser = program.parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run folder: runs/NAME")
    parser.add_argument("--out", type=Path, help="the file to write (default: view.html in the first run folder)")
    parser.add_argument("--serve", action="store_true", help="serve the page on 127.0.0.1 and follow the runs")
    parser.add_argument("--port", type=int, default=8765, help="of --serve; 0 takes a free one (default: 8765)")
    parser.add_argument(
        "--samples", type=int, default=100_000,
        help="show about so many of a run's samples: of a longer run those of every second, third, ... step; 0: all "
        "(default: 100000)",
    )  # fmt: skip
    args = parser.parse_args()
    try:
        if args.serve:
            serve(args.runs, args.port, args.samples)
        else:
            print(write(args.runs, args.out, args.samples))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_CODE)


if __name__ == "__main__":
    main()
