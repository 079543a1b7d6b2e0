//! What a report says, before anybody decides how it looks: its JSON form.
//!
//! A caller fills [`Facts`] with what the ledger, the plan and the repositories hold;
//! [`ReportData::new`] derives from them everything that is derived, so that no figure of a
//! report is typed in by hand and the parts cannot contradict one another.

use std::collections::BTreeMap;

use jiff::{Timestamp, civil::Date};
use muster_control::matrix::{Cell, Figures, sentence};
use muster_model::{Disruption, DrillResult, Finding, RecoveryPoint, Verdict, drill::MarkerCounts};
use serde::Serialize;

use super::kpi::{Kpis, kpis};

/// All that a report is made of, as it was found.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The plan's name.
    pub plan: String,
    /// The plan's revision (SHA-256 of its text, in hex).
    pub revision: String,
    /// The moment at which all of this was looked up.
    pub generated: Timestamp,
    /// The beginning of the period.
    pub since: Timestamp,
    /// The end of the period.
    pub until: Timestamp,
    /// The time zone in which moments are shown, by its IANA name.
    pub zone: String,
    /// The matrix of today.
    pub cells: Vec<Cell>,
    /// The services, in the order of the plan.
    pub services: Vec<Service>,
    /// Every drill of the period that ended in any way, in the order in which they ended.
    pub drills: Vec<DrillResult>,
    /// Drills of the period that were started and never ended.
    pub unfinished: Vec<Unfinished>,
    /// Real recoveries of the period.
    pub recoveries: Vec<DrillResult>,
    /// The recovery points that exist today.
    pub points: Vec<RecoveryPoint>,
    /// How protecting went in the period.
    pub backups: Vec<BackupStats>,
    /// What the plan check says today.
    pub findings: Vec<Finding>,
    /// Exceptions that hold today.
    pub exceptions: Vec<HeldException>,
    /// The state of the evidence log.
    pub evidence: EvidenceState,
}

/// A report.
#[derive(Debug, Clone, Serialize)]
pub struct ReportData {
    /// The plan's name.
    pub plan: String,
    /// The plan's revision (SHA-256 of its text, in hex).
    pub revision: String,
    /// The moment that the report speaks of as "now".
    pub generated: Timestamp,
    /// The beginning of the period.
    pub since: Timestamp,
    /// The end of the period.
    pub until: Timestamp,
    /// The time zone in which moments are shown, by its IANA name.
    pub zone: String,
    /// How much is proven, in one sentence.
    pub sentence: String,
    /// The matrix of today.
    pub cells: Vec<Cell>,
    /// The services, in the order of the plan.
    pub services: Vec<Service>,
    /// How the drills of the period ended.
    pub counts: VerdictCounts,
    /// Every drill of the period that ended in any way.
    pub drills: Vec<DrillResult>,
    /// Drills of the period that were started and never ended.
    pub unfinished: Vec<Unfinished>,
    /// Real recoveries of the period.
    pub recoveries: Vec<DrillResult>,
    /// The recovery points that exist today, per service and data item.
    pub points_summary: Vec<PointsSummary>,
    /// How protecting went in the period, per service and data item.
    pub backups: Vec<BackupStats>,
    /// What the plan check says today.
    pub findings: Vec<Finding>,
    /// Exceptions that hold today.
    pub exceptions: Vec<HeldException>,
    /// The figures by which a programme of drills is judged.
    pub kpis: Kpis,
    /// The state of the evidence log.
    pub evidence: EvidenceState,
}

/// A service of the plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its tier; `None` when the plan gives none.
    pub tier: Option<String>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// What its tier promises. What holds for one disruption is in its cell.
    pub objective: Figures,
    /// Disruptions for which the plan says `none`: nothing is promised, and that is shown.
    pub excluded: Vec<Disruption>,
}

/// A drill that was started and of which no end is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unfinished {
    /// Its id.
    pub drill: String,
    /// Its number.
    pub number: u64,
    /// The service.
    pub service: String,
    /// What was rehearsed.
    pub disruption: Disruption,
    /// When it began.
    pub started: Timestamp,
}

/// How often drills of the period ended in which way. `total` is the sum of all others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct VerdictCounts {
    /// Passed.
    pub pass: u64,
    /// Failed.
    pub fail: u64,
    /// Could not be judged.
    pub inconclusive: u64,
    /// The harness failed.
    pub error: u64,
    /// Stopped on request.
    pub aborted: u64,
    /// Due and not started within the window.
    pub expired: u64,
    /// Left out, with a reason.
    pub skipped: u64,
    /// Started and never ended.
    pub unfinished: u64,
    /// All of these.
    pub total: u64,
}

impl VerdictCounts {
    /// Counts.
    #[must_use]
    pub fn new(drills: &[DrillResult], unfinished: u64) -> Self {
        let mut counts = Self { unfinished, total: unfinished, ..Self::default() };
        for drill in drills {
            *counts.of(drill.verdict) += 1;
            counts.total += 1;
        }
        counts
    }

    fn of(&mut self, verdict: Verdict) -> &mut u64 {
        match verdict {
            Verdict::Pass => &mut self.pass,
            Verdict::Fail => &mut self.fail,
            Verdict::Inconclusive => &mut self.inconclusive,
            Verdict::Error => &mut self.error,
            Verdict::Aborted => &mut self.aborted,
            Verdict::Expired => &mut self.expired,
            Verdict::Skipped => &mut self.skipped,
        }
    }

    /// The drills that were really started: without those that expired or were skipped.
    #[must_use]
    pub fn started(&self) -> u64 {
        self.total - self.expired - self.skipped
    }

    /// Each kind with its count, in the order in which they are shown.
    #[must_use]
    pub fn rows(&self) -> [(&'static str, u64); 8] {
        [
            ("pass", self.pass),
            ("fail", self.fail),
            ("inconclusive", self.inconclusive),
            ("error", self.error),
            ("aborted", self.aborted),
            ("expired", self.expired),
            ("skipped", self.skipped),
            ("unfinished", self.unfinished),
        ]
    }
}

/// The recovery points of one data item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PointsSummary {
    /// The service.
    pub service: String,
    /// The data item.
    pub data: String,
    /// How many there are.
    pub count: u64,
    /// How many of these had to leave something out.
    pub partial: u64,
    /// The moment whose data the newest whole one holds.
    pub newest_data_time: Option<Timestamp>,
    /// What a restore of that one writes.
    pub newest_bytes: Option<u64>,
    /// Where they lie.
    pub copies: Vec<CopiesSummary>,
    /// When one of them was last restored and questioned.
    pub proven_at: Option<Timestamp>,
    /// The drill that did it.
    pub proven_by: Option<String>,
}

/// The copies of one data item in one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CopiesSummary {
    /// The repository's name in the plan.
    pub repository: String,
    /// Its region.
    pub region: Option<String>,
    /// Nobody can change any of them.
    pub immutable: bool,
    /// How many points have a copy there.
    pub count: u64,
    /// The moment whose data the newest of these holds.
    pub newest_data_time: Option<Timestamp>,
}

/// How protecting one data item went in the period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupStats {
    /// The service.
    pub service: String,
    /// The data item.
    pub data: String,
    /// How often it was tried.
    pub runs: u64,
    /// How often it failed.
    pub failed: u64,
    /// How often something was left out.
    pub partial: u64,
    /// How often it was due and not even tried.
    pub missed: u64,
    /// When it was last tried.
    pub last_run: Option<Timestamp>,
    /// When it last succeeded.
    pub last_success: Option<Timestamp>,
    /// Why it last failed.
    pub last_error: Option<String>,
}

/// An exception that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeldException {
    /// The service.
    pub service: String,
    /// The code of the finding that it waives.
    pub waives: String,
    /// The last day on which it holds.
    pub until: Date,
    /// Why.
    pub reason: String,
    /// Who allowed it.
    pub approved_by: Option<String>,
}

/// What is known of the evidence log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct EvidenceState {
    /// How many leaves it has.
    pub log_size: u64,
    /// The newest checkpoint, as its text; `None` when none was written yet.
    pub checkpoint: Option<String>,
    /// The last check of signatures and chain; `None` when it was never checked.
    pub verified: Option<Verification>,
}

/// A check of the evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// When it was made.
    pub at: Timestamp,
    /// Whether everything held.
    pub ok: bool,
    /// What was checked, or what did not hold.
    pub detail: String,
}

impl ReportData {
    /// Derives from the facts all that a report says.
    #[must_use]
    pub fn new(facts: Facts) -> Self {
        let unfinished = facts.unfinished.len() as u64;
        Self {
            sentence: sentence(&facts.cells),
            counts: VerdictCounts::new(&facts.drills, unfinished),
            kpis: kpis(&facts.services, &facts.cells, &facts.drills),
            points_summary: points_summary(&facts.points),
            plan: facts.plan,
            revision: facts.revision,
            generated: facts.generated,
            since: facts.since,
            until: facts.until,
            zone: facts.zone,
            cells: facts.cells,
            services: facts.services,
            drills: facts.drills,
            unfinished: facts.unfinished,
            recoveries: facts.recoveries,
            backups: facts.backups,
            findings: facts.findings,
            exceptions: facts.exceptions,
            evidence: facts.evidence,
        }
    }

    /// The cell of a service and a disruption.
    #[must_use]
    pub fn cell(&self, service: &str, disruption: Disruption) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.service == service && cell.disruption == disruption)
    }

    /// The disruptions for which anything is promised, rehearsed or excluded, in the order of
    /// the reference.
    #[must_use]
    pub fn disruptions(&self) -> Vec<Disruption> {
        let is_used = |disruption: &Disruption| {
            self.cells.iter().any(|cell| cell.disruption == *disruption)
                || self.services.iter().any(|service| service.excluded.contains(disruption))
        };
        Disruption::ALL.into_iter().filter(is_used).collect()
    }

    /// The services by tier: the strictest recovery time first, without a tier last; within a
    /// tier in the order of the plan.
    #[must_use]
    pub fn tiers(&self) -> Vec<(Option<&str>, Vec<&Service>)> {
        let mut tiers: Vec<(Option<&str>, Vec<&Service>)> = Vec::new();
        for service in &self.services {
            match tiers.iter_mut().find(|(name, _)| *name == service.tier.as_deref()) {
                Some((_, services)) => services.push(service),
                None => tiers.push((service.tier.as_deref(), vec![service])),
            }
        }
        let strictness = |tier: &(Option<&str>, Vec<&Service>)| {
            let objective = tier.1.iter().filter_map(|service| service.objective.rto_s);
            (tier.0.is_none(), objective.fold(f64::INFINITY, f64::min))
        };
        tiers.sort_by(|a, b| {
            let (a, b) = (strictness(a), strictness(b));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        });
        tiers
    }

    /// Each service × disruption that was rehearsed in the period, with the places of its
    /// drills in [`Self::drills`], in the order of the plan and of the reference.
    #[must_use]
    pub fn rehearsed(&self) -> Vec<Rehearsed<'_>> {
        let mut groups: Vec<Rehearsed<'_>> = Vec::new();
        for (i, drill) in self.drills.iter().enumerate() {
            group_of(&mut groups, &drill.service, drill.disruption).drills.push(i);
        }
        for (i, drill) in self.unfinished.iter().enumerate() {
            group_of(&mut groups, &drill.service, drill.disruption).unfinished.push(i);
        }
        let rank = |name: &str| self.services.iter().position(|service| service.name == name);
        groups.sort_by_key(|group| (rank(group.service).unwrap_or(usize::MAX), group.disruption));
        groups
    }

    /// The markers of the drills of the period, summed up per service.
    #[must_use]
    pub fn markers(&self) -> Vec<MarkerSum<'_>> {
        let mut sums: Vec<MarkerSum<'_>> = Vec::new();
        for drill in &self.drills {
            let Some(counts) = &drill.markers else { continue };
            match sums.iter_mut().find(|sum| sum.service == drill.service) {
                Some(sum) => sum.add(counts),
                None => sums.push(MarkerSum {
                    service: &drill.service,
                    drills: 1,
                    counts: counts.clone(),
                }),
            }
        }
        sums
    }

    /// The newest drill of a service × disruption that says something about the system; when
    /// none does, the newest that has any figure.
    #[must_use]
    pub fn newest(&self, group: &Rehearsed<'_>) -> Option<usize> {
        let newest = |wanted: &dyn Fn(&DrillResult) -> bool| {
            group.drills.iter().rev().copied().find(|i| wanted(&self.drills[*i]))
        };
        newest(&|drill| drill.verdict.judges())
            .or_else(|| newest(&|drill| drill.recovery_time.actual_s.is_some()))
    }
}

/// The drills of one service and one disruption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rehearsed<'a> {
    /// The service.
    pub service: &'a str,
    /// The disruption.
    pub disruption: Disruption,
    /// Their places in [`ReportData::drills`], oldest first.
    pub drills: Vec<usize>,
    /// Their places in [`ReportData::unfinished`].
    pub unfinished: Vec<usize>,
}

impl Rehearsed<'_> {
    /// How many drills there are, however they ended or did not.
    #[must_use]
    pub fn count(&self) -> u64 {
        (self.drills.len() + self.unfinished.len()) as u64
    }
}

fn group_of<'g, 'a>(
    groups: &'g mut Vec<Rehearsed<'a>>,
    service: &'a str,
    disruption: Disruption,
) -> &'g mut Rehearsed<'a> {
    let same = |group: &Rehearsed<'_>| group.service == service && group.disruption == disruption;
    let i = groups.iter().position(same).unwrap_or_else(|| {
        groups.push(Rehearsed { service, disruption, drills: Vec::new(), unfinished: Vec::new() });
        groups.len() - 1
    });
    &mut groups[i]
}

/// The markers of one service over its drills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkerSum<'a> {
    /// The service.
    pub service: &'a str,
    /// How many of its drills had markers.
    pub drills: u64,
    /// Their sums.
    pub counts: MarkerCounts,
}

impl MarkerSum<'_> {
    fn add(&mut self, counts: &MarkerCounts) {
        let MarkerCounts { written, recovered, lost, holes, duplicates } = &mut self.counts;
        self.drills += 1;
        *written = written.saturating_add(counts.written);
        *recovered = recovered.saturating_add(counts.recovered);
        *lost = lost.saturating_add(counts.lost);
        *holes = holes.saturating_add(counts.holes);
        *duplicates = duplicates.saturating_add(counts.duplicates);
    }
}

/// Sums recovery points up per service and data item, in the order in which they first appear.
#[must_use]
pub fn points_summary(points: &[RecoveryPoint]) -> Vec<PointsSummary> {
    let mut order: Vec<(&str, &str)> = Vec::new();
    let mut groups: BTreeMap<(&str, &str), Vec<&RecoveryPoint>> = BTreeMap::new();
    for point in points {
        let key = (point.service.as_str(), point.data.as_str());
        let group = groups.entry(key).or_default();
        if group.is_empty() {
            order.push(key);
        }
        group.push(point);
    }
    order.iter().filter_map(|key| groups.get(key)).map(|group| summary_of(group)).collect()
}

fn summary_of(group: &[&RecoveryPoint]) -> PointsSummary {
    let newest = group.iter().filter(|point| point.is_good()).max_by_key(|point| point.data_time);
    let proof = group.iter().filter_map(|point| point.proof.as_ref()).max_by_key(|proof| proof.at);
    PointsSummary {
        service: group[0].service.clone(),
        data: group[0].data.clone(),
        count: group.len() as u64,
        partial: group.iter().filter(|point| point.partial).count() as u64,
        newest_data_time: newest.map(|point| point.data_time),
        newest_bytes: newest.and_then(|point| point.bytes),
        copies: copies_of(group),
        proven_at: proof.map(|proof| proof.at),
        proven_by: proof.map(|proof| proof.drill.clone()),
    }
}

fn copies_of(group: &[&RecoveryPoint]) -> Vec<CopiesSummary> {
    let mut copies: BTreeMap<&str, CopiesSummary> = BTreeMap::new();
    for point in group {
        for copy in &point.copies {
            let summary = copies.entry(&copy.repository).or_insert_with(|| CopiesSummary {
                repository: copy.repository.clone(),
                region: copy.place.region.clone(),
                immutable: true,
                count: 0,
                newest_data_time: None,
            });
            summary.count += 1;
            summary.immutable &= copy.immutable;
            if point.is_good() {
                summary.newest_data_time = summary.newest_data_time.max(Some(point.data_time));
            }
        }
    }
    copies.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn verdict_counts_add_up() {
        let data = ReportData::new(sample::facts());
        let counts = data.counts;
        let sum: u64 = counts.rows().iter().map(|(_, n)| n).sum();
        assert_eq!(sum, counts.total);
        assert_eq!(counts.total, (data.drills.len() + data.unfinished.len()) as u64);
        assert_eq!(counts.started() + counts.expired + counts.skipped, counts.total);
        assert!(counts.rows().iter().all(|(_, n)| *n > 0), "the sample has every verdict");
    }

    #[test]
    fn points_are_summed_up_per_data_item() {
        let summary = points_summary(&sample::facts().points);
        let db = summary.iter().find(|s| s.service == "orders" && s.data == "db").unwrap();
        assert_eq!(
            db.copies.iter().map(|c| c.repository.as_str()).collect::<Vec<_>>(),
            ["far", "near"]
        );
        assert!(db.proven_at.is_some());
        assert!(db.count > db.partial);
        assert!(points_summary(&[]).is_empty());
    }

    #[test]
    fn the_strictest_tier_comes_first_and_none_last() {
        let data = ReportData::new(sample::facts());
        let names: Vec<Option<&str>> = data.tiers().iter().map(|(name, _)| *name).collect();
        assert_eq!(names, [Some("critical"), Some("important"), Some("standard"), None]);
    }

    #[test]
    fn json_has_the_names_that_others_build_on() {
        let json = serde_json::to_value(ReportData::new(sample::facts())).unwrap();
        let keys = [
            "plan",
            "revision",
            "generated",
            "since",
            "until",
            "zone",
            "sentence",
            "cells",
            "services",
            "counts",
            "drills",
            "unfinished",
            "recoveries",
            "points_summary",
            "backups",
            "findings",
            "exceptions",
            "kpis",
            "evidence",
        ];
        for key in keys {
            assert!(json.get(key).is_some(), "{key}");
        }
        assert!(json["cells"][0]["objective"]["rto_s"].is_f64());
    }
}
