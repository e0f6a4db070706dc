"""`python -m sglang.launch_server --port N ...`: the tests' server, with FAKE_FAULT, writing into FAKE_FOLDER/N."""

import json
import logging
import os
import runpy
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]
arguments = sys.argv[1:]
port = arguments[arguments.index("--port") + 1]
folder = Path(os.environ["FAKE_FOLDER"]) / port
folder.mkdir(parents=True, exist_ok=True)
(folder / "arguments.json").write_text(json.dumps(arguments))
if "--api-key" in arguments:
    os.environ["FAKE_KEY"] = arguments[arguments.index("--api-key") + 1]
logging.basicConfig(level=logging.INFO)
logging.getLogger(__name__).info("server_args=%s", arguments)  # as SGLang does, with the key
sys.argv = [str(HERE / "fake_sglang.py"), str(folder), os.environ.get("FAKE_FAULT", "none"), port]
sys.path.insert(0, str(HERE))
runpy.run_path(sys.argv[0], run_name="__main__")
