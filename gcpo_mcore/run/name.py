"""What a run, and whatever else becomes a folder or a file, may be called: anything that is the name of one."""

from gcpo_mcore.base.errors import UserError

MAX_BYTES = 255  # of a file's name on Linux


def check_run_name(name: str) -> str:
    """`name`, if a folder below run.folder can have it. UserError if it is none, several, or not below it."""
    if "/" in name:
        raise UserError(f"run.name={ascii(name)[1:-1]}: it is one folder's name, without '/'; run.folder is the place")
    return check_name(name, "run.name", "a folder below run.folder", MAX_BYTES)


def check_name(name: str, key: str, what: str, max_bytes: int) -> str:
    """`name`, if `what` can have it. UserError, with the `key` that gave it, if it is none, several or elsewhere."""
    if "/" in name:
        raise UserError(f"{key}={ascii(name)[1:-1]}: it has to name {what}, without '/'")
    if not name.strip() or name in (".", ".."):
        raise UserError(f"{key}='{name}': it has to name {what}")
    if not name.isprintable():
        raise UserError(f"{key}={name!a}: it has characters that cannot be printed")
    if len(name.encode()) > max_bytes:
        raise UserError(f"{key}={name[:40]}...: {len(name.encode())} bytes, a folder's name has at most {max_bytes}")
    return name
