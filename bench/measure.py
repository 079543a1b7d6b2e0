"""Run one command and say what it cost."""

import ctypes
import mmap
import os
import signal
import subprocess
import sys
import threading
import time


def steal_s():
    """Seconds of CPU the hypervisor took away since boot (noise indicator)."""
    with open("/proc/stat") as f:
        return int(f.readline().split()[8]) / os.sysconf("SC_CLK_TCK")


def drop_caches():
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w") as f:
            f.write("3")
    except OSError as e:
        print(f"  (cannot drop caches: {e})", file=sys.stderr)


# What is touched, and what is left alone lest the page cache is thrown out for it.
TOUCHED_BYTES_MAX = 6 << 30
UNTOUCHED_BYTES = 512 << 20


def touch_free_memory():
    """Use free memory once, in a process of its own.

    A hypervisor may take free memory back (free page reporting); then the first write to each
    page costs microseconds, whoever writes, and the tool that comes into used memory wins.
    """
    with open("/proc/meminfo") as f:
        free = next(int(line.split()[1]) for line in f if line.startswith("MemFree:")) * 1024
    length = min(free - UNTOUCHED_BYTES, TOUCHED_BYTES_MAX) // mmap.PAGESIZE * mmap.PAGESIZE
    if length <= 0:
        return
    pid = os.fork()
    if pid == 0:
        try:
            memory = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            ctypes.memset((ctypes.c_char * length).from_buffer(memory), 1, length)
        finally:
            os._exit(0)  # whatever happened, this is not the harness
    os.waitpid(pid, 0)


def measure(argv, *, env=None, cwd=None, log=None, opts):
    """Run argv; return wall, CPU, RSS, block IO and exit code."""
    if opts.cold:
        drop_caches()
    if opts.touch_memory:
        touch_free_memory()
    with open(log or os.devnull, "ab") as out:
        steal0, t0 = steal_s(), time.perf_counter()
        try:
            p = subprocess.Popen(argv, env=env, cwd=cwd, stdout=out,
                                 stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        except OSError as e:
            return {"rc": 127, "error": e.strerror}
        timer = threading.Timer(opts.timeout, os.kill, (p.pid, signal.SIGKILL))
        timer.start()
        _, status, ru = os.wait4(p.pid, 0)
        wall = time.perf_counter() - t0
        timer.cancel()
    p.returncode = os.waitstatus_to_exitcode(status)
    res = {"rc": p.returncode, "wall_s": wall, "user_s": ru.ru_utime,
           "sys_s": ru.ru_stime, "cpu_s": ru.ru_utime + ru.ru_stime,
           "rss_mib": ru.ru_maxrss / 1024, "read_mib": ru.ru_inblock / 2048,
           "written_mib": ru.ru_oublock / 2048, "steal_s": steal_s() - steal0}
    if opts.settle:  # flush the tool's dirty pages now, outside its wall time
        t0 = time.perf_counter()
        os.sync()
        res["flush_s"] = time.perf_counter() - t0
    return res
