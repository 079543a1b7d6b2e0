"""What this machine could do at best: read and copy the data, compress, hash, encrypt."""

import random
import re
import stat
import subprocess
import time

from measure import measure
from trees import MIB, walk

READ_ALL = "find src -type f -print0 | xargs -0 cat >/dev/null"

# Ordinary tools that do the least of a phase; they take turns with the backup tools.
FLOORS = {"cat >/dev/null": "backup", "cp -a": "restore"}


def run_floor(label, src, opts):
    """Read or copy the dataset once; copies stay in the trash, see empty_trash."""
    copy = opts.work / "trash" / f"copy-{time.monotonic_ns()}"
    argv = {"cat >/dev/null": ["sh", "-c", READ_ALL], "cp -a": ["cp", "-a", "src", str(copy)]}
    return measure(argv[label], cwd=src.parent, opts=opts)


def zstd_limits(src, opts):
    """zstd -1 and -3, one thread, on a sample of up to 128 MiB of the dataset."""
    sample = opts.work / "run" / "sample"
    files = [p for p, st in walk(src) if stat.S_ISREG(st.st_mode)]
    random.Random(opts.seed).shuffle(files)
    with open(sample, "wb") as f:
        for p in files:
            if f.tell() >= 128 * MIB:
                break
            with open(p, "rb") as g:
                f.write(g.read(8 * MIB))  # no single file may dominate
    out = {}
    for level in (1, 3):
        p = output_of(["zstd", f"-b{level}", "-T1", "-i2", str(sample)])
        m = re.findall(r"\(x?([\d.]+)\)\s*,\s*([\d.]+) MB/s\s*,\s*([\d.]+) MB/s", p)
        if m:
            ratio, comp, decomp = map(float, m[-1])
            out[f"zstd -{level}"] = {"ratio": ratio, "compress_MBps": comp, "decompress_MBps": decomp}
    sample.unlink()
    return out


def crypto_limits():
    """openssl speed, one core, 16 KiB blocks, MB/s."""
    out = {}
    for alg in ("sha256", "aes-256-ctr", "blake2b512", "chacha20", "chacha20-poly1305"):
        p = output_of(["openssl", "speed", "-mr", "-seconds", "2", "-bytes", "16384", "-evp", alg])
        m = re.findall(r"^\+F:.*:([\d.]+)$", p, re.M)
        if m:
            out[alg] = float(m[-1]) / 1e6
    if "chacha20" in out and out.get("chacha20-poly1305", 0) < out["chacha20"]:
        # openssl 3.0 cannot time poly1305 alone; take it from the difference.
        out["poly1305 (derived)"] = 1 / (1 / out["chacha20-poly1305"] - 1 / out["chacha20"])
    return out


def output_of(argv):
    """What a command prints; nothing where it is not installed, for limits are optional."""
    try:
        p = subprocess.run(argv, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return p.stdout + p.stderr


def cpu_name():
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return "unknown CPU"
