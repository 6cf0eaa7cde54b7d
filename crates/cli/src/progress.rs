//! The progress line: on a terminal only.

use std::io::IsTerminal;

use darner_engine::Progress;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

/// A line on standard error with rows, rate and time left. Gone once it is finished or dropped.
#[derive(Clone)]
pub(crate) struct Bar {
    bar: ProgressBar,
}

impl Bar {
    pub(crate) fn new(what: &str, quiet: bool) -> Self {
        let is_shown = !quiet && std::io::stderr().is_terminal();
        let target = if is_shown {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target).with_finish(ProgressFinish::AndClear);
        bar.set_prefix(what.to_owned());
        // Until the first rows are through there is nothing to show.
        bar.set_style(style("{prefix}"));
        Self { bar }
    }

    pub(crate) fn update(&self, progress: &Progress) {
        if self.bar.is_hidden() {
            return;
        }
        let template = match progress.num_bytes_total {
            Some(total) => {
                self.bar.set_length(total.max(progress.num_bytes));
                "{prefix} {wide_bar} {msg} {binary_bytes_per_sec} {eta} left"
            }
            None => "{prefix} {msg} {binary_bytes_per_sec}",
        };
        self.bar.set_style(style(template));
        self.bar.set_position(progress.num_bytes);
        let seconds = self.bar.elapsed().as_secs_f64().max(1e-3);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate for the eye"
        )]
        let rate = (progress.num_rows as f64 / seconds) as u64;
        let (rows, rate) = (HumanCount(progress.num_rows), HumanCount(rate));
        let input = progress.input.rsplit('/').next().unwrap_or_default();
        self.bar
            .set_message(format!("{input} {rows} rows, {rate} rows/s"));
    }

    /// Removes the line and returns the time since it began, in seconds.
    pub(crate) fn finish(&self) -> f64 {
        self.bar.finish_and_clear();
        self.bar.elapsed().as_secs_f64()
    }
}

/// A line of this form; the plainest one should a template be wrong.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
