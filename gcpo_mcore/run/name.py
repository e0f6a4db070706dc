"""What a run may be called: anything that is the name of one folder."""

from gcpo_mcore.base.errors import UserError

MAX_BYTES = 255  # of a file's name on Linux


def check_run_name(name: str) -> str:
    """`name`, if a folder below run.folder can have it. UserError if it is none, several, or not below it."""
    if "/" in name:
        raise UserError(f"run.name={ascii(name)[1:-1]}: it is one folder's name, without '/'; run.folder is the place")
    if not name.strip() or name in (".", ".."):
        raise UserError(f"run.name='{name}': it has to name a folder below run.folder")
    if not name.isprintable():
        raise UserError(f"run.name={name!a}: it has characters that cannot be printed")
    if len(name.encode()) > MAX_BYTES:
        raise UserError(f"run.name={name[:40]}...: {len(name.encode())} bytes, a folder's name has at most {MAX_BYTES}")
    return name
