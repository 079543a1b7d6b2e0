//! The engine against real tools, crashes and damage. One binary, so that it links once.

mod check;
mod common;
mod crash;
mod damage;
mod fuzz_seeds;
mod hostile;

mod interop;
