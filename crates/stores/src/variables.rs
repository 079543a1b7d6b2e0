//! Where credentials come from: variables of the environment, or values that somebody fetched.

use std::{collections::BTreeMap, env, fmt};

use zeroize::Zeroizing;

/// The variables that stores read; the plan's `credentials` uses the same names.
pub const VARIABLES: &[&str] = &[
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AZURE_ACCOUNT_NAME",
    "AZURE_ACCOUNT_KEY",
    "AZURE_ACCOUNT_SAS",
    "AZURE_ENDPOINT_SUFFIX",
    "AZURE_TENANT_ID",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_FEDERATED_TOKEN_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_ACCESS_TOKEN",
    "RESTIC_REST_USERNAME",
    "RESTIC_REST_PASSWORD",
];

/// Values by the names of [`VARIABLES`]. `Debug` shows names only.
#[derive(Clone, Default)]
pub enum Variables {
    /// This process's environment.
    #[default]
    Environment,
    /// These alone; the environment has no say.
    Given(BTreeMap<String, Zeroizing<String>>),
}

impl Variables {
    pub(crate) fn get(&self, name: &'static str) -> Option<Zeroizing<String>> {
        debug_assert!(VARIABLES.contains(&name), "{name}");
        match self {
            Self::Environment => env::var(name).ok().map(Zeroizing::new),
            Self::Given(values) => values.get(name).cloned(),
        }
        .filter(|value| !value.is_empty())
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("Environment"),
            Self::Given(values) => f.debug_set().entries(values.keys()).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_shown() {
        let secret = ("AWS_SECRET_ACCESS_KEY".to_owned(), Zeroizing::new("hush".to_owned()));
        let given = Variables::Given([secret].into());
        assert_eq!(given.get("AWS_SECRET_ACCESS_KEY").unwrap().as_str(), "hush");
        assert_eq!(given.get("AWS_ACCESS_KEY_ID"), None);
        assert_eq!(format!("{given:?}"), r#"{"AWS_SECRET_ACCESS_KEY"}"#);
    }
}
