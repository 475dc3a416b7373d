//! The workflow engine: plan, journal, fold, decide, driver, lease, the proof kit.
