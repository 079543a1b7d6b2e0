//! What the fuzz targets do with their bytes.
//!
//! The targets themselves, in `fuzz_targets/`, only hand bytes over, because the tests of
//! `muster-repository` and `muster-stores` run the same functions over `fuzz/seeds/` without a
//! fuzzer.

pub mod answers;
pub mod targets;

// Parsers without I/O that are private to `muster-stores`, whose clients are no business of a
// fuzzer's; below, by the names that they have there.
#[path = "../../crates/stores/src/s3/deletion.rs"]
mod deletion;
#[path = "../../crates/stores/src/rest/listing.rs"]
mod listing;
#[path = "../../crates/stores/src/s3/versions.rs"]
mod versions;
#[path = "../../crates/stores/src/sftp/wire.rs"]
mod wire;
#[path = "../../crates/stores/src/s3/xml.rs"]
mod xml;

mod rest {
    pub(crate) use crate::listing;
}

mod s3 {
    pub(crate) use crate::{deletion, versions, xml};
}

mod sftp {
    pub(crate) use crate::wire;
}
