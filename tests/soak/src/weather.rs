//! Which faults there were, and which failures they excuse.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{fleet::Role, ledger::Seen};

/// For how long after its end a fault still excuses a failure: queues are still longer than usual, replicas that failed rest,
/// and those that came back are not known to everybody.
const AFTERMATH: Duration = Duration::from_secs(5);

/// What may break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FaultKind {
    /// A replica is killed, and comes back.
    Kill(Role),
    /// A replica ends in good order, and comes back.
    Restart(Role),
    /// A replica is there, and does nothing for a while.
    Hang(Role),
    /// Every replica of a role is away, or hangs.
    Outage(Role),
    /// Redis is killed, and comes back empty after a while.
    RedisKilled,
    /// Redis is killed, and comes back empty at once.
    RedisRestarted,
    /// Redis is there, and does nothing for a while.
    RedisHangs,
    /// Redis forgets everything.
    RedisFlushed,
    /// Many more calls than usual.
    Burst,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(role) => write!(formatter, "{role} killed"),
            Self::Restart(role) => write!(formatter, "{role} restarted"),
            Self::Hang(role) => write!(formatter, "{role} hangs"),
            Self::Outage(role) => write!(formatter, "no {role} at all"),
            Self::RedisKilled => formatter.write_str("redis killed"),
            Self::RedisRestarted => formatter.write_str("redis restarted"),
            Self::RedisHangs => formatter.write_str("redis hangs"),
            Self::RedisFlushed => formatter.write_str("redis flushed"),
            Self::Burst => formatter.write_str("burst of calls"),
        }
    }
}

/// All faults so far. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Weather {
    spells: Arc<Mutex<Vec<Spell>>>,
}

#[derive(Debug, Clone, Copy)]
struct Spell {
    kind: FaultKind,
    began: Instant,
    ended: Option<Instant>,
}

/// A fault that goes on until this is dropped.
pub(crate) struct Storm {
    weather: Weather,
    index: usize,
}

impl Drop for Storm {
    fn drop(&mut self) {
        if let Some(spell) = self.weather.spells().get_mut(self.index) {
            spell.ended = Some(Instant::now());
        }
    }
}

impl Weather {
    fn spells(&self) -> MutexGuard<'_, Vec<Spell>> {
        self.spells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that a fault begins.
    pub(crate) fn begin(&self, kind: FaultKind) -> Storm {
        let mut spells = self.spells();
        spells.push(Spell { kind, began: Instant::now(), ended: None });
        Storm { weather: self.clone(), index: spells.len() - 1 }
    }

    /// How many faults there were of each kind.
    pub(crate) fn count(&self) -> BTreeMap<FaultKind, usize> {
        let mut counts = BTreeMap::new();
        for spell in self.spells().iter() {
            *counts.entry(spell.kind).or_default() += 1;
        }
        counts
    }

    /// What goes on now.
    pub(crate) fn now(&self) -> String {
        let spells = self.spells();
        let kinds: Vec<_> =
            spells.iter().filter(|spell| spell.ended.is_none()).map(|spell| spell.kind.to_string()).collect();
        if kinds.is_empty() { "calm".to_owned() } else { kinds.join(", ") }
    }

    /// The kinds that a call between these times may have felt.
    pub(crate) fn felt(&self, began: Instant, ended: Instant) -> Vec<FaultKind> {
        let felt = |spell: &&Spell| spell.began <= ended && spell.ended.is_none_or(|end| began <= end + AFTERMATH);
        self.spells().iter().filter(felt).map(|spell| spell.kind).collect()
    }
}

/// Whether `kind` is a reason for a call that nothing was wrong with to end as it was `seen` to, as `deploy/RELIABILITY.md` has
/// it.
pub(crate) fn excuses(kind: FaultKind, seen: &Seen) -> bool {
    use FaultKind::{Burst, Hang, Kill, Outage, Restart};
    use Role::{Feature, Gateway, Inference};
    let away = matches!(kind, Kill(_) | Hang(_) | Outage(_));
    match seen {
        // A gateway that has just started has not reached the feature service yet.
        Seen::Said(reason) if reason == "DEPENDENCY_UNAVAILABLE" => away || kind == Restart(Gateway),
        Seen::Said(reason) if reason == "DRAINING" => kind == Restart(Gateway),
        Seen::Said(reason) if reason == "OVERLOADED" => away || matches!(kind, Burst | Restart(Feature | Inference)),
        Seen::Said(reason) if reason == "DEADLINE_EXCEEDED" => away || kind == Burst,
        Seen::Late => away || kind == Burst,
        Seen::Broken | Seen::NotConnected => kind == Restart(Gateway),
        Seen::Said(_) | Seen::Left => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_excuses_what_it_may_cause_while_it_lasts_and_shortly_after() {
        let weather = Weather::default();
        let before = Instant::now();
        let kind = FaultKind::Kill(Role::Feature);
        let storm = weather.begin(kind);
        let within = Instant::now();
        assert_eq!(weather.felt(within, within), [kind]);
        drop(storm);
        let after = Instant::now();
        assert_eq!(weather.felt(before, after), [kind]);
        assert_eq!(weather.felt(after + AFTERMATH, after + AFTERMATH * 2), []);

        assert!(excuses(kind, &Seen::Said("DEPENDENCY_UNAVAILABLE".to_owned())));
        assert!(!excuses(FaultKind::RedisHangs, &Seen::Said("DEPENDENCY_UNAVAILABLE".to_owned())));
        for never in ["INTERNAL", "LIMIT_EXCEEDED", "CANCELLED", "DIGEST_MISMATCH"] {
            assert!(!excuses(kind, &Seen::Said(never.to_owned())), "{never}");
        }
    }
}
