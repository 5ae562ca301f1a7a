"""Linux's landlock: this process, its threads and its children may write in these folders and nowhere else, whatever
they are written in. Source: https://docs.kernel.org/userspace-api/landlock.html"""

import ctypes
import os
import struct
from collections.abc import Sequence

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # system calls; the same on all machines
NO_NEW_PRIVILEGES = 38
WRITE_FILE, TRUNCATE = 1 << 1, 1 << 14
MAKE_AND_REMOVE = sum(1 << bit for bit in (4, 5, 6, 7, 8, 9, 10, 11, 12))
ABI_WITH_TRUNCATE = 3


def version() -> int:
    """The version of landlock's interface; 0 if this kernel has none."""
    try:
        return max(0, ctypes.CDLL(None, use_errno=True).syscall(CREATE_RULESET, None, 0, 1))
    except (OSError, AttributeError):
        return 0


def restrict(folders: Sequence[str]) -> bool:
    """Whether the kernel does it."""
    if not version():
        return False
    call = ctypes.CDLL(None, use_errno=True).syscall
    writes = WRITE_FILE | MAKE_AND_REMOVE | (TRUNCATE if version() >= ABI_WITH_TRUNCATE else 0)
    handled = struct.pack("<Q", writes)
    rules = call(CREATE_RULESET, handled, len(handled), 0)
    if rules < 0:
        return False
    try:
        for folder in folders:
            if os.path.exists(folder):
                place = os.open(folder, os.O_PATH | os.O_CLOEXEC)
                rights = writes if os.path.isdir(folder) else writes & (WRITE_FILE | TRUNCATE)
                call(ADD_RULE, rules, 1, struct.pack("<Qi", rights, place), 0)
                os.close(place)
        alone = ctypes.CDLL(None, use_errno=True).prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
        return alone and call(RESTRICT_SELF, rules, 0) == 0
    finally:
        os.close(rules)
