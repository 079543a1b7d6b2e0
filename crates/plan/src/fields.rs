//! The table of fields: all that may stand in a plan, once.
//!
//! To add a field, add a row here and read it in [`crate::decode`]; the check, the schema and
//! the reference follow.

use crate::{
    shape::{
        Field, Keys, Object,
        Shape::{
            Address, Any, Argv, Bool, Count, Date, Duration, ExitCode, List, Map, NoneOr,
            Object as Of, OneOf, OneOrMore, Percentage, Place, PostgresUrl, Rate, Scalar, Schedule,
            Secret, Status, Text, TextOr, TimeZone, Variant, Version, Within, Word,
        },
    },
    tree::Node,
    value::{self, Wrong},
};

/// The names of all disruptions, as [`muster_model::Disruption::ALL`] has them.
pub(crate) const DISRUPTIONS: [&str; 13] = [
    "operator-error",
    "data-corruption",
    "bad-release",
    "process-loss",
    "overload",
    "dependency-loss",
    "network-loss",
    "host-loss",
    "storage-loss",
    "zone-loss",
    "region-loss",
    "ransomware",
    "intrusion",
];

/// Which strategies there are.
pub(crate) const STRATEGIES: [&str; 4] =
    ["backup-restore", "pilot-light", "warm-standby", "active-active"];

/// The whole document.
pub(crate) static PLAN: Object = Object::new(&[
    Field::required("muster", Version, "the version of this language: 1"),
    Field::required("name", Text, "the name of what the plan covers"),
    Field::new("regions", List(&TextOr(&REGION)), "geography: names, or names with zones"),
    Field::new("contacts", Map(Keys::Texts, &Map(Keys::Texts, &Word)), "who to reach, and how"),
    Field::new(
        "tiers",
        Map(Keys::Names, &Of(&TIER)),
        "classes of criticality; a built-in one may be adjusted",
    ),
    Field::new("repositories", Map(Keys::Names, &Of(&REPOSITORY)), "where copies are kept"),
    Field::new("classes", Map(Keys::Names, &Of(&CLASS)), "what some data asks for, wherever it is"),
    Field::new("services", Map(Keys::Names, &Of(&SERVICE)), "what users depend on"),
    Field::new("drills", List(&Of(&DRILL)), "what is rehearsed, and when"),
    Field::new("exceptions", List(&Of(&EXCEPTION)), "rules that are waived for a while"),
]);

/// Each named object with the path under which the reference lists it.
pub(crate) static SECTIONS: [(&str, &Object); 23] = [
    ("the plan", &PLAN),
    ("regions[]", &REGION),
    ("tiers.NAME", &TIER),
    ("repositories.NAME", &REPOSITORY),
    ("repositories.NAME.credentials", &CREDENTIALS),
    ("repositories.NAME.options", &STORE_OPTIONS),
    ("repositories.NAME.limits", &LIMITS),
    ("verify of a repository or class", &VERIFY),
    ("classes.NAME", &CLASS),
    ("services.NAME", &SERVICE),
    ("services.NAME.depends_on[]", &DEPENDENCY),
    ("services.NAME.objectives.DISRUPTION", &OBJECTIVE),
    ("services.NAME.protect[]", &PROTECTION),
    ("keep of protect[] or a class", &KEEP),
    ("before, after and on_failure of protect[] or a class", &HOOK),
    ("services.NAME.markers", &MARKERS),
    ("services.NAME.assume", &ASSUME),
    ("services.NAME.acceptance", &ACCEPTANCE),
    ("services.NAME.acceptance.completeness", &COMPLETENESS),
    ("expect of an http probe", &EXPECT_HTTP),
    ("expect of a command probe", &EXPECT_COMMAND),
    ("drills[]", &DRILL),
    ("exceptions[]", &EXCEPTION),
];

/// The objects of which one is chosen by its first field.
pub(crate) static VARIANTS: [(&str, &[Object]); 3] = [
    ("services.NAME.data.NAME", &DATA),
    ("services.NAME.recover[]", &STEP),
    ("services.NAME.acceptance.probes.NAME", &PROBE),
];

static REGION: Object = Object::new(&[
    Field::required("name", Text, "the region's name"),
    Field::new("zones", List(&Text), "the zones in it"),
]);

static TIER: Object = Object::new(&[
    Field::new("rto", Duration, "recovery time objective"),
    Field::new("rpo", Duration, "recovery point objective: how much may be lost"),
    Field::new("mttr", Duration, "mean time to repair"),
    Field::new("mtbf", Duration, "mean time between failures"),
    Field::new("availability", Percentage, "the share of time in service, with its sign: 99.9 %"),
    Field::new("drill_every", Duration, "a drill is due so long after the last that passed"),
    Field::new("evidence_max_age", Duration, "proof older than this no longer counts"),
]);

static REPOSITORY: Object = Object::new(&[
    Field::required(
        "url",
        Place,
        "a folder, relative to the plan, or a store: `s3:…`, `azure:…`, `gs:…`, `sftp:…`, `rest:…`",
    ),
    Field::new("region", Text, "the region that it stands in"),
    Field::new("zone", Text, "the zone that it stands in"),
    Field::new(
        "host",
        Text,
        "the machine that it stands on; without one, a repository in the service's region is taken to stand on the service's host",
    ),
    Field::new("password", Secret, "where its password is found"),
    Field::new(
        "credentials",
        Of(&CREDENTIALS),
        "where a store's credentials are found; without it, in the environment's variables of the same names",
    ),
    Field::new("options", Of(&STORE_OPTIONS), "how a store is reached"),
    Field::new("immutable", Duration, "how long nobody can change a copy"),
    Field::new(
        "warm_up",
        Duration,
        "archived data may be brought back for a restore, a drill or a copy, which is charged, and is waited for so long at most: 24h",
    ),
    Field::new("verify", Of(&VERIFY), "how often all of it is read back"),
    Field::new("limits", Of(&LIMITS), "how fast bytes may flow"),
]);

static VERIFY: Object = Object::new(&[
    Field::required("within", Duration, "everything is read back at least this often"),
    Field::new(
        "budget",
        Duration,
        "no more packs are begun after so long at a time; 10m in backup --loop, else no end",
    ),
]);

static LIMITS: Object = Object::new(&[
    Field::new("upload", Rate, "to the store: 20MiB/s"),
    Field::new("download", Rate, "from the store; also bounds how fast a restore can be"),
]);

static CLASS: Object = Object::new(&[
    Field::new("keep", Of(&KEEP), "what is kept at least; lines may keep more"),
    Field::new(
        "copy",
        OneOrMore(&Text),
        "repositories that receive copies, besides the line's own",
    ),
    Field::new("immutable", Duration, "some copy must be in a repository that holds it so long"),
    Field::new("verify", Of(&VERIFY), "how often each repository with such data is read back"),
    Field::new("residency", OneOrMore(&Text), "the only regions where such data may be"),
    Field::new("before", Of(&HOOK), "runs first of all; when it fails there is no backup"),
    Field::new("after", Of(&HOOK), "runs after the snapshots and the `after` of their line"),
    Field::new("on_failure", Of(&HOOK), "runs when anything of a line with such data failed"),
]);

/// By the names of the variables that stores read.
pub(crate) static CREDENTIALS: Object = Object::new(&[
    Field::new("AWS_ACCESS_KEY_ID", Secret, "S3: the id of the access key"),
    Field::new("AWS_SECRET_ACCESS_KEY", Secret, "S3: the access key"),
    Field::new("AWS_SESSION_TOKEN", Secret, "S3: the token of a key that expires"),
    Field::new("AZURE_ACCOUNT_NAME", Secret, "Azure: the storage account"),
    Field::new("AZURE_ACCOUNT_KEY", Secret, "Azure: its key"),
    Field::new("AZURE_ACCOUNT_SAS", Secret, "Azure: a shared access signature instead"),
    Field::new("AZURE_TENANT_ID", Secret, "Azure: the tenant of a service principal"),
    Field::new("AZURE_CLIENT_ID", Secret, "Azure: the service principal"),
    Field::new("AZURE_CLIENT_SECRET", Secret, "Azure: its secret"),
    Field::new("GOOGLE_ACCESS_TOKEN", Secret, "Google: an access token"),
    Field::new("RESTIC_REST_USERNAME", Secret, "REST: who logs in"),
    Field::new("RESTIC_REST_PASSWORD", Secret, "REST: the password"),
]);

/// By the names that `muster repo -o` takes.
pub(crate) static STORE_OPTIONS: Object = Object::new(&[
    Field::new("s3.connections", Count, "requests at once at most, 1 to 64; 10 unless said"),
    Field::new("s3.region", Word, "the bucket's region"),
    Field::new(
        "s3.bucket-lookup",
        OneOf(&["auto", "dns", "path"]),
        "where the bucket's name stands",
    ),
    Field::new("s3.unsafe-anonymous-auth", Bool, "send no credentials"),
    Field::new("s3.object-lock", Text, "each new file is held from its first moment on: 30d"),
    Field::new("s3.object-lock-mode", Word, "compliance, or governance: who may end a hold"),
    Field::new("s3.as-of", Text, "the bucket is read as it was at a moment, and not written"),
    Field::new(
        "s3.storage-class",
        Word,
        "the storage class of new packs of data, as GLACIER; all else lies in the bucket's own",
    ),
    Field::new(
        "s3.restore-days",
        Count,
        "how long what comes from an archive can be read; 7 unless said",
    ),
    Field::new(
        "s3.restore-tier",
        OneOf(&["standard", "bulk", "expedited"]),
        "how quickly it comes from an archive",
    ),
    Field::new("azure.connections", Count, "requests at once"),
    Field::new("azure.endpoint", Word, "the account's URL, when it is not Azure's own"),
    Field::new("gs.connections", Count, "requests at once"),
    Field::new("gs.endpoint", Word, "the service's URL, when it is not Google's own"),
    Field::new("gs.unsafe-anonymous-auth", Bool, "send no credentials"),
    Field::new("gs.credentials-file", Word, "the file of a service account's key"),
    Field::new("rest.connections", Count, "requests at once"),
    Field::new("sftp.connections", Count, "requests at once"),
    Field::new("sftp.command", Word, "the command that speaks SFTP, instead of ssh"),
    Field::new("sftp.args", Word, "more arguments for ssh"),
    Field::new("tls.cacert", Word, "a file with authorities to trust, in PEM"),
]);

static SERVICE: Object = Object::new(&[
    Field::new("tier", Text, "its tier, which brings objectives"),
    Field::new("region", Text, "the region where it runs"),
    Field::new("zone", Text, "the zone where it runs"),
    Field::new("host", Text, "the machine where it runs"),
    Field::new("owner", Text, "who answers for it"),
    Field::new("contacts", List(&Text), "who is called, by the names under contacts"),
    Field::new("impact", Map(Keys::Durations, &Word), "what an outage costs, by its length"),
    Field::new("strategy", OneOf(&STRATEGIES), "how it is recovered; backup-restore by default"),
    Field::new(
        "depends_on",
        List(&TextOr(&DEPENDENCY)),
        "the services that it needs; a bare name is hard",
    ),
    Field::new(
        "objectives",
        Map(Keys::Disruptions, &NoneOr(&OBJECTIVE)),
        "what differs from the tier; none takes one out",
    ),
    Field::new(
        "data",
        Map(Keys::Names, &Variant(&DATA)),
        "its data, each part backed up and restored as one",
    ),
    Field::new("protect", List(&Of(&PROTECTION)), "how copies are made"),
    Field::new("markers", Of(&MARKERS), "numbered rows by which loss is measured"),
    Field::new("assume", Of(&ASSUME), "figures that nobody measured and somebody vouches for"),
    Field::new("recover", List(&Variant(&STEP)), "the runbook, for drills and for real"),
    Field::new("acceptance", Of(&ACCEPTANCE), "when it counts as recovered"),
]);

static DEPENDENCY: Object = Object::new(&[
    Field::required("service", Text, "the service that is needed"),
    Field::new("type", OneOf(&["hard", "soft"]), "hard: nothing works without it; the default"),
]);

static OBJECTIVE: Object = Object::new(&[
    Field::new("rto", Duration, "recovery time objective; the tier's without one"),
    Field::new("rpo", Duration, "recovery point objective; the tier's without one"),
]);

static DATA: [Object; 4] = [
    Object::new(&[
        Field::required("files", OneOrMore(&Text), "files and folders, relative to the plan"),
        Field::new("exclude", List(&Text), "patterns of what is left out, as restic has them"),
        CLASS_OF,
    ]),
    Object::new(&[Field::required("sqlite", Text, "the file of an SQLite database"), CLASS_OF]),
    Object::new(&[
        Field::required(
            "postgres",
            PostgresUrl,
            "a PostgreSQL cluster: postgresql://USER@HOST/DATABASE",
        ),
        Field::new("password", Secret, "where its password is found"),
        Field::new("user", Text, "the system's user that a restored server runs as"),
        CLASS_OF,
    ]),
    Object::new(&[
        Field::required(
            "command",
            Argv,
            "program and arguments whose output is kept; no shell; \"|\" parts the stages of a pipe",
        ),
        Field::required("file", Text, "the name of the file that the output becomes"),
        CLASS_OF,
    ]),
];

static PROTECTION: Object = Object {
    fields: &[
        Field::required("data", OneOrMore(&Text), "the parts of the data"),
        Field::new("every", Duration, "so long after the start of the run before"),
        Field::new("schedule", Schedule, "or five fields of cron, in UTC"),
        Field::required("to", Text, "the repository that is written"),
        Field::new("copy", OneOrMore(&Text), "the repositories that receive copies"),
        Field::new("keep", Of(&KEEP), "what is kept; without it everything"),
        Field::new(
            "kind",
            OneOf(&["full", "incremental", "differential"]),
            "how much is read again; incremental by default",
        ),
        Field::new("before", Of(&HOOK), "runs first; when it fails there is no backup"),
        Field::new("after", Of(&HOOK), "runs after the snapshots, also when they failed"),
        Field::new("on_failure", Of(&HOOK), "runs when anything of this line failed"),
    ],
    one_of: &["every", "schedule"],
    sense: None,
};

static HOOK: Object = Object::new(&[
    Field::required("run", Argv, "program and arguments; no shell"),
    Field::new("timeout", Duration, "when it is ended and has failed; 10m by default"),
]);

static KEEP: Object = Object {
    fields: &[
        Field::new("last", Count, "the newest so many"),
        Field::new("hourly", Count, "one an hour"),
        Field::new("daily", Count, "one a day"),
        Field::new("weekly", Count, "one a week"),
        Field::new("monthly", Count, "one a month"),
        Field::new("yearly", Count, "one a year"),
        Field::new("within", Within, "all so much newer than the newest: 1y5m7d2h, m is months"),
        Field::new("within_hourly", Within, "one an hour within this"),
        Field::new("within_daily", Within, "one a day within this"),
        Field::new("within_weekly", Within, "one a week within this"),
        Field::new("within_monthly", Within, "one a month within this"),
        Field::new("within_yearly", Within, "one a year within this"),
        Field::new("tags", OneOrMore(&Text), "those with a tag, or with all of `one,two`"),
    ],
    one_of: &[],
    sense: Some(keeps_something),
};

/// Counts of zero are no rules. Without any rule nothing would be kept but what always is.
fn keeps_something(node: &Node) -> Option<(&'static str, Wrong)> {
    let is_zero = |value: &Node| value::count(value) == Ok(0);
    let entries = node.entries();
    if entries.iter().any(|(_, value)| !is_zero(value)) {
        return None;
    }
    let of_entry = |field: &&Field| entries.first().is_some_and(|(key, _)| key.text == field.name);
    let first = KEEP.fields.iter().find(of_entry)?.name;
    let message = format!("{first}: 0 keeps nothing, and no other rule stands beside it");
    let help = "say what stays, as in {daily: 7, weekly: 5}; without `keep` everything does";
    Some((first, Wrong::new("bad-value", message, help)))
}

static MARKERS: Object = Object::new(&[
    Field::required("data", Text, "the part of the data that they are written to"),
    Field::required("every", Duration, "how often"),
]);

static ASSUME: Object = Object::new(&[
    Field::new("detect", Duration, "from the impact until somebody knows"),
    Field::new("decide", Duration, "from then until somebody decides to recover"),
]);

static STEP: [Object; 3] = [
    Object::new(&[Field::required(
        "restore",
        OneOrMore(&Text),
        "bring these parts of the data back",
    )]),
    Object::new(&[
        Field::required("start", Argv, "start this program, which keeps running"),
        Field::new("env", Map(Keys::Texts, &Word), "its environment variables"),
        Field::new("user", Text, "the system's user that it runs as"),
        Field::new("dir", Text, "its working directory"),
    ]),
    Object::new(&[
        Field::required("run", Argv, "run this program to its end"),
        Field::new("timeout", Duration, "when it is ended and has failed; 10m by default"),
        Field::new("env", Map(Keys::Texts, &Word), "its environment variables"),
        Field::new("user", Text, "the system's user that it runs as"),
        Field::new("dir", Text, "its working directory"),
    ]),
];

static ACCEPTANCE: Object = Object::new(&[
    Field::new("hold", Duration, "so long every probe must stay green; 10s by default"),
    Field::new("within", Duration, "when to give up; 10m by default"),
    Field::new("probes", Map(Keys::Names, &Variant(&PROBE)), "the questions"),
    Field::new("completeness", Of(&COMPLETENESS), "what is counted and compared"),
]);

static COMPLETENESS: Object = Object::new(&[
    Field::new(
        "rows",
        Map(Keys::Texts, &OneOrMore(&Text)),
        "tables whose rows are counted, by part of the data",
    ),
    Field::new(
        "checksums",
        List(&Text),
        "parts of the data whose content is compared with the snapshot's",
    ),
]);

const CLASS_OF: Field = Field::new("class", Text, "its class, which brings a policy");
const ON: Field = Field::new("on", Text, "the part of the data that it questions");
const INTERVAL: Field =
    Field::new("interval", Duration, "from one sample to the next; 1s by default");
const TIMEOUT: Field =
    Field::new("timeout", Duration, "when a sample counts as red; 5s by default");

static PROBE: [Object; 4] = [
    Object::new(&[
        Field::required("http", Address, "the address that is asked"),
        Field::new("expect", Of(&EXPECT_HTTP), "the answer that is green; status 200 by default"),
        ON,
        INTERVAL,
        TIMEOUT,
    ]),
    Object::new(&[
        Field::required("tcp", Text, "host:port that must accept a connection"),
        ON,
        INTERVAL,
        TIMEOUT,
    ]),
    Object::new(&[
        Field::required("sql", Text, "the query; the first column of its only row is compared"),
        Field::required("on", Text, "the part of the data that it questions"),
        Field::required("expect", Scalar, "what it must answer"),
        INTERVAL,
        TIMEOUT,
    ]),
    Object::new(&[
        Field::required("command", Argv, "program and arguments; no shell"),
        Field::new(
            "expect",
            Of(&EXPECT_COMMAND),
            "the result that is green; exit code 0 by default",
        ),
        ON,
        INTERVAL,
        TIMEOUT,
    ]),
];

static EXPECT_HTTP: Object = Object::new(&[
    Field::new("status", OneOrMore(&Status), "accepted statuses; 200 by default"),
    Field::new("body", Text, "a text that the body must hold"),
    Field::new("json", Map(Keys::Texts, &Any), "JSON paths and the value that each must select"),
    Field::new("redirects", Bool, "whether redirects are followed; false by default"),
]);

static EXPECT_COMMAND: Object = Object::new(&[
    Field::new("exit", ExitCode, "the exit code; 0 by default"),
    Field::new("output", Text, "a text that standard output must hold"),
]);

static DRILL: Object = Object::new(&[
    Field::required("service", Text, "the service"),
    Field::required("disruption", OneOf(&DISRUPTIONS), "what is rehearsed"),
    Field::new("schedule", Schedule, "when; without one, whenever somebody runs it"),
    Field::new("timezone", TimeZone, "the time zone of the schedule; UTC by default"),
]);

static EXCEPTION: Object = Object::new(&[
    Field::required("service", Text, "the service that it is for"),
    Field::required("waives", Text, "the code of the finding that it waives"),
    Field::required("until", Date, "the last day on which it holds"),
    Field::required("reason", Text, "why"),
    Field::new("approved_by", Text, "who allowed it"),
]);

/// The names of all credentials and all options that a repository may have.
pub fn store_names() -> (impl Iterator<Item = &'static str>, impl Iterator<Item = &'static str>) {
    let names = |object: &'static Object| object.fields.iter().map(|field| field.name);
    (names(&CREDENTIALS), names(&STORE_OPTIONS))
}

#[cfg(test)]
mod tests {
    use muster_model::Disruption;

    use super::DISRUPTIONS;

    #[test]
    fn the_disruptions_are_those_of_the_table() {
        assert_eq!(Disruption::ALL.map(Disruption::as_str), DISRUPTIONS);
    }
}
