//! What is printed: now and then, and at the end.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::sleep;

use crate::{audit::Account, callers::World, findings::Findings, fleet::Role, load::Pressure, usage::Trend};

const INTERVAL: Duration = Duration::from_secs(15);
/// Findings that are printed in full.
const SHOWN: usize = 40;

/// The one who tells.
pub(crate) struct Report {
    began: Instant,
    length: Duration,
    bar: ProgressBar,
    world: Arc<World>,
    pressure: Arc<Pressure>,
    findings: Arc<Findings>,
}

impl Report {
    pub(crate) fn begin(length: Duration, world: Arc<World>, pressure: Arc<Pressure>, findings: Arc<Findings>) -> Self {
        let style = ProgressStyle::with_template("{bar:40} {elapsed} of {msg}").expect("the template is right");
        let bar = ProgressBar::new(length.as_secs()).with_style(style);
        bar.set_message(format!("{:.0} min", length.as_secs_f64() / 60.0));
        Self { began: Instant::now(), length, bar, world, pressure, findings }
    }

    /// Prints a line beside the bar.
    pub(crate) fn say(&self, what: impl fmt::Display) {
        self.bar.suspend(|| anstream::println!("{what}"));
    }

    /// Says how it goes every 15 s, for ever.
    pub(crate) async fn go_on(self: Arc<Self>) {
        for second in 1.. {
            sleep(Duration::from_secs(1)).await;
            self.bar.set_position(self.began.elapsed().as_secs());
            if second % INTERVAL.as_secs() == 0 {
                self.say(self.line());
            }
        }
    }

    fn line(&self) -> String {
        let counts = self.world.caller.ledger.counts();
        let count = |what: &str| counts.get(what).copied().unwrap_or_default();
        let verdicts = count("verdicts computed") + count("verdicts from the cache");
        let faults: usize = self.world.weather.count().values().sum();
        let seconds = self.began.elapsed().as_secs();
        format!(
            "{:2}:{:02}  {verdicts} verdicts, {} attempts again, {} callers, {faults} faults, {} findings; now: {}",
            seconds / 60,
            seconds % 60,
            count("attempts again"),
            self.pressure.callers(),
            self.findings.all().len(),
            self.world.weather.now(),
        )
    }

    /// Prints what came out; true if everything held.
    pub(crate) fn end(&self, accounts: &[Account], held: &[(Role, Option<Trend>)]) -> bool {
        self.bar.finish_and_clear();
        anstream::println!("\ncallers");
        table(&self.world.caller.ledger.counts());
        anstream::println!("\ncalls, as callers saw them end");
        table(&self.world.caller.ledger.by_end());
        anstream::println!("\nfaults");
        table(&self.world.weather.count());
        for (gateway, account) in accounts.iter().enumerate() {
            anstream::println!(
                "\ngateway {gateway} counted; callers are unsure of {} calls, and {} were open when a process ended",
                account.unsure(),
                account.unknown
            );
            table(&account.counted.calls);
        }
        anstream::println!("\nmemory of a process that lived, in MiB");
        for (role, trend) in held {
            match trend {
                None => anstream::println!("  {:<32} too short to tell", role.to_string()),
                Some(trend) => anstream::println!("  {:<32} {trend}", role.to_string()),
            }
        }
        let findings = self.findings.all();
        for finding in findings.iter().take(SHOWN) {
            anstream::println!("\nDID NOT HOLD: {finding}");
        }
        let minutes = self.length.as_secs_f64() / 60.0;
        anstream::println!("\n{} findings in {minutes:.0} minutes", findings.len());
        findings.is_empty()
    }
}

fn table<K: fmt::Display, V: fmt::Display>(rows: &BTreeMap<K, V>) {
    for (key, value) in rows {
        anstream::println!("  {:<32} {value:>8}", key.to_string());
    }
}
