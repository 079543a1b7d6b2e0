//! The engine against real tools, crashes and damage. One binary, so that it links once.

mod common;
mod crash;
mod interop;
mod restore;
