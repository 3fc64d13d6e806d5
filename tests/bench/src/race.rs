//! Contenders take turns.

use std::time::Duration;

use serde::Serialize;

use crate::{contender::Contender, rows::Row};

/// What came out of a row.
#[derive(Serialize)]
pub(crate) struct RowResult {
    pub(crate) name: String,
    pub(crate) cores: usize,
    pub(crate) unit: &'static str,
    /// Seconds that we take for one unit: the median over the turns.
    pub(crate) our_seconds: f64,
    pub(crate) rivals: Vec<RivalResult>,
}

/// How a rival compares.
#[derive(Serialize)]
pub(crate) struct RivalResult {
    pub(crate) name: &'static str,
    pub(crate) versions: String,
    /// Seconds that it takes for one unit: the median over the turns.
    pub(crate) seconds: f64,
    /// How many times as long as we it takes: the lower quartile over the turns, the median, and the upper quartile.
    pub(crate) ratio: [f64; 3],
    pub(crate) goal: f64,
    /// How far its answer is from ours, where that was compared.
    pub(crate) difference: Option<f64>,
}

impl RivalResult {
    /// Whether the goal is met.
    pub(crate) fn met(&self) -> bool {
        self.ratio[1] >= self.goal
    }
}

/// Runs a row: `turns` turns of each contender, of at least `turn`.
///
/// # Errors
/// If a contender fails, but for a rival that may be away and does not start, or answers otherwise than we.
pub(crate) fn run(row: &Row, turns: usize, turn: Duration) -> anyhow::Result<RowResult> {
    let mut ours = Racer::start(&row.ours, row.cores, turn)?;
    let mut rivals = Vec::new();
    for rival in &row.rivals {
        let racer = match Racer::start(&rival.start, row.cores, turn) {
            Err(error) if rival.may_be_away => {
                anstream::println!("{}: without {}, {error:#}", row.name, rival.name);
                continue;
            }
            started => started?,
        };
        let difference = rival.tolerance.map(|_| distance(&ours.contender, &racer.contender));
        if let (Some(found), Some(tolerance)) = (difference, rival.tolerance) {
            anyhow::ensure!(found <= tolerance, "{} answers otherwise: {found} apart, {tolerance} allowed", rival.name);
        }
        rivals.push((rival, racer, difference));
    }
    for _ in 0..turns {
        ours.take_turn()?;
        for (_, racer, _) in &mut rivals {
            racer.take_turn()?;
        }
    }
    let unit = row.unit.1;
    let results = rivals.into_iter().map(|(rival, racer, difference)| {
        let ratios = racer.seconds.iter().zip(&ours.seconds).map(|(theirs, ours)| theirs / ours);
        let ratio = quartiles(ratios.collect());
        RivalResult {
            name: rival.name,
            seconds: quartiles(racer.seconds)[1] / unit,
            versions: racer.contender.greeting.versions.clone(),
            ratio,
            goal: rival.goal,
            difference,
        }
    });
    Ok(RowResult {
        name: row.name.clone(),
        cores: row.cores,
        unit: row.unit.0,
        rivals: results.collect(),
        our_seconds: quartiles(ours.seconds)[1] / unit,
    })
}

struct Racer {
    contender: Contender,
    rounds: u64,
    /// Seconds of one round, for every turn.
    seconds: Vec<f64>,
}

impl Racer {
    /// Starts a contender, and finds out how many rounds fill a turn.
    fn start(start: &crate::rows::Start, cores: usize, turn: Duration) -> anyhow::Result<Self> {
        let mut contender = Contender::start(start, cores)?;
        contender.run(1)?;
        let once = contender.run(1)?;
        let rounds = (turn.as_secs_f64() / once.max(1e-9)).ceil().max(1.0) as u64;
        Ok(Self { contender, rounds, seconds: Vec::new() })
    }

    fn take_turn(&mut self) -> anyhow::Result<()> {
        self.seconds.push(self.contender.run(self.rounds)? / self.rounds as f64);
        Ok(())
    }
}

/// The mean distance of two answers, infinite if they have no values in common.
fn distance(ours: &Contender, theirs: &Contender) -> f64 {
    let (ours, theirs) = (&ours.greeting.answer, &theirs.greeting.answer);
    if ours.len() != theirs.len() || ours.is_empty() {
        return f64::INFINITY;
    }
    let sum: f64 = ours.iter().zip(theirs).map(|(ours, theirs)| (ours - theirs).abs()).sum();
    sum / ours.len() as f64
}

/// The lower quartile, the median and the upper quartile; not numbers where there is nothing.
fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let position = share * values.len().saturating_sub(1) as f64;
        let value = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let (below, above) = (value(position.floor() as usize), value(position.ceil() as usize));
        below + (above - below) * position.fract()
    };
    [at(0.25), at(0.5), at(0.75)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_neighbours() {
        assert_eq!(quartiles(vec![5.0, 1.0, 2.0, 4.0, 3.0]), [2.0, 3.0, 4.0]);
        assert_eq!(quartiles(vec![1.0, 2.0]), [1.25, 1.5, 1.75]);
        assert!(quartiles(Vec::new())[1].is_nan());
    }
}
