"""From raw results to tables in Markdown."""

import json
import statistics

from adapters import base, is_peer
from limits import FLOORS
from trees import MIB
from verify import TOLERATED

PHASES = ("init", "open", "backup", "unchanged", "changed", "restore", "check")

# What muster is held to beside restic of the same run.  Smaller differences than
# NOISE are none: the same tool differs as much from itself.
NOISE = 0.10
MUSTER_RSS_MIB_MAX = 160

SETTLED = "; sync after every command, not timed"
TOUCHED = "; free memory used once before every command, not timed"

# How many times as fast as the fastest peer of the same run muster shall be, at least.
GOALS = {
    "mixed": {"backup": 2, "unchanged": 1, "changed": 1.3, "restore": 1.8, "check": 1.4},
    "small": {"backup": 2.5, "unchanged": 2, "changed": 2, "restore": 1.2, "check": 1.5},
}


def failed(res):
    """A result that must not be counted: it exited non-zero or restored wrongly."""
    tolerated = TOLERATED if res.get("is_peer", True) else set()
    wrong = set(res.get("verify", {}).get("problems", {})) - tolerated
    return res["rc"] != 0 or bool(wrong)


def summary(runs):
    """Medians of every numeric field over the runs that count."""
    good = [r for r in runs if not failed(r)]
    keys = [k for k in (good[0] if good else {}) if isinstance(good[0][k], (int, float))]
    out = {k: statistics.median(r[k] for r in good) for k in keys}
    out.update(runs=len(runs), failures=len(runs) - len(good))
    return out


def medians(dataset):
    return {t: {p: summary(phases.get(p, [])) for p in PHASES}
            for t, phases in dataset["tools"].items()}


def report(result):
    """Markdown of the whole result."""
    out = [machine(result)]
    for name, d in result["datasets"].items():
        med = medians(d)
        floors = {label: summary(runs) for label, runs in d["floors"].items()}
        runs = max(len(r) for phases in d["tools"].values() for r in phases.values())
        out.append(f"\n## {name}: {d['files']} files, {d['bytes'] / MIB:.0f} MiB, {runs} runs\n")
        out += muster_beside_fastest(name, med)
        out += muster_beside_restic(med, floors)
        out += sizes_beside_restic(med)
        out += wall_seconds(med, floors)
        out += cpu_and_memory(med, result["cores"])
        out += repository_and_throughput(med, d)
        if d["zstd"]:
            out.append("zstd on a sample, one thread: " + "; ".join(
                f"{k} {v['ratio']:.2f}:1, {v['compress_MBps']:.0f} MB/s in, "
                f"{v['decompress_MBps']:.0f} MB/s out" for k, v in d["zstd"].items()) + ".\n")
    return "\n".join(out)


def machine(result):
    out = ["Tools: " + "; ".join(f"{t}: {v}" for t, v in result["versions"].items()) + ".\n",
           f"{result['cores']} cores, {result['cpu']}; median of the runs; "
           f"{'cold' if result['cold'] else 'warm'} cache"
           f"{SETTLED if result['settle'] else ''}"
           f"{TOUCHED if result.get('touch_memory') else ''}.\n"]
    if result["crypto"]:
        out.append("One-core limits (openssl, 16 KiB blocks): "
                   + ", ".join(f"{k} {v:.0f} MB/s" for k, v in result["crypto"].items()) + ".\n")
    return "\n".join(out)


def muster_beside_fastest(name, med):
    """How many times as fast as the fastest peer, phase by phase."""
    muster = next((m for t, m in med.items() if base(t) == "muster"), None)
    if not muster:
        return []
    rows = []
    for p in PHASES[1:]:
        peers = {t: m[p]["wall_s"] for t, m in med.items() if is_peer(t) and "wall_s" in m[p]}
        if not peers or "wall_s" not in muster[p]:
            continue
        best = min(peers, key=peers.get)
        speed, goal = peers[best] / muster[p]["wall_s"], GOALS.get(name, {}).get(p)
        rows.append([p, number(muster[p]["wall_s"], ".2f"), best, number(peers[best], ".2f"), times(speed),
                     f"{goal}x" if goal else "-", "" if not goal else "yes" if speed >= goal else "no"])
    return ["Muster beside the fastest peer of each phase (above 1x is faster)\n",
            table(["phase", "muster s", "fastest peer", "its s", "speed", "goal", "met"], rows)]


def sizes_beside_restic(med):
    """How large the repositories are, and by how much the edit made them grow."""
    restic = next((m for t, m in med.items() if base(t) == "restic"), None)
    if not restic or "repo_bytes" not in restic["backup"] or "repo_bytes" not in restic["changed"]:
        return []
    size, grown = restic["backup"]["repo_bytes"], restic["changed"]["repo_bytes"]
    rows = []
    for t, m in med.items():
        if "repo_bytes" in m["backup"] and "repo_bytes" in m["changed"]:
            first, then = m["backup"]["repo_bytes"], m["changed"]["repo_bytes"]
            rows.append([t, f"{first / MIB:.1f}", times(ratio(first, size)), f"{(then - first) / MIB:.1f}",
                         times(ratio(then - first, grown - size))])
    return ["Repository beside restic's\n",
            table(["tool", "MiB", "to restic", "grown by the edit, MiB", "to restic"], rows)]


def muster_beside_restic(med, floors):
    """Ratios inside this run, and how they stand to the goals."""
    muster = next((m for t, m in med.items() if base(t) == "muster"), None)
    restic = next((m for t, m in med.items() if base(t) == "restic"), None)
    if not muster or not restic:
        return []
    copy_s = floors.get("cp -a", {}).get("wall_s")
    rows, slower, larger, broken = [], [], [], []
    for p in PHASES:
        m, r = muster[p], restic[p]
        to_restic = ratio(m.get("wall_s"), r.get("wall_s"))
        to_copy = ratio(m.get("wall_s"), copy_s) if p in ("backup", "restore") else None
        rss = m.get("rss_mib")
        rows.append([p, number(m.get("wall_s"), ".2f"), number(r.get("wall_s"), ".2f"),
                     times(to_restic), times(to_copy), number(rss, ".0f"),
                     number(r.get("rss_mib"), ".0f"), times(ratio(rss, r.get("rss_mib")))])
        if m["failures"] or ("wall_s" in r and "wall_s" not in m):
            broken.append(p)
        if to_restic and to_restic > 1 + NOISE:
            slower.append(f"{p} {to_restic:.2f}x")
        if rss and rss > MUSTER_RSS_MIB_MAX:
            larger.append(f"{p} {rss:.0f} MiB")
    return ["Muster beside restic and `cp -a` of this run (below 1 is better)\n",
            table(["phase", "muster s", "restic s", "to restic", "to cp -a", "muster peak MiB",
                   "restic peak MiB", "to restic"], rows),
            f"Slower than restic by more than {NOISE:.0%}: {', '.join(slower) or 'nowhere'}. "
            f"More than {MUSTER_RSS_MIB_MAX} MiB at the peak: {', '.join(larger) or 'nowhere'}. "
            f"Failed, restored wrongly or not measured: {', '.join(broken) or 'nothing'}.\n"]


def wall_seconds(med, floors):
    rows = []
    for t, m in med.items():
        row = [t]
        for p in PHASES:
            if "wall_s" not in m[p]:
                row.append("FAILED" if m[p]["runs"] else "-")
                continue
            to_best = ratio(m[p]["wall_s"], fastest_peer(med, p))
            mark = "!" if m[p]["failures"] else ""
            row.append(f"{m[p]['wall_s']:.2f}" + (f" ({to_best:.2f}x)" if to_best else "") + mark)
        rows.append(row)
    for label, floor in floors.items():
        rows.append([label] + [number(floor.get("wall_s"), ".2f") if p == FLOORS[label] else ""
                               for p in PHASES])
    return ["Wall seconds (ratio to the fastest peer; `!` = some run failed)\n",
            table(["tool", *PHASES], rows)]


def fastest_peer(med, phase):
    walls = [m[phase]["wall_s"] for t, m in med.items() if is_peer(t) and "wall_s" in m[phase]]
    return min(walls, default=None)


def cpu_and_memory(med, cores):
    rows = []
    for t, m in med.items():
        row = [t]
        for p in PHASES[1:]:
            s = m[p]
            row.append(f"{s['cpu_s']:.2f} / {s['cpu_s'] / s['wall_s'] / cores:.0%} / {s['rss_mib']:.0f}"
                       if "wall_s" in s else "-")
        rows.append(row)
    return [f"CPU seconds / share of {cores} cores / peak memory in MiB\n",
            table(["tool", *PHASES[1:]], rows)]


def repository_and_throughput(med, d):
    rows = []
    for t, m in med.items():
        restores = d["tools"][t].get("restore", [])
        bad = [r["verify"]["problems"] for r in restores if r.get("verify", {}).get("problems")]
        tree = "-" if not restores else "exact" if not bad else json.dumps(bad[0])
        rows.append([t, *(mib(m[p].get("repo_bytes")) for p in ("backup", "changed")),
                     number(m["changed"].get("repo_files"), ".0f"),
                     *(mib(ratio(d["bytes"], m[p].get("wall_s"))) for p in ("backup", "restore", "check")),
                     *(number(m[p].get("flush_s"), ".2f") for p in ("backup", "restore")), tree])
    return ["Repository and throughput (MiB/s of source data)\n",
            table(["tool", "repo MiB", "after edit", "repo files", "backup MiB/s", "restore MiB/s",
                   "check MiB/s", "flush after backup s", "after restore s", "restored tree"], rows)]


def table(head, rows):
    rows = [head, ["---"] + ["---:"] * (len(head) - 1)] + rows
    width = [max(len(r[i]) for r in rows) for i in range(len(head))]
    return "\n".join("| " + " | ".join(c.ljust(w) if i == 0 else c.rjust(w)
                     for i, (c, w) in enumerate(zip(r, width))) + " |" for r in rows) + "\n"


def ratio(a, b):
    return a / b if a and b else None


def times(value):
    return number(value, ".2f") + ("x" if value else "")


def number(value, form):
    return "-" if value is None else format(value, form)


def mib(n_bytes):
    return "-" if n_bytes is None else f"{n_bytes / MIB:.0f}"
