"""Kill a process of a training at a chosen step of writing a checkpoint.

Python runs this file at its start where its folder is in PYTHONPATH. A step
is an operation on a checkpoint or on `last_checkpoint` of the folder that
FAULTS_FOLDER names: open for writing, rename, remove.
"""

import os
import signal
import sys
import time

folder = os.environ.get('FAULTS_FOLDER')
kill_at = int(os.environ.get('FAULTS_STEP', 0))
delay = float(os.environ.get('FAULTS_DELAY', 0))
log = os.environ.get('FAULTS_LOG')
count = 0


def watch(event, arguments):
    global count
    if event == 'open':
        path, _, flags = arguments
        if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR):
            return
    elif event in ('os.rename', 'os.remove', 'os.truncate'):
        path = arguments[0]
    else:
        return
    if not isinstance(path, (str, bytes, os.PathLike)):
        return
    path = os.fsdecode(path)
    name = os.path.basename(path)
    if not os.path.abspath(path).startswith(folder) or not (
        '.pth' in name or 'last_checkpoint' in name
    ):
        return
    count += 1
    if log:
        with open(log, 'a') as file:
            file.write(f'{time.monotonic()} {event} {name}\n')
    if count != kill_at:
        return
    if delay:
        # The kernel ends the process in the middle of what comes next.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, delay)
    else:
        os.kill(os.getpid(), signal.SIGKILL)


if folder and os.environ.get('RANK', '0') == '0':
    sys.addaudithook(watch)
