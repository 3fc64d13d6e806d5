//! What processes hold, over time.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use chorale_tests::{Handles, MIB};
use tokio::time::sleep;

use crate::{
    faults::VETERAN,
    findings::Findings,
    fleet::{Fleet, Role},
    load::{CALLERS, Pressure},
};

const INTERVAL: Duration = Duration::from_secs(2);
/// Memory that grows faster than this over the second half of a process's life, in MiB a minute, for sure, is a leak if its
/// median over the last quarter is also so many MiB above that over the second one: allocators keep what a burst took.
const LEAK_A_MINUTE: f64 = 0.5;
const LEAK: f64 = 6.0;
/// Minutes below which a warm-up looks like a leak.
const LEAST_LIFE: f64 = 5.0;
/// How far descriptors and threads of a process may be above the fewest that it had early: connections of callers and replicas
/// that it did not have then, and threads that wait for work for a while.
const MORE_HANDLES: usize = 16;
/// How soon after the last call they are.
const HANDLES_SETTLE: Duration = Duration::from_secs(20);

/// What a process held at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    pub(crate) at: Instant,
    /// Resident memory in MiB.
    pub(crate) memory: f64,
    pub(crate) handles: Handles,
}

/// What the veterans held.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    held: Mutex<BTreeMap<Role, Vec<Held>>>,
}

impl Usage {
    fn held(&self) -> MutexGuard<'_, BTreeMap<Role, Vec<Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks every two seconds, for ever, except in a burst, which takes memory for as long as it lasts. A process that is away
    /// is passed over, and one that is new begins anew.
    pub(crate) async fn watch(self: Arc<Self>, fleet: Arc<Fleet>, pressure: Arc<Pressure>) {
        let mut processes = BTreeMap::new();
        loop {
            sleep(INTERVAL).await;
            if pressure.callers() > CALLERS {
                continue;
            }
            for role in Role::ALL {
                let Ok(server) = fleet.slot(role, VETERAN).server.try_lock() else { continue };
                let held = Held {
                    at: Instant::now(),
                    memory: server.memory().resident as f64 / MIB as f64,
                    handles: server.handles(),
                };
                let process = server.id();
                let mut all = self.held();
                let series = all.entry(role).or_default();
                if processes.insert(role, process) != Some(process) {
                    series.clear();
                }
                series.push(held);
            }
        }
    }

    /// What the veteran of a role held, from when it was last started.
    pub(crate) fn of(&self, role: Role) -> Vec<Held> {
        self.held().get(&role).cloned().unwrap_or_default()
    }
}

/// How memory grew.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trend {
    /// MiB a minute, by least squares over the second half.
    pub(crate) slope: f64,
    /// Half of the width of its 95 % confidence interval.
    pub(crate) uncertainty: f64,
    /// The medians of the second quarter and the last one.
    pub(crate) medians: [f64; 2],
    /// From the first look to the last.
    pub(crate) minutes: f64,
}

impl Trend {
    /// `None` for fewer than 16 looks.
    pub(crate) fn of(held: &[Held]) -> Option<Self> {
        let (first, second) = held.split_at(held.len() / 2);
        if second.len() < 8 {
            return None;
        }
        let began = held.first()?.at;
        let points: Vec<(f64, f64)> =
            second.iter().map(|held| ((held.at - began).as_secs_f64() / 60.0, held.memory)).collect();
        let count = points.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (mid_time, mid_memory) = (mean(|point| point.0), mean(|point| point.1));
        let spread: f64 = points.iter().map(|(time, _)| (time - mid_time).powi(2)).sum();
        let slope = points.iter().map(|(time, memory)| (time - mid_time) * (memory - mid_memory)).sum::<f64>() / spread;
        let residual = |(time, memory): &(f64, f64)| memory - mid_memory - slope * (time - mid_time);
        let noise = points.iter().map(|point| residual(point).powi(2)).sum::<f64>() / (count - 2.0);
        let last_half = |held: &[Held]| median(held.iter().skip(held.len() / 2).map(|held| held.memory).collect());
        Some(Self {
            slope,
            uncertainty: 1.96 * (noise / spread).sqrt(),
            medians: [last_half(first), last_half(second)],
            minutes: (held.last()?.at - began).as_secs_f64() / 60.0,
        })
    }

    /// Whether memory has grown, and goes on to.
    fn leaks(&self) -> bool {
        let [early, late] = self.medians;
        self.minutes >= LEAST_LIFE && self.slope - self.uncertainty > LEAK_A_MINUTE && late - early > LEAK
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl fmt::Display for Trend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slope, uncertainty, medians: [early, late], minutes } = self;
        write!(
            formatter,
            "{early:.1} in the second quarter of {minutes:.1} min, {late:.1} in the last; \
             {slope:+.2} ± {uncertainty:.2} a minute"
        )
    }
}

/// Looks whether the veterans have grown. Nobody may be calling.
pub(crate) async fn judge(usage: &Usage, fleet: &Fleet, findings: &Findings) -> Vec<(Role, Option<Trend>)> {
    let mut trends = Vec::new();
    for role in Role::ALL {
        let held = usage.of(role);
        let trend = Trend::of(&held);
        if let Some(trend) = trend {
            findings.check(!trend.leaks(), || format!("the memory of a {role} grows: {trend}"));
        }
        trends.push((role, trend));

        // What it had when it was quiet, early in its life.
        let early = held.iter().take(held.len().div_ceil(4)).map(|held| held.handles);
        let Some(least) = early.min_by_key(|handles| handles.descriptors + handles.threads) else { continue };
        let server = fleet.slot(role, VETERAN).server.lock().await;
        let settled = until_some(HANDLES_SETTLE, || {
            let now = server.handles();
            let grown =
                now.descriptors > least.descriptors + MORE_HANDLES || now.threads > least.threads + MORE_HANDLES;
            (!grown).then_some(())
        });
        let settled = settled.await;
        findings.check(settled.is_some(), || format!("a quiet {role} has {:?}, and had {least:?}", server.handles()));
    }
    trends
}

/// Asks again and again until there is a value, for so long.
async fn until_some<T>(patience: Duration, ask: impl Fn() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    loop {
        let found = ask();
        if found.is_some() || began.elapsed() > patience {
            return found;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at a process for so many minutes, every two seconds.
    fn held(minutes: f64, memory: impl Fn(f64) -> f64) -> Vec<Held> {
        let began = Instant::now();
        let looks = (minutes * 30.0) as u64;
        let at = |look: u64| Held {
            at: began + INTERVAL * look as u32,
            memory: memory(look as f64 / 30.0),
            handles: Handles { descriptors: 0, threads: 0 },
        };
        (0..looks).map(at).collect()
    }

    /// Up to 6 MiB more for half of the time, as a load that changes leaves it.
    fn noise(minute: f64) -> f64 {
        3.0 + 3.0 * (minute * 40.0).sin()
    }

    #[test]
    fn a_leak_is_told_from_noise_and_from_a_warm_up() {
        let warm_up = |minute: f64| 40.0 * (1.0 - (-minute / 0.5).exp()) + noise(minute);
        for minutes in [6.0, 10.0, 60.0] {
            assert!(!Trend::of(&held(minutes, noise)).unwrap().leaks(), "{minutes}");
            assert!(!Trend::of(&held(minutes, warm_up)).unwrap().leaks(), "{minutes}");
            let leak = |minute: f64| warm_up(minute) + 3.0 * minute;
            assert!(Trend::of(&held(minutes, leak)).unwrap().leaks(), "{minutes}");
        }
        let slow = |minute: f64| warm_up(minute) + 0.7 * minute;
        assert!(Trend::of(&held(60.0, slow)).unwrap().leaks());
        assert!(Trend::of(&held(0.4, noise)).is_none(), "too short to tell");
    }
}
