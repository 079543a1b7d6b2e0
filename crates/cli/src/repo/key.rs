//! `muster repo key`
