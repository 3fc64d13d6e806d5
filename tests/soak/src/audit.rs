//! Whether what callers saw and what gateways counted is the same.

use std::collections::BTreeMap;

use crate::{
    findings::Findings,
    fleet::{Fleet, REPLICAS, Role},
    ledger::{Entry, Ledger, Seen},
};

/// What a gateway counted, over all of its processes.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub(crate) calls: BTreeMap<String, u64>,
    verdicts: u64,
    timed: u64,
}

impl Counted {
    fn add(&mut self, metrics: &str) {
        for (code, count) in series(metrics, "chorale_gateway_calls_total") {
            *self.calls.entry(label(code, "code")).or_default() += count;
        }
        let sum = |name: &str| series(metrics, name).map(|(_, count)| count).sum::<u64>();
        self.verdicts += sum("chorale_gateway_verdicts_total");
        self.timed += sum("chorale_gateway_call_seconds_count");
    }

    fn all(&self) -> u64 {
        self.calls.values().sum()
    }
}

/// The labels and values of a metric.
fn series<'a>(metrics: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, u64)> {
    metrics.lines().filter_map(move |line| {
        let (labels, value) = line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once("} ")?;
        Some((labels, value.parse().ok()?))
    })
}

fn label(labels: &str, name: &str) -> String {
    let value = labels.split(',').find_map(|label| label.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_default().trim_matches('"').to_owned()
}

/// One gateway's account.
pub(crate) struct Account {
    pub(crate) counted: Counted,
    pub(crate) seen: BTreeMap<Seen, u64>,
    /// Calls that were open between the last look at a process and its end.
    pub(crate) unknown: u64,
}

/// Compares, for each gateway. Nobody may be calling.
pub(crate) async fn audit(fleet: &Fleet, ledger: &Ledger, findings: &Findings) -> Vec<Account> {
    let entries = ledger.entries();
    let mut accounts = Vec::new();
    for gateway in 0..REPLICAS {
        let entries: Vec<&Entry> = entries.iter().filter(|entry| entry.gateway == gateway).collect();
        let mut counted = Counted::default();
        counted.add(&fleet.slot(Role::Gateway, gateway).server.lock().await.metrics());
        let mut unknown = 0;
        for closed in fleet.closed().iter().filter(|closed| closed.gateway == gateway) {
            counted.add(&closed.metrics);
            let open = |entry: &&&Entry| entry.began <= closed.ended && entry.ended >= closed.asked;
            unknown += entries.iter().filter(open).count() as u64;
        }
        let mut seen = BTreeMap::new();
        for entry in entries {
            *seen.entry(entry.seen.clone()).or_default() += 1;
        }
        let account = Account { counted, seen, unknown };
        account.check(gateway, findings);
        accounts.push(account);
    }
    accounts
}

impl Account {
    fn seen(&self, seen: &Seen) -> u64 {
        self.seen.get(seen).copied().unwrap_or_default()
    }

    /// Calls of which the caller does not know how they ended: any code may stand for them, or none if they never arrived.
    pub(crate) fn unsure(&self) -> u64 {
        self.seen(&Seen::Left) + self.seen(&Seen::Late) + self.seen(&Seen::Broken)
    }

    fn check(&self, gateway: usize, findings: &Findings) {
        let Counted { calls, verdicts, timed } = &self.counted;
        let calls_of = |code: &str| calls.get(code).copied().unwrap_or_default();
        findings.check(calls_of("OK") == *verdicts, || {
            format!("gateway {gateway}: {} calls ended well, with {verdicts} verdicts", calls_of("OK"))
        });
        findings.check(self.counted.all() == *timed, || {
            format!("gateway {gateway}: {} calls ended, and the time of {timed} was measured", self.counted.all())
        });
        let mut codes: Vec<String> = calls.keys().cloned().collect();
        codes.extend(self.seen.keys().filter_map(|seen| match seen {
            Seen::Said(code) => Some(code.clone()),
            _ => None,
        }));
        codes.sort();
        codes.dedup();
        for code in codes {
            let (server, caller) = (calls_of(&code), self.seen(&Seen::Said(code.clone())));
            let fits = server + self.unknown >= caller && server <= caller + self.unsure();
            findings.check(fits, || {
                format!(
                    "gateway {gateway} counted {server} calls that ended with {code}, callers {caller}; \
                     {} may be missing, {} more",
                    self.unknown,
                    self.unsure()
                )
            });
        }
        let callers = self.seen.values().sum::<u64>() - self.seen(&Seen::NotConnected);
        let server = self.counted.all();
        let fits = server <= callers && server + self.unknown + self.unsure() >= callers;
        findings.check(fits, || format!("gateway {gateway} counted {server} calls, callers made {callers}"));
        let cancelled = self.seen(&Seen::Said("CANCELLED".to_owned()));
        findings.check(cancelled == 0, || {
            format!("gateway {gateway} told {cancelled} callers who waited that they had left")
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = r#"
chorale_gateway_calls_total{rpc="ClassifyStream",code="OK"} 4
chorale_gateway_calls_total{rpc="Classify",code="OK"} 1
chorale_gateway_calls_total{rpc="Classify",code="CANCELLED"} 2
chorale_gateway_call_seconds_sum{rpc="Classify",code="OK"} 9.5
chorale_gateway_call_seconds_count{rpc="Classify",code="OK"} 7
chorale_gateway_verdicts_total{genre="jazz"} 3
chorale_gateway_verdicts_total{genre="rock"} 2
"#;

    fn findings_of(ok: u64, left: u64, unknown: u64) -> Vec<String> {
        let mut counted = Counted::default();
        counted.add(METRICS);
        let seen = BTreeMap::from([(Seen::ok(), ok), (Seen::Left, left), (Seen::NotConnected, 9)]);
        let findings = Findings::default();
        Account { counted, seen, unknown }.check(0, &findings);
        findings.all()
    }

    #[test]
    fn counters_that_add_up_are_no_finding_and_others_are() {
        assert_eq!(findings_of(5, 2, 0), [""; 0]);
        // A caller that left may have had its verdict all the same.
        assert_eq!(findings_of(4, 3, 0), [""; 0]);
        assert_eq!(findings_of(6, 2, 1), [""; 0]);
        assert!(!findings_of(6, 2, 0).is_empty(), "a verdict that the gateway does not know");
        assert!(!findings_of(4, 0, 0).is_empty(), "a verdict that no caller knows");
        assert!(!findings_of(5, 1, 0).is_empty(), "two left, of one");
    }
}
