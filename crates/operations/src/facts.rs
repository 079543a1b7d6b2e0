//! What was measured, as the judging of a plan needs it: from the ledger.

use std::{collections::HashMap, time::Duration};

use muster_model::{DrillResult, Verdict};
use muster_plan::document::{BackupFact, Facts, ProofFact, RestoreFact};

use crate::{
    error::OperationError,
    records::{BackupEnded, BackupOutcome, CopyEnded, Record},
    state::{Logged, State},
};

/// Gathers all facts.
///
/// # Errors
/// Fails when the ledger cannot be read.
pub(crate) fn gather(state: &State) -> Result<Facts, OperationError> {
    let history =
        state.history(&["backup-ended", "copy-ended", "drill-ended", "recovery-ended"])?;
    let lags = copy_lags(&history);
    let mut facts = Facts::default();
    for logged in &history {
        match &logged.record {
            Record::BackupEnded(ended) => facts.backups.extend(backup_fact(logged, ended, &lags)),
            Record::DrillEnded(drill) => {
                facts.restores.extend(restore_facts(drill));
                if drill.verdict == Verdict::Pass {
                    facts.proofs.push(ProofFact {
                        service: drill.service.clone(),
                        disruption: drill.disruption,
                        at: drill.ended,
                    });
                }
            }
            Record::RecoveryEnded(recovery) => facts.restores.extend(restore_facts(recovery)),
            _ => {}
        }
    }
    facts.verifications = crate::verify::facts(state)?;
    Ok(facts)
}

/// The slowest successful copy of each point of each data item.
type Lags<'a> = HashMap<(&'a str, &'a str, &'a str), f64>;

fn copy_lags(history: &[Logged]) -> Lags<'_> {
    let mut lags = Lags::new();
    for logged in history {
        if let Record::CopyEnded(CopyEnded { service, data, point, lag_s, error: None, .. }) =
            &logged.record
        {
            let slowest = lags.entry((service, data, point)).or_default();
            *slowest = slowest.max(*lag_s);
        }
    }
    lags
}

fn backup_fact(logged: &Logged, ended: &BackupEnded, lags: &Lags<'_>) -> Option<BackupFact> {
    if !matches!(ended.outcome, BackupOutcome::Completed | BackupOutcome::Partial) {
        return None;
    }
    let lag = lags.get(&(&*ended.service, &*ended.data, &*ended.point)).copied();
    Some(BackupFact {
        service: ended.service.clone(),
        data: ended.data.clone(),
        took: Duration::try_from_secs_f64(ended.took_s?).ok()?,
        copy_lag: Duration::try_from_secs_f64(lag.unwrap_or_default()).ok()?,
        bytes: ended.bytes?,
        ended: logged.at,
    })
}

/// The restore of each data item: the phase `restore` is shared by them in proportion to their
/// bytes; all else is what a recovery costs besides.
fn restore_facts(drill: &DrillResult) -> Vec<RestoreFact> {
    let phase = |name: &str| {
        drill.recovery_time.phases.iter().find(|phase| phase.name == name).and_then(|p| p.s)
    };
    let (Some(restore_s), Some(actual_s)) = (phase("restore"), drill.recovery_time.actual_s) else {
        return Vec::new();
    };
    let total: u64 = drill.points.iter().filter_map(|point| point.bytes).sum();
    let fact = |point: &muster_model::drill::PointUsed| {
        let bytes = point.bytes?;
        #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits")]
        let share = if total == 0 { 1.0 } else { bytes as f64 / total as f64 };
        Some(RestoreFact {
            service: drill.service.clone(),
            data: point.data.clone(),
            bytes,
            took: Duration::try_from_secs_f64(restore_s * share).ok()?,
            rest: Duration::try_from_secs_f64((actual_s - restore_s).max(0.0)).ok()?,
        })
    };
    drill.points.iter().filter_map(fact).collect()
}
