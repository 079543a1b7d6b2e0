//! The closed list of what can go wrong, and what each takes away: one table that the plan's
//! check, exposure, recovery points and drills all read.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::place::Place;

/// Something that interrupts a service or harms its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disruption {
    /// Deletion or misconfiguration by a person.
    OperatorError,
    /// Data changed by a fault of software or hardware.
    DataCorruption,
    /// A release that does harm.
    BadRelease,
    /// A process died.
    ProcessLoss,
    /// More load than the service can carry.
    Overload,
    /// Something that the service needs is gone.
    DependencyLoss,
    /// Partition, DNS.
    NetworkLoss,
    /// The machine is gone.
    HostLoss,
    /// The machine's storage is gone.
    StorageLoss,
    /// Power, cooling or fire took a zone.
    ZoneLoss,
    /// A natural disaster took a region.
    RegionLoss,
    /// Everything that can be overwritten was encrypted.
    Ransomware,
    /// Somebody was inside.
    Intrusion,
}

/// What survives a disruption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survivors {
    /// Every copy.
    All,
    /// Copies that do not stand on the service's host.
    OtherHosts,
    /// Copies in another zone or region.
    OtherZones,
    /// Copies in another region.
    OtherRegions,
    /// Copies that nobody can change.
    Immutable,
}

/// One row of the table of disruptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effect {
    /// Which copies survive.
    pub survivors: Survivors,
    /// Only points older than the harm can be used: the newest may hold the harm itself.
    pub only_older: bool,
    /// Data is lost, so a recovery point matters.
    pub loses_data: bool,
    /// A tier's objectives hold for it without being listed.
    pub in_tier: bool,
}

impl Disruption {
    /// All disruptions, in the order of the table in the reference.
    pub const ALL: [Self; 13] = [
        Self::OperatorError,
        Self::DataCorruption,
        Self::BadRelease,
        Self::ProcessLoss,
        Self::Overload,
        Self::DependencyLoss,
        Self::NetworkLoss,
        Self::HostLoss,
        Self::StorageLoss,
        Self::ZoneLoss,
        Self::RegionLoss,
        Self::Ransomware,
        Self::Intrusion,
    ];

    /// The table.
    #[must_use]
    pub fn effect(self) -> Effect {
        let row = |survivors, only_older, loses_data, in_tier| Effect {
            survivors,
            only_older,
            loses_data,
            in_tier,
        };
        match self {
            Self::OperatorError | Self::DataCorruption => row(Survivors::All, true, true, true),
            Self::BadRelease => row(Survivors::All, true, true, false),
            Self::ProcessLoss => row(Survivors::All, false, false, true),
            Self::Overload | Self::DependencyLoss | Self::NetworkLoss => {
                row(Survivors::All, false, false, false)
            }
            Self::HostLoss | Self::StorageLoss => row(Survivors::OtherHosts, false, true, true),
            Self::ZoneLoss => row(Survivors::OtherZones, false, true, true),
            Self::RegionLoss => row(Survivors::OtherRegions, false, true, true),
            Self::Ransomware | Self::Intrusion => row(Survivors::Immutable, true, true, false),
        }
    }

    /// Whether a copy at `copy` is still there after this disruption struck `service`.
    /// `immutable`: nobody can change the copy before its protection ends.
    #[must_use]
    pub fn spares(self, copy: &Place, immutable: bool, service: &Place) -> bool {
        match self.effect().survivors {
            Survivors::All => true,
            Survivors::OtherHosts => !copy.shares_host_with(service),
            Survivors::OtherZones => !copy.shares_zone_with(service),
            Survivors::OtherRegions => !copy.shares_region_with(service),
            Survivors::Immutable => immutable,
        }
    }

    /// The name in plans and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OperatorError => "operator-error",
            Self::DataCorruption => "data-corruption",
            Self::BadRelease => "bad-release",
            Self::ProcessLoss => "process-loss",
            Self::Overload => "overload",
            Self::DependencyLoss => "dependency-loss",
            Self::NetworkLoss => "network-loss",
            Self::HostLoss => "host-loss",
            Self::StorageLoss => "storage-loss",
            Self::ZoneLoss => "zone-loss",
            Self::RegionLoss => "region-loss",
            Self::Ransomware => "ransomware",
            Self::Intrusion => "intrusion",
        }
    }
}

impl fmt::Display for Disruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text names no disruption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownDisruption(pub String);

impl fmt::Display for UnknownDisruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = Disruption::ALL.map(Disruption::as_str).join(", ");
        write!(f, "'{}' is no disruption: write one of {all}", self.0)
    }
}

impl std::error::Error for UnknownDisruption {}

impl FromStr for Disruption {
    type Err = UnknownDisruption;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|disruption| disruption.as_str() == text);
        found.ok_or_else(|| UnknownDisruption(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a copy survives: `copy` and `service` as `region/zone/host`, `-` for unknown.
    fn check(disruption: Disruption, copy: &str, service: &str, expected: bool) {
        let spared = disruption.spares(&Place::parse(copy), false, &Place::parse(service));
        assert_eq!(spared, expected, "{disruption}: {copy} of {service}");
    }

    #[test]
    fn names_are_read_back() {
        for disruption in Disruption::ALL {
            assert_eq!(disruption.as_str().parse(), Ok(disruption));
            let json = serde_json::to_string(&disruption).unwrap();
            assert_eq!(json, format!("\"{disruption}\""));
        }
        assert!("meteor".parse::<Disruption>().is_err());
    }

    #[test]
    fn a_folder_without_a_host_stands_on_the_services_host_in_its_region() {
        check(Disruption::HostLoss, "west/-/-", "west/-/-", false);
        check(Disruption::HostLoss, "west/-/-", "west/-/db1", false);
        check(Disruption::HostLoss, "north/-/-", "west/-/db1", true);
        check(Disruption::HostLoss, "west/-/nas", "west/-/db1", true);
        check(Disruption::StorageLoss, "west/-/db1", "west/-/db1", false);
        check(Disruption::HostLoss, "-/-/-", "-/-/-", false);
    }

    #[test]
    fn zones_and_regions_fail_as_a_whole() {
        check(Disruption::ZoneLoss, "west/a/-", "west/a/-", false);
        check(Disruption::ZoneLoss, "west/b/-", "west/a/-", true);
        check(Disruption::ZoneLoss, "west/-/-", "west/a/-", false);
        check(Disruption::ZoneLoss, "north/-/-", "west/a/-", true);
        check(Disruption::RegionLoss, "west/b/nas", "west/a/-", false);
        check(Disruption::RegionLoss, "north/-/-", "west/a/-", true);
        check(Disruption::RegionLoss, "-/-/-", "west/a/-", false);
    }

    #[test]
    fn after_ransomware_only_immutable_copies_are_left() {
        let (here, there) = (Place::parse("west/-/-"), Place::parse("north/-/-"));
        assert!(!Disruption::Ransomware.spares(&there, false, &here));
        assert!(Disruption::Ransomware.spares(&here, true, &here));
    }
}
