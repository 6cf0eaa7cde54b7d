//! Killed processes: a child works and says what is acknowledged; it is killed, and the store is looked at.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::Duration,
};

use super::{
    power::watch,
    random::Random,
    work::{Event, Kind, Models, Work, check_store},
};

/// What the child is told.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) dir: PathBuf,
    pub(crate) kind: Kind,
    pub(crate) seed: u64,
    pub(crate) actions_seed: u64,
}

impl Job {
    /// As one word for an argument or a variable. The directory is last, since it may have any form.
    pub(crate) fn encode(&self) -> String {
        let (kind, dir) = (self.kind.name(), self.dir.display());
        format!("{kind}:{}:{}:{dir}", self.seed, self.actions_seed)
    }

    pub(crate) fn decode(text: &str) -> Option<Self> {
        let mut fields = text.splitn(4, ':');
        Some(Self {
            kind: Kind::parse(fields.next()?)?,
            seed: fields.next()?.parse().ok()?,
            actions_seed: fields.next()?.parse().ok()?,
            dir: fields.next()?.into(),
        })
    }

    /// The child's part: works until it is killed, or the disk is gone.
    pub(crate) fn work(&self) {
        let mut work = Work::new(&self.dir, self.kind, self.seed, self.actions_seed);
        let mut out = std::io::stdout();
        let mut say = |event| {
            if let Event::Acknowledged(step) = event {
                // A parent that is gone has no more use for this.
                let now_ns = now_ns();
                if writeln!(out, "acknowledged {step} {now_ns}")
                    .and_then(|()| out.flush())
                    .is_err()
                {
                    std::process::exit(1);
                }
            }
        };
        while work.act(&mut say).is_ok() {}
        // Not even what a store does when it is dropped is done.
        std::process::exit(0);
    }
}

/// The time as parent and child see it, in nanoseconds.
pub(crate) fn now_ns() -> u128 {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos()
}

/// A step, and when it was acknowledged.
type Acknowledged = (u64, u128);

/// A working child.
pub(crate) struct Worker {
    child: Child,
    receiver: Receiver<Acknowledged>,
    acknowledged: Vec<Acknowledged>,
}

impl Worker {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                // The test harness may have begun the line.
                if let Some((_, numbers)) = line.split_once("acknowledged ")
                    && let Some((step, time)) = numbers.split_once(' ')
                    && let (Ok(step), Ok(time)) = (step.parse(), time.parse())
                    && sender.send((step, time)).is_err()
                {
                    return;
                }
            }
        });
        Self {
            child,
            receiver,
            acknowledged: Vec::new(),
        }
    }

    /// Waits until it has acknowledged some steps, and then for a moment in the midst of the next ones.
    pub(crate) fn wait(&mut self, num_steps: u64, moment: Duration) {
        for _ in 0..num_steps {
            match self.receiver.recv() {
                Ok(acknowledged) => self.acknowledged.push(acknowledged),
                Err(_) => return,
            }
        }
        let end = std::time::Instant::now() + moment;
        while let Some(left) = end.checked_duration_since(std::time::Instant::now()) {
            match self.receiver.recv_timeout(left) {
                Ok(acknowledged) => self.acknowledged.push(acknowledged),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Kills it, and says what it had acknowledged, and when.
    pub(crate) fn kill(mut self) -> Vec<Acknowledged> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.acknowledged.extend(self.receiver.iter());
        self.acknowledged
    }
}

/// The last step of those that were acknowledged before a time; 0 if there is none.
pub(crate) fn last_before(acknowledged: &[Acknowledged], time_ns: u128) -> u64 {
    let before = acknowledged.iter().filter(|(_, time)| *time < time_ns);
    before.map(|(step, _)| *step).max().unwrap_or(0)
}

/// Kills again and again on one store. `command` starts a child that does a job.
pub(crate) fn run(
    dir: &Path,
    kind: Kind,
    seed: u64,
    num_kills: u64,
    command: &dyn Fn(&Job) -> Command,
) -> u64 {
    let mut models = Models::new(seed);
    let mut random = Random::new(seed);
    let mut step = 0;
    for number in 0..num_kills {
        let job = Job {
            dir: dir.to_owned(),
            kind,
            seed,
            actions_seed: seed.wrapping_mul(1000) + number,
        };
        let mut worker = Worker::start(command(&job));
        // Sometimes before it has said anything: while it opens.
        let num_steps = random.below(12);
        worker.wait(num_steps, Duration::from_micros(random.below(30_000)));
        let acknowledged = last_before(&worker.kill(), u128::MAX).max(step);
        watch(
            || format!("{job:?} kill={number}"),
            || {
                // This takes one more commit.
                let range = (acknowledged, acknowledged + 1);
                step = check_store(dir, kind, &mut models, range) + 1;
            },
        );
        models.forget_before(step);
    }
    step
}
