//! What happened: append-only, Merkle-chained, signed; evidence and its offline verification.
