#!/usr/bin/env python3
"""Muster and restic over an S3 server, next door and at a distance: what a round trip costs them.

    cargo xtask bench --remote
    python3 bench/remote.py --muster target/release/muster [--tools muster,restic] [--runs 3]

Starts moto (`scripts/test-setup.sh` installs it), unless --server names another S3 server that
takes any credentials and creates buckets, and a line (line.py) before it for each latency. Each
phase runs at every latency in turn, tools in turn, all over the line; the order alternates
between runs. Prints for each tool and phase MB/s at each latency and the ratio of the slowest
line to the first, medians of the runs, and the most connections that were open at once.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from line import Line
from measure import measure
from verify import verify

PASSWORD = "benchmark-password"
MOTO = "target/store-servers/python/bin/moto_server"
PHASES = ["backup", "unchanged", "restore", "check"]


def commands(tool, exe, url, target, data):
    """The command line of each phase."""
    if tool == "restic":
        start = [exe, "-r", f"s3:{url}", "-q"]
        return {"init": start + ["init"], "backup": start + ["backup", data],
                "unchanged": start + ["backup", data],
                "restore": start + ["restore", "latest", "--target", target],
                "check": start + ["check", "--read-data"]}
    start = [exe, "repo", "-r", f"s3:{url}"]
    return {"init": start + ["init"], "backup": start + ["backup", data],
            "unchanged": start + ["backup", data],
            "restore": start + ["restore", "latest", "--target", target],
            "check": start + ["check", "--read-data"]}


def make_data(folder, mib, files):
    """Noise: a few large files for two thirds of it, small ones in many folders for the rest."""
    rng = random.Random(20261128)
    large = max(1, mib * 2 // 3 // 32)
    for n in range(large):
        (folder / "large").mkdir(parents=True, exist_ok=True)
        with open(folder / "large" / str(n), "wb") as f:
            for _ in range(32):
                f.write(rng.randbytes(1 << 20))
    average = mib * (1 << 20) // 3 // max(1, files)
    for n in range(files):
        place = folder / "small" / f"{n % 40:02}" / f"{n // 40 % 20:02}"
        place.mkdir(parents=True, exist_ok=True)
        (place / str(n)).write_bytes(rng.randbytes(rng.randrange(1, 2 * average)))
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def start_moto(work):
    log = open(work / "moto.log", "wb")
    argv = [MOTO, "-H", "127.0.0.1", "-p", "0"]
    server = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT,
                              env=dict(os.environ, PYTHONUNBUFFERED="1"))
    for _ in range(600):
        text = (work / "moto.log").read_text()
        if "http://127.0.0.1:" in text:
            port = text.split("http://127.0.0.1:")[1].split()[0]
            return server, f"127.0.0.1:{port}"
        time.sleep(0.1)
    sys.exit(f"moto did not start: {text}")


def make_bucket(server, bucket):
    request = urllib.request.Request(f"http://{server}/{bucket}", method="PUT", data=b"")
    request.add_header("Authorization", "AWS4-HMAC-SHA256 Credential=bench/20260101/us-east-1/s3/"
                       "aws4_request, SignedHeaders=host, Signature=0")
    urllib.request.urlopen(request).read()


def run_phase(tool, phase, line, repo, place, opts, results):
    exe = opts.muster if tool == "muster" else opts.restic
    target = place / "restored"
    shutil.rmtree(target, ignore_errors=True)
    env = dict(os.environ, AWS_ACCESS_KEY_ID="bench", AWS_SECRET_ACCESS_KEY="bench",
               AWS_DEFAULT_REGION="us-east-1", RESTIC_PASSWORD=PASSWORD, MUSTER_PASSWORD=PASSWORD,
               RESTIC_CACHE_DIR=str(place / f"cache-{tool}"),
               MUSTER_CACHE_DIR=str(place / f"cache-{tool}"))
    url = f"http://{line.address}/bench/{repo}"
    argv = commands(tool, exe, url, str(target), str(opts.data))[phase]
    line.forget()
    got = measure(argv, env=env, cwd=place, log=place / "log", opts=opts)
    if got["rc"] != 0:
        tail = (place / "log").read_text(errors="replace")[-2000:]
        sys.exit(f"{tool} {phase} failed with {got['rc']}:\n{tail}")
    if phase == "restore":
        found = verify(str(opts.data), str(target))
        if found["problems"]:
            sys.exit(f"{tool} restored a wrong tree: {found}")
    if phase != "init":
        results.append({"tool": tool, "phase": phase, "ms": round(line.delay_s * 2000),
                        "wall_s": got["wall_s"], "cpu_s": got["cpu_s"],
                        "rss_mib": got["rss_mib"], "connections": line.open_max,
                        "up_mib": line.bytes_up / 2**20, "down_mib": line.bytes_down / 2**20})


def report(results, bytes_, opts):
    latencies = opts.latencies
    out = [f"{bytes_ / 1e6:.0f} MB of noise in {opts.files} small and some large files; "
           f"medians of {opts.runs}; MB/s", ""]
    head = ["tool", "phase"] + [f"{ms} ms" for ms in latencies]
    head += [f"{latencies[-1]} to {latencies[0]} ms", "connections", "MiB of memory"]
    out.append("| " + " | ".join(head) + " |")
    out.append("|---|---|" + "---:|" * (len(head) - 2))
    for tool in opts.tools:
        for phase in opts.phases:
            mine = [r for r in results if (r["tool"], r["phase"]) == (tool, phase)]
            wall = [statistics.median(r["wall_s"] for r in mine if r["ms"] == ms)
                    for ms in latencies]
            cells = [f"{bytes_ / 1e6 / w:.0f}" for w in wall]
            cells.append(f"{wall[0] / wall[-1]:.2f}")
            cells.append(str(max(r["connections"] for r in mine)))
            cells.append(f"{max(r['rss_mib'] for r in mine):.0f}")
            out.append(f"| {tool} | {phase} | " + " | ".join(cells) + " |")
    return "\n".join(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--muster", default="target/release/muster")
    parser.add_argument("--restic", default="restic")
    parser.add_argument("--tools", default="muster,restic", type=lambda s: s.split(","))
    parser.add_argument("--phases", default=",".join(PHASES), type=lambda s: s.split(","))
    parser.add_argument("--latencies", default="0,50", help="round trips in ms",
                        type=lambda s: [int(x) for x in s.split(",")])
    parser.add_argument("--mib", default=300, type=int)
    parser.add_argument("--files", default=4000, type=int, help="small files")
    parser.add_argument("--runs", default=3, type=int)
    parser.add_argument("--server", help="HOST:PORT of an S3 server, instead of moto")
    parser.add_argument("--work", default="target/bench-remote", type=Path)
    parser.add_argument("--timeout", default=3600, type=float)
    opts = parser.parse_args()
    opts.cold = opts.settle = opts.touch_memory = False
    opts.muster = os.path.abspath(opts.muster)
    work = opts.work.absolute()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    opts.data = work / "data"
    bytes_ = make_data(opts.data, opts.mib, opts.files)
    results = []
    for run in range(opts.runs):
        # A fresh server for each run: moto keeps everything in memory.
        moto, server = (None, opts.server) if opts.server else start_moto(work)
        try:
            make_bucket(server, "bench")
            lines = [Line(server, ms / 2000) for ms in opts.latencies]
            places = {}
            for tool in opts.tools:
                for line in lines:
                    repo = f"{tool}-{run}-{round(line.delay_s * 2000)}"
                    places[tool, line] = (repo, work / repo)
                    (work / repo).mkdir()
                    run_phase(tool, "init", line, repo, work / repo, opts, results)
            for phase in PHASES:
                if phase not in opts.phases and phase != "backup":
                    continue
                turns = [(tool, line) for tool in opts.tools for line in lines]
                for tool, line in turns if run % 2 == 0 else reversed(turns):
                    repo, place = places[tool, line]
                    run_phase(tool, phase, line, repo, place, opts, results)
        finally:
            if moto:
                moto.kill()
                moto.wait()
        print(f"run {run + 1} of {opts.runs} done", file=sys.stderr, flush=True)
    text = report(results, bytes_, opts)
    (work / "result.json").write_text(json.dumps(results, indent=1))
    (work / "result.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
