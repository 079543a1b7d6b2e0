//! Probes and processes: what observes and acts on the outside world.
