//! Looks for fraud in a stream of payments, and goes on where it was when it is stopped, killed or unplugged.
//!
//! ```console
//! $ cargo run --release -p darner-store --example fraud -- --stop-after 60000   # as if killed in the middle
//! $ cargo run --release -p darner-store --example fraud                         # goes on, and sums up
//! $ cargo run --release -p darner-store --example fraud -- --store mine payments.csv
//! ```
//!
//! What is known of each user is keyed state: a key, the user's name, and a value. Payments are done in batches, and
//! each batch is *one commit* of everything that it changes:
//!
//! - the new state of its users,
//! - the alerts that it has raised,
//! - the watermark: how far in the stream we are.
//!
//! A crash leaves all of that or nothing of it, so the watermark always says which payments the state has in it: the
//! next run skips these and does all others. No payment is counted twice and none is missed.
//!
//! The values are text, to be looked at with `darner --store fraud-store state scan fraud.alerts`.
#![expect(clippy::print_stderr, reason = "an example is a program of its own")]

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    error::Error as _,
    fmt,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use darner_store::{Error, Result, Scan, Store, StoreOptions};

/// A namespace of keyed state: a value for each user.
const ACCOUNTS: &str = "fraud.accounts";
/// And one for the alerts, by position in the stream.
const ALERTS: &str = "fraud.alerts";
/// The name of the watermark.
const POSITION: &str = "fraud.position";

/// Payments of one commit. More are faster, and more are done again after a crash.
const BATCH_PAYMENTS: usize = 1000;
/// A payment over this is always an alert.
const LARGE_CENTS: u64 = 5000 * 100;
/// And so is one over so many times the average of the user's earlier payments.
const UNUSUAL_TIMES: u64 = 10;
/// Payments that are kept of each user.
const NUM_RECENT: usize = 5;

/// Looks for fraud in a stream of payments, and goes on where it was.
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// CSV with a line of headings: user,amount,time; - is standard input. Made-up payments unless given.
    file: Option<PathBuf>,
    /// The store's directory; one for each stream.
    #[arg(long, default_value = "fraud-store")]
    store: PathBuf,
    /// So many payments are made up.
    #[arg(long, default_value_t = 100_000)]
    count: u64,
    /// Other seeds make up other payments.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Stop after so many payments, as if killed: those of the last batch are not committed.
    #[arg(long, value_name = "N")]
    stop_after: Option<u64>,
}

/// One event of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Payment {
    pub(crate) user: String,
    pub(crate) cents: u64,
    pub(crate) time: String,
}

/// What is known of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) num_payments: u64,
    pub(crate) total_cents: u64,
    pub(crate) max_cents: u64,
    /// Amounts and times of the last payments, oldest first.
    pub(crate) recent: VecDeque<(u64, String)>,
}

/// Why a payment is suspicious.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Large,
    Unusual { average_cents: u64 },
}

fn main() -> ExitCode {
    match start(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fraud: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn start(args: &Args) -> Result<()> {
    let store = Store::open(&args.store, StoreOptions::default())?;
    let payments: Box<dyn Iterator<Item = Result<Payment>>> = match &args.file {
        Some(file) => Box::new(read_payments(file)?),
        None => Box::new(made_up_payments(args.seed, args.count).map(Ok)),
    };
    let mut out = std::io::stdout().lock();
    run(&store, payments, args.stop_after, &mut out)?;
    store.close()
}

/// Does the payments that have not been done yet; writes alerts and a summary.
pub(crate) fn run(
    store: &Store,
    payments: impl Iterator<Item = Result<Payment>>,
    stop_after: Option<u64>,
    out: &mut impl Write,
) -> Result<()> {
    let mut position = read_position(store)?;
    let mut num_left = stop_after.unwrap_or(u64::MAX);
    let mut batch = Vec::with_capacity(BATCH_PAYMENTS);
    // The stream is the same each time, and so the first payments are those that were done.
    for payment in payments.skip(usize::try_from(position).unwrap_or(usize::MAX)) {
        if num_left == 0 {
            return write_line(out, format_args!("stopped; {position} payments are done"));
        }
        num_left -= 1;
        batch.push(payment?);
        if batch.len() == BATCH_PAYMENTS {
            position = do_batch(store, position, &batch, out)?;
            batch.clear();
        }
    }
    position = do_batch(store, position, &batch, out)?;
    sum_up(store, position, out)
}

/// Does a batch of payments, the first of which is number `position` of the stream. Returns the position after them.
fn do_batch(store: &Store, position: u64, batch: &[Payment], out: &mut impl Write) -> Result<u64> {
    let state = store.state(ACCOUNTS)?;
    let mut transaction = store.begin()?;
    let mut accounts: HashMap<&str, Account> = HashMap::new();
    let mut alerts = Vec::new();
    let mut next = position;
    for payment in batch {
        let account = match accounts.entry(payment.user.as_str()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let stored = state.get(payment.user.as_bytes())?;
                let account = stored.map(|value| Account::decode(&value)).transpose()?;
                entry.insert(account.unwrap_or_default())
            }
        };
        // First the question and then the change: a payment is compared with earlier ones only.
        if let Some(reason) = account.check(payment.cents) {
            let alert = alert_text(payment, reason);
            // Digits in front keep the keys in the order of the stream.
            transaction.put_state(ALERTS, format!("{next:012}").as_bytes(), alert.as_bytes())?;
            alerts.push(alert);
        }
        account.add(payment);
        next += 1;
    }
    for (user, account) in &accounts {
        transaction.put_state(ACCOUNTS, user.as_bytes(), account.encode().as_bytes())?;
    }
    if next > position {
        transaction.set_watermark(POSITION, next.to_string().as_bytes())?;
    }
    // All of the above, durable when this returns, or nothing.
    transaction.commit()?;
    // After the commit: before it, a crash would make the next run print them again. What a crash keeps from being
    // printed is in the store all the same.
    for alert in alerts {
        write_line(out, format_args!("ALERT {alert}"))?;
    }
    Ok(next)
}

/// How many payments are done.
fn read_position(store: &Store) -> Result<u64> {
    let Some(watermark) = store.watermark(POSITION) else {
        return Ok(0);
    };
    let text = String::from_utf8_lossy(&watermark.value);
    text.parse()
        .map_err(|error| Error::data(format!("not a position: got=`{text}`")).with_source(error))
}

fn sum_up(store: &Store, position: u64, out: &mut impl Write) -> Result<()> {
    let mut num_users: u64 = 0;
    let mut total_cents: u64 = 0;
    let mut top: Option<(String, Account)> = None;
    let accounts = store.state(ACCOUNTS)?;
    for entry in accounts.scan(&Scan::all())? {
        let (user, value) = entry?;
        let account = Account::decode(&value)?;
        num_users += 1;
        total_cents += account.total_cents;
        if top
            .as_ref()
            .is_none_or(|(_, top)| account.total_cents > top.total_cents)
        {
            top = Some((String::from_utf8_lossy(&user).into_owned(), account));
        }
    }
    let num_alerts = store.state(ALERTS)?.len()?;
    write_line(
        out,
        format_args!(
            "{position} payments of {num_users} users, {} in all, {num_alerts} alerts",
            Amount(total_cents)
        ),
    )?;
    let Some((user, account)) = top else {
        return Ok(());
    };
    write_line(
        out,
        format_args!(
            "the most by {user}: {} payments, {} in all, on average {}, at most {}",
            account.num_payments,
            Amount(account.total_cents),
            Amount(account.average_cents().unwrap_or(0)),
            Amount(account.max_cents)
        ),
    )?;
    let recent = account.recent.iter();
    let recent: Vec<String> = recent
        .map(|(cents, time)| format!("{} ({time})", Amount(*cents)))
        .collect();
    write_line(
        out,
        format_args!("  the last of them: {}", recent.join(", ")),
    )
}

impl Account {
    /// Whether a payment would be suspicious, after those that are in here.
    pub(crate) fn check(&self, cents: u64) -> Option<Reason> {
        if cents > LARGE_CENTS {
            return Some(Reason::Large);
        }
        // Nothing is unusual about a first payment.
        let average_cents = self.average_cents()?;
        // `cents > times * total / num`, without what a division would round away.
        let is_unusual = u128::from(cents) * u128::from(self.num_payments)
            > u128::from(UNUSUAL_TIMES) * u128::from(self.total_cents);
        is_unusual.then_some(Reason::Unusual { average_cents })
    }

    pub(crate) fn add(&mut self, payment: &Payment) {
        self.num_payments += 1;
        self.total_cents += payment.cents;
        self.max_cents = self.max_cents.max(payment.cents);
        if self.recent.len() == NUM_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((payment.cents, payment.time.clone()));
    }

    fn average_cents(&self) -> Option<u64> {
        self.total_cents.checked_div(self.num_payments)
    }

    /// A line of numbers, and one for each recent payment.
    fn encode(&self) -> String {
        let mut text = format!(
            "{} {} {}",
            self.num_payments, self.total_cents, self.max_cents
        );
        for (cents, time) in &self.recent {
            text = format!("{text}\n{cents} {time}");
        }
        text
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self> {
        let text = String::from_utf8_lossy(value);
        Self::parse(&text).ok_or_else(|| Error::data(format!("not an account: got=`{text}`")))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut numbers = lines.next()?.split(' ').map(str::parse);
        let mut next = || numbers.next()?.ok();
        let (num_payments, total_cents, max_cents) = (next()?, next()?, next()?);
        let recent = lines.map(|line| {
            let (cents, time) = line.split_once(' ')?;
            Some((cents.parse().ok()?, time.to_owned()))
        });
        Some(Self {
            num_payments,
            total_cents,
            max_cents,
            recent: recent.collect::<Option<_>>()?,
        })
    }
}

pub(crate) fn alert_text(payment: &Payment, reason: Reason) -> String {
    let Payment { user, cents, time } = payment;
    let why = match reason {
        Reason::Large => format!("over {}", Amount(LARGE_CENTS)),
        Reason::Unusual { average_cents } => format!(
            "over {UNUSUAL_TIMES} times the average of {} before",
            Amount(average_cents)
        ),
    };
    format!("{time} {user}: {}, {why}", Amount(*cents))
}

/// Cents, shown as `12.34`.
struct Amount(u64);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

fn write_line(out: &mut impl Write, line: fmt::Arguments<'_>) -> Result<()> {
    writeln!(out, "{line}").map_err(|error| Error::io("cannot write to standard output", error))
}

/// Payments from a file: always the same ones in the same order, or positions would mean nothing.
fn read_payments(file: &Path) -> Result<impl Iterator<Item = Result<Payment>> + use<>> {
    let name = file.display().to_string();
    let failed = move |error| Error::io(format!("cannot read `{name}`"), error);
    let input: Box<dyn BufRead> = if file.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(BufReader::new(std::fs::File::open(file).map_err(&failed)?))
    };
    let lines = input.lines().enumerate().skip(1);
    Ok(lines.map(move |(line_idx, line)| {
        let line = line.map_err(&failed)?;
        parse_payment(&line).ok_or_else(|| {
            Error::data(format!(
                "not a payment: line=`{}` got=`{line}` expected=`user,amount,time`",
                line_idx + 1
            ))
        })
    }))
}

fn parse_payment(line: &str) -> Option<Payment> {
    let mut fields = line.trim_end().split(',');
    let (user, amount, time) = (fields.next()?, fields.next()?, fields.next()?);
    if user.is_empty() || fields.next().is_some() {
        return None;
    }
    Some(Payment {
        user: user.to_owned(),
        cents: parse_cents(amount)?,
        time: time.to_owned(),
    })
}

/// `12`, `12.3` or `12.34`, without a detour over floating point.
pub(crate) fn parse_cents(amount: &str) -> Option<u64> {
    let (units, cents) = amount.split_once('.').unwrap_or((amount, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(units) || !is_number(cents) || cents.len() > 2 {
        return None;
    }
    let cents = format!("{cents:0<2}").parse::<u64>().ok()?;
    units
        .parse::<u64>()
        .ok()?
        .checked_mul(100)?
        .checked_add(cents)
}

/// Payments of people who mostly pay small amounts, each around an amount of their own. The same for the same seed.
pub(crate) fn made_up_payments(seed: u64, count: u64) -> impl Iterator<Item = Payment> {
    /// They were all made on one day.
    const DAY: &str = "2026-11-20";
    const PER_SECOND: u64 = 20;
    let mut random = seed;
    // SplitMix64: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators".
    let mut below = move |end: u64| {
        random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    };
    (0..count).map(move |number| {
        // Some people pay far more often than others.
        let num_likely = 1 + below(2000);
        let user = below(num_likely);
        let usual_cents = 200 + user * 7919 % 9000;
        let cents = match below(2000) {
            0 => LARGE_CENTS + below(LARGE_CENTS),
            1..=4 => usual_cents * (8 + below(20)),
            _ => usual_cents / 2 + below(usual_cents),
        };
        let second = number / PER_SECOND % 86_400;
        Payment {
            user: format!("user-{user:04}"),
            cents,
            time: format!(
                "{DAY}T{:02}:{:02}:{:02}Z",
                second / 3600,
                second / 60 % 60,
                second % 60
            ),
        }
    })
}
