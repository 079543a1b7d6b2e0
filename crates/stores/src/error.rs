//! Why a store could not even be set up.

use std::{error::Error, path::PathBuf};

use muster_model::{Class, Fault, LocationError};
use thiserror::Error;

use crate::options;

/// A store could not be set up. Nothing was asked of it yet.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The location names no place.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// An option that no store has, or a value that it cannot have.
    #[error("understand the option {name}: {why}")]
    Option {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// A file of trusted authorities is of no use.
    #[error("read the authorities in {}: {why}", file.display())]
    Authorities {
        /// The file.
        file: PathBuf,
        /// Why.
        why: String,
    },
    /// Credentials are missing, or are none.
    #[error("log in to {location}: {why}")]
    Credentials {
        /// The store.
        location: String,
        /// What is missing.
        why: String,
    },
    /// The client could not be made.
    #[error("set up {what}")]
    Setup {
        /// Of what.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl StoreError {
    pub(crate) fn option(name: &str, why: impl Into<String>) -> Self {
        Self::Option { name: name.to_owned(), why: why.into() }
    }

    pub(crate) fn setup(what: &'static str, source: impl Error + Send + Sync + 'static) -> Self {
        Self::Setup { what, source: Box::new(source) }
    }
}

impl Fault for StoreError {
    fn class(&self) -> Class {
        match self {
            Self::Location(_) | Self::Option { .. } | Self::Authorities { .. } => Class::Input,
            Self::Credentials { .. } => Class::Denied,
            Self::Setup { .. } => Class::Transient,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Location(LocationError::Unsupported { .. }) => "store-unsupported",
            Self::Location(LocationError::Malformed { .. }) => "store-location",
            Self::Option { .. } => "store-option",
            Self::Authorities { .. } => "store-authorities",
            Self::Credentials { .. } => "store-credentials",
            Self::Setup { .. } => "store-setup",
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Location(error) => Some(error.help()),
            Self::Option { .. } => Some(format!("the options are {}", options::names())),
            Self::Authorities { .. } => Some(
                "name a file with certificates in PEM, the text that begins with -----BEGIN \
                      CERTIFICATE-----"
                    .to_owned(),
            ),
            Self::Credentials { .. } => Some(
                "set the variables that docs/guides/remote-stores.md names, or the plan's \
                 `credentials`"
                    .to_owned(),
            ),
            Self::Setup { .. } => None,
        }
    }
}
