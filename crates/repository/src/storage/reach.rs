//! What a store tells of how its files can be read. Who waits for archived ones is `warm_up`.

/// Whether files may have to be brought back from an archive before they can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archiving {
    /// Each file can be read at once.
    Never,
    /// Somebody may have moved files to an archive, by a rule of the bucket for example. Nobody
    /// asks without a reason: where nothing is archived, asking costs and tells nothing.
    Possible,
    /// Packs of data are written to an archive.
    Expected,
}

/// How a file can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// At once.
    Ready,
    /// It is archived, and on its way.
    Warming,
    /// It is archived, and nobody asked for it yet.
    Archived,
}
