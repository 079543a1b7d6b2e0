//! Decisions without I/O: schedules, recovery points, markers, clocks, verdicts, runs.
