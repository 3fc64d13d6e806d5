//! Who goes first where work waits, and how much of it may wait.

use std::time::{Duration, Instant};

use chorale_proto::v1::Priority;

/// How much later than interactive work bulk work has its turn.
pub const BULK_HANDICAP: Duration = Duration::from_secs(2);
/// Bulk work leaves one place of so many to interactive work.
const RESERVED_ONE_IN: usize = 4;
/// How long waits are collected before the limit is judged by them.
const WINDOW: Duration = Duration::from_secs(1);
/// The limit begins at so many steps, so that the first overload does not find a queue of any length.
const FIRST_STEPS: usize = 32;
/// What is left of the work that waited, after a window of long waits.
const DECREASE: f64 = 0.8;

/// Whether somebody waits for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Urgency {
    /// Somebody does.
    Interactive,
    /// Nobody does: it is one of many.
    Bulk,
}

impl Urgency {
    /// Every urgency.
    pub const ALL: [Self; 2] = [Self::Interactive, Self::Bulk];

    /// The name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Bulk => "bulk",
        }
    }

    /// How many of so many places its work may take: bulk work leaves a quarter of them free.
    #[must_use]
    pub const fn share(self, places: usize) -> usize {
        match self {
            Self::Interactive => places,
            Self::Bulk => places - places / RESERVED_ONE_IN,
        }
    }

    /// How long after it came work has its turn, beside work that came at the same time.
    #[must_use]
    pub const fn handicap(self) -> Duration {
        match self {
            Self::Interactive => Duration::ZERO,
            Self::Bulk => BULK_HANDICAP,
        }
    }
}

impl From<Priority> for Urgency {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::Unspecified | Priority::Interactive => Self::Interactive,
            Priority::Bulk => Self::Bulk,
        }
    }
}

/// How much work may wait at a time: a limit that finds itself.
///
/// What an operator can say is how long a wait may be; how much work that is depends on the machine, the model and the
/// tracks. So the limit goes down to four fifths of what waited when the mean wait of the last second was longer than
/// that, and up by a step when it was shorter and the limit turned work away. Additive increase and multiplicative
/// decrease are from Chiu and Jain, *Analysis of the Increase and Decrease Algorithms for Congestion Avoidance in Computer
/// Networks* (1989); that the mean wait in the queue tells overload best, rather than the time until the answer or the use
/// of the processor, is from Zhou et al., *Overload Control for Scaling `WeChat` Microservices* (`SoCC` 2018).
#[derive(Debug)]
pub struct WaitLimit {
    policy: WaitPolicy,
    limit: usize,
    window: Window,
}

/// What a [`WaitLimit`] keeps to.
#[derive(Debug, Clone, Copy)]
pub struct WaitPolicy {
    /// How long work may wait on average.
    pub target: Duration,
    /// The least that may wait at a time, and how much more may after an increase.
    pub step: usize,
    /// The most that may wait at a time, whatever it takes.
    pub ceiling: usize,
}

/// What happened since the limit was judged.
#[derive(Debug, Default)]
struct Window {
    first_wait_ended: Option<Instant>,
    waits: u32,
    total: Duration,
    /// The most that waited at a time.
    most: usize,
    turned_away: bool,
}

impl WaitLimit {
    /// A limit that begins at 32 steps, or at its ceiling if that is lower.
    #[must_use]
    pub fn new(policy: WaitPolicy) -> Self {
        let limit = policy.step.saturating_mul(FIRST_STEPS).min(policy.ceiling);
        Self { policy, limit, window: Window::default() }
    }

    /// How much interactive work may wait now.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Whether further work may wait where `waiting` does already.
    pub fn allows(&mut self, waiting: usize, urgency: Urgency) -> bool {
        let allowed = waiting < urgency.share(self.limit);
        self.window.turned_away |= !allowed;
        self.window.most = self.window.most.max(waiting);
        allowed
    }

    /// Work that had waited for `wait` had its turn at `now`. The handicap of bulk work does not count.
    pub fn waited(&mut self, wait: Duration, urgency: Urgency, now: Instant) {
        let window = &mut self.window;
        let began = *window.first_wait_ended.get_or_insert(now);
        window.waits = window.waits.saturating_add(1);
        window.total += wait.saturating_sub(urgency.handicap());
        if now.saturating_duration_since(began) < WINDOW {
            return;
        }
        let (lowest, ceiling) = (self.policy.step.min(self.policy.ceiling), self.policy.ceiling);
        if window.total / window.waits > self.policy.target {
            let waited = window.most.clamp(1, self.limit) as f64;
            self.limit = ((waited * DECREASE) as usize).clamp(lowest, ceiling);
        } else if window.turned_away {
            self.limit = self.limit.saturating_add(self.policy.step).min(ceiling);
        }
        self.window = Window::default();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const POLICY: WaitPolicy = WaitPolicy { target: Duration::from_secs(1), step: 4, ceiling: 1_000 };
    const MILLISECOND: Duration = Duration::from_millis(1);

    /// Offers `per_second` pieces of work for `seconds` to something that does one in `service`, one after the other.
    /// Returns the longest wait of the last second, and how much of the work of that second was turned away.
    fn run(limit: &mut WaitLimit, start: Instant, per_second: u32, service: Duration, seconds: u32) -> (Duration, f64) {
        let mut waiting = VecDeque::new();
        let (mut free_at, mut longest, mut away) = (start, Duration::ZERO, 0);
        for number in 0..per_second * seconds {
            let now = start + number * Duration::from_secs(1) / per_second;
            while free_at <= now {
                let Some(came) = waiting.pop_front() else { break };
                free_at = free_at.max(came);
                limit.waited(free_at - came, Urgency::Interactive, free_at);
                if now >= start + Duration::from_secs(u64::from(seconds) - 1) {
                    longest = longest.max(free_at - came);
                }
                free_at += service;
            }
            if limit.allows(waiting.len(), Urgency::Interactive) {
                waiting.push_back(now);
            } else if number >= per_second * (seconds - 1) {
                away += 1;
            }
        }
        (longest, f64::from(away) / f64::from(per_second))
    }

    #[test]
    fn an_overload_finds_the_limit_at_which_waits_are_as_wanted_and_keeps_the_server_busy() {
        let mut limit = WaitLimit::new(POLICY);
        let start = Instant::now();
        // 100 a second are done: 100 may wait for a second.
        let (longest, away) = run(&mut limit, start, 500, 10 * MILLISECOND, 30);
        assert!((60..=120).contains(&limit.limit()), "{}", limit.limit());
        assert!(longest < 1_300 * MILLISECOND, "{longest:?}");
        assert!((away - 0.8).abs() < 0.03, "{away} of the work was turned away, where a fifth can be done");
    }

    #[test]
    fn a_server_that_becomes_faster_takes_more_again() {
        let mut limit = WaitLimit::new(POLICY);
        let start = Instant::now();
        run(&mut limit, start, 500, 20 * MILLISECOND, 30);
        let slow = limit.limit();
        run(&mut limit, start + Duration::from_secs(40), 500, 4 * MILLISECOND, 60);
        assert!(slow <= 60 && limit.limit() >= 150, "{slow}, then {}", limit.limit());
    }

    #[test]
    fn without_overload_nothing_is_turned_away() {
        let mut limit = WaitLimit::new(POLICY);
        let (_, away) = run(&mut limit, Instant::now(), 90, 10 * MILLISECOND, 30);
        assert_eq!((limit.limit(), away), (FIRST_STEPS * POLICY.step, 0.0));
    }

    #[test]
    fn a_limit_never_leaves_its_bounds() {
        let mut limit = WaitLimit::new(WaitPolicy { ceiling: 10, ..POLICY });
        assert_eq!(limit.limit(), 10);
        let start = Instant::now();
        for second in 0..20 {
            assert!(!limit.allows(10, Urgency::Interactive));
            limit.waited(Duration::from_secs(9), Urgency::Interactive, start + second * WINDOW);
        }
        assert_eq!(limit.limit(), POLICY.step);
        for second in 20..60 {
            limit.allows(10, Urgency::Interactive);
            limit.waited(Duration::ZERO, Urgency::Interactive, start + second * WINDOW);
        }
        assert_eq!(limit.limit(), 10);
        let mut smallest = WaitLimit::new(WaitPolicy { ceiling: 1, ..POLICY });
        assert!(smallest.allows(0, Urgency::Bulk), "no place is for interactive work alone");
    }

    #[test]
    fn bulk_work_leaves_room_and_waits_for_longer_without_harm() {
        let mut limit = WaitLimit::new(WaitPolicy { ceiling: 8, ..POLICY });
        assert!(limit.allows(5, Urgency::Bulk) && !limit.allows(6, Urgency::Bulk));
        assert!(limit.allows(7, Urgency::Interactive) && !limit.allows(8, Urgency::Interactive));
        let start = Instant::now();
        for second in 0..5 {
            limit.waited(BULK_HANDICAP + MILLISECOND, Urgency::Bulk, start + second * WINDOW);
        }
        assert_eq!(limit.limit(), 8);
    }
}
