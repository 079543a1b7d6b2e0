//! How entries of a snapshot are shown.
//!
//! # Source
//! restic, `cmd/restic/format.go`, `cmd_ls.go`; Go, `io/fs`, `FileMode.String`.
