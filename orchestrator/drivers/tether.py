"""Become another program that does not outlive the process which started it.

Run as a script, before the program itself: `python -I -S tether.py SIGNAL PARENT UID GID PROGRAM [ARGUMENT …]`.
It gives up root when it is told to (UID and GID are -1 otherwise), asks the kernel to send SIGNAL should the parent
die, and is then replaced by PROGRAM, which keeps the process id. A script instead of `preexec_fn`, because code
between fork and exec may hang in a process that has threads. Standard library only: it runs without site-packages.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>; the argument is the signal's number


def _give_up_root(uid: int, gid: int) -> None:
    """Become *uid* and *gid* for good, with no further group. The order matters: the uid goes last."""
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def _die_with(parent: int, signal_number: int) -> None:
    """Get *signal_number* when *parent* dies. Only Linux knows how; elsewhere this does nothing.

    Has to follow a change of user, which takes the wish back.
    """
    if sys.platform != "linux":
        return
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the kernel refused PR_SET_PDEATHSIG")
    if os.getppid() != parent:
        # The parent died before the kernel knew of the wish.
        sys.exit(128 + signal_number)


def main(arguments: list[str]) -> None:
    """Do what the module says; returns only by an exception."""
    signal_number, parent, uid, gid = (int(argument) for argument in arguments[:4])
    program = arguments[4:]
    if uid >= 0:
        _give_up_root(uid, gid)
    _die_with(parent, signal_number)
    # Python ignores SIGPIPE, and ignored signals survive exec: the program is to start as from a shell.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execv(program[0], program)  # noqa: S606 - there is no shell to avoid
    except OSError as exc:
        sys.stderr.write(f"cannot start {program[0]}: {exc.strerror}\n")
        sys.exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
