//! The domain: deployment, runbook, checks, carrying, verification, providers.
