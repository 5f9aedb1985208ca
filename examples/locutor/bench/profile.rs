//! Where the time of a test goes, phase by phase.

use super::{Report, prepare};
use crate::Failure;
use locutor::session::{Profile, Session};
use serde_json::{Map, Value, json};
use std::sync::OnceLock;
use std::time::Instant;

/// Nanoseconds since the first call.
fn nanoseconds() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

impl Report<'_> {
    /// Runs a test once more and shows the time of each phase, if that is asked for.
    pub fn profile(
        &self,
        name: &str,
        session: &mut Session<'_>,
        mut test: impl FnMut(&mut Session<'_>) -> Result<f64, Failure>,
    ) -> Result<(), Failure> {
        if !self.arguments.profile {
            return Ok(());
        }
        prepare(session, self.arguments.d)?;
        session.set_profile(Some(Profile::new(nanoseconds)));
        test(session)?;
        let profile = session.profile().copied();
        session.set_profile(None);
        let phases: Vec<_> =
            profile.iter().flat_map(Profile::phases).map(|(phase, ns)| (phase, ns as f64 / 1e6)).collect();
        let total: f64 = phases.iter().map(|(_, ms)| ms).sum();
        if self.arguments.json {
            let phases: Map<String, Value> =
                phases.into_iter().map(|(phase, ms)| (phase.into(), json!(ms))).collect();
            println!(
                "{}",
                json!({ "test": name, "threads": self.threads, "model": self.model, "profile_ms": phases })
            );
            return Ok(());
        }
        for (phase, ms) in phases {
            println!("    {phase:<10}  {ms:9.2} ms  {:5.1} %", 100.0 * ms / total);
        }
        Ok(())
    }
}
