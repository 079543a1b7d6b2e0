#!/usr/bin/env python3
"""Benchmark deduplicating backup tools against each other on this machine.

For every dataset the harness runs, for every tool, seven timed phases:

    init       create an encrypted repository
    open       list it, empty (the key derivation that every command pays)
    backup     first backup of the dataset
    unchanged  second backup, nothing changed
    changed    backup after a deterministic edit of 1% of the files
    restore    latest snapshot into an empty directory (then verified, untimed)
    check      integrity check that reads and verifies all stored data

Phases are interleaved (tool A, tool B, ... then the next phase), the tool order
rotates from run to run, and medians over --runs are reported.  Everything the
harness creates lives under --work.  Python 3.11, standard library only; Linux only.

`cp -a` and `cat` take turns with the tools, as floors.

Examples
    backup_peers.py --work W --generate-only
    backup_peers.py --work W --runs 3 --settle --json r.json --md r.md
    backup_peers.py --work W --datasets small --tools restic,rustic --scale 0.1
    backup_peers.py --work W --tools restic,restic@new --exe restic@new=PATH
    backup_peers.py --work W --tools restic,muster --exe muster=PATH

A tool name may carry a label ("restic@new"): it uses the adapter before the "@",
so several builds of one tool can be compared; --exe gives each its executable.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from adapters import ADAPTERS, adapter, base, is_peer, sparse_flags, tool_version
from datasets import DATASETS, dataset
from limits import FLOORS, READ_ALL, cpu_name, crypto_limits, run_floor, zstd_limits
from measure import measure
from report import PHASES, failed, medians, report
from trees import fresh, in_child, tree_size
from verify import verify

# After deleting more files than this, creating files is slow for so long.
MASS_DELETE_FILES_MIN = 5000
MASS_DELETE_PAUSE_S = 370


def empty_trash(opts):
    """Delete what was restored, and remember when.

    After a mass delete, creating files takes several times more system time for
    minutes; probably ext4 skipping, one by one, inodes deleted lately.  So nothing
    is deleted between timed restores (they pile up in trash/) but here, at the end
    of a run, and await_disk() keeps the next run from starting too early.
    """
    trash = opts.work / "trash"
    n_files, _ = in_child(tree_size, str(trash))
    fresh(trash)
    os.sync()
    if n_files > MASS_DELETE_FILES_MIN:
        (opts.work / "emptied").touch()


def await_disk(opts):
    stamp = opts.work / "emptied"
    left = stamp.stat().st_mtime + MASS_DELETE_PAUSE_S - time.time() if stamp.exists() else 0
    if left > 0:
        print(f"many files were deleted a moment ago; waiting {left:.0f} s", flush=True)
        time.sleep(min(left, MASS_DELETE_PAUSE_S))


def run_phase(phase, tool, seq, src, opts):
    a = adapter(tool, opts.exe)
    home = opts.work / "run" / tool
    target = opts.work / "trash" / f"restored-{time.monotonic_ns()}"
    if phase == "restore":
        target.mkdir()
    elif phase in ("backup", "changed") and not opts.cold:
        # Re-read the source each time: borg evicts what it has read
        # (posix_fadvise), which would leave the next tool a cold cache.
        subprocess.run(READ_ALL, shell=True, cwd=src.parent)
    fill = {"exe": a["exe"], "repo": str(home / "repo"), "cache": str(home / "cache"),
            "src": src.name, "target": str(target), "seq": seq}
    env = {**os.environ, "HOME": str(home / "cache"), "TMPDIR": str(opts.work / "tmp"),
           **{k: v.format(**fill) for k, v in a["env"].items()}}
    command = "backup" if phase in ("unchanged", "changed") else phase
    log = opts.work / "logs" / f"{tool}.log"
    flags = sparse_flags(tool, opts.exe) if phase == "restore" and src.parent.name == "sparse" else []
    res = measure([*(x.format(**fill) for x in a[command]), *flags], env=env, log=log, opts=opts,
                  cwd=target if phase == "restore" else src.parent)
    res["is_peer"] = is_peer(tool)
    if res["rc"] != 0:
        tail = log.read_text(errors="replace")[-800:] if log.exists() else ""
        print(f"  FAILED {tool} {phase}: rc {res['rc']} {res.get('error', '')}\n{tail}", flush=True)
    if phase in ("backup", "changed"):
        res["repo_files"], res["repo_bytes"] = in_child(tree_size, fill["repo"])
    if phase == "restore":
        if res["rc"] == 0:
            res["verify"] = in_child(verify, str(src), str(target))
            if res["verify"]["problems"]:
                print(f"  RESTORE MISMATCH {tool}: {res['verify']}", flush=True)
        os.sync()
    return res


def bench(name, src, opts):
    """All runs of all phases of all tools and floors on one dataset."""
    floors = {} if opts.no_limits else {label: [] for label in FLOORS}
    results = {t: {p: [] for p in PHASES} for t in opts.tools}
    contenders = [*opts.tools, *floors]
    for run in range(opts.runs):
        if run and time.monotonic() > opts.deadline:
            print(f"{name}: time budget used up after {run} runs", flush=True)
            break
        turn = run % len(contenders)
        order = contenders[turn:] + contenders[:turn]
        dead, seq = set(), 0
        for t in opts.tools:
            fresh(opts.work / "run" / t)
            (opts.work / "run" / t / "cache").mkdir()
        os.sync()
        for phase in [p for p in PHASES if p in opts.phases]:
            if phase == "changed":
                in_child(DATASETS[name].edit, str(src.parent), opts.seed)
                os.sync()
            seq += phase in ("backup", "unchanged", "changed")
            for t in order:
                if t in floors:
                    if FLOORS[t] == phase:
                        floors[t].append(run_floor(t, src, opts))
                    continue
                if t in dead:
                    continue
                res = run_phase(phase, t, seq, src, opts)
                results[t][phase].append(res)
                if res["rc"] == 0:
                    print(f"{name} run {run + 1} {phase:9s} {t:14s} {res['wall_s']:8.2f} s wall "
                          f"{res['cpu_s']:8.2f} s cpu {res['rss_mib']:7.0f} MiB", flush=True)
                elif phase != "open":
                    dead.add(t)  # its later phases would measure nonsense
        in_child(DATASETS[name].revert, str(src.parent))
        fresh(opts.work / "run")
        os.sync()
    return results, floors


# --------------------------------------------------------------------------
def parse_args():
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--work", type=Path, required=True,
                    help="scratch directory (needs ~15 GiB + restores: dataset x tools x runs)")
    ap.add_argument("--datasets", default="mixed,small,system")
    ap.add_argument("--tools", default="restic,rustic,borg", help="comma list; NAME or NAME@LABEL")
    ap.add_argument("--exe", action="append", default=[], metavar="TOOL=PATH", help="executable of a tool")
    ap.add_argument("--phases", default=",".join(PHASES), help="comma list; later phases need the earlier")
    ap.add_argument("--runs", type=int, default=3)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--scale", type=float, default=1.0, help="dataset size factor (0.02 for a smoke test)")
    ap.add_argument("--cold", action="store_true", help="sync and drop caches before every command")
    ap.add_argument("--settle", action="store_true",
                    help="sync after every command (untimed, recorded as flush_s) so that one tool's "
                         "unwritten data does not slow the next")
    ap.add_argument("--touch-memory", action="store_true",
                    help="use free memory once before every command (untimed), so that no command pays "
                         "for memory that the hypervisor has taken back")
    ap.add_argument("--timeout", type=float, default=1800, help="seconds per command")
    ap.add_argument("--budget", type=float, default=1e6, metavar="MIN",
                    help="start no further repetition after this many minutes (each dataset runs once)")
    ap.add_argument("--no-limits", action="store_true", help="skip cp/cat/openssl/zstd")
    ap.add_argument("--generate-only", action="store_true")
    ap.add_argument("--json", type=Path, help="write all raw and median results here")
    ap.add_argument("--md", type=Path, help="write the tables here")
    ap.add_argument("--from-json", type=Path, nargs="+",
                    help="run nothing; print the tables of earlier --json files, merged")
    opts = ap.parse_args()
    opts.deadline = time.monotonic() + 60 * opts.budget
    opts.work = opts.work.resolve()
    opts.tools = opts.tools.split(",")
    opts.datasets = opts.datasets.split(",")
    opts.phases = opts.phases.split(",")
    opts.exe = dict(e.split("=", 1) for e in opts.exe)
    for t in opts.tools:
        if base(t) not in ADAPTERS:
            ap.error(f"unknown tool {t}")
    for d in opts.datasets:
        if d not in DATASETS:
            ap.error(f"unknown dataset {d}")
    return opts


def publish(result, opts):
    text = report(result)
    print(text)
    if opts.md:
        opts.md.write_text(text)
    for d in result["datasets"].values():
        d["medians"] = medians(d)
    if opts.json:
        opts.json.write_text(json.dumps(result, indent=1))
    return 0


def main():
    opts = parse_args()
    if opts.from_json:
        result, *more = [json.loads(f.read_text()) for f in opts.from_json]
        for m in more:
            result["datasets"].update(m["datasets"])
        return publish(result, opts)
    if opts.runs < 1:
        sys.exit("--runs must be at least 1")
    for d in ("run", "tmp", "logs"):
        fresh(opts.work / d)
    empty_trash(opts)
    result = {"versions": {t: tool_version(t, opts.exe) for t in opts.tools}, "cpu": cpu_name(),
              "cores": len(os.sched_getaffinity(0)), "runs": opts.runs, "cold": opts.cold,
              "settle": opts.settle, "touch_memory": opts.touch_memory, "crypto": {},
              "datasets": {}}
    made = {name: dataset(name, opts) for name in opts.datasets}
    if opts.generate_only:
        return 0
    if not opts.no_limits:
        result["crypto"] = crypto_limits()
    await_disk(opts)
    bad = 0
    for name, (src, meta) in made.items():
        zstd = {} if opts.no_limits else in_child(zstd_limits, str(src), opts)
        tools, floors = bench(name, src, opts)
        bad += sum(failed(r) for phases in tools.values() for runs in phases.values() for r in runs)
        result["datasets"][name] = {**meta, "zstd": zstd, "floors": floors, "tools": tools}
        if opts.json:  # after every dataset, so an interrupted run keeps what it has
            opts.json.write_text(json.dumps(result, indent=1))
    publish(result, opts)
    empty_trash(opts)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
