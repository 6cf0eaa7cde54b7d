//! The example `examples/fraud.rs`: stopped anywhere, it ends with what it would have ended with.

use std::collections::HashMap;

use darner_store::{Scan, Store, StoreOptions};

use self::example::{Account, Payment, Reason, alert_text, made_up_payments, parse_cents, run};
use crate::support::random::Random;

#[expect(dead_code, reason = "its main and arguments are not run here")]
#[path = "../../../../examples/fraud.rs"]
mod example;

/// Each user's payments as amounts, and the alerts: all at once, in memory, the plain way.
fn expected(payments: &[Payment]) -> (HashMap<String, Vec<u64>>, Vec<String>) {
    let mut users: HashMap<String, Vec<u64>> = HashMap::new();
    let mut alerts = Vec::new();
    for payment in payments {
        let earlier = users.entry(payment.user.clone()).or_default();
        let (sum, num) = (earlier.iter().sum::<u64>(), earlier.len() as u64);
        if payment.cents > 500_000 {
            alerts.push(alert_text(payment, Reason::Large));
        } else if num > 0 && payment.cents * num > 10 * sum {
            let average_cents = sum / num;
            alerts.push(alert_text(payment, Reason::Unusual { average_cents }));
        }
        earlier.push(payment.cents);
    }
    (users, alerts)
}

#[test]
fn restarts_anywhere_count_no_payment_twice_and_miss_none() {
    const NUM_PAYMENTS: u64 = 12_345;
    for seed in 1..=3 {
        let dir = tempfile::tempdir().unwrap();
        let mut random = Random::new(seed);
        let mut out = Vec::new();
        let mut num_runs = 0;
        loop {
            let store = Store::open(dir.path(), StoreOptions::default()).unwrap();
            let stop_after = Some(random.below(5000)).filter(|_| num_runs < 12);
            let payments = made_up_payments(seed, NUM_PAYMENTS).map(Ok);
            run(&store, payments, stop_after, &mut out).unwrap();
            num_runs += 1;
            if stop_after.is_none() {
                break;
            }
            if random.below(2) == 0 {
                store.checkpoint().unwrap();
            }
        }
        let payments: Vec<Payment> = made_up_payments(seed, NUM_PAYMENTS).collect();
        let (users, alerts) = expected(&payments);
        assert!(alerts.len() > 10, "seed {seed}: {} alerts", alerts.len());
        let store = Store::open_read_only(dir.path()).unwrap();
        let accounts = store.state("fraud.accounts").unwrap();
        assert_eq!(accounts.len().unwrap(), users.len() as u64, "seed {seed}");
        for (user, amounts) in &users {
            let value = accounts.get(user.as_bytes()).unwrap().unwrap();
            let account = Account::decode(&value).unwrap();
            let recent: Vec<u64> = account.recent.iter().map(|(cents, _)| *cents).collect();
            assert_eq!(account.num_payments, amounts.len() as u64, "{seed} {user}");
            assert_eq!(
                account.total_cents,
                amounts.iter().sum::<u64>(),
                "{seed} {user}"
            );
            assert_eq!(
                Some(&account.max_cents),
                amounts.iter().max(),
                "{seed} {user}"
            );
            assert_eq!(recent, amounts[amounts.len().saturating_sub(5)..]);
        }
        let stored: Vec<String> = store
            .state("fraud.alerts")
            .unwrap()
            .scan(&Scan::all())
            .unwrap()
            .map(|entry| String::from_utf8(entry.unwrap().1.to_vec()).unwrap())
            .collect();
        assert_eq!(stored, alerts, "seed {seed}");
        let out = String::from_utf8(out).unwrap();
        let printed: Vec<&str> = out
            .lines()
            .filter_map(|line| line.strip_prefix("ALERT "))
            .collect();
        assert_eq!(printed, alerts, "seed {seed}");
        assert!(
            out.contains(&format!("{NUM_PAYMENTS} payments of {} users", users.len())),
            "{out}"
        );
    }
}

#[test]
fn a_payment_is_compared_with_earlier_ones_only() {
    let payment = |cents| Payment {
        user: "a".to_owned(),
        cents,
        time: String::new(),
    };
    let mut account = Account::default();
    assert_eq!(account.check(500_000), None);
    assert_eq!(account.check(500_001), Some(Reason::Large));
    account.add(&payment(100));
    account.add(&payment(101));
    assert_eq!(account.check(1005), None);
    assert_eq!(
        account.check(1006),
        Some(Reason::Unusual { average_cents: 100 })
    );
    assert_eq!(account.check(500_001), Some(Reason::Large));
}

#[test]
fn amounts_are_read_as_cents() {
    for (text, cents) in [("12", 1200), ("12.3", 1230), ("12.34", 1234), ("0.05", 5)] {
        assert_eq!(parse_cents(text), Some(cents), "{text}");
    }
    for text in [
        "",
        ".5",
        "5.",
        "-1",
        "1.234",
        "1e3",
        "+1",
        "99999999999999999999",
    ] {
        assert_eq!(parse_cents(text), None, "{text}");
    }
}
