//! A plan taken apart into comparable leaves, each with the direction in which it weakens.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use muster_model::{
    Cadence, Probe, SecretRef, Step, Within,
    units::{format_duration, format_size},
};

use crate::{
    assess::{longest_interval, percent},
    document::{
        Contact, DataClass, DataItem, DataSource, Exception, Hooks, Keep, Plan, Protection, Region,
        Repository, ScheduledDrill, Service, Strategy, Tier, Verify,
    },
};

/// When a change weakens protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sense {
    /// Never.
    Neutral,
    /// Growing: times that are promised or waited.
    MoreIsLoss,
    /// Shrinking: availability, immutability.
    LessIsLoss,
    /// Going: a copy, a probe, a drill.
    AbsenceIsLoss,
    /// Coming or growing: an exception, an exclusion, `none`.
    PresenceIsLoss,
}

/// A value that cannot be taken apart.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Leaf {
    pub(super) text: String,
    /// For those that can be larger or smaller; each part is compared with its like.
    pub(super) sizes: Vec<f64>,
    pub(super) sense: Sense,
}

/// Takes a plan apart, by path.
pub(super) fn leaves(plan: &Plan) -> BTreeMap<String, Leaf> {
    let mut leaves = Leaves::default();
    leaves.text("name", Sense::Neutral, &plan.name);
    plan.regions.iter().for_each(|region| leaves.region(region));
    plan.contacts.iter().for_each(|contact| leaves.contact(contact));
    plan.tiers.iter().for_each(|tier| leaves.tier(tier));
    plan.repositories.iter().for_each(|repository| leaves.repository(repository));
    plan.classes.iter().for_each(|class| leaves.class(class));
    plan.services.iter().for_each(|service| leaves.service(service));
    plan.drills.iter().for_each(|drill| leaves.drill(drill));
    plan.exceptions.iter().for_each(|exception| leaves.exception(exception));
    leaves.0
}

#[derive(Default)]
struct Leaves(BTreeMap<String, Leaf>);

impl Leaves {
    fn add(&mut self, path: String, leaf: Leaf) {
        let mut free = path.clone();
        let mut number = 2;
        while self.0.contains_key(&free) {
            free = format!("{path}#{number}");
            number += 1;
        }
        self.0.insert(free, leaf);
    }

    fn text(&mut self, path: impl Into<String>, sense: Sense, text: impl Into<String>) {
        self.add(path.into(), Leaf { text: text.into(), sizes: Vec::new(), sense });
    }

    fn optional(&mut self, path: String, sense: Sense, text: Option<&String>) {
        if let Some(text) = text {
            self.text(path, sense, text);
        }
    }

    fn time(&mut self, path: String, sense: Sense, time: Option<Duration>) {
        if let Some(time) = time {
            self.add(path, Leaf { text: plain(time), sizes: vec![time.as_secs_f64()], sense });
        }
    }

    fn place(&mut self, path: &str, place: &muster_model::Place) {
        let parts = [("region", &place.region), ("zone", &place.zone), ("host", &place.host)];
        for (name, part) in parts {
            self.optional(format!("{path}.{name}"), Sense::Neutral, part.as_ref());
        }
    }

    fn region(&mut self, region: &Region) {
        let path = format!("regions.{}", region.name);
        self.text(path, Sense::Neutral, format!("zones {:?}", region.zones));
    }

    fn contact(&mut self, contact: &Contact) {
        for (way, address) in &contact.ways {
            let path = format!("contacts.{}.{way}", contact.name);
            self.text(path, Sense::AbsenceIsLoss, address);
        }
    }

    fn tier(&mut self, tier: &Tier) {
        let path = |field: &str| format!("tiers.{}.{field}", tier.name);
        let times = [
            ("rto", tier.rto),
            ("rpo", tier.rpo),
            ("mttr", tier.mttr),
            ("drill_every", tier.drill_every),
            ("evidence_max_age", tier.evidence_max_age),
        ];
        for (field, time) in times {
            self.time(path(field), Sense::MoreIsLoss, time);
        }
        self.time(path("mtbf"), Sense::LessIsLoss, tier.mtbf);
        if let Some(share) = tier.availability {
            let text = format!("{} %", percent(share));
            let (sizes, sense) = (vec![share], Sense::LessIsLoss);
            self.add(path("availability"), Leaf { text, sizes, sense });
        }
    }

    fn repository(&mut self, repository: &Repository) {
        let path = format!("repositories.{}", repository.name);
        self.text(format!("{path}.url"), Sense::AbsenceIsLoss, &repository.url);
        self.place(&path, &repository.place);
        let password = repository.password.as_ref().map(SecretRef::to_string);
        self.optional(format!("{path}.password"), Sense::Neutral, password.as_ref());
        for (name, secret) in &repository.credentials {
            let path = format!("{path}.credentials.{name}");
            self.optional(path, Sense::Neutral, Some(&secret.to_string()));
        }
        for (name, value) in &repository.options {
            self.text(format!("{path}.options.{name}"), Sense::Neutral, value);
        }
        self.time(format!("{path}.immutable"), Sense::LessIsLoss, repository.immutable);
        self.time(format!("{path}.warm_up"), Sense::LessIsLoss, repository.warm_up);
        self.verify(repository.verify.as_ref(), &path);
        let limits =
            [("upload", repository.limits.upload), ("download", repository.limits.download)];
        for (name, limit) in limits {
            let limit = limit.map(|limit| format!("{}/s", format_size(limit)));
            self.optional(format!("{path}.limits.{name}"), Sense::Neutral, limit.as_ref());
        }
    }

    fn service(&mut self, service: &Service) {
        let path = format!("services.{}", service.name);
        self.text(path.clone(), Sense::AbsenceIsLoss, "service");
        self.optional(format!("{path}.tier"), Sense::Neutral, service.tier.as_ref());
        self.place(&path, &service.place);
        self.optional(format!("{path}.owner"), Sense::AbsenceIsLoss, service.owner.as_ref());
        for contact in &service.contacts {
            self.text(format!("{path}.contacts.{contact}"), Sense::AbsenceIsLoss, contact);
        }
        for (length, cost) in &service.impact {
            self.text(format!("{path}.impact.{}", plain(*length)), Sense::Neutral, cost);
        }
        let strategy = match service.strategy {
            Strategy::BackupRestore => "backup-restore",
            Strategy::PilotLight => "pilot-light",
            Strategy::WarmStandby => "warm-standby",
            Strategy::ActiveActive => "active-active",
        };
        self.text(format!("{path}.strategy"), Sense::Neutral, strategy);
        for dependency in &service.depends_on {
            let kind = if dependency.hard { "hard" } else { "soft" };
            let path = format!("{path}.depends_on.{}", dependency.service);
            self.text(path, Sense::Neutral, kind);
        }
        self.objectives(service, &path);
        service.data.iter().for_each(|item| self.data(item, &path));
        service.protect.iter().for_each(|line| self.protection(line, &path));
        self.proof(service, &path);
    }

    fn objectives(&mut self, service: &Service, path: &str) {
        for (disruption, objective) in &service.objectives {
            let path = format!("{path}.objectives.{disruption}");
            self.time(format!("{path}.rto"), Sense::MoreIsLoss, objective.rto);
            self.time(format!("{path}.rpo"), Sense::MoreIsLoss, objective.rpo);
        }
        for disruption in &service.no_objective {
            self.text(format!("{path}.objectives.{disruption}"), Sense::PresenceIsLoss, "none");
        }
    }

    fn data(&mut self, item: &DataItem, path: &str) {
        let path = format!("{path}.data.{}", item.name);
        self.optional(format!("{path}.class"), Sense::AbsenceIsLoss, item.class.as_ref());
        match &item.source {
            DataSource::Files { paths, exclude } => {
                for folder in paths {
                    self.text(format!("{path}.files.{folder}"), Sense::AbsenceIsLoss, folder);
                }
                for pattern in exclude {
                    let path = format!("{path}.exclude.{pattern}");
                    self.text(path, Sense::PresenceIsLoss, pattern);
                }
            }
            DataSource::Sqlite { path: file } => {
                self.text(format!("{path}.sqlite"), Sense::AbsenceIsLoss, file);
            }
            DataSource::Postgres { url, password, user } => {
                self.text(format!("{path}.postgres"), Sense::AbsenceIsLoss, url);
                let password = password.as_ref().map(SecretRef::to_string);
                self.optional(format!("{path}.password"), Sense::Neutral, password.as_ref());
                self.optional(format!("{path}.user"), Sense::Neutral, user.as_ref());
            }
            DataSource::Command { argv, file } => {
                self.text(format!("{path}.command"), Sense::AbsenceIsLoss, argv.join(" "));
                self.text(format!("{path}.file"), Sense::Neutral, file);
            }
        }
    }

    /// By data and repository, so that a line which moved is no change.
    fn protection(&mut self, line: &Protection, path: &str) {
        for data in &line.data {
            let path = format!("{path}.protect.{data}.{}", line.to);
            let text = line.cadence.to_string();
            self.paced(format!("{path}.cadence"), text, Some(&line.cadence));
            for copy in &line.copy {
                self.text(format!("{path}.copy.{copy}"), Sense::AbsenceIsLoss, copy);
            }
            self.keep(&line.keep, &path);
            self.text(format!("{path}.kind"), Sense::Neutral, line.kind.as_str());
            self.hooks(&line.hooks, &path);
        }
    }

    fn hooks(&mut self, hooks: &Hooks, path: &str) {
        let named =
            [("before", &hooks.before), ("after", &hooks.after), ("on_failure", &hooks.on_failure)];
        for (name, hook) in named {
            if let Some(hook) = hook {
                let text =
                    format!("{} within {}", hook.argv.join(" "), format_duration(hook.timeout));
                self.text(format!("{path}.{name}"), Sense::AbsenceIsLoss, text);
            }
        }
    }

    /// With no rule everything is kept; with one, each further rule keeps more.
    fn keep(&mut self, keep: &Keep, path: &str) {
        let size = |count: Option<u32>| match keep.is_everything() {
            true => f64::INFINITY,
            false => f64::from(count.unwrap_or(0)),
        };
        let hours = |within: Within| {
            let months = f64::from(within.years) * 12.0 + f64::from(within.months);
            let days = months * 30.5 + f64::from(within.days);
            days * 24.0 + f64::from(within.hours)
        };
        let within = keep.durations().map(|(_, within)| match keep.is_everything() {
            true => f64::INFINITY,
            false => hours(within),
        });
        let counts = keep.counts().map(|(_, count)| size(count));
        let sizes = counts.into_iter().chain(within).collect();
        let text = if keep.is_everything() { "all".to_owned() } else { keep.to_string() };
        self.add(format!("{path}.keep"), Leaf { text, sizes, sense: Sense::LessIsLoss });
        for tags in &keep.tags {
            self.text(format!("{path}.keep.tags.{tags}"), Sense::AbsenceIsLoss, tags);
        }
    }

    fn verify(&mut self, verify: Option<&Verify>, path: &str) {
        if let Some(verify) = verify {
            self.time(format!("{path}.verify.within"), Sense::MoreIsLoss, Some(verify.within));
            self.time(format!("{path}.verify.budget"), Sense::LessIsLoss, verify.budget);
        }
    }

    fn class(&mut self, class: &DataClass) {
        let path = format!("classes.{}", class.name);
        self.text(path.clone(), Sense::AbsenceIsLoss, "class");
        if !class.keep.is_everything() {
            self.keep(&class.keep, &path);
        }
        for copy in &class.copy {
            self.text(format!("{path}.copy.{copy}"), Sense::AbsenceIsLoss, copy);
        }
        self.time(format!("{path}.immutable"), Sense::LessIsLoss, class.immutable);
        self.verify(class.verify.as_ref(), &path);
        self.hooks(&class.hooks, &path);
        for region in &class.residency {
            self.text(format!("{path}.residency.{region}"), Sense::PresenceIsLoss, region);
        }
    }

    /// Something that is done now and then: the longest pause says how seldom. From a fixed
    /// time, so that two plans are compared over the same days.
    fn paced(&mut self, path: String, text: String, cadence: Option<&Cadence>) {
        let pause = cadence.and_then(|cadence| longest_interval(cadence, Timestamp::UNIX_EPOCH));
        let size = pause.map_or(f64::INFINITY, |pause| pause.as_secs_f64());
        self.add(path, Leaf { text, sizes: vec![size], sense: Sense::MoreIsLoss });
    }

    /// Markers, runbook and acceptance.
    fn proof(&mut self, service: &Service, path: &str) {
        if let Some(markers) = &service.markers {
            self.text(format!("{path}.markers.data"), Sense::AbsenceIsLoss, &markers.data);
            self.time(format!("{path}.markers.every"), Sense::MoreIsLoss, Some(markers.every));
        }
        let assumed = [("detect", service.assume.detect), ("decide", service.assume.decide)];
        for (field, time) in assumed {
            self.time(format!("{path}.assume.{field}"), Sense::MoreIsLoss, time);
        }
        for (index, step) in service.recover.iter().enumerate() {
            self.step(step, format!("{path}.recover[{index}]"));
        }
        let acceptance = &service.acceptance;
        let path = format!("{path}.acceptance");
        self.time(format!("{path}.hold"), Sense::LessIsLoss, Some(acceptance.hold));
        self.time(format!("{path}.within"), Sense::MoreIsLoss, Some(acceptance.within));
        for probe in &acceptance.probes {
            self.probe(probe, &path);
        }
        for (data, tables) in &acceptance.rows {
            for table in tables {
                let path = format!("{path}.completeness.rows.{data}.{table}");
                self.text(path, Sense::AbsenceIsLoss, table);
            }
        }
        for data in &acceptance.checksums {
            let path = format!("{path}.completeness.checksums.{data}");
            self.text(path, Sense::AbsenceIsLoss, data);
        }
    }

    fn step(&mut self, step: &Step, path: String) {
        let text = serde_json::to_string(step).unwrap_or_else(|_| step.summary());
        self.text(path, Sense::AbsenceIsLoss, text);
    }

    fn probe(&mut self, probe: &Probe, path: &str) {
        let path = format!("{path}.probes.{}", probe.name);
        let check = serde_json::to_string(&probe.check).unwrap_or_else(|_| probe.name.clone());
        // A probe that is new asks more than before.
        self.text(path.clone(), Sense::AbsenceIsLoss, "probe");
        self.text(format!("{path}.check"), Sense::AbsenceIsLoss, check);
        self.optional(format!("{path}.on"), Sense::AbsenceIsLoss, probe.on.as_ref());
        self.time(format!("{path}.interval"), Sense::MoreIsLoss, Some(probe.interval));
        self.time(format!("{path}.timeout"), Sense::MoreIsLoss, Some(probe.timeout));
    }

    fn drill(&mut self, drill: &ScheduledDrill) {
        let path = format!("drills.{}.{}", drill.service, drill.disruption);
        let cadence = drill.schedule.clone().map(Cadence::Cron);
        let when = cadence.as_ref().map_or("by hand".to_owned(), Cadence::to_string);
        self.paced(path, format!("{when} {}", drill.timezone), cadence.as_ref());
    }

    fn exception(&mut self, exception: &Exception) {
        let path = format!("exceptions.{}.{}", exception.service, exception.waives);
        let day = exception.until;
        let until = f64::from(day.year()) * 400.0 + f64::from(day.day_of_year());
        let approved = exception.approved_by.as_deref().unwrap_or("nobody");
        let text = format!("until {day}, approved by {approved}");
        self.add(path, Leaf { text, sizes: vec![until], sense: Sense::PresenceIsLoss });
    }
}

/// A duration as a plan has it, with all its units.
fn plain(time: Duration) -> String {
    let mut rest = time.as_millis();
    let mut text = String::new();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
    for (unit, length) in units {
        if rest >= length {
            text.push_str(&format!("{}{unit}", rest / length));
            rest %= length;
        }
    }
    text
}
