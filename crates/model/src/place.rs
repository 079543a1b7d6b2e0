//! Where a service or a copy stands: the failure domains it shares with others.

use serde::{Deserialize, Serialize};

/// A place; what is unknown is assumed to be shared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The region, as the plan names it.
    pub region: Option<String>,
    /// The zone within the region.
    pub zone: Option<String>,
    /// The machine.
    pub host: Option<String>,
}

impl Place {
    /// Reads `region/zone/host`, `-` for what is unknown: for tests and tables.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut parts = text.split('/').map(|part| (part != "-").then(|| part.to_owned()));
        let mut next = || parts.next().flatten();
        Self { region: next(), zone: next(), host: next() }
    }

    /// Both stand in one region, or it is not known that they do not.
    #[must_use]
    pub fn shares_region_with(&self, other: &Self) -> bool {
        !differ(self.region.as_ref(), other.region.as_ref())
    }

    /// Both stand in one zone, or it is not known that they do not.
    #[must_use]
    pub fn shares_zone_with(&self, other: &Self) -> bool {
        self.shares_region_with(other) && !differ(self.zone.as_ref(), other.zone.as_ref())
    }

    /// A copy without a host stands on the service's host when their regions are equal; one
    /// that names a host stands there, and a service that names none stands elsewhere.
    #[must_use]
    pub fn shares_host_with(&self, service: &Self) -> bool {
        let named_elsewhere = self.host.is_some() && self.host != service.host;
        self.shares_region_with(service) && !named_elsewhere
    }
}

fn differ(first: Option<&String>, second: Option<&String>) -> bool {
    matches!((first, second), (Some(first), Some(second)) if first != second)
}
