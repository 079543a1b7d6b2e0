"""Run one command and say what it cost."""

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


def measure(argv, *, env=None, cwd=None, log=None, opts):
    """Run argv; return wall, CPU, RSS, block IO and exit code."""
    if opts.cold:
        drop_caches()
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
