"""What the tests with real servers share."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STARTER = ROOT / "prepared/carry-seed0/starter"
