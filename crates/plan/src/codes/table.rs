//! The table itself.

use muster_model::Severity::{self, Error, Note, Warning};

use super::{Code, Examples};

/// The examples of a code: two files beside this one.
macro_rules! examples {
    ($code:literal, $line:literal : $column:literal) => {
        Some(Examples {
            good: include_str!(concat!("examples/", $code, ".good.yaml")),
            bad: include_str!(concat!("examples/", $code, ".bad.yaml")),
            at: ($line, $column),
        })
    };
}

/// What is wrong with the text: no exception helps, and most of it an editor sees as well.
const fn of_text(code: &'static str, about: &'static str, examples: Option<Examples>) -> Code {
    let (can_be_waived, in_schema) = (false, true);
    Code { code, severity: Error, can_be_waived, in_schema, about, given: None, examples }
}

/// What is wrong with the plan.
const fn of_plan(
    code: &'static str,
    severity: Severity,
    about: &'static str,
    examples: Option<Examples>,
) -> Code {
    let (can_be_waived, in_schema) = (true, false);
    Code { code, severity, can_be_waived, in_schema, about, given: None, examples }
}

impl Code {
    const fn given(self, given: &'static str) -> Self {
        Self { given: Some(given), ..self }
    }

    const fn firm(self) -> Self {
        Self { can_be_waived: false, ..self }
    }

    const fn beyond_schema(self) -> Self {
        Self { in_schema: false, ..self }
    }
}

/// All of them: first those of the text, then those of the plan.
pub const ALL: &[Code] = &[
    of_text(
        "yaml-syntax",
        "The text is no YAML, or uses what plans do not: tags, several documents, keys that are no texts, more than a megabyte.",
        examples!("yaml-syntax", 4: 1),
    )
    .beyond_schema(),
    of_text(
        "unknown-field",
        "There is no field of this name here. The nearest known one is proposed.",
        examples!("unknown-field", 4: 10),
    ),
    of_text(
        "missing-field",
        "A field that must be there is not. The finding points at what it is missing from.",
        examples!("missing-field", 4: 3),
    ),
    of_text(
        "wrong-type",
        "Another kind of value belongs here: a list, a mapping, a text, a number.",
        examples!("wrong-type", 3: 10),
    ),
    of_text(
        "bad-value",
        "The value is of the right kind and means nothing in its place.",
        examples!("bad-value", 4: 22),
    ),
    of_text(
        "bad-name",
        "Names become parts of paths, tags and commands: they begin with a letter or digit and go on with these, `-`, `_` and `.`.",
        examples!("bad-name", 4: 3),
    ),
    of_text(
        "bad-duration",
        "Durations are a number and one of `ms s m h d w`, also several of them, and above zero. A promise of no time at all would count as kept by anything.",
        examples!("bad-duration", 4: 25),
    ),
    of_text(
        "bad-size",
        "Rates are a size and `/s`, such as `500kB/s` or `20MiB/s`, and above zero.",
        examples!("bad-size", 4: 40),
    ),
    of_text(
        "bad-percentage",
        "Percentages need their sign: `0.999` may mean 99.9 % or 0.999 %, and the difference is two hours a day.",
        examples!("bad-percentage", 4: 24),
    ),
    of_text("bad-date", "Days are written as year, month, day.", examples!("bad-date", 6: 53)),
    of_text(
        "bad-schedule",
        "Schedules are five fields of cron. The finding points at the field that is wrong; a schedule that is never due is wrong as a whole.",
        examples!("bad-schedule", 6: 59),
    ),
    of_text(
        "bad-time-zone",
        "The time zone is not in the database that is part of the binary.",
        examples!("bad-time-zone", 6: 79),
    )
    .beyond_schema(),
    of_text(
        "literal-secret",
        "A secret stands in the plan, or a password in an address. Plans are shared and kept for ever: name where the secret is found. The message does not repeat it.",
        examples!("literal-secret", 4: 33),
    ),
    of_text(
        "unknown-reference",
        "A name leads nowhere: a tier, region, zone, contact, service, repository, part of the data, or code.",
        examples!("unknown-reference", 4: 18),
    )
    .beyond_schema(),
    of_text(
        "duplicate-name",
        "A name stands twice, or two names lead to one thing: two repositories in one folder are one copy.",
        examples!("duplicate-name", 5: 3),
    )
    .beyond_schema(),
    of_text(
        "dependency-cycle",
        "Services wait for each other, so none of them could be recovered first.",
        examples!("dependency-cycle", 4: 25),
    )
    .beyond_schema(),
    of_text(
        "template-unknown-name",
        "A template asks for what no target has. Found now, for in a recovery it would be found too late.",
        examples!("template-unknown-name", 9: 38),
    )
    .beyond_schema(),
    of_text(
        "template-invalid",
        "A text with `{{` is no template, or one that costs too much.",
        examples!("template-invalid", 9: 34),
    )
    .beyond_schema(),
    of_plan(
        "rpo-unreachable",
        Error,
        "The schedule cannot keep the recovery point objective: at worst, the interval, the longest run that was measured and the time a copy takes add up to more. Copies that a disruption takes do not count for it. Runs that were not measured count as nothing, so the sum is the least it can be.",
        examples!("rpo-unreachable", 14: 27),
    ),
    of_plan(
        "rto-unreachable",
        Error,
        "What drills measured, at today's size of the data, is longer than the recovery time objective; or what the plan assumes for detection and decision is. The message says how certain the forecast is.",
        examples!("rto-unreachable", 10: 35),
    )
    .given("a drill restored 1 GiB in 5m, all else took 1m, and the last backup had 2 GiB"),
    of_plan(
        "restore-speed-unknown",
        Warning,
        "A recovery time is promised, and no drill has measured how long this data takes to restore.",
        examples!("restore-speed-unknown", 12: 7),
    )
    .given("a drill restored `db` of `orders`"),
    of_plan(
        "objective-weaker",
        Error,
        "The service promises less than its tier. That needs an exception, which expires.",
        examples!("objective-weaker", 11: 37),
    ),
    of_plan(
        "exception-expired",
        Error,
        "The last day of an exception is past, so it waives nothing.",
        examples!("exception-expired", 21: 53),
    )
    .firm(),
    of_plan(
        "strategy-cannot-meet",
        Error,
        "No speed could mend it: restoring backups takes at least seconds, and a standby repeats the harm that was done to its primary.",
        examples!("strategy-cannot-meet", 11: 35),
    ),
    of_plan(
        "no-immutable-copy",
        Error,
        "Something is promised for ransomware or intrusion, and whoever can write the copies can destroy all of them.",
        examples!("no-immutable-copy", 11: 45),
    ),
    of_plan(
        "one-failure-domain",
        Error,
        "No copy would be left after the loss of a host, storage, zone or region for which something is promised. Where nothing is promised for it, and all copies stand in one region, it is a warning.",
        examples!("one-failure-domain", 12: 7),
    ),
    of_plan(
        "not-protected",
        Error,
        "Nothing makes copies of this data. A warning where nothing is promised.",
        examples!("not-protected", 13: 7),
    ),
    of_plan(
        "not-restored",
        Warning,
        "No step of the runbook brings this data back.",
        examples!("not-restored", 12: 7),
    ),
    of_plan(
        "no-objective",
        Warning,
        "Nothing is promised for the service, so nothing can be missed.",
        examples!("no-objective", 8: 3),
    ),
    of_plan(
        "no-acceptance-probe",
        Warning,
        "Nothing says when the service counts as recovered, so no drill can pass.",
        examples!("no-acceptance-probe", 8: 3),
    ),
    of_plan(
        "no-markers",
        Warning,
        "Without numbered rows in the data nobody can count what was lost, so no drill can pass.",
        examples!("no-markers", 8: 3),
    ),
    of_plan(
        "never-proven",
        Warning,
        "Something is promised for disruptions that no drill has passed.",
        examples!("never-proven", 8: 3),
    )
    .given("drills of `orders` passed for all disruptions 40 days ago"),
    of_plan(
        "drill-overdue",
        Warning,
        "The last drill that passed is older than the tier's `drill_every`.",
        examples!("drill-overdue", 8: 3),
    )
    .given("drills of `orders` passed for all disruptions 40 days ago"),
    of_plan(
        "outside-residency",
        Error,
        "The data's class names the regions where it may be, and a line, or the class itself, sends it elsewhere; or to a repository that does not say where it is.",
        examples!("outside-residency", 13: 38),
    ),
    of_plan(
        "class-not-met",
        Error,
        "The data's class asks for a copy that nobody can change for so long, and no repository that receives it promises that. What a class can bring itself (copies, what is kept, reading back) it brings, and no line can weaken it.",
        examples!("class-not-met", 13: 38),
    ),
    of_plan(
        "verify-unreachable",
        Error,
        "Not everything in the repository can be read back within the period: at the speed that was measured last (or that `limits` allows), all readings that fit into the period, each as long as its budget, do not add up to its size.",
        examples!("verify-unreachable", 4: 40),
    )
    .given("`near` holds 1 TiB, was read back at 50 MB/s, and something in it waits for 40 days")
    .firm(),
    of_plan(
        "verify-overdue",
        Warning,
        "Something in the repository was not read back within the declared period.",
        examples!("verify-overdue", 4: 40),
    )
    .given("`near` holds 1 TiB, was read back at 50 MB/s, and something in it waits for 40 days")
    .firm(),
    of_plan("owner-missing", Warning, "Nobody answers for the service.", examples!("owner-missing", 4: 3)),
    of_plan(
        "contact-missing",
        Warning,
        "Nobody is called when the service is down, or somebody can be reached in one way only.",
        examples!("contact-missing", 4: 3),
    ),
    of_plan(
        "not-in-this-version",
        Note,
        "The plan asks for what this version reads and does not do. An error where an objective leans on it.",
        examples!("not-in-this-version", 6: 47),
    )
    .firm(),
    of_plan(
        "tier-contradicts-itself",
        Warning,
        "A tier promises more availability than its failures and repairs allow: `MTBF / (MTBF + MTTR)`. A note for the built-in tiers.",
        examples!("tier-contradicts-itself", 4: 3),
    )
    .firm(),
    of_plan(
        "copies-3-2-1-1-0",
        Note,
        "Three copies (production counts), on two stores, one elsewhere, one immutable, none unproven: which of these does not hold.",
        examples!("copies-3-2-1-1-0", 13: 7),
    )
    .given("drills of `orders` passed for all disruptions 40 days ago"),
    of_plan(
        "no-wal-archive",
        Note,
        "This version does not keep PostgreSQL's log, so what is lost is what was written since the last base backup.",
        examples!("no-wal-archive", 12: 7),
    ),
];
